//! What forge reads out of a Debian package without installing it: a file of the newest package of a name.

use store::DeltaId;

use super::{index, package, release, version};
use crate::fetch::Wanted;
use crate::{Builder, Error, Result};

/// The most bytes of a file that is read: programs have a few dozen MiB.
const LARGEST: u64 = 256 << 20;

/// A file of the newest package of a name in a suite. None if there is no such package, or no such file in it, or if this machine
/// has no mirror that could be asked.
pub fn file(builder: &Builder<'_>, suite: &str, architecture: &str, name: &str, path: &str) -> Result<Option<Vec<u8>>> {
    let unpacked = match unpack(builder, suite, architecture, name) {
        Err(Error::NotConfigured { .. }) => return Ok(None),
        unpacked => unpacked?,
    };
    let Some(delta) = unpacked else { return Ok(None) };
    Ok(builder.store.content_at(builder.store.delta(delta)?.tree, path.as_bytes(), LARGEST)?)
}

fn unpack(builder: &Builder<'_>, suite: &str, architecture: &str, name: &str) -> Result<Option<DeltaId>> {
    let release = release::fetch(builder, suite)?;
    let text = index::fetch(builder, &release, "main", architecture)?;
    let mut newest: Option<index::Package<'_>> = None;
    for package in index::packages(&text, suite) {
        let package = package?;
        let newer = |known: &index::Package<'_>| version::compare(package.version, known.version).is_gt();
        if package.name == name && newest.as_ref().is_none_or(newer) {
            newest = Some(package);
        }
    }
    let Some(newest) = newest else { return Ok(None) };
    let url = format!("debian:{suite}/{}", newest.file);
    let wanted = Wanted { url: &url, sha256: Some(newest.sha256), size: Some(newest.size) };
    package::obtain(builder, name, &wanted).map(Some)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};
    use store::digest::to_hex;

    use super::*;
    use crate::Machine;
    use crate::debian::package::tests::Deb;
    use crate::fetch::loopback::{Loopback, Page};
    use crate::world::World;

    /// A mirror with a package in three versions, each of which has a file that says which it is.
    fn mirror() -> Loopback {
        let server = Loopback::start();
        let put = |path: &str, bytes: &[u8]| {
            server.put(&format!("/debian/{path}"), Page::Bytes(bytes.to_vec()));
            format!("{} {}", to_hex(&Sha256::digest(bytes)), bytes.len())
        };
        let mut packages = String::new();
        for version in ["1.9-1", "1.10-1", "1.10~rc1-1"] {
            let about = format!("Package: tool\nVersion: {version}\nArchitecture: amd64\n");
            let deb = Deb::new(&about).directory("./usr/", 0o755).file("./usr/version", 0o644, version.as_bytes());
            let put = put(&format!("pool/{version}.deb"), &deb.build(".gz"));
            let (sha256, size) = put.split_once(' ').unwrap();
            packages.push_str(&format!("{about}Filename: pool/{version}.deb\nSize: {size}\nSHA256: {sha256}\n\n"));
        }
        let listed = put("dists/bookworm/main/binary-amd64/Packages", packages.as_bytes());
        let release = format!(
            "Origin: Debian\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nSHA256:\n {listed} main/binary-amd64/Packages\n"
        );
        put("dists/bookworm/Release", release.as_bytes());
        server
    }

    #[test]
    fn a_file_is_read_out_of_the_newest_package() {
        let server = mirror();
        let world = World::on(|root| {
            std::fs::create_dir_all(root.join("etc/apt")).unwrap();
            let source = format!("deb [trusted=yes] {} bookworm main\n", server.url("/debian"));
            std::fs::write(root.join("etc/apt/sources.list"), source).unwrap();
            Machine { root: root.to_owned(), ..Machine::default() }
        });
        let read = |name: &str, path: &str| file(&world.builder(), "bookworm", "amd64", name, path).unwrap();
        assert_eq!(read("tool", "usr/version").as_deref(), Some(&b"1.10-1"[..]));
        assert_eq!(read("tool", "usr/other"), None);
        assert_eq!(read("other", "usr/version"), None);
        // Without a mirror there is nobody to ask.
        let alone = World::new();
        assert_eq!(file(&alone.builder(), "bookworm", "amd64", "tool", "usr/version").unwrap(), None);
    }
}
