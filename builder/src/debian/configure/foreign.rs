//! Roots for another kind of processor than this machine's: nothing of theirs can be run here, so no package may want to.
//!
//! Files are laid out and dpkg's database says that all is installed. A package with a script that runs when it is installed is
//! refused by name, unless that script is known to do nothing in a new root.

use store::{Delta, DeltaId, Node, Store};

use super::{Package, Triggers, base, dpkg_files, overlap, status};
use crate::debian::control::{WAITING, merged_usr, waiting};
use crate::draft::{Draft, DraftError, find, names};
use crate::{Error, Result};

/// Scripts that run when a package is installed (deb-preinst(5), deb-postinst(5)).
const SCRIPTS: [&str; 2] = ["preinst", "postinst"];

/// Packages whose scripts do nothing in a new root. The C library's restart services that use an older one, look whether the kernel is
/// new enough, and remove a file that only older ones had.
const IDLE: &[&str] = &["libc6"];

/// The debian name of this machine's kind of processor.
pub fn here() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The whole root.
pub fn lay_out(store: &Store, name: &str, architecture: &str, deltas: &[DeltaId]) -> Result<DeltaId> {
    let packages: Vec<Package> =
        deltas.iter().map(|delta| Package::read(store, name, *delta)).collect::<Result<_>>()?;
    let mut refused = Vec::new();
    for package in &packages {
        let has = |script: &str| find(store, package.tree, &names(&package.control.info(script)));
        let mut scripts = Vec::new();
        for script in SCRIPTS {
            if has(script)?.is_some() {
                scripts.push(script);
            }
        }
        if !scripts.is_empty() && !IDLE.contains(&package.control.package.as_str()) {
            refused.push(format!("{} ({})", package.control.package, scripts.join(", ")));
        }
    }
    if !refused.is_empty() {
        refused.sort_unstable();
        let reason = format!(
            "programs of {architecture} do not run on this machine ({}), and these packages have scripts that would have to: {}",
            here(),
            refused.join(", ")
        );
        return Err(Error::Invalid { what: "root", name: name.to_owned(), reason });
    }
    let mut layers = vec![base(store, architecture, &packages)?];
    layers.extend(packages.iter().map(|package| package.delta));
    // Files of two packages are settled as elsewhere; what a preinst would have to make room for has been refused.
    let mut over = Draft::passing();
    overlap::settle(store, &packages, None, &mut over, WAITING)?;
    layers.push(over.delta(store)?);
    let unpacked = store.merge(&layers)?;
    let mut root = Draft::open(store, unpacked)?;
    let about = |error: DraftError| error.about("root", name);
    let triggers = Triggers::of(store, &packages, unpacked)?;
    let notes = packages.iter().map(|package| status(package, "installed")).collect();
    for (path, (mode, content)) in dpkg_files(architecture, notes, triggers.files) {
        root.write(store, &path, mode, content.as_bytes()).map_err(about)?;
    }
    for package in &packages {
        for path in package.conffiles.iter().map(|path| merged_usr(&path.0)) {
            let Some(shipped) = waiting(&path) else { continue };
            if let Some(node) = find(store, package.tree, &shipped)? {
                root.replace(store, &path, node).map_err(about)?;
                root.remove(store, &shipped).map_err(about)?;
            }
        }
    }
    for directory in ["var/lib/dpkg/updates", "var/lib/dpkg/alternatives", "var/lib/dpkg/parts"] {
        root.directory(store, &names(directory)).map_err(about)?;
    }
    if let Some(Node::Directory(_)) = find(store, unpacked, &names(WAITING))? {
        root.remove(store, &names(WAITING)).map_err(about)?;
    }
    root.metadata = store::Metadata::root(0o755);
    Ok(store.put_delta(&Delta::whole(root.tree(store)?))?)
}
