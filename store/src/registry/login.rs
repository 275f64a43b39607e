//! Who one is at a registry: the login files of Docker and Podman, and their credential helpers.
//!
//! `{"auths": {"HOST[/PATH]": {"auth": base64 of USER:PASSWORD, "identitytoken", "registrytoken"}}, "credHelpers": {"HOST": NAME},
//! "credsStore": NAME}`. The files are read by whoever knows where they are; helpers are programs, and run by the caller too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::{Error, Reference};
use crate::nix::hash::from_base64;

/// How one says who one is.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A user and a password.
    Password(String, String),
    /// A token that is exchanged for others (OAuth 2's refresh token).
    Identity(String),
    /// A token that is shown as it is.
    Bearer(String),
}

impl std::fmt::Debug for Login {
    /// Nothing of a login is ever shown.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Login")
    }
}

/// A login file, read by the caller.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginFile {
    /// Where it lies, for messages.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl std::fmt::Debug for LoginFile {
    /// Its text is secret.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("LoginFile").field(&self.path).finish()
    }
}

/// Asks a credential helper (`docker-credential-NAME get`) for a host: its answer in JSON, or nothing if it knows none.
pub type Helper = dyn Fn(&str, &str) -> Result<Option<String>, String> + Send + Sync;

/// All that is known of logins: the first file that knows a registry counts.
#[derive(Clone, Default)]
pub struct Logins {
    /// In the order in which they are asked.
    pub files: Vec<LoginFile>,
    /// Runs credential helpers; without one they are passed over.
    pub helper: Option<Arc<Helper>>,
}

impl PartialEq for Logins {
    /// Helpers are all alike.
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

impl std::fmt::Debug for Logins {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Logins").field(&self.files).finish()
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Auth>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl Logins {
    /// Who one is in a repository; nobody if no file says.
    pub fn find(&self, reference: &Reference) -> Result<Option<Login>, Error> {
        // Podman's files may name a part of a registry: the longest name that fits counts.
        let mut names = vec![format!("{}/{}", reference.host, reference.repository)];
        while let Some((shorter, _)) = names[names.len() - 1].rsplit_once('/') {
            let shorter = shorter.to_owned();
            names.push(shorter);
        }
        for LoginFile { path, text } in &self.files {
            let file: File = match text.trim() {
                "" => File::default(),
                text => serde_json::from_str(text).map_err(|error| Error::LoginFile {
                    path: path.clone(),
                    // The line is enough: its text is secret.
                    reason: format!("line {}: not what Docker and Podman write", error.line()),
                })?,
            };
            for name in &names {
                if let Some(helper) = file.helpers.get(name)
                    && let Some(login) = self.ask(helper, name)?
                {
                    return Ok(Some(login));
                }
                let fits = |known: &&String| *known == name || address_of(known) == *name;
                let auth = file.auths.get(name).or_else(|| {
                    let key = file.auths.keys().find(fits)?;
                    file.auths.get(key)
                });
                let login = auth.map(|auth| auth.login(path)).transpose()?.flatten();
                if login.is_some() {
                    return Ok(login);
                }
            }
            if let Some(helper) = &file.store
                && let Some(login) = self.ask(helper, &reference.host)?
            {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }

    fn ask(&self, helper: &str, host: &str) -> Result<Option<Login>, Error> {
        let failed = |reason: String| Error::Helper { helper: helper.to_owned(), host: host.to_owned(), reason };
        // The name becomes that of a program.
        if helper.is_empty() || !helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(failed("that is no name of a helper".to_owned()));
        }
        let Some(run) = &self.helper else { return Ok(None) };
        let Some(text) = run(helper, host).map_err(failed)? else { return Ok(None) };
        let answer: HelperAnswer =
            serde_json::from_str(&text).map_err(|_| failed("its answer is not what helpers give".to_owned()))?;
        Ok(Some(match answer.username.as_str() {
            "<token>" => Login::Identity(answer.secret),
            _ => Login::Password(answer.username, answer.secret),
        }))
    }
}

/// `https://HOST/v1/` is what older Dockers write for `HOST`.
fn address_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    rest.map_or(key, |rest| rest.split('/').next().unwrap_or_default())
}

impl Auth {
    /// Docker leaves an empty entry where a helper has the password.
    fn login(&self, path: &std::path::Path) -> Result<Option<Login>, Error> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Login::Bearer(token)));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Login::Identity(token)));
        }
        if let (Some(user), Some(password)) = (given(&self.username), given(&self.password)) {
            return Ok(Some(Login::Password(user, password)));
        }
        let Some(auth) = given(&self.auth) else { return Ok(None) };
        let bad = || Error::LoginFile {
            path: path.to_owned(),
            reason: "an `auth` is not base64 of USER:PASSWORD".to_owned(),
        };
        let decoded = from_base64(auth.as_bytes()).ok_or_else(bad)?;
        let decoded = String::from_utf8(decoded).map_err(|_| bad())?;
        let (user, password) = decoded.split_once(':').ok_or_else(bad)?;
        // Docker pads with NUL.
        Ok(Some(Login::Password(user.to_owned(), password.trim_end_matches('\0').to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(texts: &[&str]) -> Logins {
        let file = |text: &&str| LoginFile { path: "auth.json".into(), text: (*text).to_owned() };
        Logins { files: texts.iter().map(file).collect(), helper: None }
    }

    fn find(logins: &Logins, reference: &str) -> Option<Login> {
        logins.find(&reference.parse().unwrap()).unwrap()
    }

    fn password(user: &str, password: &str) -> Option<Login> {
        Some(Login::Password(user.to_owned(), password.to_owned()))
    }

    /// `me:s:cret` and `team:x`, as `podman login` writes them.
    const PODMAN: &str = r#"{"auths": {"registry.example:5000": {"auth": "bWU6czpjcmV0"},
        "registry.example:5000/team": {"auth": "dGVhbTp4"}, "empty.example": {}}}"#;

    #[test]
    fn the_longest_name_that_fits_counts() {
        let logins = logins(&[PODMAN]);
        assert_eq!(find(&logins, "oci://registry.example:5000/app"), password("me", "s:cret"));
        assert_eq!(find(&logins, "oci://registry.example:5000/team/app:1"), password("team", "x"));
        for none in ["oci://registry.example/app", "oci://empty.example/app", "oci://other.example:5000/team"] {
            assert_eq!(find(&logins, none), None, "{none}");
        }
    }

    #[test]
    fn the_first_file_that_knows_counts() {
        let first = r#"{"auths": {"a.example": {"username": "first", "password": "1"}}}"#;
        let second = r#"{"auths": {"https://a.example/v1/": {"auth": "YjpjAAA="}, "https://b.example/v2/": {"auth": "YjpjAAA="}}}"#;
        let logins = logins(&["", first, second]);
        assert_eq!(find(&logins, "oci://a.example/x"), password("first", "1"));
        assert_eq!(find(&logins, "oci://b.example/x"), password("b", "c"));
    }

    #[test]
    fn a_helper_is_asked_for_its_host_and_a_store_for_every_other() {
        let mut logins =
            logins(&[r#"{"auths": {"c.example": {}}, "credHelpers": {"a.example": "one"}, "credsStore": "two"}"#]);
        assert_eq!(find(&logins, "oci://a.example/x"), None);
        logins.helper = Some(Arc::new(|helper, host| {
            Ok(match (helper, host) {
                ("one", "a.example") => Some(r#"{"ServerURL":"x","Username":"u","Secret":"s"}"#.to_owned()),
                ("two", "c.example") => Some(r#"{"Username":"<token>","Secret":"refresh"}"#.to_owned()),
                _ => None,
            })
        }));
        assert_eq!(find(&logins, "oci://a.example/x"), password("u", "s"));
        assert_eq!(find(&logins, "oci://c.example/x"), Some(Login::Identity("refresh".to_owned())));
        assert_eq!(find(&logins, "oci://d.example/x"), None);
    }

    #[test]
    fn a_bad_file_is_named_and_its_secrets_are_not() {
        for bad in [
            "{",
            r#"{"auths": {"a.example": {"auth": "c2VjcmV0"}}}"#,
            r#"{"auths": {"a.example": "secret"}}"#,
            r#"{"auths": {"a.example": {"auth": "///"}}}"#,
            r#"{"credHelpers": {"a.example": "../../bin/secret"}}"#,
        ] {
            let error = logins(&[bad]).find(&"oci://a.example/x".parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains("auth.json") || error.contains("no name of a helper"), "{error}");
            assert!(!error.contains("c2VjcmV0") && !error.contains(r#""secret""#), "{error}");
        }
    }
}
