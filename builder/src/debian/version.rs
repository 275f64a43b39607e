//! The order of Debian's versions (deb-version(7)), as dpkg has it.

use std::cmp::Ordering;

/// Compares two versions: epoch, upstream version, revision.
pub fn compare(left: &str, right: &str) -> Ordering {
    let ((left_epoch, left), (right_epoch, right)) = (epoch(left), epoch(right));
    let ((left_version, left_revision), (right_version, right_revision)) = (revision(left), revision(right));
    compare_parts(left_epoch, right_epoch)
        .then_with(|| compare_parts(left_version, right_version))
        .then_with(|| compare_parts(left_revision, right_revision))
}

fn epoch(version: &str) -> (&str, &str) {
    version.trim().split_once(':').unwrap_or(("", version.trim()))
}

fn revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Runs of non-digits by character, runs of digits by number, in turns. No digits count as zero.
fn compare_parts(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        loop {
            let of = |text: &[u8]| text.first().filter(|byte| !byte.is_ascii_digit()).copied();
            let (one, other) = (of(left), of(right));
            if one.is_none() && other.is_none() {
                break;
            }
            match weight(one).cmp(&weight(other)) {
                Ordering::Equal => (left, right) = (&left[1..], &right[1..]),
                unequal => return unequal,
            }
        }
        let (one, left_rest) = digits(left);
        let (other, right_rest) = digits(right);
        match one.len().cmp(&other.len()).then_with(|| one.cmp(other)) {
            Ordering::Equal => (left, right) = (left_rest, right_rest),
            unequal => return unequal,
        }
    }
    Ordering::Equal
}

/// `~` before the end, the end before letters, letters before the rest.
fn weight(byte: Option<u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(byte),
        Some(byte) => i32::from(byte) + 256,
    }
}

/// The digits in front, without leading zeros, and what follows.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let zeros = text[..end].iter().take_while(|byte| **byte == b'0').count();
    (&text[zeros..end], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each agrees with `dpkg --compare-versions`.
    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        for (left, order, right) in [
            ("1.0", Ordering::Less, "1.1"),
            ("1.9", Ordering::Less, "1.10"),
            ("1.0~rc1", Ordering::Less, "1.0"),
            ("1.0~~", Ordering::Less, "1.0~"),
            ("1.0-1", Ordering::Less, "1.0-1+b1"),
            ("1.0-1~deb12u1", Ordering::Less, "1.0-1"),
            ("2:0.1", Ordering::Greater, "1:9"),
            ("0:1", Ordering::Equal, "1"),
            ("1.0", Ordering::Equal, "1.0-0"),
            ("1.00", Ordering::Equal, "1.0"),
            ("1.", Ordering::Equal, "1.0"),
            ("1a", Ordering::Less, "1+"),
            ("1.2.3-4", Ordering::Greater, "1.2-3-4"),
            ("99999999999999999999999", Ordering::Greater, "99999999999999999999998"),
            ("", Ordering::Equal, "0"),
        ] {
            assert_eq!(compare(left, right), order, "{left} {right}");
            assert_eq!(compare(right, left), order.reverse(), "{right} {left}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_texts_have_an_order(left in ".{0,12}", right in ".{0,12}") {
            assert_eq!(compare(&left, &right), compare(&right, &left).reverse());
        }
    }
    #[test]
    fn dpkg_agrees() {
        use std::process::Command;
        if Command::new("dpkg").arg("--version").output().is_err() {
            eprintln!("skipped: no `dpkg` here");
            return;
        }
        let parts = [
            "1",
            "1.",
            "1.0",
            "1.0~",
            "1.0~rc1",
            "1.0+b1",
            "1.0-1",
            "1.0-0",
            "1a",
            "1:0",
            "1.10",
            "01.2",
            "1.0-1~deb12u1",
            "2.0.dfsg-3+b1",
        ];
        for left in parts {
            for right in parts {
                let says = |operator: &str| {
                    let status = Command::new("dpkg").args(["--compare-versions", left, operator, right]).status();
                    status.unwrap().success()
                };
                let order = compare(left, right);
                let operator = match order {
                    Ordering::Less => "lt",
                    Ordering::Equal => "eq",
                    Ordering::Greater => "gt",
                };
                assert!(says(operator), "{left} {operator} {right}");
            }
        }
    }
}
