//! The drawing of the rooms stays true: `docs/ARCHITECTURE.md` against each room's `Cargo.toml`.

use std::fs;
use std::path::Path;

const ROOMS: [&str; 6] = ["store", "expressions", "executor", "builder", "server", "cli"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

#[test]
fn no_room_uses_one_that_the_drawing_does_not_lead_to() {
    let allowed = |room: &str| -> &[&str] {
        match room {
            "store" => &[],
            "expressions" | "executor" | "server" => &["store"],
            "builder" => &["store", "executor"],
            "cli" => &["store", "expressions", "executor", "builder", "server"],
            other => panic!("{other} is no room"),
        }
    };
    for room in ROOMS {
        let text = fs::read_to_string(repository().join(room).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let dependencies = manifest["dependencies"].as_table().unwrap();
        let used: Vec<&str> = dependencies.keys().map(String::as_str).filter(|name| ROOMS.contains(name)).collect();
        for other in used {
            assert!(allowed(room).contains(&other), "{room} uses {other}: draw the arrow first");
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let reasons = fs::read_to_string(repository().join("docs/dependencies.md")).unwrap();
    let manifest: toml::Table = fs::read_to_string(repository().join("Cargo.toml")).unwrap().parse().unwrap();
    let mut names: Vec<String> = manifest["workspace"]["dependencies"].as_table().unwrap().keys().cloned().collect();
    for room in ROOMS {
        let text = fs::read_to_string(repository().join(room).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        for section in ["dependencies", "dev-dependencies"] {
            names.extend(
                manifest
                    .get(section)
                    .and_then(toml::Value::as_table)
                    .into_iter()
                    .flat_map(|table| table.keys().cloned()),
            );
        }
    }
    for name in names.iter().filter(|name| !ROOMS.contains(&name.as_str())) {
        assert!(reasons.contains(&format!("`{name}`")), "docs/dependencies.md does not say why `{name}`");
    }
}

#[test]
fn libraries_leave_the_environment_and_the_terminal_to_cli() {
    let mut found = Vec::new();
    for room in ["store", "expressions", "executor", "builder", "server"] {
        look(&repository().join(room).join("src"), &mut found);
    }
    assert!(found.is_empty(), "{found:#?}");
}

fn look(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            look(&path, found);
            continue;
        }
        if path.file_name().is_some_and(|name| name == "tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let calls = ["env::var", "env::home_dir", "env::current_dir", "println!", "eprintln!", "process::exit"];
            let comment = line.trim_start().starts_with("//");
            if !comment && calls.iter().any(|call| line.contains(call)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
}
