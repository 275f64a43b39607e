//! `builtin:debian-configure`: unpacked packages become a whole root, configured as dpkg would.
//!
//! Trees are merged by digest, dpkg's database is written as if dpkg itself had unpacked them all, and then everything that
//! needs a program runs in one sandboxed step: `preinst install` of each package in one canonical order, `dpkg --configure`,
//! and the triggers (`configure/script.sh`). What differs from one run to the next is normalised (`configure/finish.rs`).
//!
//! A root is made on top of another where some of its packages were configured before (`configure/below.rs`): the essential
//! ones are a root of their own, which all roots share, and which is made while the other packages are still being unpacked.
//!
//! Where this departs from `apt install`, on purpose: every package is unpacked before any script runs, services are never
//! started, nothing is asked (what a package would ask is answered by its default), and no file of one package replaces
//! another's unless the package says so (`Replaces`) or diverts it in its preinst.

use std::collections::BTreeMap;

use store::directory::Claim;
use store::{Delta, DeltaId, Metadata, Name, Node, RelativePath, Store, TreeId};

use self::below::Below;
use super::control::{Control, WAITING, control_path, merged_usr, waiting};
use crate::builtin::{Builtin, Job};
use crate::draft::{self, Draft, names};
use crate::step::{Command, run_step};
use crate::{Error, Result};

mod aliases;
mod below;
mod finish;
mod foreign;
mod keystore;
mod order;
mod overlap;

/// Parameters: `packages`, deltas of `debian-package`; `architecture`; `below`, if there is one: a root in which some of the
/// packages are configured already.
pub struct Configure;

/// Where the step's own files are while it runs.
const ROOM: &str = "var/lib/dpkg/forge";
const SCRIPT: &str = include_str!("configure/script.sh");
/// "Action forbidden by policy", for every service (invoke-rc.d(8)).
const POLICY: (&str, &str) = ("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");
/// Few scripts start a service without asking the policy; those that do use this.
const START: (&str, &str) = ("usr/sbin/start-stop-daemon", "#!/bin/sh\nexit 0\n");
/// A root that is being made is what scripts call a chroot: none of its processes runs, and libc6 waits a second for no init.
const CHROOT: (&str, &str) = ("usr/bin/ischroot", "#!/bin/sh\nexit 0\n");
/// What is there only while the root is configured.
const STAND_INS: [(&str, &str); 3] = [POLICY, START, CHROOT];

/// Answers to questions whose default would leave something of the day or of chance in the tree: package, question, type, value.
/// The database of manual pages notes when it was made; `man` works without it.
const ANSWERS: &[[&str; 4]] = &[["man-db", "man-db/auto-update", "boolean", "false"]];

/// Files that are there while a package is configured, for the same reason: package, path, content. A database cluster is
/// state, and has a number of its own; it is made where the formation runs.
const SETTINGS: &[(&str, &str, &str)] =
    &[("postgresql-common", "etc/postgresql-common/createcluster.d/forge.conf", "create_main_cluster = false\n")];

/// A package that was unpacked.
struct Package {
    control: Control,
    /// For the status file.
    paragraph: String,
    delta: DeltaId,
    tree: TreeId,
    /// What of it lies in the root before its preinst has run.
    laid: DeltaId,
    preinst: Option<String>,
    triggers: String,
    /// Configuration files, as the package has them.
    conffiles: Vec<RelativePath>,
    /// Whether it is part of the root below.
    configured: bool,
}

impl Builtin for Configure {
    fn name(&self) -> &'static str {
        "debian-configure"
    }

    fn phase(&self) -> &'static str {
        "configure"
    }

    fn version(&self) -> u32 {
        4
    }

    fn build(&self, job: &Job<'_>) -> Result<Claim> {
        let store = job.builder.store;
        let architecture: String = job.parameter("architecture")?;
        let paths: Vec<String> = job.parameter("packages")?;
        let deltas: Vec<DeltaId> = paths.iter().map(|path| job.delta(path)).collect::<Result<_>>()?;
        if architecture != foreign::here() {
            return Ok(Claim::Delta(foreign::lay_out(store, job.name, &architecture, &deltas)?));
        }
        let below: Option<String> = job.parameter("below")?;
        let below = below.map(|path| Below::read(store, job.name, job.delta(&path)?)).transpose()?;
        let mut layers = lay_out(store, job.name, &architecture, &deltas, below.as_ref())?;
        let (_, below) = layers.split_last().expect("the database is a layer");
        let unpacked = store.merge(below)?;
        let command = Command::new(&layers, ["/bin/sh", &format!("/{ROOM}/script")]);
        let changes = run_step(job.builder, job.name, &command).map_err(with_package)?;
        layers.push(changes);
        let root = finish::finish(store, store.merge(&layers)?, unpacked)?;
        Ok(Claim::Delta(store.put_delta(&Delta::whole(root))?))
    }
}

/// What unpacked packages are configured in, lowest first: what every root has, the root below, the packages, and dpkg's database.
/// `name` is for people.
fn lay_out(
    store: &Store,
    name: &str,
    architecture: &str,
    deltas: &[DeltaId],
    below: Option<&Below>,
) -> Result<Vec<DeltaId>> {
    let mut packages: Vec<Package> =
        deltas.iter().map(|delta| Package::read(store, name, *delta)).collect::<Result<_>>()?;
    let mut layers = vec![base(store, architecture, &packages)?];
    if let Some(below) = below {
        packages.iter_mut().try_for_each(|package| below.mark(store, package))?;
        layers.push(below.delta);
    }
    let fresh = |packages: &[Package], laid: fn(&Package) -> DeltaId| {
        packages.iter().filter(|package| !package.configured).map(laid).collect::<Vec<_>>()
    };
    let unpacked = store.merge(&[&layers[..], &fresh(&packages, |package| package.delta)].concat())?;
    let essential = order::essential(&packages);
    for (index, package) in packages.iter_mut().enumerate() {
        if !package.configured && !essential.contains(&index) && package.diverts() {
            package.hold_back(store)?;
        }
    }
    layers.extend(fresh(&packages, |package| package.laid));
    layers.push(database(name, store, architecture, &packages, unpacked, below)?);
    Ok(layers)
}

impl Package {
    fn read(store: &Store, step: &str, delta: DeltaId) -> Result<Self> {
        let bad = |reason: &str| Error::Invalid { what: "package", name: step.to_owned(), reason: reason.to_owned() };
        let tree = store.delta(delta)?.tree;
        let Some(Node::Directory(waiting)) = draft::find(store, tree, &names(WAITING))? else {
            return Err(bad("an input is no unpacked package"));
        };
        let text = |node: Option<Node>| match node {
            Some(Node::File(file)) => Ok(Some(String::from_utf8_lossy(&store.blob(file.blob)?).into_owned())),
            _ => Ok::<_, Error>(None),
        };
        let paragraph = text(store.tree(waiting)?.entries.values().next().cloned())?;
        let paragraph = paragraph.ok_or_else(|| bad("an input is no unpacked package"))?;
        // What unpacking added to it is dpkg's own, which a package must not have.
        let (own, conffiles) = paragraph.split_once("\nConffiles:\n").unwrap_or((&paragraph, ""));
        let control = Control::parse(own).map_err(|reason| bad(&reason))?;
        let conffile = |line: &str| control_path(line.trim_start().rsplit_once(' ')?.0);
        let conffiles = conffiles.lines().filter_map(conffile).collect();
        let info = |kind: &str| text(draft::find(store, tree, &names(&control.info(kind)))?);
        let (preinst, triggers) = (info("preinst")?, info("triggers")?.unwrap_or_default());
        Ok(Self { control, paragraph, delta, tree, laid: delta, preinst, triggers, conffiles, configured: false })
    }
}

impl Package {
    /// Whether its preinst makes room for its files where others have theirs.
    fn diverts(&self) -> bool {
        self.preinst.as_deref().is_some_and(|preinst| preinst.contains("dpkg-divert"))
    }

    /// Keeps all but what dpkg knows of it below `ROOM/late`, to be unpacked after its preinst, as dpkg would.
    fn hold_back(&mut self, store: &Store) -> Result<()> {
        let about = |error: draft::DraftError| error.about("package", &self.control.package);
        let (known, mut others) = (names("var/lib/dpkg"), Draft::open(store, self.tree)?);
        others.remove(store, &known).map_err(about)?;
        let mut laid = Draft::passing();
        if let Some(node) = draft::find(store, self.tree, &known)? {
            laid.insert(store, &known, node).map_err(about)?;
        }
        let place = names(&format!("{ROOM}/late/{}", self.control.package));
        laid.insert(store, &place, Node::Directory(others.tree(store)?)).map_err(about)?;
        self.laid = laid.delta(store)?;
        Ok(())
    }
}

/// What lies under the packages: the symlinks that merge `/usr`, and what every root has.
fn base(store: &Store, architecture: &str, packages: &[Package]) -> Result<DeltaId> {
    let mut draft = Draft::new(Metadata::root(0o755));
    let about = |error: draft::DraftError| error.about("root", architecture);
    let mut merged = vec!["bin", "sbin", "lib"];
    for name in ["lib32", "lib64", "libo32", "libx32"] {
        let path = names(&format!("usr/{name}"));
        for package in packages {
            if draft::find(store, package.tree, &path)?.is_some() {
                merged.push(name);
                break;
            }
        }
    }
    for name in merged {
        draft.directory(store, &names(&format!("usr/{name}"))).map_err(about)?;
        let target = format!("usr/{name}").into_bytes();
        draft.insert(store, &names(name), Node::Symlink { target, uid: 0, gid: 0 }).map_err(about)?;
    }
    let directories = [("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700), ("proc", 0o555), ("sys", 0o555)];
    let plain = ["boot", "dev", "etc", "home", "media", "mnt", "opt", "run", "srv", "var"].map(|name| (name, 0o755));
    for (name, mode) in directories.into_iter().chain(plain) {
        let directory = draft.directory(store, &names(name)).map_err(about)?;
        (directory.metadata, directory.passed) = (Metadata::root(mode), false);
    }
    for (path, content) in [
        ("etc/hostname", "localhost\n"),
        ("etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
        ("etc/resolv.conf", ""),
    ] {
        draft.write(store, path, 0o644, content.as_bytes()).map_err(about)?;
    }
    Ok(draft.delta(store)?)
}

/// What dpkg notes of a package that is in a state.
fn status(package: &Package, state: &str) -> (String, String) {
    (package.control.qualified(), format!("Status: install ok {state}\n{}\n", package.paragraph))
}

/// dpkg's own files, by path: mode and content. `status`: what it notes of each package; `triggers`: files on who is interested in what.
fn dpkg_files(
    architecture: &str,
    status: BTreeMap<String, String>,
    triggers: BTreeMap<String, String>,
) -> BTreeMap<String, (u16, String)> {
    let status: Vec<String> = status.into_values().collect();
    let mut files = BTreeMap::from([
        ("var/lib/dpkg/status".to_owned(), (0o644, status.concat())),
        ("var/lib/dpkg/available".to_owned(), (0o644, String::new())),
        ("var/lib/dpkg/arch".to_owned(), (0o644, format!("{architecture}\n"))),
        ("var/lib/dpkg/info/format".to_owned(), (0o644, "1\n".to_owned())),
        ("var/lib/dpkg/triggers/Unincorp".to_owned(), (0o644, String::new())),
    ]);
    files.extend(triggers.into_iter().map(|(name, lines)| (format!("var/lib/dpkg/triggers/{name}"), (0o644, lines))));
    files
}

/// What lies over the packages while they are configured: dpkg's database, as if dpkg had unpacked them all; what to do; and
/// what keeps services from starting.
fn database(
    step: &str,
    store: &Store,
    architecture: &str,
    packages: &[Package],
    unpacked: TreeId,
    below: Option<&Below>,
) -> Result<DeltaId> {
    let mut draft = Draft::passing();
    let about = |error: draft::DraftError| error.about("root", step);
    let triggers = Triggers::of(store, packages, unpacked)?;
    let overlap::Settled { mut late, removed } = overlap::settle(store, packages, below, &mut draft, ROOM)?;
    late.extend((0..packages.len()).filter(|index| packages[*index].laid != packages[*index].delta));
    let plan = order::plan(packages, &late, &triggers.met);
    let fresh = || packages.iter().filter(|package| !package.configured);
    let mut notes = below.map(|below| below.status.clone()).unwrap_or_default();
    notes.extend(fresh().map(|package| status(package, "unpacked")));
    let mut files = dpkg_files(architecture, notes, triggers.files);
    files.extend([(format!("{ROOM}/script"), (0o755, SCRIPT.to_owned())), (format!("{ROOM}/plan"), (0o644, plan))]);
    let settings = SETTINGS.iter().filter(|(name, ..)| fresh().any(|package| package.control.package == *name));
    files.extend(settings.map(|(_, path, content)| ((*path).to_owned(), (0o644, (*content).to_owned()))));
    files.extend(STAND_INS.map(|(path, content)| (path.to_owned(), (0o755, content.to_owned()))));
    for (path, (mode, content)) in files {
        draft.write(store, &path, mode, content.as_bytes()).map_err(about)?;
    }
    // The scripts of essential packages use one another's before any of them is configured, when a system is new.
    for index in order::essential(packages).into_iter().filter(|index| !packages[*index].configured) {
        let Package { conffiles, tree, .. } = &packages[index];
        for path in conffiles.iter().map(|path| merged_usr(&path.0)) {
            let shipped = waiting(&path).map(|waiting| draft::find(store, *tree, &waiting)).transpose()?.flatten();
            if let Some(node) = shipped {
                draft.insert(store, &path, node).map_err(about)?;
            }
        }
    }
    for directory in ["var/lib/dpkg/updates", "var/lib/dpkg/alternatives", "var/lib/dpkg/parts"] {
        draft.directory(store, &names(directory)).map_err(about)?;
    }
    let delta = draft.delta(store)?;
    Ok(if removed.is_empty() { delta } else { store.put_delta(&Delta { removed, ..store.delta(delta)? })? })
}

/// Which packages are interested in what (deb-triggers(5)).
#[derive(Default)]
struct Triggers {
    /// dpkg's files on it: `File` for paths, and one for every other name.
    files: BTreeMap<String, String>,
    /// Paths somebody is interested in where packages have something. dpkg would have activated them while unpacking, had
    /// those interested been configured by then.
    met: Vec<String>,
}

impl Triggers {
    fn of(store: &Store, packages: &[Package], unpacked: TreeId) -> Result<Self> {
        let mut triggers = Self { files: BTreeMap::from([("File".to_owned(), String::new())]), met: Vec::new() };
        let mut by_name: Vec<&Package> = packages.iter().collect();
        by_name.sort_unstable_by_key(|package| package.control.qualified());
        for package in by_name {
            for line in package.triggers.lines() {
                let line = line.split('#').next().unwrap_or_default();
                let mut words = line.split_whitespace();
                let (Some(directive), Some(trigger)) = (words.next(), words.next()) else { continue };
                let suffix = match directive {
                    "interest" | "interest-await" => "",
                    "interest-noawait" => "/noawait",
                    _ => continue,
                };
                let interested = format!("{}{suffix}\n", package.control.qualified());
                let file = match control_path(trigger) {
                    Some(path) => {
                        let met = draft::find(store, unpacked, &merged_usr(&path.0))?;
                        if let Some(node) = met
                            && !triggers.met.iter().any(|met| met == trigger)
                            && !is_empty(store, &node)?
                        {
                            triggers.met.push(trigger.to_owned());
                        }
                        triggers.files.entry("File".to_owned()).or_default().push_str(&format!("{trigger} "));
                        "File"
                    }
                    None if Name::new(trigger).is_ok() => trigger,
                    None => {
                        let reason = format!("it is interested in `{trigger}`, which is no name");
                        return Err(Error::Invalid { what: "package", name: package.control.package.clone(), reason });
                    }
                };
                triggers.files.entry(file.to_owned()).or_default().push_str(&interested);
            }
        }
        triggers.met.sort_unstable();
        Ok(triggers)
    }
}

fn is_empty(store: &Store, node: &Node) -> Result<bool> {
    Ok(match node {
        Node::Directory(id) => store.tree(*id)?.entries.is_empty(),
        _ => false,
    })
}

/// Says in an error which package's which script it was.
fn with_package(error: Error) -> Error {
    let Error::Step { step, ending, log, kept } = error else { return error };
    // `dpkg: error processing package NAME (--configure):`, and on the next line what of it failed.
    let mut lines = log.lines();
    let failed = lines.find_map(|line| line.strip_prefix("dpkg: error processing package "));
    let failed = failed.and_then(|rest| rest.split_once(' ')).map(|(name, _)| name.to_owned());
    let reason = lines.next().map(|line| line.trim().trim_start_matches("installed "));
    let reason = reason.map(|line| line.split_once(" package ").map_or(line, |(_, script)| script).to_owned());
    let own = log.lines().rev().find_map(|line| line.strip_prefix("forge: ")).map(str::to_owned);
    let ending = match (failed, reason) {
        (Some(name), Some(reason)) => format!("package `{name}`: {reason}"),
        _ => own.unwrap_or(ending),
    };
    Error::Step { step, ending, log, kept }
}

#[cfg(test)]
mod tests;
