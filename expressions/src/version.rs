//! Versions of packages, and names with a version at their end, as Nix takes them apart.

use std::cmp::Ordering;

/// The parts of a version: runs of digits and runs of other characters, without the dots and dashes between them.
pub fn split_version(version: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = version;
    std::iter::from_fn(move || {
        let separators = rest.iter().take_while(|byte| b".-".contains(byte)).count();
        rest = &rest[separators..];
        let is_number = rest.first()?.is_ascii_digit();
        let continues = |byte: &&u8| byte.is_ascii_digit() == is_number && !b".-".contains(byte);
        let length = rest.iter().take_while(continues).count();
        let (component, after) = rest.split_at(length);
        rest = after;
        Some(component)
    })
}

/// Which of two versions is older. `pre` comes before nothing, nothing before letters, and those before numbers:
/// `2.3pre1`, `2.3`, `2.3a`, `2.3.1`.
pub fn compare_versions(left: &[u8], right: &[u8]) -> Ordering {
    let (mut left, mut right) = (split_version(left), split_version(right));
    loop {
        let (first, second) = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (first, second) => (first.unwrap_or_default(), second.unwrap_or_default()),
        };
        if is_older(first, second) {
            return Ordering::Less;
        }
        if is_older(second, first) {
            return Ordering::Greater;
        }
    }
}

fn is_older(first: &[u8], second: &[u8]) -> bool {
    match (number(first), number(second)) {
        (Some(first), Some(second)) => first < second,
        (None, Some(_)) if first.is_empty() => true,
        _ if first == b"pre" && second != b"pre" => true,
        _ if second == b"pre" => false,
        (None, Some(_)) => true,
        (Some(_), None) => false,
        (None, None) => first < second,
    }
}

/// A run of digits as a number, if it fits Nix's 32 bits.
fn number(component: &[u8]) -> Option<i32> {
    component.first().filter(|byte| byte.is_ascii_digit())?;
    str::from_utf8(component).ok()?.parse().ok()
}

/// A name and the version after the first dash that no letter follows; without one, the version is empty.
pub fn parse_name(name: &[u8]) -> (&[u8], &[u8]) {
    let is_dash = |pair: &[u8]| pair[0] == b'-' && !pair[1].is_ascii_alphabetic();
    match name.windows(2).position(is_dash) {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (name, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(version: &str) -> Vec<&str> {
        split_version(version.as_bytes()).map(|component| str::from_utf8(component).unwrap()).collect()
    }

    #[test]
    fn versions_split_at_dots_dashes_and_digits() {
        assert_eq!(split("1..2--3pre4.a-b5"), ["1", "2", "3", "pre", "4", "a", "b", "5"]);
        assert_eq!(split(""), [""; 0]);
        assert_eq!(split(".-."), [""; 0]);
    }

    #[test]
    fn older_versions_come_first() {
        for (older, newer) in [
            ("1.0", "2.3"),
            ("2.1", "2.3"),
            ("2.3pre1", "2.3"),
            ("2.3pre3", "2.3pre12"),
            ("2.3a", "2.3c"),
            ("2.3pre1", "2.3c"),
            ("2.3pre1", "2.3q"),
            ("2.3a", "2.3.1"),
            ("2.3", "2.3.1"),
            ("2.3", "2.3a"),
            ("1.z", "1.é"),
            ("A", "a"),
            // Beyond 32 bits a run of digits is no number any more.
            ("1.2147483648", "1.3"),
        ] {
            assert_eq!(compare_versions(older.as_bytes(), newer.as_bytes()), Ordering::Less, "{older} {newer}");
            assert_eq!(compare_versions(newer.as_bytes(), older.as_bytes()), Ordering::Greater, "{older} {newer}");
        }
        assert_eq!(compare_versions(b"1.00002", b"1.2"), Ordering::Equal);
        assert_eq!(compare_versions(b"1-2", b"1.2."), Ordering::Equal);
    }

    #[test]
    fn a_version_begins_where_no_letter_does() {
        for (name, expected) in [
            ("apache-httpd-2.0.48", ("apache-httpd", "2.0.48")),
            ("foo--1", ("foo", "-1")),
            ("foo-", ("foo-", "")),
            ("foo-_1", ("foo", "_1")),
            ("-1", ("", "1")),
            ("foo-é", ("foo", "é")),
            ("", ("", "")),
        ] {
            let (name, version) = parse_name(name.as_bytes());
            assert_eq!((str::from_utf8(name).unwrap(), str::from_utf8(version).unwrap()), expected);
        }
    }
}
