//! What a program sees from inside: this program, started in the sandbox as `parity`'s probe, writes it down as a flat record.
//!
//! Process ids, times and inode numbers are left out: they differ between any two runs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The hidden first argument that makes this program the probe.
pub const WORD: &str = "forge-parity-probe";

/// What is seen, as one line of JSON.
pub fn record() -> String {
    let mut seen = BTreeMap::new();
    let mut put = |name: String, value: String| _ = seen.insert(name, value);
    for (name, value) in std::env::vars_os() {
        put(format!("environment.{}", name.to_string_lossy()), value.to_string_lossy().into_owned());
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| format!("({error})"));
    for line in read("/proc/self/status").lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let told = [
            "Uid",
            "Gid",
            "Groups",
            "Umask",
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
        ];
        if told.contains(&name) {
            put(format!("process.{name}"), value.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    for line in read("/proc/self/limits").lines().skip(1) {
        // Columns of fixed width, with spaces in the first.
        if let (Some(name), Some(values)) = (line.get(..26), line.get(26..)) {
            put(format!("limits.{}", name.trim()), values.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        }
    }
    put("host.name".to_owned(), read("/proc/sys/kernel/hostname").trim().to_owned());
    put(
        "process.directory".to_owned(),
        std::env::current_dir().map_or_else(|error| error.to_string(), |it| it.display().to_string()),
    );
    let interfaces: Vec<String> = read("/proc/net/dev")
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect();
    put("network.interfaces".to_owned(), interfaces.join(" "));
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let count = processes.filter(|entry| entry.file_name().as_bytes().iter().all(u8::is_ascii_digit)).count();
    put("processes.count".to_owned(), count.to_string());
    let mut mounted = Vec::new();
    for line in read("/proc/self/mountinfo").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default();
        if let [_, _, _, _, target, options, ..] = words[..] {
            // Of what lies over what in one place, the last is seen.
            let mut options: Vec<&str> = options.split(',').filter(|option| !option.ends_with("atime")).collect();
            options.sort_unstable();
            // A bind has the type of the file system that it comes from, which is the machine's business.
            let kind = if ["overlay", "proc", "sysfs", "devpts", "mqueue"].contains(&kind) { kind } else { "other" };
            let is_device = fs::metadata(target).is_ok_and(|status| status.file_type().is_char_device());
            // Of a device that covers something, flags of execution mean nothing.
            let seen = if is_device { "device".to_owned() } else { format!("{kind} {}", options.join(",")) };
            mounted.push(PathBuf::from(target));
            // Devices of /dev are made, or are the host's, as it may be: below they are listed by what they are.
            if !(is_device && target.starts_with("/dev/")) {
                put(format!("mounts.{target}"), seen);
            }
        }
    }
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        if let Ok(status) = entry.metadata()
            && status.file_type().is_char_device()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            put(format!("devices.{name}"), format!("{:x}", status.rdev()));
        }
    }
    let (mut content, mut owners) = (blake3::Hasher::new(), blake3::Hasher::new());
    walk(Path::new("/"), &mounted, &mut content, &mut owners);
    put("files.content".to_owned(), content.finalize().to_string());
    put("files.owners".to_owned(), owners.finalize().to_string());
    serde_json::to_string(&seen).expect("a map of texts has a text")
}

/// Hashes what is below a directory, sorted, without what is mounted there.
fn walk(directory: &Path, mounted: &[PathBuf], content: &mut blake3::Hasher, owners: &mut blake3::Hasher) {
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) => {
                say(content, &directory, &format!("unreadable {:?}", error.kind()));
                continue;
            }
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if mounted.contains(&path) {
                continue;
            }
            let Ok(status) = fs::symlink_metadata(&path) else { continue };
            say(owners, &path, &format!("{}:{}", status.uid(), status.gid()));
            let kind = status.file_type();
            say(content, &path, &format!("{:o} {}", status.mode(), if kind.is_file() { status.size() } else { 0 }));
            if kind.is_symlink() {
                content.update(fs::read_link(&path).unwrap_or_default().as_os_str().as_bytes());
            } else if kind.is_file() {
                let read = fs::File::open(&path).and_then(|file| content.update_reader(file).map(drop));
                if let Err(error) = read {
                    say(content, &path, &format!("unreadable {:?}", error.kind()));
                }
            } else if kind.is_char_device() || kind.is_block_device() {
                say(content, &path, &status.rdev().to_string());
            } else if kind.is_dir() {
                waiting.push(path);
            }
        }
    }
}

/// Adds a path and words about it, each with its length in front.
fn say(hasher: &mut blake3::Hasher, path: &Path, words: &str) {
    for bytes in [path.as_os_str().as_bytes(), words.as_bytes()] {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
}
