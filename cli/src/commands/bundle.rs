//! `forge bundle`: a formation as a bundle of the OCI runtime specification, for other runtimes.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode};

use crate::args::BundleArguments;
use crate::context::{Context, absolute};
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;

/// `forge bundle`
pub fn run(arguments: &BundleArguments, context: &Context) -> Result<ExitCode> {
    let directory = absolute(&arguments.directory)?;
    if directory.exists() {
        let failure = Failure::new(code::USAGE, format!("`{}` is there already", directory.display()));
        return Err(failure.hint("name a directory that is not there"));
    }
    let (id, sandbox) =
        super::run::described(&arguments.target, arguments.entrypoint.clone(), &arguments.command, context)?;
    let own_user = match executor::backend::native::has_every_user() {
        true => None,
        false => Some((rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())),
    };
    let spec = executor::oci::describe(&sandbox, Path::new("rootfs"), own_user)?;
    let failed = |error: std::io::Error| {
        Failure::new(code::USAGE, format!("cannot write `{}`", directory.display())).cause(error.to_string())
    };
    let write = || {
        fs::create_dir_all(&directory)?;
        let config = directory.join("config.json");
        fs::write(config, format!("{:#}\n", serde_json::to_value(&spec)?))?;
        let layer = sandbox.root.layers.first().ok_or(std::io::ErrorKind::NotFound)?;
        copy(layer, &directory.join("rootfs"), own_user.is_none())
    };
    if let Err(error) = write() {
        let _ = fs::remove_dir_all(&directory);
        return Err(failed(error));
    }
    if context.global.json {
        super::print_json(&serde_json::json!({ "schema": 1, "id": id.to_string(), "bundle": directory }))?;
    } else {
        super::print(&format!("{}\n", directory.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Copies a tree: whoever has the bundle may change its root, and a checkout's files are shared. By a list of what is left, as a tree may
/// be of any depth.
fn copy(from: &Path, to: &Path, owners: bool) -> std::io::Result<()> {
    let mut waiting = vec![(from.to_owned(), to.to_owned())];
    let mut modes = Vec::new();
    while let Some((from, to)) = waiting.pop() {
        let metadata = from.symlink_metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            fs::create_dir(&to)?;
            for entry in fs::read_dir(&from)? {
                let name = entry?.file_name();
                waiting.push((from.join(&name), to.join(&name)));
            }
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
        } else if kind.is_file() {
            fs::copy(&from, &to)?;
        } else {
            let what = match () {
                () if kind.is_fifo() => FileType::Fifo,
                () if kind.is_block_device() => FileType::BlockDevice,
                () => FileType::CharacterDevice,
            };
            rustix::fs::mknodat(CWD, &to, what, Mode::from_raw_mode(metadata.mode()), metadata.rdev())?;
        }
        if owners {
            let owner = (rustix::fs::Uid::from_raw(metadata.uid()), rustix::fs::Gid::from_raw(metadata.gid()));
            rustix::fs::chownat(CWD, &to, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if !kind.is_symlink() {
            modes.push((to, metadata.mode()));
        }
    }
    // A directory that nobody may write to is filled before it becomes so; a change of owner takes set-id bits away.
    for (path, mode) in modes.into_iter().rev() {
        fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))?;
    }
    Ok(())
}
