//! What is said of formations: how two differ, what one is made of, how it was made.

use std::process::Command;

use crate::world::{World, have, small};

const FIRST: &str = r#"{ forge }:
forge.formation {
  name = "pair";
  version = "1";
  layers = [ (forge.files { "/etc/greeting" = "good day\nand\ngood night\n"; "/gone/a" = "a"; "/gone/b" = "b"; }) ];
  environment.COLOR = "blue";
  command = [ "/bin/true" ];
}
"#;

#[test]
fn a_difference_is_shown_setting_by_setting_and_line_by_line() {
    let world = World::new();
    world.write("first.expr", FIRST);
    let second =
        FIRST.replace("and\\n", "or\\n").replace("\"/gone/a\" = \"a\"; \"/gone/b\" = \"b\"", "\"/new\" = \"n\"");
    world.write("second.expr", &second.replace("blue", "red").replace("version = \"1\"", "version = \"2\""));
    let (first, second) = (world.build("first.expr"), world.build("second.expr"));

    let ran = world.forge(["diff", &first, &second]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let expected = "- launch.environment.COLOR = \"blue\"\n+ launch.environment.COLOR = \"red\"\n\
                    - version = \"1\"\n+ version = \"2\"\n\
                    ~ /etc/greeting  size 24 → 23, content\n    @@ -1,3 +1,3 @@\n     good day\n    -and\n    +or\n     good night\n\
                    - /gone/  (2 below: -v lists them)\n+ /new\n";
    assert_eq!(ran.stdout, expected);
    assert!(world.forge(["diff", "-v", &first, &second]).stdout.contains("- /gone/b\n"));
    let ran = world.forge(["diff", "--json", &first, &second]);
    let json = ran.json();
    assert_eq!((ran.code, json["same"].as_bool()), (Some(1), Some(false)));
    assert_eq!(json["settings"][0]["before"], "blue");
    let paths: Vec<_> = json["paths"].as_array().unwrap().iter().map(|path| path["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/etc/greeting", "/gone", "/gone/a", "/gone/b", "/new"]);

    // An artifact and the formation that it was made from are the same.
    world.forge(["export", "--format", "squashfs", "-o", "first.squashfs", &first]).ok();
    assert_eq!(world.forge(["diff", &first, "./first.squashfs"]).ok().stdout, "");
    assert_eq!(world.forge(["diff", "--quiet", &second, "./first.squashfs"]).code, Some(1));
    assert_eq!(world.forge(["diff", &first, "./nothing"]).code, Some(10));
    // A directory is compared by its files alone, with their owners and modes.
    world.write("tree/etc/greeting", "good day\nand\ngood night\n");
    let ran = world.forge(["diff", "--json", "tree", "./first.squashfs"]).json();
    let paths = ran["paths"].as_array().unwrap();
    let gone = paths.iter().find(|path| path["path"] == "/gone/a").unwrap();
    assert_eq!((ran["settings"].as_array().unwrap().len(), gone["change"].as_str()), (0, Some("added")));
    assert!(
        paths.iter().all(|path| path["path"] != "/etc/greeting" || !path["aspects"].to_string().contains("content"))
    );
}

#[test]
fn images_of_others_are_compared_by_how_they_are_run_too_and_what_cannot_be_read_is_no_difference() {
    let world = World::new();
    for (name, colour) in [("one", "blue"), ("two", "red")] {
        world.write(&format!("{name}/manifest.json"), r#"[{"Config":"c.json","RepoTags":null,"Layers":[]}]"#);
        let config = r#"{"architecture":"amd64","os":"linux","config":{"Env":["COLOR=?"],"Cmd":["/bin/true"]}}"#;
        world.write(&format!("{name}/c.json"), &config.replace('?', colour));
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(world.path(format!("project/{name}.tar")));
        tar.arg("-C").arg(world.path(format!("project/{name}"))).args(["manifest.json", "c.json"]);
        assert!(tar.status().unwrap().success());
    }
    let ran = world.forge(["diff", "./one.tar", "./two.tar"]);
    let expected = "- launch.environment.COLOR = \"blue\"\n+ launch.environment.COLOR = \"red\"\n";
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), expected), "{}", ran.stderr);
    world.forge(["diff", "./one.tar", "./one.tar"]).ok();
    // A formation has a name as well, which is not held against what has none.
    world.write("first.expr", FIRST);
    let first = world.build("first.expr");
    let ran = world.forge(["diff", "--json", &first, "./one.tar"]).json();
    let names: Vec<_> = ran["settings"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.iter().all(|name| name.starts_with("launch.")) && !names.contains(&"launch.command"), "{names:?}");
    // The code of a difference is not that of a failure.
    world.write("noise", "neither this nor that");
    assert_eq!(world.forge(["diff", "./noise", &first]).code, Some(2));
}

#[test]
fn what_a_formation_is_made_of_is_written_down_and_the_same_every_time() {
    let (world, id) = small();
    let document = world.forge(["sbom", id]).json();
    let packages = document["packages"].as_array().unwrap();
    let bash = packages.iter().find(|package| package["name"] == "bash").expect("bash is essential");
    assert_eq!(bash["checksums"][0]["algorithm"], "SHA256");
    assert!(bash["licenseDeclared"].as_str().unwrap().contains("GPL-3.0-or-later"), "{bash}");
    let purl = bash["externalRefs"][0]["referenceLocator"].as_str().unwrap();
    assert!(purl.starts_with("pkg:deb/debian/bash@") && purl.ends_with("&distro=debian-12"), "{purl}");
    world.forge(["sbom", id, "-o", "sbom.spdx.json"]).ok();
    let text = std::fs::read_to_string(world.path("project/sbom.spdx.json")).unwrap();
    assert_eq!(text, world.forge(["sbom", "small"]).ok().stdout);
    if have("pyspdxtools") {
        let file = world.path("project/sbom.spdx.json");
        assert!(Command::new("pyspdxtools").arg("-i").arg(file).status().unwrap().success());
    }

    let statement = world.forge(["provenance", id]).json();
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(statement["subject"][0]["digest"]["blake3"], id.as_str());
    judged_by_in_toto(world, id);
    let definition = &statement["predicate"]["buildDefinition"];
    let dependencies = definition["resolvedDependencies"].as_array().unwrap();
    // Every package that was unpacked is one; so is the project's directory.
    assert!(dependencies.len() > packages.len() - 2 && dependencies.iter().any(|one| one["name"] == "source"));
    let steps = definition["internalParameters"]["steps"].as_array().unwrap();
    assert!(steps.iter().any(|step| step["builder"] == "builtin:run"));
    // Both go along with an image, as referrers of its manifest.
    world.forge(["export", id, "--format", "oci-layout", "-o", "image", "--attach", "sbom,provenance"]).ok();
    let read = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(world.path("project/image").join(path)).unwrap()).unwrap()
    };
    let blob = |descriptor: &serde_json::Value| {
        read(&format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/")))
    };
    let index = read("index.json");
    let [image, sbom, provenance] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index}") };
    for (referrer, content, media_type) in
        [(sbom, &document, "application/spdx+json"), (provenance, &statement, "application/vnd.in-toto+json")]
    {
        let manifest = blob(referrer);
        assert_eq!(manifest["subject"]["digest"], image["digest"]);
        assert_eq!((&manifest["artifactType"], &referrer["artifactType"]), (&media_type.into(), &media_type.into()));
        assert_eq!(&blob(&manifest["layers"][0]), content);
    }
    assert_eq!(world.forge(["import", "image"]).ok().stdout.trim(), id);
    assert_eq!(world.forge(["export", id, "--format", "sif", "--attach", "sbom"]).code, Some(2));
    assert_eq!(world.forge(["sbom", "nobody-built-this"]).code, Some(10));
    // Whoever has only an artifact has its packages, and not how it was built.
    let other = World::new();
    world.forge(["export", id, "--format", "sif", "-o", other.path("small.sif").to_str().unwrap()]).ok();
    other.forge(["import", other.path("small.sif").to_str().unwrap()]).ok();
    assert_eq!(other.forge(["sbom", id]).json()["packages"].as_array().unwrap().len(), packages.len());
    let unknown = other.forge(["provenance", id]);
    assert!(unknown.code == Some(10) && unknown.stderr.contains("not built in this store"), "{}", unknown.stderr);
}

/// in-toto's own types take the statement and SLSA's predicate in, and refuse what is not of them.
fn judged_by_in_toto(world: &World, id: &str) {
    const JUDGE: &str = "
import json, sys
from google.protobuf import json_format
from in_toto_attestation.v1 import statement, statement_pb2
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
document = json.load(sys.stdin)
read = json_format.ParseDict(document, statement_pb2.Statement())
statement.Statement.copy_from_pb(read).validate()
predicate = json_format.ParseDict(document['predicate'], provenance_pb2.Provenance())
assert predicate.build_definition.build_type and predicate.run_details.builder.id
";
    let known = Command::new("python3").args(["-c", "import in_toto_attestation, google.protobuf"]).output();
    if !known.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no in_toto_attestation");
        return;
    }
    world.forge(["provenance", id, "-o", "provenance.json"]).ok();
    let document = std::fs::File::open(world.path("project/provenance.json")).unwrap();
    let judged = Command::new("python3").args(["-c", JUDGE]).stdin(document).output().unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
}
