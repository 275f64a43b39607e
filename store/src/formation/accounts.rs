//! Which ids a formation's user stands for, by the formation's own `/etc/passwd` and `/etc/group`.

use super::settings::{Account, User};

/// Numbers to run with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups, ascending, without `gid`.
    pub groups: Vec<u32>,
    /// Where the user is at home, if the formation says so.
    pub home: Option<Vec<u8>>,
}

/// A name that the formation does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the formation has no {kind} `{name}`")]
pub struct UnknownAccount {
    /// `user` or `group`.
    pub kind: &'static str,
    /// The name.
    pub name: String,
}

impl User {
    /// The ids, by the content of `/etc/passwd` and `/etc/group`; what is missing is given as empty.
    ///
    /// As container engines do: the first line that fits counts; an id need not be listed, and its group is then 0; lines that
    /// make no sense are passed over.
    pub fn resolve(&self, passwd: &[u8], group: &[u8]) -> Result<Identity, UnknownAccount> {
        let users = || lines(passwd, 4);
        let listed = users().find_map(|fields| {
            let (uid, gid) = (number(fields[2])?, number(fields[3])?);
            let fits = match &self.user {
                Account::Id(id) => *id == uid,
                Account::Name(name) => fields[0] == name.as_bytes(),
            };
            fits.then_some((fields[0], uid, gid, fields.get(5).copied().unwrap_or_default()))
        });
        let (name, uid, own_group, home) = match (&self.user, listed) {
            (_, Some(listed)) => listed,
            (Account::Id(id), None) => (&b""[..], *id, 0, &b""[..]),
            (Account::Name(name), None) => return Err(UnknownAccount { kind: "user", name: name.clone() }),
        };
        let home = home.starts_with(b"/").then(|| home.to_vec());
        let gid = match &self.group {
            Some(Account::Id(id)) => *id,
            Some(Account::Name(wanted)) => {
                let found =
                    lines(group, 3).find(|fields| fields[0] == wanted.as_bytes() && number(fields[2]).is_some());
                let found = found.and_then(|fields| number(fields[2]));
                found.ok_or_else(|| UnknownAccount { kind: "group", name: wanted.clone() })?
            }
            None => {
                let is_member = |fields: &Vec<&[u8]>| {
                    !name.is_empty()
                        && fields
                            .get(3)
                            .is_some_and(|members| members.split(|byte| *byte == b',').any(|one| one == name))
                };
                let further = lines(group, 3).filter(is_member).filter_map(|fields| number(fields[2]));
                let mut groups: Vec<u32> = further.filter(|gid| *gid != own_group).collect();
                groups.sort_unstable();
                groups.dedup();
                return Ok(Identity { uid, gid: own_group, groups, home });
            }
        };
        Ok(Identity { uid, gid, groups: Vec::new(), home })
    }
}

/// The lines that have at least so many fields.
fn lines(text: &[u8], fields: usize) -> impl Iterator<Item = Vec<&[u8]>> {
    let split = text.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':').collect::<Vec<_>>());
    split.filter(move |found| found.len() >= fields)
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\n# nobody knows\nbad:x:no:1:\nweb:x:33:34:web:/srv:/bin/false\nweb:x:1:1::\n";
    const GROUP: &[u8] = b"root:x:0:\nadm:x:4:web,other\nweb:x:34:web\ntty:x:5:web\nshadow:x:42:webs\n";

    fn resolve(text: &str) -> Result<(u32, u32, Vec<u32>), String> {
        let identity = text.parse::<User>().unwrap().resolve(PASSWD, GROUP);
        identity.map(|identity| (identity.uid, identity.gid, identity.groups)).map_err(|error| error.to_string())
    }

    #[test]
    fn each_form_finds_its_ids() {
        assert_eq!(resolve("web"), Ok((33, 34, vec![4, 5])));
        assert_eq!(resolve("33"), Ok((33, 34, vec![4, 5])));
        assert_eq!(resolve("web:adm"), Ok((33, 4, vec![])));
        assert_eq!(resolve("33:4"), Ok((33, 4, vec![])));
        assert_eq!(resolve("33:adm"), Ok((33, 4, vec![])));
        assert_eq!(resolve("web:7"), Ok((33, 7, vec![])));
        assert_eq!(resolve("1234"), Ok((1234, 0, vec![])));
        assert_eq!(resolve("nobody"), Err("the formation has no user `nobody`".to_owned()));
        assert_eq!(resolve("web:nobody"), Err("the formation has no group `nobody`".to_owned()));
        assert_eq!(resolve("bad"), Err("the formation has no user `bad`".to_owned()));
    }

    #[test]
    fn a_user_is_at_home_where_its_line_says() {
        let home = |text: &str| text.parse::<User>().unwrap().resolve(PASSWD, GROUP).unwrap().home;
        assert_eq!(home("web").as_deref(), Some(&b"/srv"[..]));
        assert_eq!(home("33:7").as_deref(), Some(&b"/srv"[..]));
        assert_eq!(home("1234"), None);
        let short = "9".parse::<User>().unwrap().resolve(b"a:x:9:9\nb:x:9:9::/b:\n", b"").unwrap();
        assert_eq!(short.home, None, "the first line that fits counts, and has no home");
    }

    #[test]
    fn nothing_is_known_where_there_are_no_files() {
        let identity = "5".parse::<User>().unwrap().resolve(b"", b"\xff\n:::\n").unwrap();
        assert_eq!(identity, Identity { uid: 5, ..Identity::default() });
    }
}
