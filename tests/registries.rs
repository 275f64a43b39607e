//! Registries from the command line, judged by one that is not ours: `docker-registry` on a loopback port.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::{Ran, World, free_port, have, small};

/// A registry with its own directory; ends with the test.
struct Registry {
    child: Child,
    host: String,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// None, with words, where there is no such program. `closed`: it wants `user` and `password`.
    fn start(closed: bool) -> Option<Self> {
        if !have("docker-registry") {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let host = format!("127.0.0.1:{}", free_port());
        let path = |name: &str| directory.path().join(name).display().to_string();
        // `htpasswd -nbB -C 4 user password`
        fs::write(path("htpasswd"), "user:$2y$04$Fe3IGkbO3xYzVjjyH/tHzeZXuLbHo/vp7owiSN5Kpo.FbXydjBLNW\n").unwrap();
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path("htpasswd"));
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n{}",
            path("data"),
            if closed { auth } else { String::new() }
        );
        fs::write(path("config.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.args(["serve", &path("config.yml")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { child: command.spawn().unwrap(), host, _directory: directory };
        let until = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&registry.host).is_err() {
            assert!(Instant::now() < until, "the registry does not begin to listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    fn address(&self, rest: &str) -> String {
        format!("oci://{}/{rest}", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn push(world: &World, id: &str, address: &str) -> serde_json::Value {
    world.forge(["push", id, address, "--json"]).ok().json()
}

/// How many parts of a push came to be there in this way.
fn parts(pushed: &serde_json::Value, how: &str) -> usize {
    pushed["parts"].as_array().unwrap().iter().filter(|part| part["how"] == how).count()
}

#[test]
fn a_formation_goes_to_a_registry_and_comes_back_as_the_same() {
    let Some(registry) = Registry::start(false) else { return };
    let (from, id) = small();
    let address = registry.address("team/small");
    let pushed = push(from, id, &address);
    assert_eq!(parts(&pushed, "sent"), 5, "{pushed}");
    assert_eq!(pushed["tags"], serde_json::json!(["1.2", format!("forge-{id}")]));
    let again = push(from, id, &address);
    assert_eq!((parts(&again, "there"), &again["sent"]), (5, &0.into()), "{again}");
    // Another repository of the registry has the layers from the first.
    let mounted = push(from, id, &registry.address("other/small:x"));
    assert_eq!((parts(&mounted, "mounted"), parts(&mounted, "sent")), (4, 1), "{mounted}");

    let world = World::new();
    let (tagged, found) = (format!("{address}:1.2"), format!("{address}@{}", pushed["digest"].as_str().unwrap()));
    let inspected = world.forge(["inspect", &tagged, "--json"]).json();
    assert_eq!((&inspected["format"], &inspected["formation"]["id"]), (&"registry".into(), &id.as_str().into()));
    assert_eq!(world.forge(["pull", id, &address]).id(), *id);
    assert_eq!(world.forge(["pull", &tagged]).id(), *id);
    assert_eq!(world.forge(["import", &tagged]).id(), *id);
    assert_eq!(world.forge(["diff", &tagged, id]).ok().stdout, "");
    assert_eq!(world.forge(["run", &tagged]).ok().stdout, "hello, world\n");
    assert_eq!(World::new().forge(["run", &found, "--", "cat", "/etc/greeting"]).ok().stdout, "good day\n");
    let missing = world.forge(["pull", &format!("{address}:2")]);
    assert_eq!(missing.code, Some(10), "{}", missing.stderr);
    // By its digest it needs no registry any more.
    world.forge(["run", &found]).ok();
    drop(registry);
    assert_eq!(world.forge(["run", &found]).ok().stdout, "hello, world\n");
    let gone = world.forge(["pull", &tagged]);
    assert_eq!(gone.code, Some(11), "{}", gone.stderr);
}

#[test]
fn documents_go_along_and_others_read_what_was_pushed() {
    let Some(registry) = Registry::start(false) else { return };
    let (from, id) = small();
    let address = registry.address("small:x");
    from.forge(["push", id, &address, "--attach", "sbom,provenance"]).ok();
    let inspected = from.forge(["inspect", &address, "--json"]).json();
    let attached = inspected["facts"].as_object().unwrap().keys().filter(|name| name.starts_with("attached")).count();
    assert_eq!(attached, 2, "{inspected}");
    if have("skopeo") {
        let source = format!("docker://{}/small:x", registry.host);
        let output = Command::new("skopeo").args(["inspect", "--tls-verify=false", &source]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("forge.formation"), "{text}");
    }
}

#[test]
fn a_closed_registry_is_opened_by_the_login_files_of_others() {
    let Some(registry) = Registry::start(true) else { return };
    let (from, id) = small();
    let address = registry.address("small:x");
    let refused = from.forge(["push", id, &address]);
    assert_eq!(refused.code, Some(12), "{}", refused.stderr);
    assert!(refused.stderr.contains("podman login"), "{}", refused.stderr);
    // `printf user:password | base64`, and a wrong one.
    let file = |auth: &str| format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, registry.host);
    let (good, wrong) = (file("dXNlcjpwYXNzd29yZA=="), file("dXNlcjp3cm9uZw=="));
    let place = |world: &World, below: &str, text: &str| {
        let path = world.path("home").join(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    };
    let named = World::new();
    let path = place(&named, "elsewhere.json", &good);
    let mut command = from.command(["push", id, &address]);
    let pushed = Ran::of(command.env("REGISTRY_AUTH_FILE", &path).output().unwrap());
    pushed.ok();
    assert!(!pushed.stderr.contains("password"), "{}", pushed.stderr);
    for below in [".docker/config.json", ".config/containers/auth.json"] {
        let world = World::new();
        place(&world, below, &good);
        assert_eq!(world.forge(["pull", &address]).id(), *id, "{below}");
    }
    // A credential helper, as Docker runs it.
    let world = World::new();
    place(&world, ".docker/config.json", r#"{"credsStore": "test"}"#);
    let helper = world.path("home/docker-credential-test");
    let answer = r#"{"ServerURL":"x","Username":"user","Secret":"password"}"#;
    fs::write(
        &helper,
        format!("#!/bin/sh\nread host\n[ \"$1 $host\" = 'get {}' ] && echo '{answer}'\n", registry.host),
    )
    .unwrap();
    fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", world.path("home").display(), std::env::var("PATH").unwrap());
    let pulled = Ran::of(world.command(["pull", &address]).env("PATH", path).output().unwrap());
    assert_eq!(pulled.id(), *id);
    let world = World::new();
    place(&world, ".docker/config.json", &wrong);
    assert_eq!(world.forge(["pull", &address]).code, Some(12));
    place(&world, ".docker/config.json", "{");
    let broken = world.forge(["pull", &address]);
    assert_eq!(broken.code, Some(2), "{}", broken.stderr);
}

#[test]
fn an_image_is_a_base_pinned_by_the_lock() {
    let Some(registry) = Registry::start(false) else { return };
    let (from, id) = small();
    push(from, id, &registry.address("team/small:1.2"));
    let world = World::new();
    let expression = format!(
        r#"{{ forge }}:
forge.extend (forge.oci {{ image = "{}/team/small:1.2"; }}) {{
  name = "above";
  layers = [ (forge.files {{ "/etc/greeting" = "good night\n"; }}) ];
}}
"#,
        registry.host
    );
    world.write("runtime.expr", &expression);
    let built = world.build("runtime.expr");
    let lock = fs::read_to_string(world.path("project/forge.lock")).unwrap();
    assert!(lock.contains("kind = \"oci\"") && lock.matches("unpacked = \"sha256:").count() == 3, "{lock}");
    // The image's command and environment came along.
    assert_eq!(world.forge(["run", "above"]).ok().stdout, "hello, world\n");
    assert_eq!(
        world.forge(["run", "above", "--", "sh", "-c", "cat /etc/greeting; echo $GREETING"]).ok().stdout,
        "good night\ngood day\n"
    );
    assert_eq!(world.forge(["run", "above", "--", "stat", "-c", "%u", "/var/lib/made/uid"]).ok().stdout.trim(), "42");
    // Someone else pushes under the same tag: the lock stays with what it knows.
    let other = World::new();
    other.write(
        "runtime.expr",
        "{ forge }: forge.formation { name = \"small\"; layers = [ (forge.files { \"/x\" = \"y\"; }) ]; }",
    );
    let replaced = other.build("runtime.expr");
    push(&other, &replaced, &registry.address("team/small:1.2"));
    let elsewhere = World::new();
    elsewhere.write("runtime.expr", &expression);
    elsewhere.write("forge.lock", &lock);
    assert_eq!(elsewhere.forge(["build", "--locked"]).id(), built);
    // And with what was fetched it needs no registry.
    drop(registry);
    world.forge(["rm", "above"]).ok();
    assert_eq!(world.forge(["build", "--locked"]).id(), built);
    let fresh = World::new();
    fresh.write("runtime.expr", &expression);
    fresh.write("forge.lock", &lock);
    let failed = fresh.forge(["build", "--locked"]);
    assert_eq!(failed.code, Some(11), "{}", failed.stderr);
}

#[test]
fn a_layout_in_the_project_is_a_base_too() {
    let (from, id) = small();
    let world = World::new();
    let layout = world.path("project/image");
    from.forge(["export", id, "--format", "oci-layout", "-o", layout.to_str().unwrap()]).ok();
    world.write(
        "runtime.expr",
        "{ forge }: forge.extend (forge.oci { image = ./image; }) { name = \"above\"; environment.GREETING = \"bye\"; }",
    );
    world.build("runtime.expr");
    assert_eq!(world.forge(["run", "above"]).ok().stdout, "hello, world\n");
    assert_eq!(world.forge(["run", "above", "--", "sh", "-c", "echo $GREETING"]).ok().stdout, "bye\n");
    assert!(!Path::new(&world.path("project/forge.lock")).exists());
    for (image, word) in [
        ("./nothing", "no OCI layout"),
        ("\"nothing\"", "names a registry"),
        ("3", "is a string"),
        ("\"registry.example/UPPER:1\"", "lower case"),
    ] {
        world.write(
            "bad.expr",
            &format!(
                "{{ forge }}: forge.formation {{ name = \"x\"; layers = [ (forge.oci {{ image = {image}; }}) ]; }}"
            ),
        );
        let failed = world.forge(["build", "bad.expr"]);
        assert!(failed.code != Some(0) && failed.stderr.contains(word), "{image}: {}", failed.stderr);
    }
}
