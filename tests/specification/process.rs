//! config.md: the process, its user, its limits, its capabilities, its environment.

use serde_json::json;

use super::{Judge, with};

#[test]
fn arguments_environment_directory_and_host_name_are_as_configured() {
    let Some(judge) = Judge::new() else { return };
    let config = with(Judge::config(""), |config| {
        config["process"]["args"] =
            json!(["sh", "-c", "pwd; echo \"$A|$B\"; hostname; echo \"$0 $1\"", "zero", "first word"]);
        config["process"]["env"] = json!(["PATH=/bin", "A=a b", "B="]);
        config["process"]["cwd"] = json!("/data");
        config["hostname"] = json!("other-name");
    });
    assert_eq!(judge.run("plain", &config), "/data\na b|\nother-name\nzero first word\n");
}

#[test]
fn the_user_its_groups_and_its_mask_are_as_configured() {
    let Some(judge) = Judge::new() else { return };
    let config = with(
        Judge::config("id -u; id -g; grep ^Groups /proc/self/status | tr -s ' \\t' ' '; umask; echo ${HOME-unset}"),
        |config| {
            config["process"]["user"] = json!({ "uid": 1234, "gid": 2345, "additionalGids": [5, 77], "umask": 63 });
            config["process"]["env"] = json!(["PATH=/bin", "HOME=/data"]);
        },
    );
    let printed = judge.run("user", &config);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!((lines[0], lines[1], lines[3], lines[4]), ("1234", "2345", "0077", "/data"), "{printed}");
    let mut groups: Vec<&str> = lines[2].split_ascii_whitespace().skip(1).filter(|group| *group != "2345").collect();
    groups.sort_unstable();
    assert_eq!(groups, ["5", "77"]);
}

#[test]
fn resource_limits_are_set_and_doubled_ones_refused() {
    let Some(judge) = Judge::new() else { return };
    let config = with(Judge::config("grep -E 'open files|core file' /proc/self/limits | tr -s ' '"), |config| {
        config["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 200, "hard": 300 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        ]);
    });
    let printed = judge.run("limits", &config);
    assert!(printed.contains("Max open files 200 300 ") && printed.contains("Max core file size 0 0 "), "{printed}");
    // "If there is an unsupported or duplicated value, the runtime MUST generate an error".
    let unknown = with(Judge::config("true"), |config| {
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_MOON", "soft": 1, "hard": 1 }]);
    });
    judge.refused("unknown-limit", &unknown);
}

#[test]
fn capabilities_are_those_that_are_named() {
    let Some(judge) = Judge::new() else { return };
    let config = with(Judge::config("grep ^Cap /proc/self/status | tr -s '\\t' ' '"), |config| {
        let (all, none) = (json!(["CAP_CHOWN", "CAP_KILL"]), json!([]));
        config["process"]["capabilities"] = json!({ "bounding": all, "permitted": all, "effective": ["CAP_KILL"], "inheritable": none, "ambient": none });
        config["process"]["user"] = json!({ "uid": 0, "gid": 0 });
        config["process"]["noNewPrivileges"] = json!(true);
    });
    let printed = judge.run("capabilities", &config);
    // KILL is bit 5, CHOWN bit 0. To root an executed file gives what is in the bounding set.
    assert!(printed.contains("CapBnd: 0000000000000021") && printed.contains("CapInh: 0000000000000000"), "{printed}");
    assert!(printed.contains("CapAmb: 0000000000000000"), "{printed}");
    let none = with(Judge::config("grep ^CapBnd /proc/self/status | tr -s '\\t' ' '"), |config| {
        config["process"]["capabilities"] = json!({});
    });
    assert_eq!(judge.run("no-capabilities", &none), "CapBnd: 0000000000000000\n");
}

#[test]
fn no_new_privileges_and_the_scores_are_set() {
    let Some(judge) = Judge::new() else { return };
    let config = with(
        Judge::config("grep NoNewPrivs /proc/self/status | tr -s '\\t' ' '; cat /proc/self/oom_score_adj"),
        |config| {
            config["process"]["noNewPrivileges"] = json!(true);
            config["process"]["oomScoreAdj"] = json!(500);
        },
    );
    assert_eq!(judge.run("privileges", &config), "NoNewPrivs: 1\n500\n");
    let config = with(Judge::config("grep NoNewPrivs /proc/self/status | tr -s '\\t' ' '"), |config| {
        config["process"]["noNewPrivileges"] = json!(false);
    });
    assert_eq!(judge.run("no-privileges", &config), "NoNewPrivs: 0\n");
}

#[test]
fn no_descriptor_but_the_streams_is_handed_on() {
    let Some(judge) = Judge::new() else { return };
    // The fourth is that of the directory that is listed.
    assert_eq!(judge.run("descriptors", &Judge::config("ls /proc/self/fd | tr '\\n' ' '")), "0 1 2 3 ");
}
