//! `forge info`: what a formation is and how it wants to be run.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::args::InfoArguments;
use crate::context::Context;
use crate::error::Result;
use crate::{render, runtimes};
use store::{Port, User};

/// `forge info`
pub fn run(arguments: &InfoArguments, context: &Context) -> Result<ExitCode> {
    let store = context.store()?;
    let id = store.find(&arguments.formation)?;
    let (formation, record) = (store.formation(id)?, store.record(id)?);
    let names: Vec<String> = store.roots()?.into_iter().filter(|(_, root)| *root == id).map(|(name, _)| name).collect();
    let extent = store.known_extent(formation.root)?;
    let launch = &formation.launch;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let words = |words: &[Vec<u8>]| words.iter().map(|word| text(word)).collect::<Vec<String>>();
    let (entrypoint, command) = (words(&launch.entrypoint), words(&launch.command));
    let (user, stop_signal) =
        (launch.user.as_ref().map(User::to_string), launch.stop_signal.map(|signal| signal.to_string()));
    let ports: Vec<String> = launch.ports.iter().map(Port::to_string).collect();
    let environment: std::collections::BTreeMap<String, String> =
        launch.environment.iter().map(|(name, value)| (text(name), text(value))).collect();
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
            "layers": record.layers,
            "launch": crate::settings::launch(launch),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<12} {value}");
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
    line("entrypoint", render::shell_words(&entrypoint));
    line("command", render::shell_words(&command));
    line("directory", launch.directory.as_deref().map(text).unwrap_or_default());
    line("user", user.unwrap_or_default());
    line("limits", limits(&launch.limits));
    line("ports", ports.join(", "));
    line("capabilities", launch.capabilities.names().join(" "));
    line("stop signal", stop_signal.unwrap_or_default());
    line("network", if launch.network { "host".to_owned() } else { "none".to_owned() });
    for (name, value) in &environment {
        line("environment", format!("{name}={value}"));
    }
    let memory = [("at least", "forge.memory.minimum"), ("recommended", "forge.memory.recommended")];
    let memory = memory.map(|(word, name)| (word, label(name))).into_iter().filter(|(_, size)| !size.is_empty());
    line("memory", memory.map(|(word, size)| format!("{word} {size}")).collect::<Vec<_>>().join(", "));
    if launch.labels.contains_key("forge.gpu") {
        line("gpu", format!("needed {}", label("forge.cuda")).trim_end().to_owned());
    }
    for (name, value) in &launch.labels {
        line("label", format!("{name}={value}"));
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

fn limits(limits: &store::Limits) -> String {
    let mut words = Vec::new();
    words.extend(limits.memory.map(|bytes| format!("memory {}", render::size(bytes))));
    words.extend(limits.cpu_millis.map(|millis| format!("{} processors", millis as f64 / 1000.0)));
    words.extend(limits.pids.map(|pids| format!("{pids} processes")));
    words.extend(limits.timeout_millis.map(|millis| format!("{} s", millis as f64 / 1000.0)));
    words.join(", ")
}
