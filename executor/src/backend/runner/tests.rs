//! What engines are told, and what their words are taken for.

use super::*;
use crate::sandbox::Limits;

fn container(power: Power) -> Container {
    Container {
        image: "sha256:0123".to_owned(),
        platform: "linux/amd64".to_owned(),
        power,
        mounts: vec![Mount { source: "/a,\"b".into(), target: "/forge/store".into(), read_only: true }],
        resources: vec!["nofile=16:32".to_owned()],
        devices: Vec::new(),
        environment: vec!["SECRET".into()],
        reach: Reach::None,
        limits: Limits { memory: Some(1 << 20), cpu_millis: Some(1_050), pids: Some(10), timeout_millis: Some(1) },
        swap: 0,
        terminal: false,
        arguments: vec!["run".into(), "x".into()],
    }
}

fn words(container: &Container, kind: Kind) -> Vec<String> {
    container.arguments(&Engine::new(kind)).into_iter().map(|word| word.into_string().unwrap()).collect()
}

#[test]
fn an_ordinary_user_gets_no_capability_and_root_no_more_than_is_needed() {
    for kind in Kind::ALL {
        for power in [Power::User(1000, 100), Power::Rootless, Power::Root] {
            let words = words(&container(power), kind);
            assert!(words.contains(&"--cap-drop=ALL".to_owned()) && words.contains(&"--read-only".to_owned()));
            assert!(!words.iter().any(|word| word.contains("privileged")));
            let given = words.iter().filter(|word| word.starts_with("--cap-add")).count();
            let most = match power {
                Power::User(..) => 0,
                Power::Rootless => 1,
                Power::Root => 8,
            };
            assert_eq!(given, most);
            assert_eq!(words.contains(&"--user=1000:100".to_owned()), power == Power::User(1000, 100));
        }
    }
}

#[test]
fn what_was_asked_for_is_told_in_the_engines_words() {
    let podman = words(&container(Power::Rootless), Kind::Podman);
    for word in ["--network=none", "--memory=1048576b", "--memory-swap=1048576b", "--cpus=1.050", "--pids-limit=18"] {
        assert!(podman.contains(&word.to_owned()), "{word} in {podman:?}");
    }
    // A secret's name goes in, never its value; and a path with commas and quotes stays one.
    let place = podman.iter().position(|word| word == "--env").unwrap();
    assert_eq!(podman[place + 1], "SECRET");
    assert!(podman.contains(&"type=bind,\"source=/a,\"\"b\",target=/forge/store,readonly".to_owned()), "{podman:?}");
    assert_eq!(podman[podman.len() - 3..], ["sha256:0123", "run", "x"]);
    let published =
        Container { reach: Reach::Published(vec!["8080:80".to_owned()]), terminal: true, ..container(Power::Root) };
    let docker = words(&published, Kind::Docker);
    for word in
        ["--publish=8080:80", "--tty", "--security-opt=systempaths=unconfined", "--security-opt=apparmor=unconfined"]
    {
        assert!(docker.contains(&word.to_owned()), "{word} in {docker:?}");
    }
    assert!(!docker.iter().any(|word| word.starts_with("--network")));
}

#[test]
fn an_engines_own_options_come_before_the_image() {
    let options = vec!["--cgroups=disabled".into(), "--ulimit=nofile=8:8".into()];
    let engine = Engine { options, ..Engine::new(Kind::Podman) };
    let words = container(Power::Root).arguments(&engine);
    let place = |word: &str| words.iter().position(|other| other == word).unwrap();
    assert!(place("--cgroups=disabled") < place("sha256:0123"));
    assert!(!words.iter().any(|word| word == "--ulimit=nofile=16:32"), "{words:?}");
}

#[test]
fn complaints_are_told_apart() {
    let docker = Engine::new(Kind::Docker);
    let said = |text: &str| docker.explain("x", text);
    assert!(matches!(
        said("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"),
        Error::Silent { .. }
    ));
    assert!(matches!(
        said(
            "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"
        ),
        Error::Refused { .. }
    ));
    assert!(matches!(said("Error response from daemon: no space left"), Error::Failed { .. }));
    let nowhere = Engine { program: vec!["/nonexistent/docker".into()], ..docker };
    assert!(matches!(nowhere.version(), Err(Error::Missing { .. })));
}
