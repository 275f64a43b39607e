//! An engine that drives a runtime: Podman, told to use ours.

use std::process::Command;

use super::Judge;
use crate::world::Ran;

#[test]
fn podman_runs_a_container_by_it() {
    let Some(judge) = Judge::new() else { return };
    if !Command::new("podman").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no podman");
        return;
    }
    let root = judge.path("rootfs");
    let copied = Command::new("cp").arg("-a").arg(super::root().unwrap()).arg(&root).status().unwrap();
    assert!(copied.success());
    // Of a runtime by another name Podman does not believe that it can do without cgroups.
    let forge = judge.path("crun");
    std::os::unix::fs::symlink(judge.command(&[]).get_program(), &forge).unwrap();
    let podman = |options: &[&str], words: &[&str]| {
        let mut command = Command::new("podman");
        command.arg("--root").arg(judge.path("storage")).arg("--runroot").arg(judge.path("run"));
        command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime"]).arg(&forge);
        command.args(["run", "--cgroups=disabled", "--network=none"]);
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]).args(options);
        command.arg("--rootfs").arg(&root).args(words);
        Ran::of(command.output().unwrap())
    };
    let ran = podman(&["--rm"], &["sh", "-c", "echo by $(id -u); exit 7"]);
    if ran.code == Some(125) || ran.code == Some(126) {
        // Of the engine's own, before it came to the runtime; what the runtime says is `OCI runtime error`.
        assert!(!ran.stderr.contains("OCI runtime"), "{}", ran.stderr);
        eprintln!("skipped: podman runs nothing here: {}", ran.stderr);
        return;
    }
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(7), "by 0\n"), "{}", ran.stderr);
    let missing = podman(&["--rm"], &["/no/such/program"]);
    assert!(matches!(missing.code, Some(125..=127)), "{:?} {}", missing.code, missing.stderr);
    let user = podman(
        &["--rm", "--user", "12:34", "--hostname", "named", "--env", "A=b"],
        &["sh", "-c", "id -u; id -g; hostname; echo $A"],
    );
    assert_eq!(user.stdout, "12\n34\nnamed\nb\n", "{}", user.stderr);
}
