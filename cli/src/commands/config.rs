//! `forge config`: the settings and where each comes from.

use crate::args::ConfigArguments;
use crate::context::{Context, Setting};
use crate::error::Result;
use crate::exit::ExitCode;
use crate::render;

/// `forge config show`
pub fn run(arguments: &ConfigArguments, context: &Context) -> Result<ExitCode> {
    let settings = &context.settings;
    let unset = || ("(not set)".to_owned(), "the machine's own configuration".to_owned());
    fn shown<T>(setting: &Option<Setting<T>>, text: impl Fn(&T) -> String) -> Option<(String, String)> {
        setting.as_ref().map(|setting| (text(&setting.value), setting.origin.clone()))
    }
    let runner = |name: &'static str, variable: &'static str, setting: &Option<Setting<String>>, otherwise: &str| {
        let unset = || (otherwise.to_owned(), "built in".to_owned());
        (name, variable, shown(setting, String::clone).unwrap_or_else(unset))
    };
    let store = context.store_path()?;
    let jobs = shown(&settings.jobs, usize::to_string);
    let rows = [
        ("store", "FORGE_STORE", (store.value.display().to_string(), store.origin)),
        (
            "jobs",
            "FORGE_JOBS",
            jobs.unwrap_or_else(|| (context.jobs(None).to_string(), "number of processors".to_owned())),
        ),
        (
            "debian.mirrors",
            "FORGE_DEBIAN_MIRROR",
            shown(&settings.debian_mirrors, |list| list.join(" ")).unwrap_or_else(unset),
        ),
        (
            "debian.snapshots",
            "FORGE_DEBIAN_SNAPSHOTS",
            shown(&settings.debian_snapshots, |list| list.join(" ")).unwrap_or_else(unset),
        ),
        (
            "python.index",
            "FORGE_PYTHON_INDEX",
            shown(&settings.python_index, |index| without_password(index)).unwrap_or_else(unset),
        ),
        ("nix.caches", "FORGE_NIX_CACHES", shown(&settings.nix_caches, |list| list.join(" ")).unwrap_or_else(unset)),
        (
            "nix.trusted_keys",
            "FORGE_NIX_TRUSTED_KEYS",
            shown(&settings.nix_trusted_keys, |list| list.join(" ")).unwrap_or_else(unset),
        ),
        (
            "npm.registry",
            "FORGE_NPM_REGISTRY",
            shown(&settings.npm_registry, |index| without_password(index)).unwrap_or_else(unset),
        ),
        (
            "cargo.index",
            "FORGE_CARGO_INDEX",
            shown(&settings.cargo_index, |index| without_password(index)).unwrap_or_else(unset),
        ),
        (
            "registries.insecure",
            "FORGE_INSECURE_REGISTRIES",
            shown(&settings.insecure_registries, |list| list.join(" ")).unwrap_or_else(unset),
        ),
        (
            "evaluation_cache",
            "FORGE_EVALUATION_CACHE",
            shown(&settings.evaluation_cache, bool::to_string)
                .unwrap_or_else(|| ("true".to_owned(), "built in".to_owned())),
        ),
        runner("runner.image", "FORGE_RUNNER_IMAGE", &settings.runner_image, "made of this program"),
        runner("runner.engine", "FORGE_RUNNER_ENGINE", &settings.runner_engine, "podman, else docker"),
        runner("runner.options", "FORGE_RUNNER_OPTIONS", &settings.runner_options, "none"),
    ];
    if context.global.json {
        let record = |(name, variable, (value, origin)): &(&str, &str, (String, String))| serde_json::json!({ "name": name, "variable": variable, "value": value, "origin": origin });
        super::print_json(
            &serde_json::json!({ "schema": 1, "settings": rows.iter().map(record).collect::<Vec<_>>() }),
        )?;
    } else if arguments.origin {
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .map(|(name, variable, (value, origin))| vec![name.to_owned(), value, origin, variable.to_owned()])
            .collect();
        super::print(&render::table(&["SETTING", "VALUE", "FROM", "VARIABLE"], &rows))?;
    } else {
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|(name, _, (value, _))| vec![name.to_owned(), value]).collect();
        super::print(&render::table(&["SETTING", "VALUE"], &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// An address without what stands before `@`.
fn without_password(address: &str) -> String {
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => address.to_owned(),
    }
}
