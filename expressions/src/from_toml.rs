//! TOML as `builtins.fromTOML` reads it: without dates unless they are wished for, and without null bytes in strings.
//!
//! What TOML 1.1 allows beyond 1.0 (a comma at the end of an inline table, for instance) is read too; Nix refuses it.

use toml::value::{Datetime, Offset};
use toml::{Table, Value};

/// Why a text is not TOML that Nix has a value for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TomlError {
    /// Not UTF-8, as TOML must be.
    #[error("while parsing TOML: byte {offset} is not valid UTF-8")]
    Encoding {
        /// The first byte that is not.
        offset: usize,
    },
    /// Not TOML.
    #[error("while parsing TOML: {message} at line {line}, column {column}")]
    Syntax {
        /// What the reader says.
        message: String,
        /// Counted from 1.
        line: usize,
        /// In bytes, counted from 1.
        column: usize,
    },
    /// A date or time; the language has no such value.
    #[error("while parsing TOML: Dates and times are not supported")]
    Date,
    /// A key or string with a null byte.
    #[error(
        "while parsing TOML: error: input string '{string}' cannot be represented as Nix string because it contains null bytes"
    )]
    NullByte {
        /// The string, with a picture in place of every null byte.
        string: String,
    },
}

/// Reads a text, with dates and times if `timestamps` says so. The reader bounds how deep values nest.
pub fn read(text: &[u8], timestamps: bool) -> Result<Table, TomlError> {
    let text = str::from_utf8(text).map_err(|error| TomlError::Encoding { offset: error.valid_up_to() })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = &text.as_bytes()[..offset];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        TomlError::Syntax { message: error.message().replace('\n', ", "), line, column }
    })?;
    check_table(&table, timestamps)?;
    Ok(table)
}

fn check_table(table: &Table, timestamps: bool) -> Result<(), TomlError> {
    table.iter().try_for_each(|(key, value)| {
        check_string(key)?;
        check_value(value, timestamps)
    })
}

fn check_value(value: &Value, timestamps: bool) -> Result<(), TomlError> {
    match value {
        Value::Datetime(_) if timestamps => Ok(()),
        Value::Datetime(_) => Err(TomlError::Date),
        Value::String(string) => check_string(string),
        Value::Array(items) => items.iter().try_for_each(|item| check_value(item, timestamps)),
        Value::Table(table) => check_table(table, timestamps),
        Value::Boolean(_) | Value::Integer(_) | Value::Float(_) => Ok(()),
    }
}

/// A date or time as Nix writes it: with `T` between the two, and fractions of three, six or nine digits.
pub fn timestamp(datetime: &Datetime) -> String {
    let mut text = String::new();
    if let Some(date) = datetime.date {
        text = format!("{:04}-{:02}-{:02}", date.year, date.month, date.day);
    }
    if let Some(time) = datetime.time {
        if datetime.date.is_some() {
            text.push('T');
        }
        let (hour, minute, second) = (time.hour, time.minute, time.second.unwrap_or(0));
        text.push_str(&format!("{hour:02}:{minute:02}:{second:02}"));
        if let Some(nanoseconds) = time.nanosecond.filter(|nanoseconds| *nanoseconds != 0) {
            let fraction = match nanoseconds {
                whole if whole % 1_000_000 == 0 => format!(".{:03}", whole / 1_000_000),
                whole if whole % 1_000 == 0 => format!(".{:06}", whole / 1_000),
                whole => format!(".{whole:09}"),
            };
            text.push_str(&fraction);
        }
    }
    match datetime.offset {
        None => {}
        Some(Offset::Z | Offset::Custom { minutes: 0 }) => text.push('Z'),
        Some(Offset::Custom { minutes }) => {
            let (sign, minutes) = (if minutes < 0 { '-' } else { '+' }, minutes.unsigned_abs());
            text.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
        }
    }
    text
}

fn check_string(string: &str) -> Result<(), TomlError> {
    if string.contains('\0') {
        return Err(TomlError::NullByte { string: string.replace('\0', "␀") });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_come_in_all_spellings() {
        let table =
            read(b"a = 0xff\nb = 0o17\nc = 0b11\nd=1_000\ne=+5\nf=-0\ng=1e3\nh=6.02_3E-2\ni=-0.0\nj=-inf", false)
                .unwrap();
        let integers = ["a", "b", "c", "d", "e", "f"].map(|key| table[key].as_integer().unwrap());
        assert_eq!(integers, [255, 15, 3, 1000, 5, 0]);
        assert_eq!(["g", "h", "j"].map(|key| table[key].as_float().unwrap()), [1000.0, 0.06023, f64::NEG_INFINITY]);
        assert!(table["i"].as_float().unwrap().is_sign_negative());
    }

    #[test]
    fn what_nix_has_no_value_for_is_an_error() {
        for date in ["1979-05-27T07:32:00Z", "1979-05-27", "07:32:00"] {
            assert_eq!(read(format!("[x]\na = [{{ b = {date} }}]").as_bytes(), false), Err(TomlError::Date));
        }
        for null in ["a = \"\\u0000\"", "\"\\u0000\" = 1"] {
            let message = "while parsing TOML: error: input string '␀' cannot be represented as Nix string because it contains null bytes";
            assert_eq!(read(null.as_bytes(), false).unwrap_err().to_string(), message);
        }
        let bad = [
            "a",
            "a =",
            "a = 1\na = 2",
            "a = 9223372036854775808",
            "a = 0xffffffffffffffff",
            "a = 01",
            "[a]\n[a]",
            "a = tru",
            "é = 1",
            "a = 1e400",
        ];
        for bad in bad {
            assert!(matches!(read(bad.as_bytes(), false), Err(TomlError::Syntax { .. })), "{bad}");
        }
        assert!(matches!(read(b"a = '\xff'", false), Err(TomlError::Encoding { offset: 5 })));
        assert!(matches!(read(b"a = 1\nb = x", false), Err(TomlError::Syntax { line: 2, column: 5, .. })));
    }

    #[test]
    fn dates_are_written_as_nix_writes_them() {
        let written = |text: &str| match &read(format!("a = {text}").as_bytes(), true).unwrap()["a"] {
            Value::Datetime(datetime) => timestamp(datetime),
            other => panic!("{other} is no date"),
        };
        for (text, expected) in [
            ("07:32:00.000", "07:32:00"),
            ("07:32:00.1000", "07:32:00.100"),
            ("1979-05-27 07:32:00.1234567z", "1979-05-27T07:32:00.123456700Z"),
            ("1979-05-27T07:32:00-00:00", "1979-05-27T07:32:00Z"),
            ("1979-05-27T07:32:00-05:45", "1979-05-27T07:32:00-05:45"),
            ("0001-01-01", "0001-01-01"),
        ] {
            assert_eq!(written(text), expected);
        }
    }

    #[test]
    fn depth_is_bounded() {
        for (open, close) in [("[", "]"), ("{a=", "}")] {
            let text = format!("a = {}1{}", open.repeat(100_000), close.repeat(100_000));
            assert!(read(text.as_bytes(), false).is_err());
        }
        let dots = "a.".repeat(1_000_000);
        for text in [format!("[{dots}b]"), format!("{dots}b = 1"), format!("x = {{ {dots}b = 1 }}")] {
            assert!(read(text.as_bytes(), false).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd_to_be_looked_at(text in "[\\[\\]{}=\"'a0-9.\\n#:TZ_+-]{0,24}", bytes: Vec<u8>) {
            let _ = read(text.as_bytes(), false);
            let _ = read(&bytes, false);
        }
    }
}
