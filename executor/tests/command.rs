//! What a command gets, and what is said of its end.
#![allow(missing_docs)]

mod common;

use common::{World, chain};
use executor::{Ending, Error};

#[test]
fn a_command_runs_and_its_output_and_status_come_back() {
    let Some(mut world) = World::new() else { return };
    let outcome =
        world.run(&["sh", "-c", "echo out; echo err >&2; exit 7"]).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(outcome.ending, Ending::Exited(7));
    assert_eq!((world.stdout().as_str(), world.stderr().as_str()), ("out\n", "err\n"));
    assert_eq!(outcome.missing, Vec::<String>::new());
}

#[test]
fn a_signal_is_told_from_an_exit() {
    let Some(mut world) = World::new() else { return };
    let outcome = world.run(&["sh", "-c", "kill -SEGV $$"]).unwrap();
    assert_eq!(outcome.ending, Ending::Signalled(11));
}

#[test]
fn a_command_that_is_not_there_is_not_found() {
    let Some(mut world) = World::new() else { return };
    let error = world.run(&["no-such-command"]).unwrap_err();
    assert!(matches!(&error, Error::CommandNotFound { command } if command == "no-such-command"), "{error:?}");
}
