//! `--runtime`: which program it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use executor::backend::libcontainer;

use crate::args::runner::{BackendChoice, WhereOptions};
use crate::context::{Context, absolute};
use crate::error::{Failure, Result, code};

/// The runtime's program and the words before a runtime's own, if one is named. A name is looked for along the caller's PATH.
pub fn find(options: &WhereOptions, context: &Context) -> Result<Option<(PathBuf, Vec<OsString>)>> {
    let Some(given) = &options.runtime else { return Ok(None) };
    if options.backend.is_some_and(|backend| backend != BackendChoice::Native) {
        let failure = Failure::new(code::USAGE, "--runtime is for runs on this kernel");
        return Err(failure.hint("leave --backend away: in a container forge itself runs the program"));
    }
    if given == Path::new(libcontainer::NAME) {
        if !libcontainer::IS_HERE {
            let failure = Failure::new(code::NOT_FOUND, "--runtime: this forge was compiled without libcontainer");
            return Err(failure.hint("`cargo install --path cli --features libcontainer` makes one that has it"));
        }
        let own = std::env::current_exe();
        let own =
            own.map_err(|error| Failure::new(code::RUN_FAILED, format!("cannot find forge's own program: {error}")))?;
        return Ok(Some((own, vec![libcontainer::WORD.into()])));
    }
    let path = if given.components().count() > 1 { absolute(given).ok() } else { context.program(given) };
    path.filter(|path| path.is_file()).map(|path| Some((path, Vec::new()))).ok_or_else(|| {
        let failure = Failure::new(code::NOT_FOUND, format!("--runtime: there is no `{}` here", given.display()));
        failure
            .hint("crun, runc and youki come with most distributions; without --runtime forge needs none of them")
            .hint(format!("a formation is named without it: forge run {} -- CMD", given.display()))
    })
}
