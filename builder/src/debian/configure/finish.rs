//! What is normalised in a configured root, so that building it twice gives the same tree.
//!
//! Everything listed here is a cache, a log, a secret, an identity of one machine or a database: it is gone, empty, or as the packages
//! have it. Secrets (host keys, the self-signed certificate of `ssl-cert`) must not be shared by all who run the formation
//! anyway; whoever needs them makes them at its first start.

use store::{File, Metadata, Name, Node, Store, TreeId};

use super::{ROOM, SETTINGS, STAND_INS, aliases, keystore};
use crate::Result;
use crate::debian::control::WAITING;
use crate::draft::{Draft, DraftError, find, names};

/// As the packages have it, or gone if they have not got it; an empty file may stay. `*` stands for any part of a name.
const AS_UNPACKED: &[&str] = &[
    "dev",
    "etc/bind/rndc.key",
    "etc/dropbear/dropbear_*_host_key",
    "etc/ejabberd/ejabberd.pem",
    "etc/freeradius/*/certs/dh",
    "etc/ldap/slapd.d/*",
    "etc/munge/munge.key",
    "etc/ssh/ssh_host_*",
    "etc/ssl/certs/ssl-cert-snakeoil.pem",
    "etc/ssl/private/ssl-cert-snakeoil.key",
    "etc/xrdp/rsakeys.ini",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr/share/info/dir.old",
    "var/backups/*",
    "var/cache/apt/*",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/*/.erlang.cookie",
    "var/lib/apt/lists/*",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/*-old",
    "var/lib/ldap/*",
    "var/lib/mysql/*",
    "var/lib/phpmyadmin/blowfish_secret.inc.php",
    "var/lib/systemd/random-seed",
    "var/lib/texmf/web2c/*.log",
    "var/lib/texmf/web2c/*/*.log",
    // These engines write the time of day, or their tables in the order of addresses. kpathsea makes a missing format at first use.
    "var/lib/texmf/web2c/luahbtex/*.fmt",
    "var/lib/texmf/web2c/luatex/*.fmt",
    "var/lib/texmf/web2c/tex/tex.fmt",
    "var/log/*.log",
    "var/log/*/*.log",
    "var/tmp",
];

type WithoutTimes = fn(&[u8]) -> Option<Vec<u8>>;

/// Files with times in them, and what takes these out; none where a file is something else.
const TIMED: &[(&str, WithoutTimes)] = &[
    ("etc/ssl/certs/java/cacerts", keystore::without_times),
    ("etc/aliases.db", aliases::without_times),
    ("etc/postfix/*.db", aliases::without_times),
];

/// Empty where there is one: the system makes its own then (machine-id(5)).
const EMPTY: &[&str] = &["etc/machine-id"];

/// The root as it stays. `unpacked` is what lay there before anything was configured.
pub fn finish(store: &Store, configured: TreeId, unpacked: TreeId) -> Result<TreeId> {
    let mut root = Draft::open(store, configured)?;
    let about = |error: DraftError| error.about("root", "configured");
    let own = SETTINGS.iter().map(|(_, path, _)| *path).chain(STAND_INS.iter().map(|(path, _)| *path));
    for pattern in AS_UNPACKED.iter().copied().chain(own) {
        for (path, node) in matches(store, configured, pattern)? {
            // A log that a package made for others to write to, with an owner that they need.
            if matches!(node, Node::File(File { size: 0, .. })) {
                continue;
            }
            match find(store, unpacked, &path)? {
                Some(node) => root.replace(store, &path, node).map_err(about)?,
                None => root.remove(store, &path).map_err(about)?,
            }
        }
    }
    for path in [ROOM, WAITING] {
        root.remove(store, &names(path)).map_err(about)?;
    }
    for path in EMPTY.iter().map(|path| names(path)) {
        if let Some(Node::File(file)) = find(store, configured, &path)? {
            let empty = File { blob: store.put_blob(b"", false)?, size: 0, metadata: file.metadata };
            root.replace(store, &path, Node::File(empty)).map_err(about)?;
        }
    }
    for path in snake_oil_links(store, configured)? {
        root.remove(store, &path).map_err(about)?;
    }
    for (pattern, without_times) in TIMED {
        for (path, node) in matches(store, configured, pattern)? {
            if let Node::File(file) = node
                && let Some(content) = without_times(&store.blob(file.blob)?)
            {
                let size = content.len() as u64;
                let blob = store.put_blob(&content, false)?;
                root.replace(store, &path, Node::File(File { blob, size, ..file })).map_err(about)?;
            }
        }
    }
    // Packages may have made it otherwise; whoever goes through a root's top goes through this.
    root.metadata = Metadata::root(0o755);
    Ok(root.tree(store)?)
}

/// What fits a pattern in a tree.
fn matches(store: &Store, tree: TreeId, pattern: &str) -> Result<Vec<(Vec<Name>, Node)>> {
    let mut found = vec![(Vec::new(), Node::Directory(tree))];
    for part in pattern.split('/') {
        let mut next = Vec::new();
        for (path, node) in found {
            let Node::Directory(id) = node else { continue };
            let tree = store.tree(id)?;
            for (name, node) in tree.entries.iter().filter(|(name, _)| fits(name.as_bytes(), part.as_bytes())) {
                let path: Vec<Name> = path.iter().chain([name]).cloned().collect();
                next.push((path, node.clone()));
            }
        }
        found = next;
    }
    Ok(found)
}

/// Whether a name fits a pattern with at most one `*`.
fn fits(name: &[u8], pattern: &[u8]) -> bool {
    let Some(star) = pattern.iter().position(|byte| *byte == b'*') else { return name == pattern };
    let (before, after) = (&pattern[..star], &pattern[star + 1..]);
    name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
}

/// The links by which OpenSSL would find the self-signed certificate.
fn snake_oil_links(store: &Store, tree: TreeId) -> Result<Vec<Vec<Name>>> {
    let directory = names("etc/ssl/certs");
    let Some(Node::Directory(id)) = find(store, tree, &directory)? else { return Ok(Vec::new()) };
    let is_link =
        |node: &Node| matches!(node, Node::Symlink { target, .. } if target.ends_with(b"ssl-cert-snakeoil.pem"));
    let tree = store.tree(id)?;
    let links = tree.entries.iter().filter(|(_, node)| is_link(node));
    Ok(links.map(|(name, _)| directory.iter().chain([name]).cloned().collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_part_of_a_name() {
        for (name, pattern) in [("status-old", "*-old"), ("-old", "*-old"), ("lock", "lock*"), ("a", "*"), ("a", "a")] {
            assert!(fits(name.as_bytes(), pattern.as_bytes()), "{name} {pattern}");
        }
        for (name, pattern) in [("status", "*-old"), ("aa", "a"), ("a", "a*a"), ("block", "lock*")] {
            assert!(!fits(name.as_bytes(), pattern.as_bytes()), "{name} {pattern}");
        }
    }
}
