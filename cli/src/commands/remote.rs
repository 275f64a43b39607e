//! `forge remote`: which peers there are.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::args::{RemoteArguments, RemoteCommand};
use crate::context::{Context, absolute, project_file};
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::{peers, render};

/// `forge remote`
pub fn run(arguments: &RemoteArguments, context: &Context) -> Result<ExitCode> {
    match &arguments.command {
        RemoteCommand::Add { name, address, priority, token_file, project } => {
            crate::names::check_name(name)?;
            let settings = store::peer::Settings { address: address.clone(), ..store::peer::Settings::default() };
            store::peer::open(&settings)?;
            if store::http::split(address).is_some_and(|parts| parts.user.is_some()) {
                let failure = Failure::new(code::USAGE, "the address has a user name in it");
                return Err(failure.hint("--token-file FILE names a file with a token"));
            }
            let mut section = format!("[remotes.{name}]\naddress = {}\n", toml::Value::from(address.as_str()));
            if *priority != crate::context::Remote::usual_priority() {
                section.push_str(&format!("priority = {priority}\n"));
            }
            if let Some(file) = token_file {
                let file = absolute(file)?;
                section.push_str(&format!("token_file = {}\n", toml::Value::from(file.display().to_string())));
            }
            let path = settings_file(context, *project)?;
            let text = without_section(&read(&path)?, name).0;
            let gap = if text.is_empty() || text.ends_with("\n\n") { "" } else { "\n" };
            write(&path, &format!("{text}{gap}{section}"))
        }
        RemoteCommand::Remove { name, project } => {
            let path = settings_file(context, *project)?;
            let (text, found) = without_section(&read(&path)?, name);
            if !found {
                let failure = Failure::new(code::NOT_FOUND, format!("`{}` names no remote `{name}`", path.display()));
                return Err(match context.settings.remotes.get(name) {
                    Some(setting) => failure.hint(format!("it is in `{}`", setting.origin)),
                    None => failure.hint("`forge remote list` shows them"),
                });
            }
            write(&path, &text)
        }
        RemoteCommand::List => list(context),
        RemoteCommand::Test { peers } => test(peers, context),
    }
}

fn settings_file(context: &Context, project: bool) -> Result<PathBuf> {
    match project {
        true => match project_file() {
            Some(path) => Ok(path),
            None => absolute(Path::new("forge.toml")),
        },
        false => Ok(context.configuration_path()?.join("config.toml")),
    }
}

fn read(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(|error| failed("read", path, &error)),
    }
}

fn failed(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(code::USAGE, format!("cannot {action} `{}`", path.display())).cause(error.to_string())
}

/// Writes settings as a whole; what could not be read again is not written.
fn write(path: &Path, text: &str) -> Result<ExitCode> {
    if let Err(error) = text.parse::<toml::Table>() {
        let failure = Failure::new(code::USAGE, format!("`{}` would not be valid any more", path.display()));
        return Err(failure.cause(error.message().to_owned()).hint("edit it by hand"));
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        std::os::unix::fs::PermissionsExt::set_mode(&mut file.as_file().metadata()?.permissions(), 0o644);
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    write().map_err(|error| failed("write", path, &error))?;
    Ok(ExitCode::SUCCESS)
}

/// A text of settings without one remote's section, everything else as it was; and whether it was there.
fn without_section(text: &str, name: &str) -> (String, bool) {
    let header = [format!("[remotes.{name}]"), format!("[remotes.\"{name}\"]")];
    let (mut kept, mut inside, mut found) = (String::new(), false, false);
    for line in text.split_inclusive('\n') {
        let bare = line.split('#').next().unwrap_or_default().trim();
        if bare.starts_with('[') && bare.ends_with(']') {
            inside = header.iter().any(|header| header == bare);
            found |= inside;
        }
        if !inside {
            kept.push_str(line);
        }
    }
    (kept, found)
}

fn list(context: &Context) -> Result<ExitCode> {
    let remotes = peers::configured(context);
    let origin = |name: &String| context.settings.remotes[name].origin.clone();
    if context.global.json {
        let record = |(name, remote): &(&String, &crate::context::Remote)| {
            serde_json::json!({
                "name": name,
                "address": store::http::redact(&remote.address),
                "priority": remote.priority,
                "token": remote.token_file.is_some(),
                "origin": origin(name),
            })
        };
        let remotes: Vec<_> = remotes.iter().map(record).collect();
        super::print_json(&serde_json::json!({ "schema": 1, "remotes": remotes }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |(name, remote): &(&String, &crate::context::Remote)| {
        vec![(*name).clone(), remote.priority.to_string(), store::http::redact(&remote.address), origin(name)]
    };
    let rows: Vec<Vec<String>> = remotes.iter().map(row).collect();
    super::print(&render::table(&["NAME", "PRIORITY", "ADDRESS", "FROM"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn test(given: &[String], context: &Context) -> Result<ExitCode> {
    let all: Vec<String> = peers::configured(context).into_iter().map(|(name, _)| name.clone()).collect();
    let names = if given.is_empty() { &all } else { given };
    let (mut records, mut worst) = (Vec::new(), 0);
    for name in names {
        let peer = peers::named(context, name)?;
        let started = Instant::now();
        let answer = peer.about();
        let milliseconds = started.elapsed().as_secs_f64() * 1000.0;
        if !context.global.json {
            let words = match &answer {
                Ok(about) => {
                    let may = match (about.read, about.write) {
                        (true, true) => "read, write",
                        (true, false) => "read",
                        (false, true) => "write",
                        (false, false) => "nothing",
                    };
                    format!("{name}: {}, {may} ({milliseconds:.0} ms)\n", about.kind)
                }
                Err(error) => format!("{name}: {error}\n"),
            };
            super::print(&words)?;
        }
        if let Err(error) = &answer {
            let of_error = match error {
                store::peer::Error::Refused { .. } => code::REFUSED,
                _ => code::UNREACHABLE,
            };
            worst = worst.max(of_error);
        }
        records.push(match answer {
            Ok(about) => serde_json::json!({ "name": name, "about": about, "milliseconds": milliseconds }),
            Err(error) => serde_json::json!({ "name": name, "error": error.to_string() }),
        });
    }
    if context.global.json {
        super::print_json(&serde_json::json!({ "schema": 1, "peers": records }))?;
    }
    Ok(ExitCode::from(worst))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_goes_and_the_rest_stays() {
        let text = "# mine\njobs = 2\n\n[remotes.a]\naddress = \"file:///a\"\n\n[remotes.b] # this\naddress = \"file:///b\"\n[debian]\nmirrors = []\n";
        let (kept, found) = without_section(text, "b");
        assert!(found);
        assert_eq!(kept, "# mine\njobs = 2\n\n[remotes.a]\naddress = \"file:///a\"\n\n[debian]\nmirrors = []\n");
        assert_eq!(without_section(text, "c"), (text.to_owned(), false));
    }
}
