//! What a name such as `nixpkgs` stands for: the registries that an evaluation may look into.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{fetch_file, refused};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::flake_reference::registry::{Registry, resolve};
use crate::flake_reference::{self, Attributes};
use crate::value::{Attribute, Context, Value};

/// What a reference stands for. As in Nix, `fetchTree` looks at the command line and the registry that everybody shares only;
/// `getFlake` (`all`) also at those of the user and of this machine, unless that is switched off.
pub(super) fn direct(evaluator: &Evaluator, wanted: &Attributes, all: bool) -> Result<Attributes> {
    let shown = || flake_reference::to_string(wanted).unwrap_or_default();
    if !evaluator.sources.impure {
        let shown = shown();
        return Err(Failure::new(format!(
            "no registry is asked what '{shown}' is: say where it is, for instance 'github:OWNER/REPOSITORY/COMMIT'"
        )));
    }
    let settings = &evaluator.settings;
    if all && !settings.use_registries {
        let shown = shown();
        return Err(Failure::new(format!(
            "'{shown}' is an indirect flake reference, but registry lookups are not allowed"
        )));
    }
    let mut registries = vec![Registry::of(&settings.overridden_flakes).map_err(refused)?];
    if all {
        registries.extend(of_this_machine(evaluator)?);
    }
    // The network is not asked for what is known here.
    if let Ok(found) = resolve(&registries, wanted) {
        return Ok(found);
    }
    registries.extend(shared(evaluator)?);
    resolve(&registries, wanted).map_err(refused)
}

fn of_this_machine(evaluator: &Evaluator) -> Result<Vec<Registry>> {
    let sources = &evaluator.sources;
    let of_user = sources.variable(OsStr::new("XDG_CONFIG_HOME")).filter(|path| !path.is_empty()).map(PathBuf::from);
    let of_user = of_user.or_else(|| sources.home.as_ref().map(|home| home.join(".config")));
    let files = of_user.map(|directory| directory.join("nix/registry.json"));
    let files = files.into_iter().chain([PathBuf::from("/etc/nix/registry.json")]);
    files
        .filter(|file| sources.exists(file))
        .map(|file| read(&file.display().to_string(), &sources.read(&file)?))
        .collect()
}

/// The one that everybody shares. It is fetched as any file is: by whoever carries out the evaluation.
fn shared(evaluator: &Evaluator) -> Result<Option<Registry>> {
    let address = &evaluator.settings.flake_registry;
    if address.is_empty() {
        return Ok(None);
    }
    if address.starts_with('/') {
        return read(address, &evaluator.sources.read(Path::new(address))?).map(Some);
    }
    let [url, name] = ["url", "name"].map(|name| evaluator.symbols.intern(name.as_bytes()));
    let wanted = [(url, address.as_str()), (name, "flake-registry.json")];
    let wanted = wanted.map(|(name, text)| Attribute::new(name, Value::string(text)));
    let file = fetch_file(evaluator, &Value::set(wanted.to_vec()), "fetchurl")?;
    let path = evaluator.coerce_to_path(&file, &mut Context::new(), super::NOWHERE, "")?;
    read(address, &evaluator.sources.read(&evaluator.real_path(&path)?)?).map(Some)
}

fn read(name: &str, bytes: &[u8]) -> Result<Registry> {
    Registry::read(bytes).ok_or_else(|| Failure::new(format!("'{name}' is no registry of flakes of version 2")))
}
