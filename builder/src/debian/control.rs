//! What a package says of itself in its control paragraph, as far as unpacking and configuring need it.

use store::{Name, RelativePath};

use store::paragraph;

/// A package's control paragraph, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// `Package`.
    pub package: String,
    /// `Version`.
    pub version: String,
    /// `Architecture`.
    pub architecture: String,
    /// `Multi-Arch: same`: several architectures of it may be installed side by side.
    pub multi_arch_same: bool,
    /// `Essential: yes`.
    pub essential: bool,
    /// `Pre-Depends`.
    pub pre_depends: Vec<Alternatives>,
    /// `Depends`.
    pub depends: Vec<Alternatives>,
    /// Names in `Provides`.
    pub provides: Vec<String>,
    /// `Replaces`.
    pub replaces: Vec<Relation>,
}

/// `a | b`: any one of these is enough.
pub type Alternatives = Vec<Relation>;

/// A package with perhaps a bound on its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its name, without `:any` and the like.
    pub package: String,
    /// `<<`, `<=`, `=`, `>=` or `>>`, and a version.
    pub version: Option<(String, String)>,
}

impl Control {
    /// Reads a paragraph; says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut paragraphs = paragraph::paragraphs(text);
        let paragraph = paragraphs.next().ok_or("its control file is empty")?;
        if paragraphs.next().is_some() {
            return Err("its control file has more than one paragraph".to_owned());
        }
        let optional = |name: &str| paragraph::field(paragraph, name).unwrap_or_default();
        let required = |name: &'static str, takes: fn(u8) -> bool| match optional(name) {
            "" => Err(format!("its control file has no `{name}`")),
            // The value becomes part of file names, and of lines that a script reads.
            value if value.bytes().all(takes) && value.as_bytes()[0].is_ascii_alphanumeric() => Ok(value.to_owned()),
            value => Err(format!("`{name}: {value}` is not what policy allows")),
        };
        let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
        let in_version = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.~:".contains(&byte);
        for field in ["Status", "Conffiles", "Config-Version", "Triggers-Awaited", "Triggers-Pending"] {
            if paragraph::field(paragraph, field).is_some() {
                return Err(format!("its control file has a `{field}`, which is dpkg's own"));
            }
        }
        Ok(Self {
            package: required("Package", in_name)?,
            version: required("Version", in_version)?,
            architecture: required("Architecture", in_name)?,
            multi_arch_same: optional("Multi-Arch").eq_ignore_ascii_case("same"),
            essential: optional("Essential").eq_ignore_ascii_case("yes"),
            pre_depends: relations(optional("Pre-Depends")),
            depends: relations(optional("Depends")),
            provides: relations(optional("Provides")).into_iter().flatten().map(|relation| relation.package).collect(),
            replaces: relations(optional("Replaces")).into_iter().flatten().collect(),
        })
    }

    /// As dpkg names it where a package of another architecture may have the same name: `libc6:amd64`.
    pub fn qualified(&self) -> String {
        if self.multi_arch_same { format!("{}:{}", self.package, self.architecture) } else { self.package.clone() }
    }

    /// Where dpkg keeps a control file of it.
    pub fn info(&self, kind: &str) -> String {
        format!("var/lib/dpkg/info/{}.{kind}", self.qualified())
    }

    /// Where its control paragraph waits to be configured. dpkg has no such directory.
    pub fn waiting(&self) -> String {
        format!("{WAITING}/{}", self.qualified())
    }
}

/// Where control paragraphs of unpacked packages wait.
pub const WAITING: &str = "var/lib/dpkg/status.d";

/// Reads `a (>= 1) | b:any, c [amd64]`.
fn relations(value: &str) -> Vec<Alternatives> {
    let read = |text: &str| {
        let end = text.find(|character: char| character.is_whitespace() || "([<:".contains(character));
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        let bound = rest.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(bound, _)| bound.trim());
        let version = bound.map(|bound| {
            let (operator, version) = bound.split_at(bound.find(|c| !"<>=".contains(c)).unwrap_or(bound.len()));
            (operator.to_owned(), version.trim().to_owned())
        });
        Relation { package: name.to_owned(), version }
    };
    let clauses = value.split(',').map(str::trim).filter(|clause| !clause.is_empty());
    clauses.map(|clause| clause.split('|').map(|text| read(text.trim())).collect()).collect()
}

impl Relation {
    /// Whether a package of this name and version is meant.
    pub fn meets(&self, package: &str, version: &str) -> bool {
        let Some((operator, bound)) = &self.version else { return self.package == package };
        let order = super::version::compare(version, bound);
        self.package == package
            && match operator.as_str() {
                "<<" => order.is_lt(),
                "<=" | "<" => order.is_le(),
                "=" => order.is_eq(),
                ">=" | ">" => order.is_ge(),
                ">>" => order.is_gt(),
                _ => false,
            }
    }
}

/// Directories at the top that a merged-/usr system has as symlinks into `usr`.
pub const MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"];

/// Where a path of a package lies on a merged-/usr system.
pub fn merged_usr(path: &[Name]) -> Vec<Name> {
    let is_merged = path.first().is_some_and(|first| MERGED.iter().any(|merged| merged.as_bytes() == first.as_bytes()));
    let usr = is_merged.then(|| Name::new("usr").expect("usr is a name"));
    usr.into_iter().chain(path.iter().cloned()).collect()
}

/// What a configuration file is called until its package is configured. None if that is too long for a name.
pub fn waiting(path: &[Name]) -> Option<Vec<Name>> {
    let (name, parents) = path.split_last()?;
    let name = Name::new([name.as_bytes(), b".dpkg-new"].concat()).ok()?;
    Some(parents.iter().cloned().chain([name]).collect())
}

/// A path that a control file names: absolute, one a line. A bad one is nobody's path.
pub fn control_path(line: &str) -> Option<RelativePath> {
    line.starts_with('/').then(|| RelativePath::parse(line.as_bytes()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_read() {
        let read = relations("libc6 (>= 2.36), python3:any | pypy3 (<<3) , , x [amd64] <!nocheck>");
        let names: Vec<Vec<_>> =
            read.iter().map(|any| any.iter().map(|relation| relation.package.as_str()).collect()).collect();
        assert_eq!(names, [vec!["libc6"], vec!["python3", "pypy3"], vec!["x"]]);
        assert_eq!(read[0][0].version, Some((">=".to_owned(), "2.36".to_owned())));
        assert!(read[0][0].meets("libc6", "2.36-9+deb12u1"));
        assert!(!read[1][1].meets("pypy3", "3"));
        assert!(!read[0][0].meets("libc", "3"));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let control = |package: &str| Control::parse(&format!("Package: {package}\nVersion: 1\nArchitecture: all\n"));
        assert!(control("libstdc++6").is_ok());
        for bad in ["", "../x", ".x", "a/b", "a b", "a\n\nPackage: b", "A", "x\nStatus: install ok installed"] {
            assert!(control(bad).is_err(), "{bad:?}");
        }
    }
}
