//! What `nix-instantiate` does with its arguments, to the letter of its output: for scripts that call it, and to be judged by.
//!
//! Nothing is printed here; what would be is given back.

mod options;
mod render;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use store::StorePath;
use store::lock::Lock;

use self::options::{Given, Options};
use crate::builtins::{NIX_VERSION, derivation_path, to_json};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result, Sort, suggestions};
use crate::locking::Unanswered;
use crate::places::PlaceId;
use crate::plan::{attribute_path, write};
use crate::settings::Settings;
use crate::sources::Sources;
use crate::sources::facts::Recorder;
use crate::symbols::known;
use crate::value::{Attribute, Context, Value, View};
use crate::{Listener, Message, ast_print, paths, show, stack};

pub use crate::plan::Format;

/// A call of the program.
#[derive(Clone)]
pub struct Invocation {
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
    /// Where it is called; absolute.
    pub directory: PathBuf,
    /// Its environment: `NIX_PATH` and `HOME` count, and `builtins.getEnv` sees all of it.
    pub environment: BTreeMap<OsString, OsString>,
    /// What it reads if [`reads_input`] says so.
    pub input: Vec<u8>,
    /// Whether its words go to a terminal: colours in them are left.
    pub terminal: bool,
    /// `builtins.currentSystem`
    pub system: String,
    /// `builtins.currentTime`
    pub time: i64,
    /// Writes down what is asked of the world, if anything does.
    pub recorder: Option<Recorder>,
    /// What was found out of the world outside by earlier calls of this invocation.
    pub lock: Lock,
    /// Where what was fetched lies.
    pub fetched: BTreeMap<StorePath, PathBuf>,
}

/// What the program prints and how it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Printed {
    /// Data.
    pub output: Vec<u8>,
    /// Words.
    pub errors: Vec<u8>,
    /// 0, 1, or 102 where what was fetched is not what was expected.
    pub code: u8,
    /// What it could not go on without; then nothing was printed but what it said on the way.
    pub unanswered: Unanswered,
}

/// Where something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Data.
    Output,
    /// Words.
    Errors,
}

/// Takes what is printed, when it is printed.
pub type Sink = Arc<dyn Fn(Stream, &[u8]) + Send + Sync>;

/// The exit code, of Nix and of forge, where what was fetched is not what was expected.
const MISMATCH: u8 = 102;

/// Whether the arguments say that the input is read.
pub fn reads_input(arguments: &[OsString]) -> bool {
    let read =
        |options: Options| options.read_input || options.arguments.iter().any(|(_, given, _)| *given == Given::Input);
    options::read(arguments).is_ok_and(read)
}

/// Carries out a call, and collects what it prints.
pub fn nix_instantiate(invocation: &Invocation) -> Printed {
    let printed = Arc::new(Mutex::new(Printed::default()));
    let inner = Arc::clone(&printed);
    let code = nix_instantiate_to(
        invocation,
        &(Arc::new(move |stream, bytes: &[u8]| {
            let mut printed = inner.lock().unwrap_or_else(PoisonError::into_inner);
            match stream {
                Stream::Output => printed.output.extend_from_slice(bytes),
                Stream::Errors => printed.errors.extend_from_slice(bytes),
            }
        }) as Sink),
    );
    let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
    match code {
        Ok(code) => printed.code = code,
        Err(unanswered) => {
            printed.errors.extend_from_slice(b"error: the value depends on what is elsewhere and was not fetched\n");
            (printed.code, printed.unanswered) = (1, unanswered);
        }
    }
    std::mem::take(&mut *printed)
}

/// Carries out a call; gives its exit code (0, 1, or 102 for a mismatch), or what it could not go on without: once that is found out it is called
/// again, and says on the way what it said before.
pub fn nix_instantiate_to(invocation: &Invocation, sink: &Sink) -> std::result::Result<u8, Unanswered> {
    let options = match options::read(&invocation.arguments) {
        Ok(options) => options,
        Err(misuse) => {
            let text = format!("error: {}\nTry 'nix-instantiate --help' for more information.\n", misuse.0);
            sink(Stream::Errors, text.as_bytes());
            return Ok(1);
        }
    };
    if options.version {
        // Scripts take the third word.
        let text = format!("nix-instantiate (forge/{}) {NIX_VERSION}\n", env!("CARGO_PKG_VERSION"));
        sink(Stream::Output, text.as_bytes());
        return Ok(0);
    }
    if options.setting("restrict-eval") == Some("true") {
        sink(
            Stream::Errors,
            b"error: forge does not restrict an evaluation to the search path; it knows --pure-eval\n",
        );
        return Ok(1);
    }
    for name in &options.unknown {
        sink(Stream::Errors, format!("warning: unknown setting '{name}'\n").as_bytes());
    }
    if options.add_root && !options.evaluate {
        sink(
            Stream::Errors,
            b"warning: '--add-root' makes no link: paths of derivations are printed, and nothing is written to /nix/store\n",
        );
    }
    let terminal = invocation.terminal;
    stack::deep(move || {
        let words = Arc::clone(sink);
        let listener: Listener = Arc::new(move |message: &Message| {
            words(Stream::Errors, render::filtered(&render::message(message), terminal).as_bytes());
        });
        let evaluator = evaluator(invocation, &options, listener);
        let mut output = Vec::new();
        let result = evaluator.within_memory(|| run(&evaluator, invocation, &options, &mut output));
        let unanswered = evaluator.locking.borrow_mut().take_unanswered();
        if !unanswered.is_empty() {
            return Err(unanswered);
        }
        sink(Stream::Output, &output);
        let Err(failure) = result else { return Ok(0) };
        let text = render::failure(&evaluator, &failure, options.show_trace);
        sink(Stream::Errors, render::filtered(&text, terminal).as_bytes());
        Ok(if failure.sort == Sort::Mismatch { MISMATCH } else { 1 })
    })
}

fn evaluator(invocation: &Invocation, options: &Options, listener: Listener) -> Evaluator {
    let variable = |name: &str| invocation.environment.get(OsStr::new(name)).cloned();
    let mut sources = Sources::impure(&invocation.directory);
    sources.impure = !options.pure;
    sources.home = variable("HOME").map(PathBuf::from);
    sources.environment.clone_from(&invocation.environment);
    sources.time = Some(invocation.time);
    sources.recorder.clone_from(&invocation.recorder);
    for (path, place) in &invocation.fetched {
        sources.show(path.clone(), place.clone());
    }
    let around = match (options.setting("nix-path"), variable("NIX_PATH")) {
        (Some(paths), _) => paths.split_whitespace().map(str::to_owned).collect(),
        (None, Some(paths)) => paths.to_string_lossy().split(':').map(str::to_owned).collect(),
        (None, None) => channels(&sources),
    };
    for entry in options.search.iter().chain(&around).filter(|entry| !entry.is_empty()) {
        let (prefix, path) = entry.split_once('=').unwrap_or(("", entry));
        // A path that is there is made absolute; others stay as they were written.
        let absolute = invocation.directory.join(path);
        let absolute = paths::normal(absolute.as_os_str().as_bytes());
        let is_there = sources.exists(Path::new(OsStr::from_bytes(&absolute)));
        let path = if is_there { PathBuf::from(OsString::from_vec(absolute)) } else { PathBuf::from(path) };
        sources.search_path.push((prefix.to_owned(), path));
    }
    let system = options.setting("eval-system").filter(|system| !system.is_empty());
    let system = system.or(options.setting("system")).unwrap_or(&invocation.system).to_owned();
    let mut settings = Settings::default();
    for (name, value) in &options.settings {
        settings.set(name, value);
    }
    settings.overridden_flakes.clone_from(&options.overridden_flakes);
    let evaluator = Evaluator::new(sources, settings, (!options.pure).then_some(system), Some(listener));
    evaluator.locking.borrow_mut().lock.clone_from(&invocation.lock);
    evaluator.is_unseen.set(!options.evaluate && !options.parse);
    evaluator
}

/// Where `<nixpkgs>` is looked for where nobody says: the channels of the user and of root, as far as they are there.
fn channels(sources: &Sources) -> Vec<String> {
    let of_user = sources.home.as_ref().map(|home| home.join(".nix-defexpr/channels"));
    let of_root = "/nix/var/nix/profiles/per-user/root/channels";
    let candidates = [
        ("", of_user.map(|path| path.display().to_string())),
        ("nixpkgs=", Some(format!("{of_root}/nixpkgs"))),
        ("", Some(of_root.to_owned())),
    ];
    let there = |(_, path): &(&str, Option<String>)| path.as_ref().is_some_and(|path| sources.exists(Path::new(path)));
    candidates.into_iter().filter(there).map(|(prefix, path)| format!("{prefix}{}", path.unwrap_or_default())).collect()
}

/// The arguments given by `--arg`, `--argstr` and their like.
fn given(evaluator: &Evaluator, invocation: &Invocation, options: &Options) -> Result<Vec<Attribute>> {
    let directory = invocation.directory.as_os_str().as_bytes();
    let arguments = options.arguments.iter().map(|(name, sort, text)| {
        let value = match sort {
            Given::Expression => evaluator.eval_text(PathBuf::from("«string»"), text.as_bytes().to_vec(), directory)?,
            Given::String => Value::string(text.as_bytes()),
            Given::File => {
                let path = paths::join(directory, text.as_bytes());
                Value::string(evaluator.sources.read(Path::new(OsStr::from_bytes(&path)))?)
            }
            Given::Input => Value::string(invocation.input.clone()),
        };
        Ok(Attribute::new(evaluator.symbols.intern(name.as_bytes()), value))
    });
    // Of two with one name the later one counts, which here is the first that is found.
    arguments.rev().collect()
}

fn run(evaluator: &Evaluator, invocation: &Invocation, options: &Options, output: &mut Vec<u8>) -> Result<()> {
    let directory = invocation.directory.as_os_str().as_bytes();
    if options.find {
        for file in &options.files {
            output.extend(find(evaluator, &file.to_string_lossy())?);
            output.push(b'\n');
        }
        return Ok(());
    }
    let arguments = given(evaluator, invocation, options)?;
    if options.read_input {
        let name = PathBuf::from("«stdin»");
        if options.parse {
            return parse(evaluator, name, invocation.input.clone(), directory, output);
        }
        let value = evaluator.eval_text(name, invocation.input.clone(), directory)?;
        return process(evaluator, options, &arguments, &value, output);
    }
    let default = [OsString::from("./default.nix")];
    let files = if options.files.is_empty() && !options.expressions { &default[..] } else { &options.files };
    for file in files {
        let (name, text, directory) = if options.expressions {
            (PathBuf::from("«string»"), file.as_bytes().to_vec(), directory.to_vec())
        } else {
            let text = file.to_string_lossy();
            let path = match text.strip_prefix('<').and_then(|text| text.strip_suffix('>')) {
                Some(name) => find(evaluator, name)?,
                None => paths::join(directory, file.as_bytes()),
            };
            let path = evaluator.resolve_expression(&path)?;
            let bytes = evaluator.sources.read(Path::new(OsStr::from_bytes(&path)))?;
            let directory = paths::directory(&path).to_vec();
            (PathBuf::from(OsString::from_vec(path)), bytes, directory)
        };
        if options.parse {
            parse(evaluator, name, text, &directory, output)?;
        } else {
            let value = evaluator.eval_text(name, text, &directory)?;
            process(evaluator, options, &arguments, &value, output)?;
        }
    }
    Ok(())
}

fn find(evaluator: &Evaluator, name: &str) -> Result<Vec<u8>> {
    let symbol = |name: &str| evaluator.symbols.intern(name.as_bytes());
    let (Some(function), Some(path)) =
        (evaluator.globals.get(&symbol("__findFile")), evaluator.globals.get(&symbol("__nixPath")))
    else {
        return Ok(Vec::new());
    };
    let found = evaluator.call(function, &[*path, Value::string(name)], PlaceId::NONE)?;
    evaluator.coerce_to_path(&found, &mut Context::new(), PlaceId::NONE, "")
}

fn parse(evaluator: &Evaluator, name: PathBuf, text: Vec<u8>, directory: &[u8], output: &mut Vec<u8>) -> Result<()> {
    let tree = evaluator.check_text(name, text, directory)?;
    output.extend(ast_print::expression(&evaluator.symbols, &tree, tree.root).bytes());
    output.push(b'\n');
    Ok(())
}

fn process(
    evaluator: &Evaluator,
    options: &Options,
    arguments: &[Attribute],
    root: &Value,
    output: &mut Vec<u8>,
) -> Result<()> {
    let whole = [String::new()];
    let attributes = if options.attributes.is_empty() { &whole[..] } else { &options.attributes };
    for attribute in attributes {
        let value = select(evaluator, attribute, arguments, root)?;
        if !options.evaluate {
            derivations(evaluator, &value, arguments, 0, output)?;
            continue;
        }
        let value = if arguments.is_empty() { value } else { evaluator.call_with_known(&value, arguments)? };
        let mut context = Context::new();
        match options.format {
            Some(Format::Json) => {
                output.extend(to_json(evaluator, &value, PlaceId::NONE, &mut context, true)?);
                output.push(b'\n');
            }
            Some(Format::XmlWithPlaces) => {
                let format = if options.no_location { Format::Xml } else { Format::XmlWithPlaces };
                output.extend(write(evaluator, &value, format, options.strict)?);
            }
            Some(format) => output.extend(write(evaluator, &value, format, options.strict)?),
            None => {
                output.extend(write(evaluator, &value, Format::Nix, options.strict)?);
                output.push(b'\n');
            }
        }
    }
    Ok(())
}

/// What a selection path leads to, functions on the way being called.
fn select(evaluator: &Evaluator, path: &str, arguments: &[Attribute], root: &Value) -> Result<Value> {
    let mut value = *root;
    if path.bytes().filter(|byte| *byte == b'"').count() % 2 == 1 {
        return Err(Failure::new(format!("missing closing quote in selection path '{path}'")));
    }
    for name in attribute_path(path) {
        value = evaluator.call_with_known(&value, arguments)?;
        let index = name.parse::<u32>().ok();
        value = match (value.view(), index) {
            (View::Set(_), None) if name.is_empty() => {
                return Err(Failure::new(format!("empty attribute name in selection path '{path}'")));
            }
            (View::Set(set), None) => match set.get(evaluator.symbols.intern(name.as_bytes())) {
                Some(attribute) => evaluator.force(&attribute.value, attribute.place)?,
                None => {
                    let known: Vec<_> = set.iter().map(|entry| evaluator.symbols.text(entry.name)).collect();
                    let close = suggestions(&name, known.iter().map(String::as_str));
                    let message = format!("attribute '{name}' in selection path '{path}' not found");
                    return Err(Failure::new(message).suggesting(close));
                }
            },
            (View::List(list), Some(index)) => match list.get(index as usize) {
                Some(item) => evaluator.force(&item, PlaceId::NONE)?,
                None => {
                    return Err(Failure::new(format!("list index {index} in selection path '{path}' is out of range")));
                }
            },
            (_, index) => {
                let wanted = if index.is_some() { "list" } else { "set" };
                let kind = value.kind();
                return Err(Failure::new(format!(
                    "the expression selected by the selection path '{path}' should be a {wanted} but is {kind}"
                )));
            }
        };
    }
    Ok(value)
}

/// The `.drv` paths of derivations in a value.
fn derivations(
    evaluator: &Evaluator,
    value: &Value,
    arguments: &[Attribute],
    depth: usize,
    output: &mut Vec<u8>,
) -> Result<()> {
    let _depth = evaluator.deeper(PlaceId::NONE)?;
    let value = evaluator.call_with_known(value, arguments)?;
    if evaluator.is_derivation(&value)? {
        if let View::Set(set) = value.view()
            && set.get(known::NAME).is_none()
        {
            return Err(Failure::new("derivation name missing"));
        }
        let path = derivation_path(evaluator, &value)?;
        output.extend(path.as_str().bytes());
        if let View::Set(set) = value.view()
            && let Some(name) = set.get(known::OUTPUT_NAME)
        {
            let name = evaluator.force_string(&name.value, name.place, "while evaluating the output name")?;
            if name.bytes != b"out" {
                output.push(b'!');
                output.extend_from_slice(&name.bytes);
            }
        }
        output.push(b'\n');
        return Ok(());
    }
    match value.view() {
        View::Set(set) => {
            let wanted = set.get(known::RECURSE_FOR_DERIVATIONS);
            let recurse = match wanted {
                Some(wanted) => {
                    let what = "while evaluating the attribute `recurseForDerivations`";
                    evaluator.force_boolean(&wanted.value, wanted.place, what)?
                }
                None => depth == 0,
            };
            for (_, item) in show::sorted(evaluator, &set).into_iter().filter(|_| recurse) {
                let item = match evaluator.force(&item, PlaceId::NONE) {
                    Ok(item) => item,
                    // In a set of packages one that cannot be had is passed over.
                    Err(failure) if failure.sort == Sort::Assertion => continue,
                    Err(failure) => return Err(failure),
                };
                if matches!(item.view(), View::Set(_) | View::List(_) | View::Lambda(_)) {
                    derivations(evaluator, &item, arguments, depth + 1, output)?;
                }
            }
            Ok(())
        }
        View::List(list) => {
            list.iter().try_for_each(|item| derivations(evaluator, &item, arguments, depth + 1, output))
        }
        _ if depth > 0 => Ok(()),
        _ => {
            let kind = value.kind();
            Err(Failure::new(format!(
                "expression does not evaluate to a derivation (or a set or list of those) but {kind}"
            )))
        }
    }
}
