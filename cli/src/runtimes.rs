//! Runtimes that come with forge, by name; and what kind of runtime a formation is.

use store::Formation;
use store::directory::Record;

/// The names of `forge.runtimes` (`expressions/lib/runtimes.nix`).
pub const NAMES: &[&str] = &["nodejs-20", "openjdk-17", "openjdk-21", "python-3.11", "python-3.11-ml"];

/// The version that they all have.
pub const VERSION: &str = "1.0.0";

/// Whether our runtimes have the version that is asked for in `NAME@CONSTRAINT`.
pub fn has_version(given: &str) -> bool {
    match store::directory::versioned::split(given) {
        Some((name, constraint)) if NAMES.contains(&name) => store::directory::versioned::keeps(VERSION, constraint),
        _ => true,
    }
}

/// The name of a runtime of ours that somebody may mean: as it is, with a version, or as it was written once (`java:17`).
pub fn named(given: &str) -> Option<&'static str> {
    let (name, version) = store::directory::versioned::split(given).unwrap_or((given, ""));
    let hyphened = format!("{name}-{version}");
    let older = match name {
        "java" => format!("openjdk-{version}"),
        "node" => format!("nodejs-{version}"),
        _ => String::new(),
    };
    NAMES.iter().copied().find(|known| [given, name, &hyphened, &older].contains(known))
}

/// The expression of one of them.
pub fn expression(name: &str) -> String {
    format!("{{ forge }}: forge.runtimes.\"{name}\"\n")
}

/// `python`, `java`, `node`, … as the formation says (label `forge.type`), else by what its layers are.
pub fn kind(formation: &Formation, record: &Record) -> String {
    if let Some(kind) = formation.launch.labels.get("forge.type") {
        return kind.clone();
    }
    let layer = |word: &str| record.layers.iter().any(|layer| layer.label.split(' ').next() == Some(word));
    let found = ["python", "node", "java", "rust"].into_iter().find(|word| layer(word));
    found.or(layer("debian").then_some("debian")).unwrap_or("other").to_owned()
}

/// What a formation says of itself.
pub fn description(formation: &Formation) -> &str {
    formation.launch.labels.get("org.opencontainers.image.description").map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_runtimes_have_the_version_that_is_said() {
        let library = include_str!("../../expressions/lib/runtimes.nix");
        assert!(library.contains(&format!("version = \"{VERSION}\";")));
        assert!(has_version("python-3.11@1") && has_version("java:17") && has_version("python-3.11"));
        assert!(!has_version("python-3.11@3"));
    }

    #[test]
    fn old_names_stand_for_new_ones() {
        for (given, expected) in [
            ("python-3.11", Some("python-3.11")),
            ("python-3.11@1.0.0", Some("python-3.11")),
            ("java:17", Some("openjdk-17")),
            ("openjdk:21", Some("openjdk-21")),
            ("node:20", Some("nodejs-20")),
            ("java:8", None),
            ("analysis", None),
        ] {
            assert_eq!(named(given), expected, "{given}");
        }
    }
}
