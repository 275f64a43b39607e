//! runtime.md: operations, states, and what each may do when; config.md: hooks.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::{Judge, with};

#[test]
fn state_tells_what_must_be_told() {
    let Some(judge) = Judge::new() else { return };
    let config =
        with(Judge::config("sleep 60"), |config| config["annotations"] = json!({ "org.example.key": "value" }));
    let bundle = judge.bundle("told", &config);
    assert_eq!(judge.create("told", &bundle).code, Some(0));
    let state = judge.operate(&["state", "told"]).json();
    // "ociVersion, id, status, pid (REQUIRED when status is created or running), bundle: REQUIRED, absolute".
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    assert_eq!((&state["id"], &state["status"]), (&json!("told"), &json!("created")));
    let bundle = bundle.canonicalize().unwrap();
    assert_eq!(state["bundle"], json!(bundle));
    assert_eq!(state["annotations"]["org.example.key"], "value");
    let pid = state["pid"].as_i64().unwrap();
    assert!(fs::exists(format!("/proc/{pid}")).unwrap(), "pid as seen by the host");
    judge.operate(&["start", "told"]).ok();
    assert_eq!(
        (judge.status("told").as_str(), judge.operate(&["state", "told"]).json()["pid"].as_i64()),
        ("running", Some(pid))
    );
    judge.operate(&["kill", "told", "KILL"]).ok();
    judge.wait_for("told", "stopped");
    judge.operate(&["delete", "told"]).ok();
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap() || judge.operate(&["state", "told"]).code != Some(0));
}

#[test]
fn operations_out_of_their_turn_fail_and_change_nothing() {
    let Some(judge) = Judge::new() else { return };
    // "MUST generate an error if it is not provided the ID of a container", and of one that does not exist.
    for operation in ["state", "start", "delete"] {
        assert_ne!(judge.operate(&[operation]).code, Some(0), "{operation} of nothing");
        assert_ne!(judge.operate(&[operation, "no-such"]).code, Some(0), "{operation} of what is not there");
    }
    assert_ne!(judge.operate(&["kill", "no-such", "TERM"]).code, Some(0));
    let bundle = judge.bundle("turn", &Judge::config("sleep 60"));
    assert_ne!(judge.operate(&["create", "--bundle", bundle.to_str().unwrap()]).code, Some(0), "an ID must be given");
    assert_ne!(judge.create("turn", &judge.path("no-such-bundle")).code, Some(0));
    assert_eq!(judge.create("turn", &bundle).code, Some(0));
    // "the runtime MUST generate an error … and a new container MUST NOT be created" where the ID is not unique.
    let pid = judge.operate(&["state", "turn"]).json()["pid"].clone();
    let again = judge.operate(&["create", "--bundle", bundle.to_str().unwrap(), "turn"]);
    assert_ne!(again.code, Some(0));
    assert_eq!(judge.operate(&["state", "turn"]).json()["pid"], pid);
    judge.operate(&["start", "turn"]).ok();
    // "Attempting to start a container that is not created MUST have no effect on the container and MUST generate an error".
    assert_ne!(judge.operate(&["start", "turn"]).code, Some(0));
    assert_eq!(judge.status("turn"), "running");
    // "Attempting to delete a container that is not stopped MUST have no effect on the container and MUST generate an error".
    assert_ne!(judge.operate(&["delete", "turn"]).code, Some(0));
    assert_eq!(judge.status("turn"), "running");
    judge.operate(&["kill", "turn", "KILL"]).ok();
    judge.wait_for("turn", "stopped");
    // "Attempting to send a signal to a container that is neither created nor running MUST … generate an error".
    assert_ne!(judge.operate(&["kill", "turn", "TERM"]).code, Some(0));
    assert_ne!(judge.operate(&["start", "turn"]).code, Some(0));
    judge.operate(&["delete", "turn"]).ok();
    // "Once a container is deleted its ID MAY be used by a subsequent container".
    assert_eq!(judge.create("turn", &bundle).code, Some(0));
    judge.operate(&["delete", "--force", "turn"]).ok();
}

#[test]
fn the_program_waits_for_start_and_gets_signals() {
    let Some(judge) = Judge::new() else { return };
    let script = "trap 'echo got TERM; exit 0' TERM; echo began; while :; do sleep 0.05; done";
    let bundle = judge.bundle("signals", &Judge::config(script));
    assert_eq!(judge.create("signals", &bundle).code, Some(0));
    std::thread::sleep(std::time::Duration::from_millis(200));
    // "the user-specified program … MUST NOT be run" by create.
    assert_eq!(judge.printed("signals"), "");
    judge.operate(&["start", "signals"]).ok();
    while !judge.printed("signals").contains("began") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    judge.operate(&["kill", "signals", "TERM"]).ok();
    judge.wait_for("signals", "stopped");
    assert_eq!(judge.printed("signals"), "began\ngot TERM\n");
    judge.operate(&["delete", "signals"]).ok();
    // A container that was created and not started is signalled too.
    assert_eq!(judge.create("early", &judge.bundle("early", &Judge::config("sleep 60"))).code, Some(0));
    judge.operate(&["kill", "early", "KILL"]).ok();
    judge.wait_for("early", "stopped");
    judge.operate(&["delete", "early"]).ok();
}

#[test]
fn changes_of_the_configuration_after_create_have_no_effect() {
    let Some(judge) = Judge::new() else { return };
    let mark = judge.path("mark");
    let script = judge.path("hook.sh");
    fs::write(&script, format!("#!/bin/sh\necho changed >> {}\n", mark.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let bundle = judge.bundle("fixed", &Judge::config("echo first"));
    assert_eq!(judge.create("fixed", &bundle).code, Some(0));
    let changed = with(Judge::config("echo second"), |config| {
        config["hooks"] = json!({ "poststart": [{ "path": script }], "poststop": [{ "path": script }] });
    });
    judge.bundle("fixed", &changed);
    judge.operate(&["start", "fixed"]).ok();
    judge.wait_for("fixed", "stopped");
    judge.operate(&["delete", "fixed"]).ok();
    assert_eq!(judge.printed("fixed"), "first\n");
    assert!(!mark.exists(), "a hook of the changed configuration ran");
}

#[test]
fn wrong_configurations_are_refused() {
    let Some(judge) = Judge::new() else { return };
    let plain = || Judge::config("true");
    judge.refused("version", &with(plain(), |config| config["ociVersion"] = json!("7.0.0")));
    judge.refused("no-root", &with(plain(), |config| config["root"]["path"] = json!("/no/such/root")));
    judge.refused("no-program", &with(plain(), |config| config["process"]["args"] = json!(["/no/such/program"])));
    judge.refused("no-args", &with(plain(), |config| config["process"]["args"] = json!([])));
    judge.refused("relative", &with(plain(), |config| config["process"]["cwd"] = json!("data")));
    let twice = json!([{ "type": "mount" }, { "type": "pid" }, { "type": "pid" }]);
    judge.refused("twice", &with(plain(), |config| config["linux"]["namespaces"] = twice));
    judge.refused(
        "no-path",
        &with(plain(), |config| config["linux"]["namespaces"][0]["path"] = json!("/no/such/namespace")),
    );
    judge.refused(
        "other-kind",
        &with(plain(), |config| config["linux"]["namespaces"][0]["path"] = json!("/proc/self/ns/uts")),
    );
    // Nothing can be mapped to nothing: its process waits for the map when that is found out.
    judge.refused(
        "no-map",
        &with(plain(), |config| {
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
            config["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 0 }]);
        }),
    );
    // "Implementations … MUST ignore unknown properties".
    let unknown = with(Judge::config("echo fine"), |config| {
        config["moon"] = json!(1);
        config["process"]["moon"] = json!({});
        config["linux"]["moon"] = json!([]);
    });
    assert_eq!(judge.run("unknown", &unknown), "fine\n");
}

#[test]
fn hooks_run_in_their_order_with_the_state_on_their_stdin() {
    let Some(judge) = Judge::new() else { return };
    let log = judge.path("log");
    let hook = |name: &str| {
        let path = judge.path(&format!("{name}.sh"));
        let text = format!(
            "#!/bin/sh\nstatus=$(sed 's/.*\"status\": *\"\\([a-z]*\\)\".*/\\1/' | tr -d '\\n {{}}' | grep -o '[a-z]*$')\necho {name} $1 $VALUE $status >> {}\n",
            log.display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        json!({ "path": path, "args": [name, "word"], "env": ["VALUE=of-hook", "PATH=/usr/bin:/bin"], "timeout": 20 })
    };
    let config = with(Judge::config("true"), |config| {
        config["hooks"] = json!({
            "prestart": [hook("prestart")],
            "createRuntime": [hook("createRuntime")],
            "poststart": [hook("poststart")],
            "poststop": [hook("poststop-1"), hook("poststop-2")],
        });
    });
    judge.run("hooks", &config);
    let seen: Vec<String> = fs::read_to_string(&log)
        .unwrap()
        .lines()
        .map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "))
        .collect();
    let expected = ["prestart", "createRuntime", "poststart", "poststop-1", "poststop-2"];
    assert_eq!(seen, expected.map(|name| format!("{name} word of-hook")));
}

#[test]
fn a_hook_that_fails_ends_what_it_must_and_nothing_else() {
    let Some(judge) = Judge::new() else { return };
    let log = judge.path("log");
    let bad = json!({ "path": "/bin/false" });
    let path = judge.path("good.sh");
    fs::write(&path, format!("#!/bin/sh\necho good >> {}\n", log.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let good = json!({ "path": path });
    // Before the program runs: "the runtime MUST generate an error, stop the container".
    for kind in ["prestart", "createRuntime"] {
        let config = with(Judge::config("true"), |config| config["hooks"] = json!({ kind: [bad] }));
        judge.refused(&format!("bad-{kind}"), &config);
    }
    // After: "MUST log a warning, but the remaining hooks and lifecycle continue as if the hook had succeeded".
    let config = with(Judge::config("echo ran"), |config| {
        config["hooks"] = json!({ "poststart": [bad, good], "poststop": [bad, good] });
    });
    assert_eq!(judge.run("late", &config), "ran\n");
    assert_eq!(fs::read_to_string(&log).unwrap(), "good\ngood\n");
}
