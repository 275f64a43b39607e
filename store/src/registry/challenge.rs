//! What a registry wants to be shown: the header field `WWW-Authenticate` (RFC 9110, section 11.6.1; RFC 6750, section 3).

/// One of the ways in which one may say who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with every request.
    Basic,
    /// A token that somebody else gives.
    Bearer {
        /// Who gives it.
        realm: String,
        /// For whom it is.
        service: Option<String>,
        /// For what it is.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads the field; of several challenges the first that is known counts, a token before a password.
    pub fn parse(field: &str) -> Option<Self> {
        let mut found = None;
        let mut rest = field;
        while let Some((scheme, parameters, after)) = next(rest) {
            rest = after;
            let parameter = |name: &str| {
                let same = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
                parameters.iter().find(same).map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                return Some(Self::Bearer { realm, service: parameter("service"), scope: parameter("scope") });
            }
            if scheme.eq_ignore_ascii_case("basic") {
                found = Some(Self::Basic);
            }
        }
        found
    }
}

/// Names and values, in their order.
type Parameters = Vec<(String, String)>;

/// A challenge's scheme, its parameters, and what follows it.
fn next(text: &str) -> Option<(&str, Parameters, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
    let (scheme, mut rest) = text.split_at(end);
    if scheme.is_empty() {
        return None;
    }
    let mut parameters = Vec::new();
    loop {
        let trimmed = rest.trim_start_matches([' ', '\t', ',']);
        // A word without `=` is the next challenge's scheme.
        let end = trimmed.find(['=', ' ', '\t', ',', '"']).unwrap_or(trimmed.len());
        let Some(value) = trimmed[end..].strip_prefix('=').filter(|_| end > 0) else {
            return Some((scheme, parameters, trimmed));
        };
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = value.find([' ', '\t', ',']).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        parameters.push((trimmed[..end].to_owned(), value));
        rest = after;
    }
}

/// Reads up to the closing quote.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &text[index + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            character => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let [service, scope] = [service, scope].map(|text| text.map(str::to_owned));
            Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
        };
        for (field, expected) in [
            (
                r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
                bearer("https://auth.example/token", Some("registry.example"), Some("repository:a/b:pull,push")),
            ),
            (r#"bearer Realm="https://a.example/t" , service=x"#, bearer("https://a.example/t", Some("x"), None)),
            (r#"Basic realm="Registry Realm""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            (r#"Basic realm="x", Bearer realm="https://a.example/t""#, bearer("https://a.example/t", None, None)),
            (r#"Negotiate abc==, Basic realm="a\"b, Bearer realm=c""#, Some(Challenge::Basic)),
            ("Bearer", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(field), expected, "{field}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_panics_and_everything_ends(text in "(Basic|Bearer|[ ,=\"\\\\a-zé]){0,40}") {
            let _ = Challenge::parse(&text);
        }
    }
}
