//! The npm registry of this machine: forge's own configuration, else npm's, else npm's own built-in default, which is read out of
//! Debian's package of npm when it is needed: no address stands here.

use std::io::BufReader;
use std::sync::{Mutex, PoisonError};

use store::Node;
use store::digest::StepKey;
use store::directory::Claim;

use super::settings::Settings;
use crate::debian::{index, package, release, version};
use crate::draft::{find, names};
use crate::fetch::{Place, Wanted, split};
use crate::report::Span;
use crate::{Builder, Error, Result};

/// Where npm keeps what it falls back to, in Debian's package.
const DEFINITIONS: &str = "usr/share/nodejs/npm/lib/utils/config/definitions.js";
/// Whose package is read; any will do.
const SUITE: &str = "bookworm";

/// Where `NAME/-/FILENAME` may lie.
pub fn places(builder: &Builder<'_>, path: &str) -> Result<Vec<Place>> {
    let scope = path.split('/').next().filter(|first| first.starts_with('@'));
    let settings = Settings::read(builder.machine);
    let registry = match (&builder.machine.npm_registry, settings.registry(scope)) {
        (Some(own), _) => own.clone(),
        (None, Some(configured)) => configured.to_owned(),
        (None, None) => default_registry(builder)?,
    };
    let url = format!("{}/{path}", registry.trim_end_matches('/'));
    let with_user = match (settings.user(&url), split(&url)) {
        (Some(user), Some(parts)) if parts.user.is_none() => {
            format!("{}://{user}@{}{}", parts.scheme, parts.host, parts.path)
        }
        _ => url.clone(),
    };
    Ok(vec![Place { token: settings.token(&url).map(str::to_owned), ..Place::new(with_user) }])
}

/// What npm falls back to where nothing is configured.
fn default_registry(builder: &Builder<'_>) -> Result<String> {
    static ASKING: Mutex<()> = Mutex::new(());
    let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    let key = StepKey::of(b"default registry of npm 1");
    if let Some(Claim::Blob(blob)) = builder.store.claim_of_step(&key)?
        && let Ok(bytes) = builder.store.blob(blob)
    {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    let _span = Span::start(builder.reporter, "resolve", "the default registry of npm", None);
    let text = definitions(builder).map_err(|error| match error {
        Error::NotConfigured { .. } => not_configured(),
        error => error,
    })?;
    let address = registry_of(&text).ok_or_else(not_configured)?;
    let blob = builder.store.put_blob(address.as_bytes(), false)?;
    builder.store.put_claim_of_step(&key, &Claim::Blob(blob))?;
    Ok(address.to_owned())
}

/// The address in `define('registry', { default: '…'`.
fn registry_of(text: &str) -> Option<&str> {
    let (_, about) = text.split_once("define('registry',")?;
    let (_, value) = about.split_once("default:")?;
    let value = value.trim_start();
    let quote = value.chars().next().filter(|quote| "'\"`".contains(*quote))?;
    let (address, _) = value[1..].split_once(quote)?;
    split(address).map(|_| address)
}

fn definitions(builder: &Builder<'_>) -> Result<String> {
    let release = release::fetch(builder, SUITE)?;
    // npm is the same package for every architecture.
    let text = index::fetch(builder, &release, "main", "amd64")?;
    let mut newest: Option<index::Package<'_>> = None;
    for package in index::packages(&text, SUITE) {
        let package = package?;
        let newer = |known: &index::Package<'_>| version::compare(package.version, known.version).is_gt();
        if package.name == "npm" && newest.as_ref().is_none_or(newer) {
            newest = Some(package);
        }
    }
    let npm = newest.ok_or_else(not_configured)?;
    let url = format!("debian:{SUITE}/{}", npm.file);
    let wanted = Wanted { url: &url, sha256: Some(npm.sha256), size: Some(npm.size) };
    let (blob, _) = builder.fetcher.fetch(builder, &wanted)?;
    let reader = BufReader::with_capacity(64 * 1024, builder.store.open_blob(blob)?);
    let delta = package::unpack(builder.store, "npm", reader, &|| builder.check_interrupt())?;
    match find(builder.store, builder.store.delta(delta)?.tree, &names(DEFINITIONS))? {
        Some(Node::File(file)) => Ok(String::from_utf8_lossy(&builder.store.blob(file.blob)?).into_owned()),
        _ => Err(not_configured()),
    }
}

fn not_configured() -> Error {
    Error::NotConfigured {
        what: "npm registry",
        settings: vec![
            "`FORGE_NPM_REGISTRY`, or `npm.registry` in forge's own configuration".to_owned(),
            "`registry` in `~/.npmrc` or `/etc/npmrc`, or the variable `NPM_CONFIG_REGISTRY`".to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::loopback::{Loopback, Page};
    use crate::fetch::pinned::{Pinned, fetch};
    use crate::world::World;
    use store::derivation::HashAlgorithm;
    use store::nix::hash::NixHash;

    #[test]
    fn a_tarball_is_asked_of_this_machines_registry_with_its_token_and_checked_by_its_sha512() {
        let server = Loopback::start();
        server.put("/npm/@co/x/-/x-1.tgz", Page::Bytes(b"a package".to_vec()));
        let host = server.url("/npm");
        let token = format!("npm_config_//{}/:_authToken", split(&host).unwrap().host);
        let world = World::on(|root| crate::Machine {
            root: root.to_owned(),
            environment: [("npm_config_registry".to_owned(), host), (token, "s3cret".to_owned())].into(),
            ..crate::Machine::default()
        });
        let hash = NixHash::of(HashAlgorithm::Sha512, b"a package").into_bytes();
        let pinned =
            |hash| Pinned { urls: &["npm:@co/x/-/x-1.tgz"], algorithm: HashAlgorithm::Sha512, hash, size: None };
        let blob = fetch(&world.builder(), &pinned(&hash)).unwrap();
        assert_eq!(blob, store::BlobId::of(b"a package"));
        assert!(server.asked()[0].to_ascii_lowercase().contains("authorization: bearer s3cret"));
        // It is found by its digest from then on.
        fetch(&world.builder(), &pinned(&hash)).unwrap();
        assert_eq!(server.asked().len(), 1);
        let other = NixHash::of(HashAlgorithm::Sha512, b"another").into_bytes();
        assert!(matches!(fetch(&world.builder(), &pinned(&other)), Err(Error::Mismatch { .. })));
    }

    #[test]
    fn the_default_is_read_out_of_npms_own_definitions() {
        let text = "define('x', {\n  default: 1 })\ndefine('registry', {\n  default: `https://host.example/`,\n  type: url,\n})";
        assert_eq!(registry_of(text), Some("https://host.example/"));
        assert_eq!(registry_of("define('registry', { default: 'nonsense' }"), None);
    }
}
