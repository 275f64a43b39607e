//! OCI images from the command line: out as a file, a stream or a directory, and in again.

use std::fs;

use crate::world::{World, have, small};

#[test]
fn an_image_goes_out_and_comes_back_to_the_same_id() {
    let (from, id) = small();
    let world = World::new();
    let (file, layout) = (world.path("small.oci.tar"), world.path("layout"));
    let (file, layout) = (file.to_str().unwrap(), layout.to_str().unwrap());
    from.forge(["export", id, "--format", "oci", "-o", file]).ok();
    from.forge(["export", id, "--format", "oci-layout", "-o", layout]).ok();
    let streamed = from.command(["export", id, "--format", "oci-archive", "-o", "-"]).output().unwrap();
    assert!(streamed.stdout == fs::read(file).unwrap(), "a stream is the same file");

    let inspected = world.forge(["inspect", file, "--json"]).json();
    assert_eq!((&inspected["format"], &inspected["compression"]), (&"oci".into(), &"zstd".into()));
    assert_eq!(inspected["formation"]["id"], id.as_str());
    assert_eq!(inspected["parts"].as_array().unwrap().len(), 3);
    assert_eq!(world.forge(["inspect", layout, "--json"]).json()["format"], "oci-layout");
    assert_eq!(world.forge(["import", layout]).id(), *id);
    assert_eq!(world.forge(["run", "small"]).ok().stdout, "hello, world\n");
    assert_eq!(world.forge(["info", "small", "--json"]).json()["layers"].as_array().unwrap().len(), 3);
    // From there it goes out as the same bytes: the layers came along.
    let again = world.path("again.tar");
    world.forge(["export", "small", "--format", "oci", "-o", again.to_str().unwrap()]).ok();
    assert!(fs::read(again).unwrap() == fs::read(file).unwrap());
    // In place, too.
    let other = World::new();
    assert_eq!(other.forge(["run", file]).ok().stdout, "hello, world\n");
}

#[test]
fn a_damaged_image_is_found_out_and_a_layout_is_not_written_over_anything() {
    let (from, id) = small();
    let world = World::new();
    let layout = world.path("layout");
    let path = layout.to_str().unwrap();
    from.forge(["export", id, "--format", "oci-layout", "-o", path]).ok();
    assert_eq!(from.forge(["export", id, "--format", "oci-layout", "-o", path]).code, Some(2));
    from.forge(["export", id, "--format", "oci-layout", "-o", path, "--force"]).ok();
    let home = world.path("home");
    let refused = from.forge(["export", id, "--format", "oci-layout", "-o", home.to_str().unwrap(), "--force"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert_eq!(from.forge(["export", id, id, "--format", "tar"]).code, Some(2));
    let twice = from.forge(["export", id, id, "--format", "oci", "-o", world.path("twice").to_str().unwrap()]);
    assert_eq!(twice.code, Some(2), "{}", twice.stderr);
    assert!(!world.path("twice").exists());

    let largest = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap());
    let largest = largest.max_by_key(|entry| entry.metadata().unwrap().len()).unwrap().path();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let damaged = world.forge(["import", path]);
    assert_eq!(damaged.code, Some(13), "{}", damaged.stderr);
    assert!(damaged.stderr.contains("have digest sha256:") || damaged.stderr.contains("bad"), "{}", damaged.stderr);
    let missing = world.forge(["import", path, "--platform", "linux/s390x"]);
    assert!(missing.code == Some(13) && missing.stderr.contains("linux/s390x"), "{}", missing.stderr);
}

#[test]
fn skopeo_agrees_on_what_an_image_is() {
    if !have("skopeo") {
        return;
    }
    let (from, id) = small();
    let world = World::new();
    let layout = world.path("layout");
    from.forge(["export", id, "--format", "oci-layout", "--compression", "gzip:1", "-o", layout.to_str().unwrap()])
        .ok();
    let from = format!("oci:{}", layout.display());
    let output = std::process::Command::new("skopeo").args(["inspect", "--config", &from]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["sh", "/app/hello.sh", "world"]));
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
}

#[test]
fn images_of_two_platforms_go_into_one_file_and_each_comes_back() {
    let world = World::new();
    world.write("root/etc/motd", "hello\n");
    let ids = ["linux/amd64", "linux/arm64"].map(|platform| {
        world.forge(["import", "root", "--name", "both", "--version", "1", "--platform", platform]).id()
    });
    let (one, other) = ("both.oci.tar", "turned.oci.tar");
    world.forge(["export", &ids[0], &ids[1], "--format", "oci", "-o", one]).ok();
    world.forge(["export", &ids[1], &ids[0], "--format", "oci", "-o", other]).ok();
    let read = |name: &str| fs::read(world.path("project").join(name)).unwrap();
    assert!(read(one) == read(other), "the order in which they are named does not show");
    for (id, platform) in ids.iter().zip(["linux/amd64", "linux/arm64"]) {
        let inspected = world.forge(["inspect", one, "--platform", platform, "--json"]).json();
        assert_eq!((&inspected["formation"]["id"], &inspected["platform"]), (&id.as_str().into(), &platform.into()));
        assert_eq!(inspected["facts"]["images"], "linux/amd64, linux/arm64");
        assert_eq!(
            World::new()
                .forge(["import", world.path("project/both.oci.tar").to_str().unwrap(), "--platform", platform])
                .id(),
            *id
        );
    }
    let missing = world.forge(["inspect", one, "--platform", "linux/s390x"]);
    assert!(missing.code == Some(13) && missing.stderr.contains("linux/arm64"), "{}", missing.stderr);
}

#[test]
fn an_image_is_what_a_derivation_gives() {
    let world = World::new();
    world.write("app/page", "hello\n");
    world.write(
        "images.expr",
        r#"{ forge }:
let
  base = forge.formation { name = "base"; layers = [ (forge.files { "/etc/passwd" = "web:x:7:7::/srv:\n"; }) ]; };
  web = forge.extend base {
    name = "web";
    version = "1.2.0";
    layers = [ (forge.files { "/srv" = ./app; }) ];
    description = "A page";
    entrypoint = [ "cat" ];
    command = [ "/srv/page" ];
    environment.COLOR = "blue";
    directory = "/srv";
    user = "web:7";
    limits = { memory = "64M"; cpus = 0.5; pids = 9; timeout = "10s"; };
    ports = [ 80 "53/udp" ];
    stopSignal = "SIGINT";
    capabilities = [ "NET_RAW" ];
    labels."org.example.team" = "search";
  };
  packed = format: forge.image { formation = web; inherit format; };
in
{
  inherit web;
  oci = forge.image { formation = web; };
  sif = packed "sif";
  squashfs = packed "squashfs";
  tar = packed "tar";
  moon = packed "moon";
  none = forge.image { formation = 3; };
  shelf = forge.formation { name = "shelf"; layers = [ (forge.files { "/images/web.tar" = packed "oci"; }) ]; };
}
"#,
    );
    let built = world.forge(["build", "images.expr", "-A", "web"]).id();
    for format in ["oci", "sif", "squashfs", "tar"] {
        let (file, exported) = (world.path(format!("{format}.built")), world.path(format!("{format}.exported")));
        let (file, exported) = (file.to_str().unwrap(), exported.to_str().unwrap());
        let ran = world.forge(["build", "images.expr", "-A", format, "-o", file]);
        assert!(ran.ok().stdout.contains("-web-1.2.0-linux-amd64."), "{}", ran.stdout);
        world.forge(["export", &built, "--format", format, "-o", exported]).ok();
        assert!(fs::read(file).unwrap() == fs::read(exported).unwrap(), "{format}");
        assert_eq!(World::new().forge(["import", file]).id(), built, "{format}");
    }
    // A file like any other, and it is made once.
    world.forge(["build", "images.expr", "-A", "shelf"]).ok();
    let listed = world.forge(["export", "shelf", "--format", "tar", "-o", "-"]).ok().stdout.contains("images/web.tar");
    assert!(listed);
    for (attribute, words) in [("moon", "one of oci, sif, squashfs, tar"), ("none", "`formation` is a formation")] {
        let ran = world.forge(["build", "images.expr", "-A", attribute]);
        assert!(ran.code == Some(1) && ran.stderr.contains(words), "{}", ran.stderr);
    }
    let formation = world.forge(["build", "images.expr", "-A", "web", "-o", "x"]);
    assert!(formation.code == Some(2) && formation.stderr.contains("forge export web -o FILE"), "{formation:?}");
}
