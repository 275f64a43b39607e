//! How a formation wants to be run, and what a run may replace of it.

use crate::world::{World, is_root, small};

/// A formation over the same Debian root as the small one, with these settings.
fn formation(name: &str, settings: &str) -> (&'static World, String) {
    let (world, _) = small();
    let file = format!("{name}.expr");
    world.write(
        &file,
        &format!("{{ forge }}:\nforge.formation {{\n  name = \"{name}\";\n  layers = [ (forge.debian {{ packages = [ ]; }}) ];\n{settings}\n}}\n"),
    );
    (world, world.build(&file))
}

#[test]
fn an_entrypoint_comes_first_and_both_can_be_replaced() {
    let settings = r#"entrypoint = [ "echo" "entry" ]; command = [ "own" "words" ];"#;
    let (world, _) = formation("entry", settings);
    let run = |arguments: &[&str]| world.forge([&["run", "entry"], arguments].concat()).ok().stdout.clone();
    assert_eq!(run(&[]), "entry own words\n");
    assert_eq!(run(&["--", "given"]), "entry given\n");
    assert_eq!(run(&["--entrypoint", "printf", "--", "%s.", "a", "b"]), "a.b.");
    assert_eq!(run(&["--entrypoint", "", "--", "echo", "alone"]), "alone\n");
    // The command was meant for the first entrypoint.
    assert_eq!(world.forge(["run", "entry", "--entrypoint", ""]).code, Some(125));
    assert_eq!(run(&["--entrypoint", "pwd"]), "/\n");
    let info = world.forge(["info", "entry"]).ok().stdout.clone();
    assert!(info.contains("entrypoint   echo entry\n") && info.contains("command      own words\n"), "{info}");
}

#[test]
fn a_user_is_looked_up_in_the_formation_itself() {
    let (world, _) = formation("user", r#"user = "www-data"; command = [ "id" ];"#);
    let run = |arguments: &[&str]| world.forge([&["run", "user"], arguments].concat()).ok().stdout.clone();
    let id = |arguments: &[&str]| run(arguments).split(" groups=").next().unwrap().trim().to_owned();
    assert_eq!(id(&[]), "uid=33(www-data) gid=33(www-data)");
    assert_eq!(id(&["--user", "games"]), "uid=5(games) gid=60(games)");
    assert_eq!(id(&["--user", "5"]), "uid=5(games) gid=60(games)");
    assert_eq!(id(&["--user", "5:adm"]), "uid=5(games) gid=4(adm)");
    assert_eq!(id(&["--user", "games:7"]), "uid=5(games) gid=7(lp)");
    assert_eq!(id(&["--user", "1234"]), "uid=1234 gid=0(root)");
    // At home where /etc/passwd says, unless somebody says something else.
    let home = |arguments: &[&str]| run(&[arguments, &["--", "sh", "-c", "echo $HOME"]].concat());
    assert_eq!(home(&[]), "/var/www\n");
    assert_eq!(home(&["--user", "games"]), "/usr/games\n");
    assert_eq!(home(&["--user", "1234"]), "/\n");
    assert_eq!(home(&["--user", "root"]), "/root\n");
    assert_eq!(home(&["--user", "games", "-e", "HOME=/tmp"]), "/tmp\n");
    let (_, small) = small();
    let root = world.forge(["run", small, "--user", "games", "--", "sh", "-c", "echo $HOME"]);
    assert_eq!(root.ok().stdout, "/usr/games\n");
    // The kernel knows a user's own group among the further ones, as under podman (CVE-2022-2989).
    if is_root() {
        let groups = |arguments: &[&str]| run(&[arguments, &["--", "grep", "^Groups:", "/proc/self/status"]].concat());
        let numbers = |text: String| text.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(numbers(groups(&[])), ["33"]);
        assert_eq!(numbers(groups(&["--user", "1234:99"])), ["99"]);
        assert_eq!(numbers(groups(&["--user", "root"])), ["0"]);
    }
    let unknown = world.forge(["run", "user", "--user", "nobody-here"]);
    assert_eq!(unknown.code, Some(125));
    assert!(unknown.stderr.contains("the formation has no user `nobody-here`"), "{}", unknown.stderr);
    assert_eq!(world.forge(["run", "user", "--user", "a:b:c"]).code, Some(125));
    // As it was written, and not what it stands for.
    assert_eq!(world.forge(["info", "user", "--json"]).json()["launch"]["user"], "www-data");
}

#[test]
fn labels_ports_variant_and_stop_signal_are_part_of_the_identity() {
    let settings = r#"
  version = "1"; variant = "cuda"; ports = [ 8080 "53/udp" "443/tcp" ]; stopSignal = "rtmin+3";
  labels = { "org.example.team" = "search"; "org.example.number" = 3; };
  command = [ "true" ];"#;
    let (world, id) = formation("labels", settings);
    let info = world.forge(["info", "labels", "--json"]).json();
    assert_eq!(info["variant"], "cuda");
    assert_eq!(info["launch"]["ports"], serde_json::json!(["53/udp", "443/tcp", "8080/tcp"]));
    assert_eq!(info["launch"]["stop_signal"], "SIGRTMIN+3");
    let labels = serde_json::json!({ "org.example.number": "3", "org.example.team": "search" });
    assert_eq!(info["launch"]["labels"], labels);
    let (_, other) = formation("labels", &settings.replace("search", "other"));
    assert_ne!(id, other);
    let exported = world.forge(["export", "labels", "--format", "sif", "--force"]).ok().stdout.clone();
    assert_eq!(exported.lines().last(), Some("labels-1-cuda-linux-amd64.sif"));
    let listens = world.forge(["run", "labels", "--network", "host", "-p", "9000", "--json"]);
    assert!(
        listens.ok().stderr.contains(r#""ports":["53/udp","443/tcp","8080/tcp","9000/tcp"]"#),
        "{}",
        listens.stderr
    );
    // A host's port is what it is: only a closed network has others inside.
    let other = world.forge(["run", "labels", "--network", "host", "-p", "9001:9000"]);
    assert_eq!(other.code, Some(125), "{}", other.stderr);
}

#[test]
fn a_run_is_asked_to_end_by_its_stop_signal() {
    let script = r#"trap 'echo int; exit 0' INT; trap 'echo quit; exit 0' QUIT; while true; do sleep 0.05; done"#;
    let settings = format!(r#"stopSignal = "SIGQUIT"; limits.timeout = "2s"; command = [ "sh" "-c" "{script}" ];"#);
    let (world, _) = formation("stop", &settings);
    let ran = world.forge(["run", "stop"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(124), "quit\n"), "{}", ran.stderr);
    let ran = world.forge(["run", "stop", "--stop-signal", "INT"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(124), "int\n"), "{}", ran.stderr);
    assert_eq!(world.forge(["run", "stop", "--stop-signal", "32"]).code, Some(125));
}

#[test]
fn a_wrong_setting_is_shown_where_it_was_written() {
    for (setting, words) in [
        (r#"user = "a b";"#, "`user` is `USER` or `USER:GROUP`, names or numbers, not `a b`"),
        (r#"stopSignal = "SIGWHAT";"#, "`SIGWHAT` is no signal"),
        (r#"ports = [ "80/sctp" ];"#, "80/sctp is no port"),
        (r#"variant = "a-b";"#, "`a-b` is no variant"),
        (r#"labels = { "" = "x"; };"#, "a label has a name"),
        (r#"entrypoint = "sh";"#, "`entrypoint` is a list of strings"),
    ] {
        let world = World::new();
        let text = format!("{{ forge }}:\nforge.formation {{\n  name = \"x\";\n  layers = [ ];\n  {setting}\n}}\n");
        world.write("runtime.expr", &text);
        let ran = world.forge(["build"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains(words) && ran.stderr.contains("runtime.expr:5:"), "{}", ran.stderr);
    }
}
