//! `forge key`: keys that sign claims, keys whose claims are believed, and tokens of a server.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use store::signing::{NamedKey, NamedPublicKey};

use crate::args::{KeyArguments, KeyCommand};
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::{peers, render};

/// `forge key`
pub fn run(arguments: &KeyArguments, context: &Context) -> Result<ExitCode> {
    match &arguments.command {
        KeyCommand::Generate { name } => generate(name, context),
        KeyCommand::Trust { key } => trust(key, context),
        KeyCommand::List => list(context),
        KeyCommand::Token { name, scopes, tokens } => token(name, scopes, tokens, context),
    }
}

fn failed(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(code::USAGE, format!("cannot {action} `{}`", path.display())).cause(error.to_string())
}

fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Failure::new(code::BUG, "cannot read random bytes").cause(error.to_string()))?;
    Ok(bytes)
}

fn generate(name: &str, context: &Context) -> Result<ExitCode> {
    crate::names::check_name(name)?;
    let directory = peers::keys_path(context)?;
    let path = directory.join(format!("{name}.secret"));
    let key = NamedKey::from_seed(name, random()?);
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(&directory)?;
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(format!("{}\n", key.to_secret_text()).as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(code::USAGE, format!("there is a key `{name}` already"))
            .hint("another name, for instance with a higher number, makes another key"),
        _ => failed("write", &path, &error),
    })?;
    if context.global.json {
        let record = serde_json::json!({ "schema": 1, "name": name, "public": key.public().to_string(), "path": path.display().to_string() });
        super::print_json(&record)?;
    } else {
        super::print(&format!("{}\n", key.public()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn trust(text: &str, context: &Context) -> Result<ExitCode> {
    let key = NamedPublicKey::parse(text).ok_or_else(|| {
        let failure =
            Failure::new(code::USAGE, format!("`{}` is not a public key", text.split(':').next().unwrap_or("")));
        failure.hint("NAME:BASE64 is expected, as `forge key generate` and `nix key convert-secret-to-public` print it")
    })?;
    if peers::trusted(context)?.contains(&key) {
        return Ok(ExitCode::SUCCESS);
    }
    let directory = context.configuration_path()?;
    let path = directory.join("trusted-keys");
    let append = || -> std::io::Result<()> {
        fs::create_dir_all(&directory)?;
        let mut file = fs::File::options().append(true).create(true).open(&path)?;
        // One write: two that trust at once do not mix.
        file.write_all(format!("{key}\n").as_bytes())
    };
    append().map_err(|error| failed("write", &path, &error))?;
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context) -> Result<ExitCode> {
    let own = peers::own_keys(context)?;
    let is_own = |key: &NamedPublicKey| own.iter().any(|own| own.public() == *key);
    let trusted = peers::trusted(context)?;
    if context.global.json {
        let record = |key: &NamedPublicKey| serde_json::json!({ "name": key.name(), "public": key.to_string(), "own": is_own(key) });
        let keys: Vec<_> = trusted.iter().map(record).collect();
        super::print_json(&serde_json::json!({ "schema": 1, "keys": keys }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |key: &NamedPublicKey| vec![if is_own(key) { "signs" } else { "trusted" }.to_owned(), key.to_string()];
    let rows: Vec<Vec<String>> = trusted.iter().map(row).collect();
    super::print(&render::table(&["USE", "KEY"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn token(name: &str, scopes: &[String], tokens: &Path, context: &Context) -> Result<ExitCode> {
    crate::names::check_name(name)?;
    let token = format!("forge_{}", store::digest::to_hex(&random()?));
    // Of a token with 256 random bits the digest tells nothing, so it needs no salt and no slow hash.
    let digest = store::BlobId::of(token.as_bytes());
    let mut scopes = scopes.to_vec();
    scopes.sort();
    scopes.dedup();
    let line = format!("{name} {} {digest}\n", scopes.join(","));
    let append = fs::File::options().append(true).create(true).mode(0o600).open(tokens);
    append.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|error| failed("write", tokens, &error))?;
    if context.global.json {
        super::print_json(&serde_json::json!({ "schema": 1, "name": name, "scopes": scopes, "token": token }))?;
    } else {
        super::print(&format!("{token}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
