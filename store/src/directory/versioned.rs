//! Names with versions: `NAME@1.3.1`, `NAME@1.3`, `NAME@latest`, and `NAME:17`, as people wrote it once.
//!
//! A formation that is built gets two roots: its name, which the next one takes over, and `NAME@VERSION`, which stays. A
//! constraint is answered from the latter.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::formation::is_name;
use crate::{Error, FormationId, Result, Store};

/// Whether a text may be a root: a name, or a name and a version.
pub fn is_root(text: &str) -> bool {
    match text.split_once('@') {
        Some((name, version)) => is_name(name) && is_version(version),
        None => is_name(text),
    }
}

/// Whether a version can stand behind a name: letters, digits, `.`, `_`, `+`, `-`, `~`; 64 at most.
pub fn is_version(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-~".contains(&byte))
}

/// Splits `NAME@CONSTRAINT` or `NAME:CONSTRAINT`.
pub fn split(given: &str) -> Option<(&str, &str)> {
    let (name, constraint) = given.split_once('@').or_else(|| given.split_once(':'))?;
    let bound = constraint.trim_start_matches(['>', '<', '=', '^', '~', ' ']);
    (is_name(name) && (constraint.is_empty() || is_version(bound))).then_some((name, constraint))
}

/// Whether a version keeps a constraint: exact `1.2.3`, `1.2` (any 1.2.x), `1` (any 1.x), `latest` or nothing (any), `>=1.2`.
pub fn keeps(version: &str, constraint: &str) -> bool {
    let constraint = constraint.trim();
    for (sign, wanted) in [
        (">=", &[Ordering::Greater, Ordering::Equal][..]),
        ("<=", &[Ordering::Less, Ordering::Equal]),
        (">", &[Ordering::Greater]),
        ("<", &[Ordering::Less]),
        ("=", &[Ordering::Equal]),
    ] {
        if let Some(bound) = constraint.strip_prefix(sign) {
            return wanted.contains(&compare(version, bound.trim()));
        }
    }
    let constraint = constraint.trim_start_matches('v');
    matches!(constraint, "" | "latest" | "*")
        || version == constraint
        || version.strip_prefix(constraint).is_some_and(|rest| rest.starts_with('.'))
}

/// Orders versions: numbers by their value, everything else as text; what has a `-rc1` behind it comes before what has not.
pub fn compare(one: &str, other: &str) -> Ordering {
    fn split(version: &str) -> (Vec<&str>, Option<&str>) {
        let version = version.trim_start_matches('v').split('+').next().unwrap_or_default();
        match version.split_once('-') {
            Some((main, rest)) => (main.split('.').collect(), Some(rest)),
            None => (version.split('.').collect(), None),
        }
    }
    fn parts(one: &[&str], other: &[&str]) -> Ordering {
        for index in 0..one.len().max(other.len()) {
            let (one, other) = (one.get(index).copied().unwrap_or("0"), other.get(index).copied().unwrap_or("0"));
            let order = match (one.parse::<u64>(), other.parse::<u64>()) {
                (Ok(one), Ok(other)) => one.cmp(&other),
                // A number comes before a word, as in semantic versions.
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                _ => one.cmp(other),
            };
            if order.is_ne() {
                return order;
            }
        }
        Ordering::Equal
    }
    let ((main, rest), (other_main, other_rest)) = (split(one), split(other));
    parts(&main, &other_main).then_with(|| match (rest, other_rest) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(one), Some(other)) => parts(&one.split('.').collect::<Vec<_>>(), &other.split('.').collect::<Vec<_>>()),
    })
}

impl Store {
    /// The formations of a name that are kept by version, oldest version first.
    pub fn versions(&self, name: &str) -> Result<Vec<(String, FormationId)>> {
        let roots: BTreeMap<String, FormationId> = self.roots()?;
        let of = |(root, id): (String, FormationId)| {
            let (known, version) = root.split_once('@')?;
            (known == name).then(|| (version.to_owned(), id))
        };
        let mut found: Vec<(String, FormationId)> = roots.into_iter().filter_map(of).collect();
        found.sort_by(|one, other| compare(&one.0, &other.0));
        Ok(found)
    }

    /// What is here of the name in `NAME@CONSTRAINT`, where no version keeps the constraint; nothing if the name itself is unknown.
    pub(super) fn no_version(&self, given: &str) -> Result<Option<Error>> {
        let Some((name, constraint)) = split(given) else { return Ok(None) };
        let mut versions: Vec<String> = self.versions(name)?.into_iter().map(|(version, _)| version).collect();
        if versions.is_empty()
            && let Some(id) = self.roots()?.get(name)
        {
            versions.push(self.formation(*id)?.version);
        }
        let constraint = constraint.to_owned();
        Ok((!versions.is_empty()).then(|| Error::NoVersion { name: name.to_owned(), constraint, versions }))
    }

    /// The newest formation that `NAME`, `NAME@CONSTRAINT` or `NAME:CONSTRAINT` stands for.
    pub fn find_version(&self, given: &str) -> Result<Option<FormationId>> {
        let (name, constraint) = match split(given) {
            Some((name, constraint)) => (name, constraint),
            None if is_name(given) => (given, "latest"),
            None => return Ok(None),
        };
        let newest = |name: &str, constraint: &str| -> Result<Option<FormationId>> {
            let mut versions = self.versions(name)?;
            versions.retain(|(version, _)| keeps(version, constraint));
            Ok(versions.pop().map(|(_, id)| id))
        };
        if let Some(found) = newest(name, constraint)? {
            return Ok(Some(found));
        }
        // A name may have one formation without any version kept beside it.
        let roots = self.roots()?;
        if let Some(id) = roots.get(name)
            && keeps(&self.formation(*id)?.version, constraint)
        {
            return Ok(Some(*id));
        }
        // `java:17` was written for what is called `java-17`, or `openjdk-17`.
        if given.contains(':') {
            for name in [name, if name == "java" { "openjdk" } else { "nodejs" }] {
                let hyphened = format!("{name}-{constraint}");
                if let Some(id) = roots.get(&hyphened) {
                    return Ok(Some(*id));
                }
                if let Some(found) = newest(&hyphened, "latest")? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_kept_as_people_mean_them() {
        for (version, constraint, expected) in [
            ("1.2.3", "1.2.3", true),
            ("1.2.3", "1.2", true),
            ("1.20.0", "1.2", false),
            ("1.2.3", "1", true),
            ("11.0.0", "1", false),
            ("1.2.3", "latest", true),
            ("1.2.3", "", true),
            ("1.2.3", ">=1.2", true),
            ("1.1.9", ">=1.2", false),
            ("1.1.9", "<1.2", true),
            ("", "latest", true),
            ("", "1", false),
        ] {
            assert_eq!(keeps(version, constraint), expected, "{version} {constraint}");
        }
    }

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let ordered = ["0.9", "1.0.0-alpha", "1.0.0-rc.2", "1.0.0-rc.10", "1.0.0", "1.2", "1.10", "2024.1"];
        for pair in ordered.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(compare("1.0", "1.0.0"), Ordering::Equal);
    }

    #[test]
    fn what_may_be_a_root() {
        for good in ["a", "python-3.11@1.3.1", "a@2024.1_rc+x"] {
            assert!(is_root(good), "{good}");
        }
        for bad in ["", "@1", "a@", "a@b@c", "a/b@1", "a@../x", "facade@1"] {
            assert!(!is_root(bad), "{bad}");
        }
        assert_eq!(split("java:17"), Some(("java", "17")));
        assert_eq!(split("a@>=1.2"), Some(("a", ">=1.2")));
        assert_eq!(split("http://x"), None);
    }
}
