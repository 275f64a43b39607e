use super::*;
use proptest::prelude::*;

fn groups(pattern: &str, text: &str) -> Option<Vec<Option<String>>> {
    let captures = Regex::new(pattern.as_bytes()).unwrap().match_full(text.as_bytes()).unwrap()?;
    Some(captures.into_iter().skip(1).map(|range| range.map(|range| text[range].to_owned())).collect())
}

/// Where the matches begin and end.
fn found(pattern: &str, text: &str) -> Vec<(usize, usize)> {
    let captures = Regex::new(pattern.as_bytes()).unwrap().find_all(text.as_bytes()).unwrap();
    let whole = |captures: Captures| captures[0].clone().unwrap();
    captures.into_iter().map(whole).map(|range| (range.start, range.end)).collect()
}

/// The expected groups are what Nix 2.34.8 gives; `-` is a group that took no part.
#[test]
fn groups_are_those_of_nix() {
    let cases = [
        ("(a*)*", "aa", &[""][..]),
        ("(a|ab)(c|bcd)(d*)", "abcd", &["a", "bcd", ""]),
        ("((a)|(b))*", "ab", &["b", "a", "b"]),
        ("(a?){3}b", "ab", &[""]),
        ("()", "", &[""]),
        ("(x)|(y)", "y", &["-", "y"]),
        ("[[:space:]]+([[:upper:]]+)[[:space:]]+", "  FOO   ", &["FOO"]),
        ("[[=a=]]+", "aA", &[]),
        ("[]-a]+", "]a^", &[]),
        ("[--/]+", "-./", &[]),
        ("[%--]+", "-%", &[]),
        ("[\\]]", "\\]", &[]),
        ("[[:d:][:W:]]+", "1_a", &[]),
        ("[[.hyphen.]]", "-", &[]),
        (r"\^\$\.\[\|\(\)\*\+\?\{\\", r"^$.[|()*+?{\", &[]),
        ("a**", "aa", &[]),
        ("a{1}{2}", "aa", &[]),
        ("[é-a]+", "A", &[]),
    ];
    for (pattern, text, expected) in cases {
        let groups = groups(pattern, text).unwrap_or_else(|| panic!("`{pattern}` does not match `{text}`"));
        let groups: Vec<_> = groups.iter().map(|group| group.as_deref().unwrap_or("-")).collect();
        assert_eq!(groups, expected, "`{pattern}` on `{text}`");
    }
}

#[test]
fn a_match_is_of_the_whole_text() {
    for (pattern, text) in
        [("a", "aa"), ("^a", "ba"), ("a$b", "a$b"), ("a+?b", "c"), (".", ""), ("[^a]", "a"), (".", "\0")]
    {
        assert_eq!(groups(pattern, text), None, "`{pattern}` on `{text}`");
    }
}

#[test]
fn matches_are_found_from_left_to_right() {
    assert_eq!(found("", "abc"), [(0, 0), (1, 1), (2, 2), (3, 3)]);
    assert_eq!(found("a*", "baaac"), [(0, 0), (1, 4), (4, 4), (5, 5)]);
    assert_eq!(found("^a", "aab"), [(0, 1)]);
    assert_eq!(found("(x)|$", "axb"), [(1, 2), (3, 3)]);
    // The longest of the alternatives, whatever their order.
    assert_eq!(found("a|ab|abc", "xabcd"), [(1, 4)]);
    assert_eq!(found("(a|ab)(c|bcd)*", "abcd"), [(0, 4)]);
    // But not the longest of all ways: a round of the repetition is taken where it can be.
    assert_eq!(found("a?(ab)?", "ab"), [(0, 1), (1, 1), (2, 2)]);
}

#[test]
fn malformed_expressions_are_refused_in_the_words_of_nix() {
    let bad = [
        "*",
        "a|*",
        "(*a)",
        "^*",
        "a)",
        "(a",
        "[a",
        "[",
        "[]",
        "[[:alpha:]",
        "[[:foo:]]",
        "[[.-.]]",
        "[a-c-e]",
        "[z-a]",
        "[a-é]",
        "[[:alpha:]-z]",
        "[a-[.z.]]",
        "a{",
        "a{,3}",
        "a{2,1}",
        "a{x}",
        "a{1",
        "{1}",
        "a{99999999999}",
        "\\",
        "\\d",
        "\\]",
        "\\}",
        "[a-",
        "[[",
        "[[:",
        "\0",
    ];
    for pattern in bad {
        let error = Regex::new(pattern.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), format!("invalid regular expression '{pattern}'"));
    }
    for pattern in
        ["a{100001}", "a{0,60000}", "(((a{100}){100}){100})", &"(".repeat(1000), &format!("a{}", "*".repeat(1000))]
    {
        let error = Regex::new(pattern.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), format!("memory limit exceeded by regular expression '{pattern}'"));
    }
}

#[test]
fn what_takes_others_for_ever_takes_no_time() {
    let text = "a".repeat(10_000);
    assert_eq!(groups("(a*)*(a*)*b", &text), None);
    assert_eq!(groups("((a|a)*|(aa)*)*c?", &text).map(|groups| groups.len()), Some(3));
    assert_eq!(found("(x+x+)+y", &"x".repeat(5_000)), []);
    assert_eq!(found("a", &text).len(), 10_000);
}

/// Around the squares, where stretches of the table end.
#[test]
fn every_length_of_text_is_walked_to_its_end() {
    for length in (0..70).chain([99, 100, 101, 1000]) {
        let text = "ab".repeat(length);
        assert_eq!(found("(a)(b)", &text).len(), length);
        assert_eq!(groups("((a)(b))*", &text).map(|groups| groups.len()), Some(3));
    }
}

proptest! {
    #[test]
    fn no_pattern_and_no_text_is_too_odd(pattern in "[ab().*+?{}0-3,|\\[\\]^$:=\\\\-]{0,12}", text in "[ab]{0,8}") {
        if let Ok(regex) = Regex::new(pattern.as_bytes()) {
            let whole = regex.match_full(text.as_bytes()).unwrap();
            let found = regex.find_all(text.as_bytes()).unwrap();
            // What matches as a whole is found at the start.
            if whole.is_some() {
                prop_assert_eq!(found[0][0].clone().unwrap().start, 0);
            }
            for captures in found.into_iter().chain(whole) {
                prop_assert_eq!(captures.len(), regex.group_count() + 1);
                prop_assert!(captures.into_iter().flatten().all(|range| range.start <= range.end && range.end <= text.len()));
            }
        }
    }

    /// Twice with one expression, so that the second time columns are known.
    #[test]
    fn columns_as_bits_find_what_the_table_finds(
        pattern in "(([ab.]|\\((a|b|ab|a\\*)?\\)|\\[ab\\]|\\[\\^a\\]|\\^|\\$)([*+?]|\\{1,2\\})?\\|?){1,5}",
        texts in proptest::array::uniform2("[abc]{0,12}"),
    ) {
        if let Ok(regex) = Regex::new(pattern.as_bytes()) {
            for text in &texts {
                let text = text.as_bytes();
                prop_assert_eq!(regex.match_full(text).unwrap(), regex.match_by_table(text).unwrap());
                prop_assert_eq!(regex.find_all(text).unwrap(), regex.find_all_by_table(text).unwrap());
            }
        }
    }

    #[test]
    fn any_bytes_are_taken(pattern: Vec<u8>, text: Vec<u8>) {
        if let Ok(regex) = Regex::new(&pattern) {
            let _ = regex.match_full(&text);
            let _ = regex.find_all(&text);
        }
    }
}
