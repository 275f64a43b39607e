//! What the ecosystems' own files become, and runtimes by name and version. Real packages in numbers are in `real_packages.rs`.

use std::fs;
use std::path::Path;

use crate::world::World;

/// A formation of one file, with a version.
fn tiny(version: &str) -> String {
    format!(
        "{{ forge }}:\nforge.formation {{\n  name = \"app\";\n  version = \"{version}\";\n  description = \"Version {version}\";\n  \
         layers = [ (forge.files {{ \"/version\" = \"{version}\"; }}) ];\n}}\n"
    )
}

#[test]
fn runtimes_are_found_by_name_version_and_constraint() {
    let world = World::new();
    let mut ids = Vec::new();
    for version in ["1.2.0", "1.10.3", "2.0.0"] {
        world.write("runtime.expr", &tiny(version));
        ids.push(world.build("runtime.expr"));
    }
    let found =
        |given: &str| world.forge(["info", given, "--json"]).json()["id"].as_str().unwrap_or_default().to_owned();
    for (given, expected) in [
        ("app", 2),
        ("app@latest", 2),
        ("app@2.0.0", 2),
        ("app@1", 1),
        ("app@1.2", 0),
        ("app@1.2.0", 0),
        ("app@>=1.3", 2),
        ("app@<2", 1),
        ("app:1", 1),
    ] {
        assert_eq!(found(given), ids[expected], "{given}");
    }
    let list = world.forge(["list"]);
    let list = list.ok();
    assert!(list.stdout.starts_with("RUNTIME"), "{}", list.stdout);
    assert!(list.stdout.contains("Version 1.10.3") && list.stdout.ends_with("Total runtimes: 3\n"), "{}", list.stdout);

    // A version that is not here: those that are.
    let other = world.forge(["run", "app@3"]);
    let here = "no version of `app` is `3`\nhint: here are: 1.2.0, 1.10.3, 2.0.0\n";
    assert!(other.code == Some(125) && other.stderr.contains(here), "{}", other.stderr);
    // Names as they were written once.
    world.forge(["tag", "app@1.2.0", "java:17"]).ok();
    assert_eq!((found("java:17"), found("java@17")), (ids[0].clone(), ids[0].clone()));
    world.forge(["rm", "java:17"]).ok();
    assert_eq!(world.forge(["info", "java:17"]).code, Some(10));

    // The name goes on to the version before; the whole name goes with its versions.
    assert_eq!(world.forge(["rm", "app@2.0.0"]).ok().stderr, "");
    assert_eq!(found("app"), ids[1]);
    // What was not typed is said.
    assert_eq!(world.forge(["rm", "app"]).ok().stderr, "removed app, app@1.2.0, app@1.10.3\n");
    let gone = world.forge(["info", "app@1"]);
    assert_eq!(gone.code, Some(10));
    assert!(gone.stderr.contains("not found: app@1") && gone.stderr.contains("hint: `forge list`"), "{}", gone.stderr);
}

#[test]
fn what_a_build_would_do_is_said_and_not_done() {
    let world = World::new();
    let hash = "0".repeat(64);
    world.write(
        "runtime.expr",
        &format!(
            "{{ forge }}:\nforge.formation {{\n  name = \"app\";\n  version = \"1\";\n  layers = [ (forge.files {{ \"/own\" = \"own\"; }}) \
             (forge.files {{ \"/far\" = forge.fetchurl {{ url = \"http://127.0.0.1:1/far.bin\"; sha256 = \"{hash}\"; }}; }}) ];\n}}\n"
        ),
    );
    let would = world.forge(["build", "--dry-run"]);
    let (first, last) = ("    fetch far.bin\n", "1 file to fetch, 2 steps to make, 0 results here\n");
    assert!(would.ok().stdout.starts_with(first) && would.stdout.ends_with(last), "{}", would.stdout);
    assert_eq!(world.forge(["list"]).ok().stdout.lines().last(), Some("Total runtimes: 0"));
    let record = world.forge(["build", "-n", "--json"]).json();
    assert_eq!(record["fetch"][0]["name"], "far.bin");
    assert_eq!((&record["known"], record["make"].as_array().map(Vec::len)), (&0.into(), Some(2)));
    assert_eq!(world.forge(["build", "--dry-run", "--check"]).code, Some(2));
    world.write("runtime.expr", &tiny("1.0.0"));
    world.build("runtime.expr");
    let nothing = world.forge(["build", "--dry-run"]);
    assert_eq!(nothing.ok().stdout, "0 files to fetch, 0 steps to make, 1 result here\n");
    // What is not locked yet is asked for, and the lock stays as it is.
    world.write(
        "new/runtime.expr",
        "{ forge }: forge.formation { name = \"new\"; layers = [ (forge.debian { packages = [ ]; }) ]; }\n",
    );
    let would = world.forge(["build", "--dry-run", "new"]);
    assert!(would.ok().stdout.contains("    fetch base-files_") && would.stdout.contains("MiB)"), "{}", would.stdout);
    assert!(would.stdout.ends_with("new/forge.lock would be written\n"), "{}", would.stdout);
    assert!(!world.path("project/new/forge.lock").exists());
    assert_eq!(world.forge(["build", "--dry-run", "--locked", "new"]).code, Some(15));
    // What cannot end well is not begun.
    world.write(
        "runtime.expr",
        "{ forge }: forge.formation { name = \"app\"; layers = [ (forge.files { \"/x\" = forge.fetchurl { url = \"http://127.0.0.1:1/x\"; }; }) ]; }\n",
    );
    let lock = format!(
        "version = 1\n\n[[lock]]\nkind = \"url\"\nrequest = {{ url = \"http://127.0.0.1:1/x\" }}\nrecords = [\n  {{ sha256 = \"{hash}\", size = 9000000000000000000 }},\n]\n"
    );
    world.write("forge.lock", &lock);
    let large = world.forge(["build", "--locked"]);
    assert!(large.code == Some(14) && large.stderr.contains("error: insufficient disk space: "), "{large:?}");
}

#[test]
fn a_runtime_that_is_not_there_names_the_command_that_makes_it() {
    let world = World::new();
    for (given, name) in [("python-3.11-ml", "python-3.11-ml"), ("java:17", "openjdk-17"), ("nodejs-20@1", "nodejs-20")]
    {
        let ran = world.forge(["run", given]);
        assert_eq!(ran.code, Some(125));
        let wanted = format!("hint: `forge build {name}` makes it");
        assert!(ran.stderr.contains(&format!("not found: {given}")) && ran.stderr.contains(&wanted), "{}", ran.stderr);
    }
    for words in [["run", "python-3.11@3"], ["build", "python-3.11@3"]] {
        let ran = world.forge(words);
        let hint = "hint: `forge build python-3.11` makes version 1.0.0";
        assert!(ran.code != Some(0) && ran.stderr.contains(hint), "{}", ran.stderr);
    }
    // Every name is one of the library's, and the library has no other.
    let names = world.forge(["eval", "--json", "-E", "{ forge }: builtins.attrNames forge.runtimes"]);
    assert_eq!(
        names.json(),
        serde_json::json!(["nodejs-20", "openjdk-17", "openjdk-21", "python-3.11", "python-3.11-ml"])
    );
    // A test is part of a formation; one without says so.
    world.write("runtime.expr", &tiny("1.0.0"));
    world.build("runtime.expr");
    let untested = world.forge(["test", "app"]);
    assert!(untested.code != Some(0) && untested.stderr.contains("has no test"), "{}", untested.stderr);
}

#[test]
fn a_description_of_joblet_is_checked_whole_and_becomes_an_expression() {
    let world = World::new();
    world.write("bad.yaml", "name: Bad Name\nversion: \"1\"\nbase:\n  language: cobol\n  version: \"3\"\npip: numpy\n");
    let checked = world.forge(["validate", "bad.yaml"]);
    assert_eq!(checked.code, Some(1));
    for (place, word) in [("2", "three numbers"), ("4", "cobol"), ("6", "a list")] {
        assert!(
            checked.stderr.contains(word) && checked.stderr.contains(&format!("bad.yaml:{place}:")),
            "{}",
            checked.stderr
        );
    }
    let built = world.forge(["build", "bad.yaml"]);
    assert!(built.code == Some(1) && built.stderr.contains("cobol"), "{}", built.stderr);

    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/joblet/runtime.yaml");
    world.write("good/runtime.yaml", &fs::read_to_string(example).unwrap());
    world.forge(["validate", "good"]).ok();
    let turned = world.forge(["import", "joblet", "good/runtime.yaml"]);
    let expression = turned.ok().stdout.clone();
    assert!(
        expression.contains("\"less\"") && expression.contains("mkdir -p /data") && !expression.contains("apt-get")
    );
    world.write("turned.expr", &expression);
    world.forge(["check", "turned.expr"]).ok();

    world.write("net.yaml", "name: a\nversion: 1.0.0\nbase: { language: go, version: \"1.19\" }\nhooks:\n  post_install: |\n    curl -O https://host.example/x\n");
    let said = world.forge(["import", "joblet", "net.yaml"]);
    assert!(said.ok().stderr.contains("cannot be turned") && said.stderr.contains("net.yaml:6"), "{}", said.stderr);
}

#[test]
fn what_a_hook_of_joblet_says_reaches_the_step_byte_for_byte() {
    let world = World::new();
    world.write(
        "script.expr",
        r#"
        let
          same = layer: layer;
          formation = import ./turned.expr { forge = { formation = same; debian = same; python = same; run = same; }; };
        in (builtins.elemAt formation.layers 1).script
        "#,
    );
    for script in [
        "cat > /x <<'EOF'\n#!/bin/sh\n\n# why\napt-get install -y less\n\ta \\\n   b\nEOF\n",
        "echo '${HOME}' \"''\" ''' '$x' $${y} $$${z} '$${a}' ''\\\n''${b}' > /x\n",
        "  touch /x\n\n   \n    touch /y\n",
        "\n\n  touch '\r\r\n' ''\r\n\tb\r\n",
        "touch /'\n",
    ] {
        let text = serde_json::to_string(script).unwrap();
        world.write(
            "hook.yaml",
            &format!(
                "name: a\nversion: 1.0.0\nbase: {{ language: go, version: \"1.19\" }}\nhooks:\n  post_install: {text}\n"
            ),
        );
        let turned = world.forge(["import", "joblet", "hook.yaml"]).ok().stdout.clone();
        world.write("turned.expr", &turned);
        let told = world.forge(["eval", "--json", "script.expr"]).json();
        assert_eq!(told.as_str(), Some(script), "{turned}");
    }
}

#[test]
fn what_cannot_be_followed_is_refused_in_words() {
    let world = World::new();
    let formation = |layer: &str| {
        format!(
            "{{ forge }}:\nforge.formation {{\n  name = \"x\";\n  layers = [\n    (forge.debian {{ }})\n    ({layer})\n  ];\n}}\n"
        )
    };
    world.write("old.json", r#"{ "lockfileVersion": 1, "dependencies": {} }"#);
    world.write(
        "package-lock.json",
        r#"{ "lockfileVersion": 3, "packages": {
            "": { "name": "app" },
            "node_modules/esbuild": { "version": "1.0.0", "hasInstallScript": true, "integrity": "sha512-x" },
            "node_modules/ms": { "version": "1.0.0", "integrity": "sha512-x" }
        } }"#,
    );
    world.write(
        "Cargo.lock",
        "version = 3\n[[package]]\nname = \"a\"\nversion = \"1\"\nsource = \"git+https://host.example/a#1\"\n",
    );
    for (layer, said) in [
        ("forge.node { lock = ./old.json; }", "version 2 or 3"),
        ("forge.node { lock = ./package-lock.json; scripts = [ \"esbuidl\" ]; }", "did you mean `esbuild`?"),
        ("forge.node { lock = ./package-lock.json; scripts = [ \"nosuch\" ]; }", "the lock has no package `nosuch`"),
        ("forge.node { lock = ./package-lock.json; scripts = [ \"esbuild\" \"ms\" ]; }", "`ms` has no install script"),
        ("forge.node { lock = \"x\"; }", "the path of a package-lock.json"),
        ("forge.rust { source = ./.; }", "is of no registry with checksums"),
        ("forge.python { requirements = [ \"six\" ]; lock = ./uv.lock; }", "either `requirements` or `lock`"),
        ("forge.python { }", "`requirements` is missing"),
        ("forge.run { script = \"\"; timeout = \"soon\"; }", "`timeout` is a time"),
        ("forge.java { version = 17; }", "`version` is a string"),
    ] {
        world.write("runtime.expr", &formation(layer));
        let ran = world.forge(["eval", "--strict", "runtime.expr", "-A", "layers"]);
        assert!(ran.code != Some(0) && ran.stderr.contains(said), "{layer}: {}", ran.stderr);
    }
}

#[test]
fn sources_are_taken_without_what_git_ignores() {
    let world = World::new();
    for (name, content) in [
        (".gitignore", "target/\n*.log\n!keep.log\n/top\n# words\ndoc/**/draft-?.txt\n"),
        ("a.log", ""),
        ("keep.log", ""),
        ("top", ""),
        ("sub/top", ""),
        ("target/x", ""),
        ("sub/target/y", ""),
        ("sub/.gitignore", "*.tmp\n"),
        ("sub/b.tmp", ""),
        ("b.tmp", ""),
        ("doc/a/b/draft-1.txt", ""),
        ("doc/draft-10.txt", ""),
        (".git/HEAD", "ref"),
    ] {
        world.write(&format!("src/{name}"), content);
    }
    world.write(
        "runtime.expr",
        "{ forge }:\nforge.formation {\n  name = \"s\";\n  layers = [ (forge.files { \"/src\" = forge.source ./src; }) ];\n}\n",
    );
    world.build("runtime.expr");
    world.forge(["export", "s", "--format", "tar", "-o", "s.tar"]).ok();
    let mut archive = tar_names(&fs::read(world.path("project/s.tar")).unwrap());
    archive.retain(|name| name.contains("src/") && !name.ends_with('/'));
    archive.sort();
    assert_eq!(
        archive.join(" "),
        "src/.gitignore src/b.tmp src/doc/draft-10.txt src/keep.log src/sub/.gitignore src/sub/top"
    );
}

/// The names in a tar archive.
fn tar_names(bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at + 512 <= bytes.len() && bytes[at] != 0 {
        let text = |from: usize, to: usize| {
            String::from_utf8_lossy(&bytes[at + from..at + to]).trim_end_matches(['\0', ' ']).to_owned()
        };
        let size = u64::from_str_radix(text(124, 136).trim(), 8).unwrap_or(0) as usize;
        if matches!(bytes[at + 156], b'0' | b'5' | 0) {
            names.push(text(0, 100).trim_start_matches("./").to_owned());
        }
        at += 512 + size.div_ceil(512) * 512;
    }
    names
}

#[test]
fn a_file_known_by_another_hash_than_sha256_comes_from_peers() {
    let world = World::new();
    let file = world.write("elsewhere/package.tgz", "a package\n");
    let sha512 = hashed(&world, "sha512", &file);
    let expression = |url: &str| {
        format!(
            r#"{{ forge }}:
forge.formation {{
  name = "app";
  layers = [ (forge.files {{ "/package.tgz" = derivation {{
    name = "package.tgz";
    system = "${{builtins.currentSystem or "x86_64-linux"}}";
    builder = "builtin:fetch";
    parameters = builtins.toJSON {{ url = "{url}"; }};
    outputHash = "{sha512}";
    outputHashMode = "flat";
  }}; }}) ];
}}
"#
        )
    };
    world.write("runtime.expr", &expression(&format!("file://{}", file.display())));
    let id = world.build("runtime.expr");
    let peer = format!("file://{}", world.path("peer").display());
    world.forge(["push", "--sources", &id, &peer]).ok();
    // Elsewhere, where the file has gone from where it was: only the peer has it.
    let other = World::new();
    other.write("runtime.expr", &expression("http://127.0.0.1:1/package.tgz"));
    assert_eq!(other.forge(["build"]).code, Some(11));
    other.forge(["remote", "add", "team", &peer]).ok();
    assert_eq!(other.build("runtime.expr"), id);
}

/// The hash of a file as npm writes it.
fn hashed(world: &World, algorithm: &str, file: &Path) -> String {
    let expression = format!(
        "builtins.convertHash {{ hash = builtins.hashFile \"{algorithm}\" {}; hashAlgo = \"{algorithm}\"; toHashFormat = \"sri\"; }}",
        file.display()
    );
    world.forge(["eval", "--json", "-E", &expression]).json().as_str().expect("a text").to_owned()
}
