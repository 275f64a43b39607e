//! Strings, names and numbers as Nix writes them.

/// A string in quotes, with what would end or change it escaped. Bytes that are no UTF-8 are replaced.
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    escape_onto(&mut text, &String::from_utf8_lossy(bytes));
    text.push('"');
    text
}

/// The same as bytes, for output.
pub fn quoted_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len() + 2);
    text.push(b'"');
    for (number, byte) in bytes.iter().enumerate() {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', *byte]),
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            b'\t' => text.extend(b"\\t"),
            b'$' if bytes.get(number + 1) == Some(&b'{') => text.extend(b"\\$"),
            _ => text.push(*byte),
        }
    }
    text.push(b'"');
    text
}

/// A string in quotes; of a long one the beginning, and how much is missing.
pub fn quoted_up_to(bytes: &[u8], length: usize) -> String {
    if bytes.len() <= length {
        return quoted(bytes);
    }
    format!("{} {}", quoted(&bytes[..length]), elided(bytes.len() - length, "byte"))
}

/// What was left out.
pub fn elided(count: usize, what: &str) -> String {
    format!("«{count} {what}{} elided»", if count == 1 { "" } else { "s" })
}

fn escape_onto(text: &mut String, string: &str) {
    let mut characters = string.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '$' if characters.peek() == Some(&'{') => text.push_str("\\$"),
            _ => text.push(character),
        }
    }
}

/// A name, in quotes unless it could be written without.
pub fn identifier(name: &[u8]) -> String {
    const KEYWORDS: &[&[u8]] = &[b"if", b"then", b"else", b"assert", b"with", b"let", b"in", b"rec", b"inherit"];
    let start = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let plain = name.first().is_some_and(start)
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_'-".contains(byte))
        && !KEYWORDS.contains(&name);
    if plain { String::from_utf8_lossy(name).into_owned() } else { quoted(name) }
}

/// A float with six significant digits, as C's `%g`.
pub fn float(float: f64) -> String {
    if !float.is_finite() {
        return if float.is_nan() {
            if float.is_sign_negative() { "-nan" } else { "nan" }.into()
        } else {
            format!("{float}")
        };
    }
    let scientific = format!("{float:.5e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..6).contains(&exponent) {
        return trimmed(&format!("{float:.*}", (5 - exponent).max(0) as usize));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
}

/// A float with six digits after the point, as C's `%f`.
pub fn float_fixed(float: f64) -> String {
    if float.is_finite() { format!("{float:.6}") } else { self::float(float) }
}

/// An integer in decimal, without memory of its own elsewhere.
pub struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    /// The digits of an integer.
    pub fn new(integer: i64) -> Self {
        let mut digits = [0; 20];
        let mut start = digits.len();
        let mut rest = integer.unsigned_abs();
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if integer < 0 {
            start -= 1;
            digits[start] = b'-';
        }
        Self { digits, start }
    }
}

impl AsRef<[u8]> for Decimal {
    fn as_ref(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_have_six_digits() {
        let texts = [1.0, 0.1, 1234567.0, 1e-5, 0.00012, 100000.0, -0.0, 1e100, 2.71828e-7].map(float);
        assert_eq!(texts, ["1", "0.1", "1.23457e+06", "1e-05", "0.00012", "100000", "-0", "1e+100", "2.71828e-07"]);
        assert_eq!(float_fixed(1.5), "1.500000");
    }

    #[test]
    fn strings_read_back() {
        assert_eq!(quoted(b"a\"\\\n${b}$c"), "\"a\\\"\\\\\\n\\${b}$c\"");
        assert_eq!(
            [identifier(b"a-b"), identifier(b"if"), identifier(b"1"), identifier(b"")].join(" "),
            "a-b \"if\" \"1\" \"\""
        );
    }
}
