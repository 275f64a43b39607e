//! The index of crates of this machine: forge's own configuration, else cargo's, else cargo's own built-in default, which is read out
//! of Debian's package of cargo when it is needed: no address stands here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use store::digest::StepKey;

use crate::debian::newest;
use crate::fetch::{Place, percent_encode, split};
use crate::report::Span;
use crate::{Builder, Error, Machine, Result, remembered};

/// Whose cargo is asked for its default: one that knows indexes over HTTP.
const SUITE: &str = "trixie";
/// Cargo itself, in Debian's package.
const PROGRAM: &str = "usr/bin/cargo";

/// Where a crate may lie.
pub fn places(builder: &Builder<'_>, path: &str) -> Result<Vec<Place>> {
    let (name, version) = path.split_once('/').ok_or_else(|| Error::Invalid {
        what: "address",
        name: format!("cargo:{path}"),
        reason: "`cargo:NAME/VERSION` is expected".to_owned(),
    })?;
    let index = match configured(builder.machine)? {
        Some(index) => index,
        None => default_index(builder)?,
    };
    let template = downloads(builder, &index)?;
    Ok(vec![Place::new(fill(&template, name, version))])
}

/// What forge or cargo is configured with.
fn configured(machine: &Machine) -> Result<Option<String>> {
    let clean = |index: &str| index.trim_start_matches("sparse+").to_owned();
    if let Some(own) = &machine.cargo_index {
        return Ok(Some(clean(own)));
    }
    let home = machine.variable("CARGO_HOME").map(PathBuf::from);
    let Some(home) = home.or_else(|| Some(machine.home.as_ref()?.join(".cargo"))) else { return Ok(None) };
    let text = ["config.toml", "config"].iter().find_map(|file| std::fs::read_to_string(home.join(file)).ok());
    let Some(text) = text else { return Ok(None) };
    let bad = |reason: String| Error::Invalid { what: "configuration", name: "cargo's config.toml".to_owned(), reason };
    let table: toml::Table = toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))?;
    let source = |name: &str| table.get("source")?.get(name)?.as_table();
    // Replacements may lead to further ones, in a circle too.
    let mut name = "crates-io".to_owned();
    for _ in 0..16 {
        let Some(about) = source(&name) else { break };
        match (
            about.get("replace-with").and_then(toml::Value::as_str),
            about.get("registry").and_then(toml::Value::as_str),
        ) {
            (Some(next), _) => name = next.to_owned(),
            (None, Some(registry)) if registry.starts_with("sparse+") => return Ok(Some(clean(registry))),
            (None, Some(_)) => {
                return Err(bad(format!("source `{name}` is no sparse index, and no other can be asked")));
            }
            (None, None) => return Ok(None),
        }
    }
    let registry = || table.get("registries")?.get(&name)?.get("index")?.as_str();
    Ok(registry().filter(|_| name != "crates-io").filter(|index| index.starts_with("sparse+")).map(clean))
}

/// Where an index says that its crates are (`dl` of its `config.json`). Asked once a process.
fn downloads(builder: &Builder<'_>, index: &str) -> Result<String> {
    static KNOWN: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(template) = known.get(index) {
        return Ok(template.clone());
    }
    let url = format!("{}/config.json", index.trim_end_matches('/'));
    let document = builder.fetcher.document(builder, &Place::new(url), None)?;
    let bad = |reason: String| Error::Invalid { what: "index of crates", name: "config.json".to_owned(), reason };
    let value: serde_json::Value = serde_json::from_slice(&document.bytes).map_err(|error| bad(error.to_string()))?;
    let template = value.get("dl").and_then(serde_json::Value::as_str);
    let template =
        template.filter(|template| split(template).is_some()).ok_or_else(|| bad("it has no `dl`".to_owned()))?;
    known.insert(index.to_owned(), template.to_owned());
    Ok(template.to_owned())
}

/// The address of a crate (cargo's reference, "index configuration").
fn fill(template: &str, name: &str, version: &str) -> String {
    let (name_part, version_part) = (percent_encode(name), percent_encode(version));
    if !template.contains('{') {
        return format!("{}/{name_part}/{version_part}/download", template.trim_end_matches('/'));
    }
    let prefix = |name: &str| match name.len() {
        1 => "1".to_owned(),
        2 => "2".to_owned(),
        3 => format!("3/{}", name.get(..1).unwrap_or(name)),
        _ => format!("{}/{}", name.get(..2).unwrap_or(name), name.get(2..4).unwrap_or_default()),
    };
    let filled = template.replace("{crate}", &name_part).replace("{version}", &version_part);
    filled.replace("{prefix}", &prefix(name)).replace("{lowerprefix}", &prefix(&name.to_lowercase()))
}

/// What cargo falls back to where nothing is configured.
fn default_index(builder: &Builder<'_>) -> Result<String> {
    static ASKING: Mutex<()> = Mutex::new(());
    let _asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    remembered::text(builder, &StepKey::of(b"default index of cargo 1"), || {
        let _span = Span::start(builder.reporter, "resolve", "the default index of cargo", None);
        let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
        let program = newest::file(builder, SUITE, architecture, "cargo", PROGRAM)?.ok_or_else(not_configured)?;
        index_in(&program).ok_or_else(not_configured)
    })
}

/// The first `sparse+https://HOST/` among a program's bytes.
fn index_in(program: &[u8]) -> Option<String> {
    const SIGN: &[u8] = b"sparse+https://";
    let mut rest = program;
    loop {
        let at = rest.windows(SIGN.len()).position(|window| window == SIGN)?;
        rest = &rest[at + SIGN.len()..];
        let host: Vec<u8> =
            rest.iter().copied().take_while(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte)).collect();
        if host.contains(&b'.') && rest.get(host.len()) == Some(&b'/') {
            return Some(format!("https://{}/", String::from_utf8_lossy(&host)));
        }
    }
}

fn not_configured() -> Error {
    Error::NotConfigured {
        what: "index of crates",
        settings: vec![
            "`FORGE_CARGO_INDEX`, or `cargo.index` in forge's own configuration".to_owned(),
            "`[source.crates-io]` with `replace-with` in `~/.cargo/config.toml`".to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::loopback::{Loopback, Page};
    use crate::world::World;

    #[test]
    fn a_crate_lies_where_the_configured_index_says() {
        let server = Loopback::start();
        server.put("/index/config.json", Page::Bytes(format!(r#"{{ "dl": "{}" }}"#, server.url("/dl")).into_bytes()));
        server.put("/dl/a/1.0.0%2bx/download", Page::Bytes(b"a crate".to_vec()));
        let index = server.url("/index");
        let world = World::on(|root| {
            let text =
                format!("[source.crates-io]\nreplace-with = \"here\"\n[source.here]\nregistry = \"sparse+{index}/\"\n");
            std::fs::create_dir(root.join(".cargo")).unwrap();
            std::fs::write(root.join(".cargo/config.toml"), text).unwrap();
            Machine { root: root.to_owned(), home: Some(root.to_owned()), ..Machine::default() }
        });
        let found = places(&world.builder(), "a/1.0.0+x").unwrap();
        assert_eq!(found[0].url, server.url("/dl/a/1.0.0%2bx/download"));
    }

    #[test]
    fn templates_are_filled_as_cargo_does() {
        assert_eq!(
            fill("https://h/{prefix}/{crate}-{version}.crate", "Serde", "1.0.0"),
            "https://h/Se/rd/Serde-1.0.0.crate"
        );
        assert_eq!(fill("https://h/{lowerprefix}/{crate}", "Abc", "1"), "https://h/3/a/Abc");
        assert_eq!(fill("https://h/x/", "ab", "1"), "https://h/x/ab/1/download");
        // No crate is called so, but a lock may say so: three bytes, of which the first is no letter.
        assert_eq!(fill("https://h/{prefix}/{crate}", "é1", "1"), "https://h/3/é1/%c3%a91");
    }

    #[test]
    fn the_default_is_found_in_the_program() {
        assert_eq!(
            index_in(b"xx sparse+https:// sparse+https://index.example/more text").as_deref(),
            Some("https://index.example/")
        );
        assert_eq!(index_in(b"nothing"), None);
    }
}
