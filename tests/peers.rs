//! Stores that share: what is given to a peer comes back as the same formation, whatever happens on the way.

use std::fs;
use std::path::{Path, PathBuf};

use crate::world::{Ran, World};

mod faults;
mod folder;
mod http;
mod trust;

/// A project that needs no network, with a file of each kind of size.
fn project(world: &World, version: &str) -> String {
    world.write("app/run.sh", &format!("#!/bin/sh\necho {version}\n"));
    for number in 0..20 {
        world.write(&format!("app/data/{number}.txt"), &format!("file {number}\n"));
    }
    let large: String = (0..60_000).map(|line| format!("line {line} of {}\n", line * 7919 % 104_729)).collect();
    world.write("app/large.txt", &format!("{large}{version}\n"));
    world.write(
        "runtime.expr",
        &format!(
            r#"{{ forge }}:
forge.formation {{
  name = "shared";
  version = "{version}";
  layers = [ (forge.files {{ "/app" = ./app; "/etc/version" = "{version}\n"; }}) ];
  command = [ "sh" "/app/run.sh" ];
}}
"#
        ),
    );
    world.build("runtime.expr")
}

/// The same world with nothing in its store.
fn forget(world: &World) {
    fs::remove_dir_all(world.store()).expect("a store that goes");
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { waiting.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[track_caller]
fn whole(world: &World, id: &str) {
    let out = world.path("out").join("export.tar");
    world.forge(["export", id, "--format", "tar", "-o", &out.display().to_string()]).ok();
    fs::remove_file(out).expect("the exported file");
    world.forge(["verify"]).ok();
}

#[track_caller]
fn refused(ran: &Ran, code: i32, words: &str) {
    assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}

/// A store that is served until dropped.
struct Served {
    child: std::process::Child,
    address: String,
}

/// Serves the store of a world.
fn serve(world: &World, more: &[&str]) -> Served {
    use std::io::BufRead;
    let mut arguments = vec!["serve", "--listen", "127.0.0.1:0"];
    arguments.extend(more);
    let mut command = world.command(arguments);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("forge starts");
    let mut address = String::new();
    let stdout = child.stdout.as_mut().expect("a pipe");
    std::io::BufReader::new(stdout).read_line(&mut address).expect("an address");
    assert!(address.starts_with("http"), "{address}");
    Served { child, address: address.trim().to_owned() }
}

impl Served {
    fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).expect("the server lives");
    }

    /// The host and port.
    fn host(&self) -> &str {
        self.address.split_once("://").expect("an address").1
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
