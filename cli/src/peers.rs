//! The peers that are configured, and the keys whose claims are believed.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use builder::report::Span;
use store::http::Patience;
use store::peer::{self, Group, Peer, Watch};
use store::signing::{NamedKey, NamedPublicKey};

use crate::context::{Context, Remote};
use crate::error::{Failure, Result, code};
use crate::progress::{Progress, Style};
use crate::words::say;

/// Of a peer that is asked on the way to something else: it must not cost a second.
const IMPATIENT: Patience = Patience { connect: Duration::from_millis(700), silence: Duration::from_millis(900) };

/// The configured peers with their names, as they are asked.
pub fn configured(context: &Context) -> Vec<(&String, &Remote)> {
    let mut remotes: Vec<_> = context.settings.remotes.iter().map(|(name, setting)| (name, &setting.value)).collect();
    remotes.sort_by_key(|(name, remote)| (remote.priority, *name));
    remotes
}

fn settings(context: &Context, name: &str, remote: &Remote, patience: Patience) -> Result<peer::Settings> {
    let token = remote.token_file.as_ref().map(|path| {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(code::USAGE, format!("cannot read the token of remote `{name}` from `{}`", path.display()))
                .cause(error.to_string())
        });
        text.map(|text| text.trim().to_owned())
    });
    Ok(peer::Settings {
        name: name.to_owned(),
        address: remote.address.clone(),
        token: token.transpose()?,
        environment: context.machine().environment,
        registries: crate::registries::settings(context)?,
        patience,
    })
}

/// The peer of a name or an address, which the user named and waits for.
pub fn named(context: &Context, given: &str) -> Result<Box<dyn Peer>> {
    let remote = match context.settings.remotes.get(given) {
        Some(setting) => setting.value.clone(),
        None if given.contains("://") => {
            // A configured peer of this address lends its token.
            let known = context.settings.remotes.values().find(|setting| setting.value.address == given);
            let token_file = known.and_then(|setting| setting.value.token_file.clone());
            Remote { address: given.to_owned(), priority: 0, token_file }
        }
        None => {
            let failure = Failure::new(code::NOT_FOUND, format!("no peer is called `{given}`"));
            return Err(failure.hint("`forge remote list` shows them; an address such as https://HOST does as well"));
        }
    };
    let name = if given.contains("://") { "" } else { given };
    Ok(peer::open(&settings(context, name, &remote, Patience::default())?)?)
}

/// All configured peers, asked on the way to something else.
pub fn group(context: &Context) -> Result<Group<'static>> {
    let mut peers = Vec::new();
    for (name, remote) in configured(context) {
        peers.push(peer::open(&settings(context, name, remote, IMPATIENT)?)?);
    }
    let trusted = if peers.is_empty() { Vec::new() } else { trusted(context)? };
    Ok(Group::new(peers, trusted, |line| say!("forge: {line}")))
}

/// Shows a transfer, and ends it when the user interrupts.
pub fn watched<T>(
    context: &Context,
    phase: &'static str,
    what: &str,
    work: impl FnOnce(&Watch<'_>) -> Result<T>,
) -> Result<T> {
    crate::interrupt::watch(&context.interrupt);
    let bars = std::io::stderr().is_terminal() && context.bars();
    let progress = Progress::new(if bars { Style::Bars } else { Style::Quiet });
    let span = Span::start(&progress, phase, what, None);
    let result = work(&Watch { interrupt: &context.interrupt, progress: &|bytes, _| span.advance(bytes) });
    drop(span);
    progress.finish();
    result
}

/// Where the keys of this user lie.
pub fn keys_path(context: &Context) -> Result<PathBuf> {
    Ok(context.configuration_path()?.join("keys"))
}

/// The user's own keys, by name.
pub fn own_keys(context: &Context) -> Result<Vec<NamedKey>> {
    let mut keys = Vec::new();
    let Ok(directory) = keys_path(context) else { return Ok(keys) };
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|suffix| suffix == "secret") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let bad = || Failure::new(code::USAGE, format!("`{}` is not a key in Nix's form", path.display()));
            keys.push(NamedKey::parse(&text).ok_or_else(bad)?);
        }
    }
    keys.sort_by(|one, other| one.name().cmp(other.name()));
    Ok(keys)
}

/// The key to sign with: the one that is named, else the only one.
pub fn signing_key(context: &Context, name: Option<&str>) -> Result<Option<NamedKey>> {
    let mut keys = own_keys(context)?;
    match name {
        Some(name) => {
            let found = keys.into_iter().find(|key| key.name() == name);
            let none =
                || Failure::new(code::NOT_FOUND, format!("no key `{name}`")).hint(format!("forge key generate {name}"));
            Ok(Some(found.ok_or_else(none)?))
        }
        None if keys.len() > 1 => {
            let failure = Failure::new(code::USAGE, "there are several keys, and none was chosen");
            Err(failure.hint("--sign NAME chooses one: `forge key list` shows them"))
        }
        None => Ok(keys.pop()),
    }
}

/// The files that list trusted keys: the user's, and the machine's.
pub fn trusted_files(context: &Context) -> Vec<PathBuf> {
    let own = context.configuration_path().ok().map(|path| path.join("trusted-keys"));
    own.into_iter().chain([PathBuf::from("/etc/forge/trusted-keys")]).collect()
}

/// Keys whose claims are believed: those that were trusted, and the user's own.
pub fn trusted(context: &Context) -> Result<Vec<NamedPublicKey>> {
    let mut trusted: Vec<NamedPublicKey> = own_keys(context)?.iter().map(NamedKey::public).collect();
    for path in trusted_files(context) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let bad = || {
                Failure::new(code::USAGE, format!("line {} of `{}` is not a public key", number + 1, path.display()))
                    .hint("NAME:BASE64 is expected, as `forge key generate` prints it")
            };
            let key = NamedPublicKey::parse(line).ok_or_else(bad)?;
            if !trusted.contains(&key) {
                trusted.push(key);
            }
        }
    }
    Ok(trusted)
}
