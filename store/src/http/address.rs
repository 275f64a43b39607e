//! Parts of `http` addresses: joining, hiding passwords, and what is sent for a user name.

use crate::digest::to_hex;
use crate::nix::hash::to_base64;

/// What an address is made of, as far as we need it: `scheme://[user@]host/path`.
pub struct Parts<'a> {
    /// `http` or `https`, lower case.
    pub scheme: &'static str,
    /// `user:password`, percent-encoded.
    pub user: Option<&'a str>,
    /// `host` or `host:port`.
    pub host: &'a str,
    /// From the first slash on; may be empty.
    pub path: &'a str,
}

/// Takes an address apart; none if it is not `http` or `https`.
pub fn split(url: &str) -> Option<Parts<'_>> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = ["http", "https"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    (!host.is_empty()).then_some(Parts { scheme, user, host, path })
}

impl Parts<'_> {
    /// The address without user name, password and fragment: what is asked.
    pub fn plain(&self) -> String {
        let path = self.path.split('#').next().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("{}://{}{slash}{path}", self.scheme, self.host)
    }

    /// The host's name without port.
    pub fn host_name(&self) -> &str {
        match self.host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inside, _)) => inside,
            None => self.host.rsplit_once(':').map_or(self.host, |(name, _)| name),
        }
    }

    /// The header that says who we are (RFC 7617), if the address does.
    pub fn authorization(&self) -> Option<String> {
        self.user.map(|user| format!("Basic {}", to_base64(&percent_decode(user))))
    }
}

/// An address as it may be shown: without the user's password.
pub fn redact(url: &str) -> String {
    match split(url) {
        Some(Parts { scheme, user: Some(user), host, path }) => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}:***@{host}{path}")
        }
        _ => url.to_owned(),
    }
}

/// What a relative address means on the page `base` (RFC 3986, section 5.2, as far as servers use it).
pub fn join(base: &str, relative: &str) -> String {
    if relative.split_once("://").is_some_and(|(scheme, _)| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
        return relative.to_owned();
    }
    let Some(parts) = split(base) else { return relative.to_owned() };
    if let Some(rest) = relative.strip_prefix("//") {
        return format!("{}://{rest}", parts.scheme);
    }
    let user = parts.user.map(|user| format!("{user}@")).unwrap_or_default();
    let path = parts.path.split(['?', '#']).next().unwrap_or_default();
    let (relative_path, query) = relative.split_at(relative.find(['?', '#']).unwrap_or(relative.len()));
    let whole = if relative_path.is_empty() {
        path.to_owned()
    } else if relative_path.starts_with('/') {
        relative_path.to_owned()
    } else {
        format!("{}/{relative_path}", path.rsplit_once('/').map_or("", |(directory, _)| directory))
    };
    let mut segments: Vec<&str> = Vec::new();
    for segment in whole.trim_start_matches('/').split('/') {
        match segment {
            "." => {}
            ".." => _ = segments.pop(),
            segment => segments.push(segment),
        }
    }
    if whole.ends_with("/..") || whole.ends_with("/.") {
        segments.push("");
    }
    format!("{}://{user}{}/{}{query}", parts.scheme, parts.host, segments.join("/"))
}

/// Percent-encodes what may not stand in a user name or password.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&to_hex(&[byte]));
        }
    }
    encoded
}

/// Reads percent signs.
pub fn percent_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match value {
            Some(value) if *byte == b'%' => {
                decoded.push(value);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(*byte);
                rest = tail;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_sent_and_never_shown() {
        let url = "https://me:p%40ss@host.example:8443/simple/";
        assert_eq!(redact(url), "https://me:***@host.example:8443/simple/");
        let parts = split(url).unwrap();
        assert_eq!(parts.plain(), "https://host.example:8443/simple/");
        assert_eq!(parts.host_name(), "host.example");
        // `printf 'me:p@ss' | base64`
        assert_eq!(parts.authorization().unwrap(), "Basic bWU6cEBzcw==");
    }

    #[test]
    fn relative_addresses_are_joined() {
        let base = "https://u:p@host.example/simple/numpy/?a=b#c";
        for (relative, expected) in [
            ("https://other.example/x", "https://other.example/x"),
            ("//other.example/x", "https://other.example/x"),
            ("/x?y", "https://u:p@host.example/x?y"),
            ("x.whl#sha256=1", "https://u:p@host.example/simple/numpy/x.whl#sha256=1"),
            ("../../packages/x", "https://u:p@host.example/packages/x"),
            ("../../../../x", "https://u:p@host.example/x"),
            ("..", "https://u:p@host.example/simple/"),
            ("", "https://u:p@host.example/simple/numpy/"),
            ("?page=2", "https://u:p@host.example/simple/numpy/?page=2"),
            ("a?next=https://other.example/", "https://u:p@host.example/simple/numpy/a?next=https://other.example/"),
        ] {
            assert_eq!(join(base, relative), expected, "{relative}");
        }
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in ["", "ftp://host/x", "http://", "http:///x", "host/x", "http://user@/x"] {
            assert!(split(text).is_none(), "{text}");
        }
        assert_eq!(split("http://[::1]:80/x").unwrap().host_name(), "::1");
        assert_eq!(split("HTTP://host").unwrap().plain(), "http://host/");
    }
}
