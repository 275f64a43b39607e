use super::*;
use proptest::prelude::*;

fn events(text: &[u8]) -> Result<Vec<Event<'_>>, JsonError> {
    let mut reader = JsonReader::new(text);
    let mut events = Vec::new();
    while let Some(event) = reader.next_event()? {
        events.push(event);
    }
    Ok(events)
}

#[test]
fn a_text_is_read_event_by_event() {
    let text = br#" {"a": [1, -2.5, "x\n\u00e9\ud83d\ude00", {}, []], "a": null, "b": true} "#;
    let string = |string: &'static str| Cow::Borrowed(string.as_bytes());
    let expected = [
        Event::StartObject,
        Event::Key(string("a")),
        Event::StartArray,
        Event::Integer(1),
        Event::Float(-2.5),
        Event::String(string("x\né😀")),
        Event::StartObject,
        Event::EndObject,
        Event::StartArray,
        Event::EndArray,
        Event::EndArray,
        Event::Key(string("a")),
        Event::Null,
        Event::Key(string("b")),
        Event::Boolean(true),
        Event::EndObject,
    ];
    assert_eq!(events(text).unwrap(), expected);
}

#[test]
fn numbers_are_integers_where_they_can_be() {
    let one = |text: &'static str| events(text.as_bytes()).map(|mut events| events.remove(0));
    assert_eq!(one("9223372036854775807"), Ok(Event::Integer(i64::MAX)));
    assert_eq!(one("-9223372036854775808"), Ok(Event::Integer(i64::MIN)));
    assert_eq!(one("-0"), Ok(Event::Integer(0)));
    assert_eq!(one("18446744073709551616"), Ok(Event::Float(18446744073709551616.0)));
    assert_eq!(one("-9223372036854775809"), Ok(Event::Float(-9223372036854775809.0)));
    assert_eq!(one("1E+2"), Ok(Event::Float(100.0)));
    assert_eq!(one("1e-400"), Ok(Event::Float(0.0)));
    assert_eq!(one("9223372036854775808"), Err(JsonError::Unsigned { number: 1 << 63 }));
    assert_eq!(one("-1e400"), Err(JsonError::Overflow { number: "-1e400".into() }));
}

/// The texts of the errors are what Nix 2.34.8 prints.
#[test]
fn errors_are_told_in_the_words_of_nix() {
    let cases = [
        (" ", 1, 2, "value - unexpected end of input; expected '[', '{', or a literal"),
        ("[1,]", 1, 4, "value - unexpected ']'; expected '[', '{', or a literal"),
        ("{\"a\":1,}", 1, 8, "object key - unexpected '}'; expected string literal"),
        ("nul", 1, 4, "value - invalid literal; last read: 'nul'"),
        ("trux", 1, 4, "value - invalid literal; last read: 'trux'"),
        ("01", 1, 2, "value - unexpected number literal; expected end of input"),
        ("-", 1, 2, "value - invalid number; expected digit after '-'; last read: '-'"),
        ("1e+a", 1, 4, "value - invalid number; expected digit after exponent sign; last read: '1e+a'"),
        ("1ea", 1, 3, "value - invalid number; expected '+', '-', or digit after exponent; last read: '1ea'"),
        ("[1 2]", 1, 4, "array - unexpected number literal; expected ']'"),
        ("{\"a\" 1}", 1, 6, "object separator - unexpected number literal; expected ':'"),
        ("{\"a\":1 \"b\"}", 1, 10, "object - unexpected string literal; expected '}'"),
        ("{a:1}", 1, 2, "object key - invalid literal; last read: '{a'; expected string literal"),
        ("\"abc", 1, 5, "value - invalid string: missing closing quote; last read: '\"abc'"),
        ("\"\\", 1, 3, "value - invalid string: forbidden character after backslash; last read: '\"\\'"),
        ("\"a\\u12\"", 1, 7, "value - invalid string: '\\u' must be followed by 4 hex digits; last read: '\"a\\u12\"'"),
        (
            "\"\\ud800\\n\"",
            1,
            9,
            "value - invalid string: surrogate U+D800..U+DBFF must be followed by U+DC00..U+DFFF; last read: '\"\\ud800\\n'",
        ),
        (
            "\"\\udc00\"",
            1,
            7,
            "value - invalid string: surrogate U+DC00..U+DFFF must follow U+D800..U+DBFF; last read: '\"\\udc00'",
        ),
        (
            "\"a\nb\"",
            2,
            0,
            "value - invalid string: control character U+000A (LF) must be escaped to \\u000A or \\n; last read: '\"a<U+000A>'",
        ),
        ("1 x", 1, 3, "value - invalid literal; last read: '1 x'; expected end of input"),
        ("[1\n,\n2\n,x]", 4, 2, "value - invalid literal; last read: '2<U+000A>,x'"),
        ("[\"a", 1, 4, "value - invalid string: missing closing quote; last read: '\"a'"),
        ("{", 1, 2, "object key - unexpected end of input; expected string literal"),
    ];
    for (text, line, column, message) in cases {
        let message = format!("syntax error while parsing {message}");
        assert_eq!(events(text.as_bytes()), Err(JsonError::Syntax { line, column, message }), "{text}");
    }
    assert!(events(b"").unwrap_err().to_string().contains("attempting to parse an empty input"));
    let error = events(br#""a\u0000""#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "input string 'a␀' cannot be represented as Nix string because it contains null bytes"
    );
    assert_eq!(events(b"\xef\xbb\xbf1"), Ok(vec![Event::Integer(1)]));
    assert!(events(b"\xef\xbb1").unwrap_err().to_string().contains("invalid BOM"));
}

#[test]
fn depth_costs_nothing_but_memory() {
    let text = ["[".repeat(1_000_000), "]".repeat(1_000_000)].concat();
    assert_eq!(events(text.as_bytes()).unwrap().len(), 2_000_000);
}

#[test]
fn floats_are_written_as_nix_writes_them() {
    let written = |float| {
        let mut text = Vec::new();
        float_onto(&mut text, float);
        String::from_utf8(text).unwrap()
    };
    let cases = [
        (1.0, "1.0"),
        (0.1, "0.1"),
        (-0.0, "-0.0"),
        (1e-7, "1e-07"),
        (1.5e-5, "1.5e-05"),
        (0.0001, "0.0001"),
        (0.00123, "0.00123"),
        (123456.789, "123456.789"),
        (1e14, "100000000000000.0"),
        (1e15, "1e+15"),
        (123456789012345680.0, "1.2345678901234568e+17"),
        (1e300, "1e+300"),
        (f64::INFINITY, "null"),
        (f64::NAN, "null"),
    ];
    for (float, expected) in cases {
        assert_eq!(written(float), expected);
    }
}

#[test]
fn a_string_that_is_no_utf8_is_not_written() {
    let error = |string: &[u8]| string_onto(&mut Vec::new(), string).unwrap_err();
    assert_eq!(error(b"a\xffb\xc3"), JsonWriteError::Invalid { index: 1, byte: 0xff });
    assert_eq!(error(b"a\xed\xa0\x80b"), JsonWriteError::Invalid { index: 2, byte: 0xa0 });
    assert_eq!(error(b"a\xc3"), JsonWriteError::Incomplete { byte: 0xc3 });
}

proptest! {
    #[test]
    fn strings_and_floats_read_back(string: String, float in proptest::num::f64::NORMAL) {
        let mut text = Vec::new();
        string_onto(&mut text, string.as_bytes()).unwrap();
        if !string.contains('\0') {
            prop_assert_eq!(events(&text).unwrap(), [Event::String(string.as_bytes().into())]);
        }
        text.clear();
        float_onto(&mut text, float);
        prop_assert_eq!(events(&text).unwrap(), [Event::Float(float)]);
    }

    #[test]
    fn it_reads_what_others_read(text in "[\\[\\]{},: \"\\\\a0-9.eE+tnu-]{0,20}", bytes: Vec<u8>) {
        let _ = events(&bytes);
        let ours = events(text.as_bytes());
        if !matches!(ours, Err(JsonError::Unsigned { .. } | JsonError::Overflow { .. } | JsonError::NullByte { .. })) {
            prop_assert_eq!(ours.is_ok(), serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }
}
