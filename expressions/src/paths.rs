//! Paths as the language sees them: absolute, without `.`, `..` and empty components, worked out without looking at any file.

/// The one spelling of an absolute path; `..` goes up by text alone, and not above the root.
pub fn normal(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => _ = parts.pop(),
            _ => parts.push(part),
        }
    }
    let mut normal = Vec::with_capacity(path.len().max(1));
    for part in parts {
        normal.push(b'/');
        normal.extend_from_slice(part);
    }
    if normal.is_empty() {
        normal.push(b'/');
    }
    normal
}

/// A path as seen from a directory.
pub fn join(directory: &[u8], path: &[u8]) -> Vec<u8> {
    if path.first() == Some(&b'/') {
        return normal(path);
    }
    let mut whole = directory.to_vec();
    whole.push(b'/');
    whole.extend_from_slice(path);
    normal(&whole)
}

/// The part after the last slash; empty for the root.
pub fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// The directory of a normal path; the root's is the root.
pub fn directory(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => b"/",
        Some(slash) => &path[..slash],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        assert_eq!(normal(b"//a/./b/../c/"), b"/a/c");
        assert_eq!(normal(b"/../.."), b"/");
        assert_eq!(join(b"/a", b"../b"), b"/b");
        assert_eq!(directory(b"/a"), b"/");
    }
}
