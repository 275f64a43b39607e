//! `forge serve`: offers the store to peers until it is told to end.

use std::time::Duration;

use server::{Access, Options, Server, Tls, TlsFiles, Tokens};

use crate::args::ServeArguments;
use crate::context::Context;
use crate::error::{Failure, Result, code};
use crate::exit::ExitCode;
use crate::words::say;
use crate::{interrupt, peers, units};

/// `forge serve`
pub fn run(arguments: &ServeArguments, context: &Context) -> Result<ExitCode> {
    let text = match &arguments.tokens {
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            Failure::new(code::USAGE, format!("cannot read the tokens in `{}`", path.display()))
                .cause(error.to_string())
        })?,
        None => String::new(),
    };
    let anonymous = match (&arguments.anonymous, &arguments.tokens) {
        (Some(scopes), _) => Access {
            read: scopes.iter().any(|scope| scope == "read"),
            write: scopes.iter().any(|scope| scope == "write"),
        },
        // Who made tokens wants them to be needed.
        (None, Some(_)) => Access::default(),
        (None, None) => Access { read: true, write: false },
    };
    let tokens = Tokens::parse(&text, anonymous).map_err(|error| {
        Failure::new(code::USAGE, "the tokens cannot be read")
            .cause(error.to_string())
            .hint("`forge key token NAME --tokens FILE` makes one")
    })?;
    let tls = match (&arguments.certificate, &arguments.certificate_key) {
        (Some(certificate), Some(key)) => {
            let files = TlsFiles { certificate: certificate.clone(), key: key.clone() };
            Some(Tls::read(&files).map_err(|error| Failure::new(code::USAGE, error.to_string()))?)
        }
        _ => None,
    };
    let silence =
        match &arguments.silence {
            None => Duration::from_secs(30),
            Some(text) => Duration::from_millis(units::millis(text).ok_or_else(|| {
                Failure::new(code::USAGE, format!("--silence `{text}`: a time such as 30s is expected"))
            })?),
        };
    let key = arguments.sign.as_deref().map(|name| peers::signing_key(context, Some(name))).transpose()?.flatten();
    let scheme = if tls.is_some() { "https" } else { "http" };
    // Made if it is not there; what cannot be opened is said at once.
    let store = context.store()?.path().to_owned();
    let shown = store.display().to_string();
    let options = Options {
        address: arguments.listen,
        tokens,
        tls,
        key,
        connections: arguments.connections,
        silence,
        grace: Duration::from_secs(20),
    };
    interrupt::watch(&context.interrupt);
    let quiet = context.global.quiet;
    let tell = move |line: &str| {
        if !quiet {
            say!("forge: {line}");
        }
    };
    let server = Server::listen(store, options, context.interrupt.clone(), tell).map_err(|error| {
        let failure = Failure::new(code::USAGE, error.to_string()).caused_by(&error);
        failure.hint("--listen HOST:PORT chooses another place; port 0 any that is free")
    })?;
    let address = server.address().map_err(|error| Failure::new(code::BUG, error.to_string()))?;
    if context.global.json {
        super::print_json(
            &serde_json::json!({ "schema": 1, "address": format!("{scheme}://{address}"), "store": shown }),
        )?;
    } else {
        super::print(&format!("{scheme}://{address}\n"))?;
    }
    match server.run() {
        0 => Ok(ExitCode::SUCCESS),
        left => {
            if !quiet {
                say!("forge: {left} requests were cut off");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
