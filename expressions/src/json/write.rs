//! The pieces of JSON that are not plain: strings and floats. The evaluator puts them together, with keys sorted by bytes.

/// Why a string cannot be written. The words are Nix's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonWriteError {
    /// A byte that is no part of UTF-8 where it stands.
    #[error(
        "JSON serialization error: [json.exception.type_error.316] invalid UTF-8 byte at index {index}: 0x{byte:02X}"
    )]
    Invalid {
        /// Where, in bytes.
        index: usize,
        /// Which.
        byte: u8,
    },
    /// The string ends within a character.
    #[error(
        "JSON serialization error: [json.exception.type_error.316] incomplete UTF-8 string; last byte: 0x{byte:02X}"
    )]
    Incomplete {
        /// The last byte.
        byte: u8,
    },
}

/// Appends a string in quotes. Beyond ASCII nothing is escaped.
pub fn string_onto(text: &mut Vec<u8>, string: &[u8]) -> Result<(), JsonWriteError> {
    if let Err(error) = str::from_utf8(string) {
        let start = error.valid_up_to();
        // A byte that begins a character is fine, and the fault is with one that follows.
        let index = match (error.error_len(), string[start]) {
            (None, _) => return Err(JsonWriteError::Incomplete { byte: string[string.len() - 1] }),
            (Some(length), 0xc2..=0xf4) => start + length,
            (Some(_), _) => start,
        };
        return Err(JsonWriteError::Invalid { index, byte: string[index] });
    }
    text.push(b'"');
    let mut copied = 0;
    for (index, byte) in string.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => *byte,
            8 => b'b',
            9 => b't',
            10 => b'n',
            12 => b'f',
            13 => b'r',
            0..=0x1f => 0,
            _ => continue,
        };
        text.extend_from_slice(&string[copied..index]);
        copied = index + 1;
        match short {
            0 => text.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => text.extend_from_slice(&[b'\\', short]),
        }
    }
    text.extend_from_slice(&string[copied..]);
    text.push(b'"');
    Ok(())
}

/// Appends a float with as many digits as tell it from others, always with a point or an exponent; `null` if there is no such number.
pub fn float_onto(text: &mut Vec<u8>, float: f64) {
    if !float.is_finite() {
        return text.extend_from_slice(b"null");
    }
    if float.is_sign_negative() {
        text.push(b'-');
    }
    let scientific = format!("{:e}", float.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: Vec<u8> = mantissa.bytes().filter(|byte| *byte != b'.').collect();
    // The number is 0.DIGITS times ten to this.
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    match usize::try_from(point) {
        Ok(0) if float == 0.0 => text.extend_from_slice(b"0.0"),
        Ok(point @ 1..=15) if digits.len() <= point => {
            text.extend_from_slice(&digits);
            text.resize(text.len() + point - digits.len(), b'0');
            text.extend_from_slice(b".0");
        }
        Ok(point @ 1..=15) => {
            text.extend_from_slice(&digits[..point]);
            text.push(b'.');
            text.extend_from_slice(&digits[point..]);
        }
        _ if (-3..=0).contains(&point) => {
            text.extend_from_slice(b"0.");
            text.resize(text.len() + point.unsigned_abs() as usize, b'0');
            text.extend_from_slice(&digits);
        }
        _ => {
            text.push(digits[0]);
            if digits.len() > 1 {
                text.push(b'.');
                text.extend_from_slice(&digits[1..]);
            }
            let exponent = point - 1;
            let sign = if exponent < 0 { '-' } else { '+' };
            text.extend_from_slice(format!("e{sign}{:02}", exponent.abs()).as_bytes());
        }
    }
}
