//! Registries of flakes: what a name such as `nixpkgs` stands for, as files of the user and of the machine say it (`nix registry`).
//!
//! Pure text, as in the rest of [`super`]; who may read which file is for others to say.

use serde_json::Value as Json;

use super::{Attribute, Attributes, Result, to_string, wrong};

/// What one file says, in order.
#[derive(Debug, Default)]
pub struct Registry(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    from: Attributes,
    to: Attributes,
    /// Only this, and not the same with a branch or commit.
    exact: bool,
}

/// As often may one name stand for another.
const MOST_STEPS: usize = 100;

impl Registry {
    /// What was said on the command line.
    pub fn of(pairs: &[(String, String)]) -> Result<Self> {
        let entry = |(from, to): &(String, String)| {
            let mut to = super::parse(to)?;
            to.remove("dir");
            Ok(Entry { from: super::parse(from)?, to, exact: false })
        };
        pairs.iter().map(entry).collect::<Result<_>>().map(Self)
    }

    /// What a file says; none if it is not a registry of version 2.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let file: Json = serde_json::from_slice(bytes).ok()?;
        if file.get("version")?.as_u64()? != 2 {
            return None;
        }
        let entries = file.get("flakes")?.as_array()?.iter().map(|entry| {
            let mut to = attributes(entry.get("to")?)?;
            // That is of the flake, and not of where it is fetched from.
            to.remove("dir");
            let exact = entry.get("exact").and_then(Json::as_bool).unwrap_or(false);
            Some(Entry { from: attributes(entry.get("from")?)?, to, exact })
        });
        entries.collect::<Option<_>>().map(Self)
    }
}

fn attributes(json: &Json) -> Option<Attributes> {
    let fields = json.as_object()?.iter().map(|(name, value)| {
        let attribute = match value {
            Json::String(text) => Attribute::Text(text.clone()),
            Json::Bool(flag) => Attribute::Flag(*flag),
            Json::Number(number) => Attribute::Number(number.as_u64()?),
            _ => return None,
        };
        Some((name.clone(), attribute))
    });
    fields.collect()
}

/// What a reference stands for: itself, unless it is a name. The first entry that fits counts, and may name another name.
pub fn resolve(registries: &[Registry], wanted: &Attributes) -> Result<Attributes> {
    let mut found = wanted.clone();
    for _ in 0..MOST_STEPS {
        if found.get("type") != Some(&"indirect".into()) {
            return Ok(found);
        }
        let mut entries = registries.iter().flat_map(|registry| &registry.0);
        let Some(entry) = entries.find(|entry| fits(entry, &found)) else {
            let shown = to_string(&found).unwrap_or_default();
            return Err(wrong(format!("cannot find flake '{shown}' in the flake registries")));
        };
        found = next(entry, &found)?;
    }
    let shown = to_string(wanted).unwrap_or_default();
    Err(wrong(format!("cycle detected in flake registry for '{shown}'")))
}

fn fits(entry: &Entry, wanted: &Attributes) -> bool {
    let mut bare = wanted.clone();
    bare.retain(|name, _| name != "ref" && name != "rev");
    entry.from == *wanted || !entry.exact && entry.from == bare
}

/// What an entry says, with the branch and the commit that were asked for.
fn next(entry: &Entry, wanted: &Attributes) -> Result<Attributes> {
    let mut next = entry.to.clone();
    for name in ["ref", "rev"] {
        let Some(value) = wanted.get(name).filter(|_| !entry.exact && !entry.from.contains_key(name)) else { continue };
        if matches!(next.get("type"), Some(Attribute::Text(kind)) if matches!(&**kind, "path" | "tarball" | "file")) {
            let (shown, what) =
                (to_string(&next).unwrap_or_default(), if name == "ref" { "branch/tag" } else { "commit" });
            return Err(wrong(format!("don't know how to set {what} of input '{shown}'")));
        }
        next.insert(name.to_owned(), value.clone());
        if name == "rev" {
            // What was said of another commit is not said of this one.
            next.remove("narHash");
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn registry(flakes: &str) -> Registry {
        Registry::read(format!("{{\"version\": 2, \"flakes\": [{flakes}]}}").as_bytes()).expect("a registry")
    }

    #[test]
    fn the_first_registry_that_knows_a_name_says_what_it_is() {
        let user = registry(
            r#"{"from": {"type": "indirect", "id": "n"}, "to": {"type": "indirect", "id": "nixpkgs"}},
               {"from": {"type": "indirect", "id": "exact"}, "exact": true, "to": {"type": "path", "path": "/e"}}"#,
        );
        let system = registry(
            r#"{"from": {"type": "indirect", "id": "nixpkgs"}, "to": {"type": "github", "owner": "NixOS", "repo": "nixpkgs"}},
               {"from": {"type": "indirect", "id": "exact"}, "to": {"type": "path", "path": "/not"}},
               {"from": {"type": "indirect", "id": "loop"}, "to": {"type": "indirect", "id": "loop"}}"#,
        );
        let registries = [user, system];
        let says = |text: &str| {
            let resolved = resolve(&registries, &parse(text).expect("a reference"));
            resolved.map(|found| to_string(&found).expect("a reference")).map_err(|error| error.message)
        };
        assert_eq!(says("n").as_deref(), Ok("github:NixOS/nixpkgs"));
        assert_eq!(says("n/release-1").as_deref(), Ok("github:NixOS/nixpkgs/release-1"));
        assert_eq!(says("exact").as_deref(), Ok("path:/e"));
        assert_eq!(says("exact/main"), Err("don't know how to set branch/tag of input 'path:/not'".to_owned()));
        assert_eq!(says("loop"), Err("cycle detected in flake registry for 'flake:loop'".to_owned()));
        assert_eq!(says("other"), Err("cannot find flake 'flake:other' in the flake registries".to_owned()));
        assert_eq!(says("github:a/b").as_deref(), Ok("github:a/b"));
    }

    #[test]
    fn what_is_no_registry_says_nothing() {
        for text in
            ["", "[]", "{\"version\": 1, \"flakes\": []}", "{\"version\": 2}", "{\"version\": 2, \"flakes\": [1]}"]
        {
            assert!(Registry::read(text.as_bytes()).is_none(), "{text}");
        }
    }
}
