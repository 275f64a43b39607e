//! Which Debian suite has which language in which version, as packages.

/// A language in a version.
pub struct Known {
    /// As `base.language` has it.
    pub language: &'static str,
    /// As Debian's suite has it.
    pub version: &'static str,
    /// The suite.
    pub suite: &'static str,
    /// Its packages.
    pub packages: &'static [&'static str],
}

const fn known(
    language: &'static str,
    version: &'static str,
    suite: &'static str,
    packages: &'static [&'static str],
) -> Known {
    Known { language, version, suite, packages }
}

/// Every language that a description may name, newest suite last.
pub const ALL: &[Known] = &[
    known("python", "3.9", "bullseye", &["python3"]),
    known("python", "3.11", "bookworm", &["python3"]),
    known("python", "3.13", "trixie", &["python3"]),
    known("java", "11", "bullseye", &["openjdk-11-jdk-headless"]),
    known("java", "17", "bookworm", &["openjdk-17-jdk-headless"]),
    known("java", "21", "trixie", &["openjdk-21-jdk-headless"]),
    known("node", "12", "bullseye", &["nodejs"]),
    known("node", "18", "bookworm", &["nodejs"]),
    known("node", "20", "trixie", &["nodejs"]),
    known("go", "1.15", "bullseye", &["golang-go"]),
    known("go", "1.19", "bookworm", &["golang-go"]),
    known("go", "1.24", "trixie", &["golang-go"]),
    known("rust", "1.48", "bullseye", &["rustc", "cargo"]),
    known("rust", "1.63", "bookworm", &["rustc", "cargo"]),
    known("rust", "1.85", "trixie", &["rustc", "cargo"]),
];

/// The languages, each once.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = ALL.iter().map(|known| known.language).collect();
    names.dedup();
    names
}

/// The versions of a language.
pub fn versions(language: &str) -> Vec<&'static str> {
    ALL.iter().filter(|known| known.language == language).map(|known| known.version).collect()
}

/// The language in this version or one of the same line: `3.11.4` is `3.11`, `17-jdk` is `17`, `20.x` is `20`.
pub fn find(language: &str, version: &str) -> Option<&'static Known> {
    let numbers =
        version.trim_start_matches('v').split(|letter: char| !letter.is_ascii_digit() && letter != '.').next()?;
    let wanted: Vec<&str> = numbers.split('.').filter(|part| !part.is_empty()).collect();
    let suits = |known: &&Known| {
        let has: Vec<&str> = known.version.split('.').collect();
        known.language == language && !wanted.is_empty() && wanted.iter().zip(&has).all(|(wanted, has)| wanted == has)
    };
    // `3` alone is the newest 3 of the release that is in use longest; of several, the one of bookworm.
    let mut found: Vec<&Known> = ALL.iter().filter(suits).collect();
    found.sort_by_key(|known| (known.suite != "bookworm", std::cmp::Reverse(known.suite)));
    found.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_for_its_line() {
        let suite = |language, version| find(language, version).map(|known| (known.version, known.suite));
        assert_eq!(suite("python", "3.11.4"), Some(("3.11", "bookworm")));
        assert_eq!(suite("python", "3"), Some(("3.11", "bookworm")));
        assert_eq!(suite("java", "17-jdk"), Some(("17", "bookworm")));
        assert_eq!(suite("java", "21"), Some(("21", "trixie")));
        assert_eq!(suite("node", "v20.x"), Some(("20", "trixie")));
        assert_eq!(suite("python", "3.12"), None);
        assert_eq!(suite("python", "latest"), None);
        assert_eq!(suite("cobol", "3"), None);
    }
}
