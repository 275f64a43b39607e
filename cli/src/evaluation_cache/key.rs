//! What is asked of the evaluator, as a digest.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use expressions::frontend::Invocation;
use expressions::{Argument, Input, Request};
use store::BlobId;
use store::lock::Lock;

use super::encoding::Writer;

const CONTEXT: &str = "forge 2026-11-21 evaluation cache key";

/// A question to the evaluator being put together.
pub struct Key(Writer);

impl Key {
    /// A question of a sort, to this evaluator.
    pub fn of(sort: &str) -> Self {
        Self(Writer::default()).text(CONTEXT).text(expressions::IDENTITY).text(sort)
    }

    pub fn text(mut self, text: &str) -> Self {
        self.0.bytes(text.as_bytes());
        self
    }

    fn os(&mut self, text: impl AsRef<OsStr>) {
        self.0.bytes(text.as_ref().as_bytes());
    }

    /// All of a request but what is read on its behalf.
    pub fn request(mut self, request: &Request, lock: &Lock) -> Self {
        // Everything is named, so that what comes to a request comes to its key.
        let Request { input, attribute, arguments, system, sources, listener: _ } = request;
        match input {
            Input::File(path) => {
                self.0.byte(0);
                self.os(path);
            }
            Input::Text { text, directory } => {
                self.0.byte(1);
                self.0.bytes(text);
                self.os(directory);
            }
        }
        self = self.text(attribute).text(system).text(&lock.to_string());
        self.0.count(arguments.len());
        for (name, argument) in arguments {
            self = self.text(name);
            match argument {
                Argument::String(text) => self = self.text("string").text(text),
                Argument::Expression(text) => self = self.text("expression").text(text),
            }
        }
        self.os(&sources.project);
        self.0.byte(u8::from(sources.impure));
        self.0.byte(u8::from(sources.time.is_some()));
        self.0.count(sources.search_path.len());
        for (prefix, path) in &sources.search_path {
            self = self.text(prefix);
            self.os(path);
        }
        self.0.optional(sources.home.as_deref(), |writer, home| writer.bytes(home.as_os_str().as_bytes()));
        self
    }

    /// All of a call but what is read on its behalf. Of the environment only what counts for every call.
    pub fn invocation(mut self, invocation: &Invocation) -> Self {
        // Where fetched things lie is no part of the question: what was read of them is compared.
        let Invocation {
            arguments,
            directory,
            environment,
            input,
            terminal,
            system,
            time: _,
            recorder: _,
            lock,
            fetched: _,
        } = invocation;
        self.0.count(arguments.len());
        arguments.iter().for_each(|argument| self.os(argument));
        self.os(directory);
        for name in ["NIX_PATH", "HOME"] {
            let value = environment.get(&OsString::from(name));
            self.0.optional(value, |writer, value| writer.bytes(value.as_bytes()));
        }
        self.0.bytes(input);
        self.0.byte(u8::from(*terminal));
        self.text(system).text(&lock.to_string())
    }

    /// The digest, as its bytes are.
    pub fn finish(self) -> [u8; 32] {
        *BlobId::of(&self.0.0).as_bytes()
    }
}
