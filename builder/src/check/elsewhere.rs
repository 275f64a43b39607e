//! A checkout laid out again so that directories list their files in another order.
//!
//! The order in which a directory lists what is in it is the file system's, and another machine's is another. On two layers of an
//! overlay, the files of the lower come before those of the upper: so every file goes, by a bit of its name's hash, into the one or
//! the other, and every directory into both. Files are hard links, and cost no space.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};

use crate::{Error, Result};

/// Lays out layers again in `directory`; gives the new ones, lowest first.
pub fn lay_out(layers: &[PathBuf], directory: &Path) -> Result<Vec<PathBuf>> {
    let mut laid_out = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let halves = ["lower", "upper"].map(|half| directory.join(format!("{number}-{half}")));
        fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
        let mut open = vec![(layer.clone(), halves.clone())];
        let mut closed = Vec::new();
        while let Some((from, to)) = open.pop() {
            for half in &to {
                fs::create_dir(half).map_err(Error::file("create", half))?;
            }
            for entry in fs::read_dir(&from).map_err(Error::file("read the directory", &from))? {
                let entry = entry.map_err(Error::file("read the directory", &from))?;
                let (path, name) = (entry.path(), entry.file_name());
                let kind = entry.file_type().map_err(Error::file("look at", &path))?;
                if kind.is_dir() {
                    open.push((path, to.clone().map(|half| half.join(&name))));
                    continue;
                }
                let half = &to[usize::from(store::BlobId::of(name.as_bytes()).as_bytes()[0] & 1)];
                link(&path, &half.join(&name))?;
            }
            closed.push((from, to));
        }
        // From the lowest up: putting something into a directory changes its time.
        for (from, to) in closed.iter().rev() {
            for half in to {
                imitate(from, half)?;
            }
        }
        laid_out.extend(halves);
    }
    Ok(laid_out)
}

fn link(from: &Path, to: &Path) -> Result<()> {
    match rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty()) {
        Ok(()) => Ok(()),
        // The file has as many links as its file system allows.
        Err(rustix::io::Errno::MLINK) => {
            fs::copy(from, to).map_err(Error::file("copy", from))?;
            imitate(from, to)
        }
        Err(errno) => Err(Error::file("link", from)(errno.into())),
    }
}

/// Gives a file or directory the marks, the mode and the time of another.
fn imitate(from: &Path, to: &Path) -> Result<()> {
    let failed = |action| move |errno: rustix::io::Errno| Error::file(action, to)(errno.into());
    let mut names = vec![0; 64 * 1024];
    let length = match rustix::fs::llistxattr(from, &mut names) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        length => length.map_err(failed("read the attributes of"))?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
        let mut value = vec![0; 64 * 1024];
        let length = rustix::fs::lgetxattr(from, name, &mut value).map_err(failed("read the attributes of"))?;
        rustix::fs::lsetxattr(to, name, &value[..length], XattrFlags::empty())
            .map_err(failed("set the attributes of"))?;
    }
    let metadata = fs::symlink_metadata(from).map_err(Error::file("look at", from))?;
    let time = Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() };
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))
        .map_err(Error::file("change the mode of", to))?;
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("set the time of"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_file_is_in_one_half_and_every_directory_in_both() {
        let world = tempfile::tempdir().unwrap();
        let layer = world.path().join("layer");
        fs::create_dir_all(layer.join("a/b")).unwrap();
        for number in 0..40 {
            fs::write(layer.join(format!("a/{number}")), "x").unwrap();
        }
        symlink("nowhere", layer.join("a/b/link")).unwrap();
        fs::set_permissions(layer.join("a/b"), fs::Permissions::from_mode(0o1711)).unwrap();
        let layers = lay_out(std::slice::from_ref(&layer), &world.path().join("again")).unwrap();
        assert_eq!(layers.len(), 2);
        let files =
            |path: PathBuf| fs::read_dir(path).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file());
        let counts: Vec<usize> = layers.iter().map(|layer| files(layer.join("a")).count()).collect();
        assert!(counts.iter().sum::<usize>() == 40 && counts.iter().all(|count| *count > 5), "{counts:?}");
        for half in &layers {
            assert_eq!(fs::metadata(half.join("a/b")).unwrap().mode() & 0o7777, 0o1711);
        }
        assert_eq!(layers.iter().filter(|half| half.join("a/b/link").is_symlink()).count(), 1);
        assert_eq!(fs::metadata(layer.join("a/1")).unwrap().nlink(), 2);
    }
}
