//! Sizes, times and numbers as they are typed.

/// A decimal number with up to three places, in thousandths, and what follows it.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || fraction.len() > 3 || digits.ends_with('.') {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    Some((whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths)?, unit))
}

fn scaled(thousandths: u64, unit: u64) -> Option<u64> {
    u64::try_from(u128::from(thousandths) * u128::from(unit) / 1000).ok()
}

/// Bytes: `512M`, `1.5GiB`, `1024`. K, M, G, T are powers of 1024.
pub fn bytes(text: &str) -> Option<u64> {
    let (value, unit) = number(text)?;
    let unit = unit.to_ascii_uppercase();
    let unit = unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit);
    let exponent = ["", "K", "M", "G", "T"].iter().position(|name| *name == unit)?;
    scaled(value, 1024_u64.pow(exponent as u32))
}

/// Milliseconds: `90s`, `10m`, `1.5h`, `250ms`, `2d`; a bare number is seconds.
pub fn millis(text: &str) -> Option<u64> {
    let (value, unit) = number(text)?;
    let unit = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    scaled(value, unit)
}

/// A number in thousandths: `1.5` is 1500; never 0.
pub fn thousandths(text: &str) -> Option<u64> {
    number(text).filter(|(value, unit)| unit.is_empty() && *value > 0).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(bytes("512M"), Some(512 << 20));
        assert_eq!(bytes("1.5GiB"), Some(3 << 29));
        assert_eq!(bytes("1024"), Some(1024));
        assert_eq!(millis("10m"), Some(600_000));
        assert_eq!(millis("0.25s"), Some(250));
        assert_eq!(thousandths("0.5"), Some(500));
        for bad in ["", "M", "1X", "1.", ".5", "-1", "1.2345", "1 G", "99999999999999999999", "1é"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
