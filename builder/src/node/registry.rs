//! The npm registry of this machine: forge's own configuration, else npm's, else npm's own built-in default, which is read out of
//! Debian's package of npm when it is needed: no address stands here.

use std::sync::{Mutex, PoisonError};

use store::digest::StepKey;

use super::settings::Settings;
use crate::debian::newest;
use crate::fetch::{Place, split};
use crate::report::Span;
use crate::{Builder, Error, Result, remembered};

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
    remembered::text(builder, &StepKey::of(b"default registry of npm 1"), || {
        let _span = Span::start(builder.reporter, "resolve", "the default registry of npm", None);
        // npm is the same package for every architecture.
        let definitions = newest::file(builder, SUITE, "amd64", "npm", DEFINITIONS)?.ok_or_else(not_configured)?;
        registry_of(&String::from_utf8_lossy(&definitions)).map(str::to_owned).ok_or_else(not_configured)
    })
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
