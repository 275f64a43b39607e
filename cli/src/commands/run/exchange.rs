//! Files that go in and come back: `--input FILE` is `/input/NAME`, and what the program leaves in `/output` comes back to `--output DIR`.
//!
//! `/output` is empty at first. For root it lies in memory and has its bound from the kernel; an ordinary user's lies on the disk, each
//! file of it bounded by the kernel, and all together when they are counted at the end. What comes back is regular files and directories: a
//! symbolic link that a program made up could lead anywhere here, and is left out, as devices, pipes and sockets are; said, not silent.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use executor::backend::native::image::MemoryDirectory;
use executor::{Bind, Resource, ResourceLimit, Sandbox};
use store::Store;
use store::directory::Scratch;

use crate::args::RunOptions;
use crate::context::{Context, absolute};
use crate::error::{Failure, Result, code};
use crate::words::say;
use crate::{render, units};

/// Where input is inside.
const INPUT: &str = "/input";
/// Where output is taken from inside.
const OUTPUT: &str = "/output";
/// Without `--output-size`.
const USUAL_SIZE: u64 = 256 << 20;
/// More files, or deeper directories, are no result but a mistake.
const MOST_ENTRIES: u64 = 100_000;
const MOST_DEPTH: usize = 64;

/// What a run exchanges with its caller.
#[derive(Default)]
pub struct Exchange {
    /// To be shown inside.
    pub binds: Vec<Bind>,
    output: Option<Output>,
}

struct Output {
    /// Dropped before the directory that it is mounted on.
    memory: Option<MemoryDirectory>,
    place: PathBuf,
    _scratch: Scratch,
    to: PathBuf,
    most: u64,
}

impl Exchange {
    /// Looks at the options, and makes what is needed.
    pub fn new(store: &Store, options: &RunOptions) -> Result<Self> {
        let asked = &options.whereabouts;
        let mut exchange = Self::default();
        for path in &asked.input {
            let source = absolute(path)?;
            let wrong = |words: &str| Failure::new(code::NOT_FOUND, format!("--input: {words} `{}`", path.display()));
            let name = source.file_name().ok_or_else(|| wrong("there is no name in"))?.to_owned();
            if !source.exists() {
                return Err(wrong("there is no"));
            }
            let target = Path::new(INPUT).join(name);
            if exchange.binds.iter().any(|bind| bind.target == target) {
                let failure = Failure::new(code::USAGE, format!("--input: two are called `{}`", target.display()));
                return Err(failure.hint("a directory that holds both is given as one: --input DIR"));
            }
            exchange.binds.push(Bind { source, target, read_only: true });
        }
        let Some(to) = &asked.output else { return Ok(exchange) };
        let to = absolute(to)?;
        if fs::read_dir(&to).is_ok_and(|mut entries| entries.next().is_some()) || to.is_file() {
            let failure = Failure::new(code::USAGE, format!("--output: `{}` is not empty", to.display()));
            return Err(failure.hint("name a directory that is not there yet"));
        }
        let most = match &asked.output_size {
            Some(text) => units::bytes(text).filter(|bytes| *bytes > 0),
            None => Some(USUAL_SIZE),
        };
        let most = most.ok_or_else(|| Failure::new(code::USAGE, "--output-size: a size such as 512M is expected"))?;
        let scratch = store.scratch()?;
        let place = scratch.path().join("output");
        let made = fs::create_dir(&place).and_then(|()| fs::set_permissions(&place, fs::Permissions::from_mode(0o777)));
        made.map_err(|error| {
            Failure::new(code::DISK_FULL, "cannot make a directory for the output").cause(error.to_string())
        })?;
        let native = asked.backend.unwrap_or_default() == crate::args::runner::BackendChoice::Native;
        let memory = match native && executor::backend::native::has_every_user() {
            true => Some(MemoryDirectory::new(&place, most)?),
            false => None,
        };
        exchange.binds.push(Bind { source: place.clone(), target: OUTPUT.into(), read_only: false });
        exchange.output = Some(Output { memory, place, _scratch: scratch, to, most });
        Ok(exchange)
    }

    /// Puts it into a sandbox of this kernel.
    pub fn show(&self, sandbox: &mut Sandbox) {
        sandbox.binds.extend(self.binds.iter().cloned());
        let bound = self.output.as_ref().filter(|output| output.memory.is_none()).map(|output| output.most);
        let is_set = sandbox.bounds.resources.iter().any(|limit| limit.resource == Resource::Fsize);
        if let Some(most) = bound.filter(|_| !is_set) {
            let limit = ResourceLimit { resource: Resource::Fsize, soft: Some(most), hard: Some(most) };
            sandbox.bounds.resources.push(limit);
        }
    }

    /// Brings back what is there, when every process of the run has ended.
    pub fn bring_back(self, context: &Context) -> Result<()> {
        let Some(output) = self.output else { return Ok(()) };
        let failed = |error: io::Error| {
            Failure::new(code::DISK_FULL, format!("cannot write to `{}`", output.to.display())).cause(error.to_string())
        };
        let mut taken = Taken { left: output.most, entries: 0, left_out: Vec::new() };
        taken.look(&output.place, 0).map_err(failed)?.map_err(|reason| {
            let failure = Failure::new(code::REFUSED, format!("the program's output is refused: {reason}"));
            failure.hint("--output-size allows more bytes")
        })?;
        fs::create_dir_all(&output.to).map_err(failed)?;
        taken.copy(&output.place, &output.to).map_err(failed)?;
        if !context.global.quiet {
            for path in &taken.left_out {
                let below = path.strip_prefix(&output.place).unwrap_or(path);
                let shown = below.display().to_string().escape_debug().to_string();
                say!("forge: left out of the output: `{shown}` is neither a file nor a directory");
            }
        }
        Ok(())
    }
}

/// What is counted on the way.
struct Taken {
    left: u64,
    entries: u64,
    left_out: Vec<PathBuf>,
}

/// The first so many are named.
const MOST_NAMED: usize = 10;

impl Taken {
    /// Counts before anything is copied; the reason why it is refused, if it is.
    fn look(&mut self, directory: &Path, depth: usize) -> io::Result<Result<(), String>> {
        if depth > MOST_DEPTH {
            return Ok(Err(format!("directories are nested more than {MOST_DEPTH} deep")));
        }
        let metadata = fs::symlink_metadata(directory)?;
        if metadata.uid() == rustix::process::geteuid().as_raw() {
            // The program may have locked its own directories.
            fs::set_permissions(directory, fs::Permissions::from_mode(0o777))?;
        }
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Ok(Err(format!("it has more than {MOST_ENTRIES} files")));
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if let Err(reason) = self.look(&entry.path(), depth + 1)? {
                    return Ok(Err(reason));
                }
            } else if kind.is_file() {
                let size = entry.metadata()?.len();
                match self.left.checked_sub(size) {
                    Some(left) => self.left = left,
                    None => {
                        return Ok(Err(format!(
                            "it has more than {}",
                            render::size(self.left.saturating_add(size) - 1)
                        )));
                    }
                }
            } else if self.left_out.len() < MOST_NAMED {
                self.left_out.push(entry.path());
            }
        }
        Ok(Ok(()))
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
            if kind.is_dir() {
                fs::create_dir(&target)?;
                self.copy(&entry.path(), &target)?;
            } else if kind.is_file() {
                let mode = entry.metadata()?.mode();
                if mode & 0o400 == 0 && entry.metadata()?.uid() == rustix::process::geteuid().as_raw() {
                    fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o600))?;
                }
                let mode = if mode & 0o111 != 0 { 0o755 } else { 0o644 };
                let size = entry.metadata()?.len();
                let mut output = File::options().write(true).create_new(true).mode(mode).open(&target)?;
                io::copy(&mut File::open(entry.path())?.take(size), &mut output)?;
                output.flush()?;
            }
        }
        Ok(())
    }
}
