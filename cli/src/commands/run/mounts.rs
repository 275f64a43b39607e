//! What of the host is shown inside, and what lies in memory: `--bind`, `--volume`, `--mount`, `--tmpfs`, `--device`.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use executor::{Bind, Device, MemoryMount, Network, depth};

use super::{bad, gpus, options, uploads};
use crate::args::RunOptions;
use crate::context::{Context, absolute};
use crate::error::{Failure, Result, code};
use crate::words::say;

/// Everything that is mounted beside the root.
#[derive(Debug, Default)]
pub struct Mounts {
    /// Files and directories of the host.
    pub binds: Vec<Bind>,
    /// File systems in memory.
    pub memory: Vec<MemoryMount>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// What was asked for and is not shown.
    pub left_out: Vec<PathBuf>,
}

impl Mounts {
    /// Says what is not shown.
    pub fn say_what_is_left_out(&self, context: &Context) {
        for path in self.left_out.iter().filter(|_| !context.global.quiet) {
            let shown = path.display().to_string().escape_debug().to_string();
            say!("forge: left out of the upload: the link `{shown}` leads nowhere, or out of the directory");
        }
    }
}

/// Reads the options. `has_hosts`: /etc/hosts is made for the run.
pub fn of(options: &RunOptions, network: Network, has_hosts: bool) -> Result<Mounts> {
    let mut mounts = Mounts::default();
    if network == Network::Host {
        // Names are resolved as on the host; a formation has no resolver of its own.
        for path in ["/etc/resolv.conf", "/etc/hosts"] {
            if Path::new(path).exists() && !(has_hosts && path == "/etc/hosts") {
                mounts.binds.push(Bind { source: path.into(), target: path.into(), read_only: true });
            }
        }
    }
    for text in &options.bind {
        mounts.binds.push(bind("--bind", text)?);
    }
    for text in &options.volume {
        mounts.binds.push(volume(text)?);
    }
    for text in &options.mount {
        mount(text, &mut mounts)?;
    }
    let uploads = uploads::of(&options.habits.joblet)?;
    mounts.binds.extend(uploads.binds);
    mounts.left_out = uploads.left_out;
    for text in &options.tmpfs {
        mounts.memory.push(memory(text)?);
    }
    for text in &options.device {
        mounts.devices.push(device(text)?);
    }
    if let Some(count) = &options.gpu {
        mounts.devices.extend(gpus::devices(count, Path::new("/dev"))?);
    }
    let mut seen = BTreeMap::new();
    let targets = mounts.binds.iter().map(|bind| &bind.target);
    let targets = targets.chain(mounts.memory.iter().map(|memory| &memory.target));
    for target in targets.chain(mounts.devices.iter().map(|device| &device.target)) {
        if seen.insert(target, ()).is_some() {
            let failure = Failure::new(code::USAGE, format!("`{}` is mounted twice", target.display()));
            return Err(failure.hint("one of the two would hide the other: leave one away"));
        }
    }
    Ok(mounts)
}

/// `SOURCE:TARGET[:OPTIONS]`, as Docker's `-v`. Labels of SELinux (`z`, `Z`) change nothing here.
fn volume(text: &str) -> Result<Bind> {
    let (rest, letters) = match text.rsplit_once(':') {
        Some((rest, letters)) if !letters.starts_with('/') && rest.contains(':') => (rest, letters),
        _ => (text, ""),
    };
    let mut read_only = false;
    for letter in letters.split(',').filter(|letter| !letter.is_empty()) {
        match letter {
            "ro" => read_only = true,
            "rw" | "z" | "Z" | "rprivate" | "private" => {}
            _ => return Err(bad("--volume", text, "SOURCE:TARGET[:ro]")),
        }
    }
    if !rest.contains(':') {
        let failure = bad("--volume", text, "SOURCE:TARGET[:ro]");
        return Err(failure.hint("a directory of the host has a slash in it; NAME alone is a volume, at /volumes/NAME"));
    }
    Ok(Bind { read_only, ..bind("--volume", rest)? })
}

/// `SOURCE[:TARGET[:ro|rw]]`.
fn bind(option: &str, text: &str) -> Result<Bind> {
    let mut parts: Vec<&str> = text.split(':').collect();
    let read_only = match parts.last() {
        Some(&"ro") if parts.len() > 1 => parts.pop().is_some(),
        Some(&"rw") if parts.len() > 1 => parts.pop().is_none(),
        _ => false,
    };
    let (source, target) = match parts.as_slice() {
        [source] if !source.is_empty() => (absolute(Path::new(source))?, absolute(Path::new(source))?),
        [source, target] if !source.is_empty() => (absolute(Path::new(source))?, PathBuf::from(target)),
        _ => return Err(bad(option, text, "SOURCE[:TARGET[:ro]] with an absolute TARGET")),
    };
    let target = place(option, text, target)?;
    exists(option, &source)?;
    Ok(Bind { source, target, read_only })
}

fn exists(option: &str, source: &Path) -> Result<()> {
    if source.exists() {
        return Ok(());
    }
    let failure = Failure::new(code::NOT_FOUND, format!("{option}: there is no `{}`", source.display()));
    Err(failure.hint(format!("make it first: mkdir -p {}", source.display())))
}

/// Where something is mounted: absolute, and not over everything.
fn place(option: &str, text: &str, target: PathBuf) -> Result<PathBuf> {
    if !target.is_absolute() {
        return Err(bad(option, text, "an absolute path inside"));
    }
    if depth(&target) == 0 {
        let failure = Failure::new(code::USAGE, format!("{option} `{text}` would hide the formation"));
        return Err(failure.hint("choose a directory below `/`, for instance /host"));
    }
    Ok(target)
}

/// `type=bind,source=…,target=…[,readonly]`.
fn mount(text: &str, mounts: &mut Mounts) -> Result<()> {
    const WANTED: &str = "type=bind,source=DIR,target=DIR[,readonly] or type=tmpfs,target=DIR";
    let wrong = || bad("--mount", text, WANTED);
    let (mut kind, mut source, mut target, mut read_only) = ("volume", None, None, false);
    let (mut size, mut mode) = (None, 0o1777);
    for word in text.split(',') {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "type" => kind = value,
            "source" | "src" => source = Some(value),
            "target" | "destination" | "dst" => target = Some(value),
            "readonly" | "ro" => read_only = matches!(value, "" | "true" | "1"),
            "tmpfs-size" => size = Some(options::bytes("--mount", value)?),
            "tmpfs-mode" => mode = octal(value).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        }
    }
    let target = place("--mount", text, PathBuf::from(target.ok_or_else(wrong)?))?;
    match (kind, source) {
        ("bind", Some(source)) => {
            let source = absolute(Path::new(source))?;
            exists("--mount", &source)?;
            mounts.binds.push(Bind { source, target, read_only });
        }
        ("tmpfs", None) => mounts.memory.push(MemoryMount { target, size, mode }),
        _ => return Err(wrong()),
    }
    Ok(())
}

/// `DIR[:size=BYTES,mode=OCTAL]`.
fn memory(text: &str) -> Result<MemoryMount> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let wrong = || bad("--tmpfs", text, "DIR[:size=BYTES,mode=OCTAL]");
    let mut memory = MemoryMount { target: place("--tmpfs", text, target.into())?, size: None, mode: 0o1777 };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => memory.size = Some(options::bytes("--tmpfs", value)?),
            Some(("mode", value)) => memory.mode = octal(value).ok_or_else(wrong)?,
            // What it is in any case, or what makes no difference.
            None if ["rw", "nosuid", "nodev", "exec"].contains(&option) => {}
            _ => return Err(wrong()),
        }
    }
    Ok(memory)
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// `SOURCE[:TARGET[:rwm]]`.
fn device(text: &str) -> Result<Device> {
    let mut parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 1 && parts.last().is_some_and(|last| !last.starts_with('/')) {
        let letters = parts.pop().unwrap_or_default();
        if letters != "rwm" && letters != "rw" {
            let failure = bad("--device", text, "SOURCE[:TARGET]");
            return Err(failure.hint("who may read or write it is what the device's own mode says"));
        }
    }
    let (source, target) = match parts.as_slice() {
        [source] => (*source, *source),
        [source, target] => (*source, *target),
        _ => return Err(bad("--device", text, "SOURCE[:TARGET]")),
    };
    let source = absolute(Path::new(source))?;
    let kind = std::fs::metadata(&source).map_err(|error| {
        Failure::new(code::NOT_FOUND, format!("--device: there is no `{}`", source.display())).cause(error.to_string())
    })?;
    let kind = kind.file_type();
    if std::fs::canonicalize(&source).is_ok_and(|source| source == Path::new("/dev")) {
        let failure = Failure::new(code::USAGE, "--device: `/dev` is every device of this machine");
        return Err(failure.hint("name each that is needed, or a directory of such: --device /dev/snd"));
    }
    if !(kind.is_char_device() || kind.is_block_device() || (kind.is_dir() && has_only_devices(&source))) {
        let failure = Failure::new(code::USAGE, format!("--device: `{}` is no device", source.display()));
        return Err(failure.hint("--bind shows files and directories"));
    }
    Ok(Device { target: place("--device", text, target.into())?, source })
}

/// Whether a directory is one as `/dev/snd` is: devices, and links to them.
fn has_only_devices(directory: &Path) -> bool {
    let (mut waiting, mut has_some) = (vec![directory.to_owned()], false);
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                Ok(kind) if kind.is_char_device() || kind.is_block_device() => has_some = true,
                Ok(kind) if kind.is_symlink() => {}
                _ => return false,
            }
        }
    }
    has_some
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_and_apptainers_letters_are_read() {
        let bound = bind("--bind", "/tmp:/a:ro").unwrap();
        assert_eq!((bound.target.as_path(), bound.read_only), (Path::new("/a"), true));
        assert_eq!(bind("--bind", "/tmp").unwrap().target, Path::new("/tmp"));
        assert!(!volume("/tmp:/a:rw,z").unwrap().read_only);
        assert!(volume("/tmp:/a:ro,Z").unwrap().read_only);
        for bad in ["/tmp", "no-such-directory:/a", "/tmp:/a:moon", "/tmp:a", "/tmp:/", ":/a", "/tmp:/a/..//.."] {
            assert!(volume(bad).is_err(), "{bad}");
        }
        let mut mounts = Mounts::default();
        mount("type=bind,src=/tmp,dst=/b,readonly", &mut mounts).unwrap();
        mount("type=tmpfs,destination=/c,tmpfs-size=1M,tmpfs-mode=700", &mut mounts).unwrap();
        assert!(mounts.binds[0].read_only);
        assert_eq!((mounts.memory[0].size, mounts.memory[0].mode), (Some(1 << 20), 0o700));
        for bad in ["type=volume,target=/a", "type=bind,target=/a", "type=tmpfs", "x=y"] {
            assert!(mount(bad, &mut mounts).is_err(), "{bad}");
        }
        assert_eq!(memory("/run:rw,size=2M,mode=0755").unwrap().mode, 0o755);
        assert!(memory("run").is_err() && memory("/run:moon").is_err());
        assert_eq!(device("/dev/null:/dev/other:rwm").unwrap().target, Path::new("/dev/other"));
        assert!(device("/dev/../dev:/dev/host").is_err() && device("/etc:/dev/host").is_err());
        assert!(device("/dev/null:r").is_err() && device("/etc/passwd").is_err() && device("/dev/no-such").is_err());
    }
}
