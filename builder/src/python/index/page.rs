//! A project's page of an index, in either of its forms: JSON (PEP 691) or HTML (PEP 503).

use crate::fetch::join;

/// A file that an index lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub file: String,
    /// Where it lies, without fragment. May hold a password.
    pub url: String,
    /// Its SHA-256 in hexadecimal, where the index says it.
    pub sha256: Option<String>,
    /// Its size in bytes, where the index says it.
    pub size: Option<u64>,
}

/// Reads a page. `base` is where it came from.
pub fn parse(bytes: &[u8], media_type: Option<&str>, base: &str) -> Result<Vec<Listed>, String> {
    let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // Some servers send any file as one type; what it is shows at once.
    let first = bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    if media_type.ends_with("json") || first == Some(b'{') {
        parse_json(bytes, base)
    } else {
        let text = String::from_utf8_lossy(bytes);
        Ok(parse_html(&text, base))
    }
}

fn parse_json(bytes: &[u8], base: &str) -> Result<Vec<Listed>, String> {
    #[derive(serde::Deserialize)]
    struct Page {
        meta: Meta,
        files: Vec<File>,
    }
    #[derive(serde::Deserialize)]
    struct Meta {
        #[serde(rename = "api-version")]
        version: String,
    }
    #[derive(serde::Deserialize)]
    struct File {
        filename: String,
        url: String,
        #[serde(default)]
        hashes: std::collections::BTreeMap<String, String>,
        size: Option<u64>,
    }
    let page: Page = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if page.meta.version.split('.').next() != Some("1") {
        return Err(format!("it has version {} of the interface, and 1.x is understood", page.meta.version));
    }
    let listed = page.files.into_iter().map(|file| {
        let (url, _) = cut_fragment(&file.url);
        let sha256 = file.hashes.get("sha256").cloned();
        Listed { file: file.filename, url: join(base, url), sha256, size: file.size }
    });
    Ok(listed.collect())
}

/// The links of a page. HTML as indexes write it: no script, no frames; what is no link is passed over.
fn parse_html(text: &str, base: &str) -> Vec<Listed> {
    let mut base = base.to_owned();
    let mut listed = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
            continue;
        }
        let (tag, after) = cut_tag(rest);
        rest = after;
        let name = tag.split(|character: char| character.is_ascii_whitespace() || character == '/').next();
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let Some(href) = matches!(name.as_str(), "a" | "base").then(|| attribute(tag, "href")).flatten() else {
            continue;
        };
        if name == "base" {
            base = join(&base, &href);
            continue;
        }
        let (path, fragment) = cut_fragment(&href);
        let url = join(&base, path);
        let Some(file) = file_name(&url) else { continue };
        let sha256 = fragment.split('&').find_map(|part| part.strip_prefix("sha256=")).map(str::to_owned);
        listed.push(Listed { file, url, sha256, size: None });
    }
    listed
}

/// The inside of a tag that has just begun, and what follows it. `>` may stand in quotes.
fn cut_tag(text: &str) -> (&str, &str) {
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return (&text[..at], &text[at + 1..]),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    (text, "")
}

/// The value of an attribute of a tag, entities decoded.
fn attribute(tag: &str, wanted: &str) -> Option<String> {
    let mut rest = &tag[tag.find(|character: char| character.is_ascii_whitespace())?..];
    loop {
        rest = rest.trim_start_matches(|character: char| character.is_ascii_whitespace() || character == '/');
        if rest.is_empty() {
            return None;
        }
        let end =
            rest.find(|character: char| character.is_ascii_whitespace() || character == '=').unwrap_or(rest.len());
        let name = &rest[..end];
        rest = rest[end..].trim_start();
        let value = match rest.strip_prefix('=') {
            None => "",
            Some(after) => {
                let after = after.trim_start();
                let (value, left) = match after.chars().next() {
                    Some(quote @ ('"' | '\'')) => {
                        let inside = &after[1..];
                        inside.split_once(quote).unwrap_or((inside, ""))
                    }
                    _ => {
                        let end = after.find(|character: char| character.is_ascii_whitespace()).unwrap_or(after.len());
                        after.split_at(end)
                    }
                };
                rest = left;
                value
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(decode_entities(value));
        }
        if name.is_empty() && !rest.is_empty() {
            // A stray character; without this we would stand still.
            let mut characters = rest.chars();
            characters.next();
            rest = characters.as_str();
        }
    }
}

fn decode_entities(text: &str) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        decoded.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.bytes().take(10).position(|byte| byte == b';');
        let character = end.and_then(|end| match &rest[1..end] {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            number => {
                let number = number.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)
            }
        });
        match (character, end) {
            (Some(character), Some(end)) => {
                decoded.push(character);
                rest = &rest[end + 1..];
            }
            _ => {
                decoded.push('&');
                rest = &rest[1..];
            }
        }
    }
    decoded + rest
}

fn cut_fragment(url: &str) -> (&str, &str) {
    url.split_once('#').unwrap_or((url, ""))
}

/// The file name that an address ends in.
pub fn file_name(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().filter(|last| !last.is_empty())?;
    let mut bytes = Vec::new();
    let mut rest = last.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) if *byte == b'%' => {
                bytes.push(value);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "https://u:p@host.example/simple/hello/";

    #[test]
    fn a_page_of_links_is_read() {
        let page = r##"<!DOCTYPE html><html><head><title>a > b</title></head><body>
            <!-- <a href="old.whl">old.whl</a> -->
            <a href="../../files/hello-1.0-py3-none-any.whl#sha256=aa" data-requires-python="&gt;=3.8">hello</a><br/>
            <A class='x>y' HREF='https://other.example/a/hello-1.1%2Blocal-py3-none-any.whl?x=1&amp;y=2'>hello</A>
            <a href=hello-1.0.tar.gz>hello-1.0.tar.gz</a><a name="top">no link</a><a href="../">up</a></body>"##;
        let listed = parse(page.as_bytes(), Some("text/html; charset=utf-8"), BASE).unwrap();
        let lines: Vec<String> =
            listed.iter().map(|listed| format!("{} {} {:?}", listed.file, listed.url, listed.sha256)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        hello-1.0-py3-none-any.whl https://u:p@host.example/files/hello-1.0-py3-none-any.whl Some("aa")
        hello-1.1+local-py3-none-any.whl https://other.example/a/hello-1.1%2Blocal-py3-none-any.whl?x=1&y=2 None
        hello-1.0.tar.gz https://u:p@host.example/simple/hello/hello-1.0.tar.gz None
        "#);
    }

    #[test]
    fn a_page_may_have_another_base() {
        let page = r#"<base href="/elsewhere/"><a href="a.whl">a</a>"#;
        assert_eq!(parse(page.as_bytes(), None, BASE).unwrap()[0].url, "https://u:p@host.example/elsewhere/a.whl");
    }

    #[test]
    fn a_page_of_json_is_read() {
        let page = br#"{"meta":{"api-version":"1.1"},"name":"hello","files":[{"filename":"hello-1.0-py3-none-any.whl",
            "url":"../../f/hello-1.0-py3-none-any.whl","hashes":{"sha256":"aa"},"size":12,"yanked":false}]}"#;
        let listed = parse(page, Some("application/vnd.pypi.simple.v1+json"), BASE).unwrap();
        assert_eq!(listed[0].size, Some(12));
        assert_eq!(listed[0].url, "https://u:p@host.example/f/hello-1.0-py3-none-any.whl");
        assert!(parse(br#"{"meta":{"api-version":"2.0"},"files":[]}"#, None, BASE).is_err());
        assert!(parse(b"{", None, BASE).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_page_is_too_odd(page in "[<>a href=\"'#&;/x!-]{0,60}") {
            let _ = parse(page.as_bytes(), None, BASE);
        }

        #[test]
        fn no_bytes_are_too_odd(page: Vec<u8>) {
            let _ = parse(&page, None, BASE);
        }
    }
}
