//! What a mistake in the words of a command line may come from, where the reader of arguments cannot know it.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// For a network with a name, and for a command that stands without `--` before it, as other tools have it.
pub fn hint(error: &clap::Error) -> Option<String> {
    if error.kind() == ErrorKind::InvalidValue
        && let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg)
        && argument.starts_with("--network")
    {
        return Some("networks have no names here: -p HOST:CONTAINER reaches a port of a closed one".to_owned());
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return None };
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return None };
    let takes_command = usage.to_string().contains("[-- <CMD>...]");
    (takes_command && !word.starts_with('-'))
        .then(|| format!("forge's own words end with `--`, then comes the command: -- {word} …"))
}
