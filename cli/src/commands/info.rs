//! `forge info`: what a formation is and how it wants to be run.

use std::fmt::Write as _;

use crate::args::InfoArguments;
use crate::context::Context;
use crate::error::Result;
use crate::exit::ExitCode;
use crate::{render, runtimes};

/// `forge info`
pub fn run(arguments: &InfoArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let id = store.find(&arguments.formation)?;
    let (formation, record) = (store.formation(id)?, store.record(id)?);
    let names: Vec<String> = store.roots()?.into_iter().filter(|(_, root)| *root == id).map(|(name, _)| name).collect();
    let extent = store.known_extent(formation.root)?;
    let launch = &formation.launch;
    let packages = store.packages(formation.root)?;
    let kind = runtimes::kind(&formation, &record);
    let label = |name: &str| launch.labels.get(name).cloned().unwrap_or_default();
    if context.global.json {
        let package = |package: &store::packages::Package| {
            serde_json::json!({
                "ecosystem": package.ecosystem.purl_type(),
                "name": package.name,
                "version": package.version,
                "licences": package.licences,
            })
        };
        super::print_json(&serde_json::json!({
            "schema": 1,
            "id": id.to_string(),
            "names": names,
            "name": formation.name,
            "version": formation.version,
            "variant": formation.variant,
            "platform": formation.platform,
            "type": kind,
            "description": runtimes::description(&formation),
            "requirements": {
                "minimum_memory": launch.labels.get("forge.memory.minimum"),
                "recommended_memory": launch.labels.get("forge.memory.recommended"),
                "gpu": launch.labels.contains_key("forge.gpu"),
                "architectures": [formation.platform.rsplit('/').next().unwrap_or_default()],
            },
            "packages": packages.iter().map(package).collect::<Vec<_>>(),
            "root": formation.root.to_string(),
            "size": extent.bytes,
            "files": extent.files,
            "directories": extent.directories,
            "built": record.built,
            "original_yaml": record.description,
            "layers": record.layers,
            "launch": crate::settings::launch(launch),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<12} {}", render::plain(&value));
        }
    };
    line("id", id.to_string());
    line("names", names.join(", "));
    line("name", formation.name.clone());
    line("version", formation.version.clone());
    line("type", kind);
    line("description", runtimes::description(&formation).to_owned());
    line("variant", formation.variant.clone());
    line("platform", formation.platform.clone());
    line("root", formation.root.to_string());
    line("size", format!("{}, {} files, {} directories", render::size(extent.bytes), extent.files, extent.directories));
    for (name, value) in crate::settings::lines(launch) {
        line(name, value);
    }
    line("network", if launch.network { "host".to_owned() } else { "none".to_owned() });
    let memory = [("at least", "forge.memory.minimum"), ("recommended", "forge.memory.recommended")];
    let memory = memory.map(|(word, name)| (word, label(name))).into_iter().filter(|(_, size)| !size.is_empty());
    line("memory", memory.map(|(word, size)| format!("{word} {size}")).collect::<Vec<_>>().join(", "));
    if launch.labels.contains_key("forge.gpu") {
        line("gpu", format!("needed {}", label("forge.cuda")).trim_end().to_owned());
    }
    if let Some(original) = &record.description {
        line("built from", format!("a runtime.yaml of {} lines, kept: --json shows it", original.lines().count()));
    }
    for layer in &record.layers {
        line(
            "layer",
            format!("{}  {}  {} files  {}", &layer.delta[..8], render::size(layer.size), layer.files, layer.label),
        );
    }
    let mut count: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for package in &packages {
        *count.entry(package.ecosystem.purl_type()).or_default() += 1;
    }
    let counts: Vec<String> = count.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    line("packages", counts.join(", "));
    // Debian's own are many; `forge sbom` has them all.
    let of_languages = packages.iter().filter(|package| !matches!(package.ecosystem.purl_type(), "deb" | "apk"));
    for package in of_languages.take(MOST_PACKAGES) {
        line("package", format!("{} {} ({})", package.name, package.version, package.ecosystem.purl_type()));
    }
    line("usage", format!("forge run {}{}", formation.name, if launch.command.is_empty() { " -- CMD" } else { "" }));
    super::print(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// More packages of languages than this are not listed by name.
const MOST_PACKAGES: usize = 40;
