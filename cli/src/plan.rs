//! From an expression to a plan: a dialogue with the lock. The expression is evaluated; what its lock does not answer the
//! builder finds out; when everything is answered the lock is written and the expression evaluated again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use builder::Builder;
use expressions::error::{Place, SourceText};
use expressions::{Argument, Evaluated, Input, Message, Question, Request, Sources};
use store::Plan;
use store::lock::{Lock, LockEntry, LockError, LockRequest};

use crate::args::{ExpressionArguments, FunctionArguments, SourceOptions};
use crate::context::{self, Context};
use crate::error::{Failure, Result, code};
use crate::evaluation_cache::EvaluationCache;
use crate::interrupt;
use crate::outside::{self, Once};
use crate::words::{self, say};

/// What may be done to the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockMode {
    /// What is new is added.
    Add,
    /// What is new is asked for, and the file stays as it is.
    Unwritten,
    /// Nothing.
    Locked,
    /// Everything is asked again, or what has one of these packages.
    Update(Vec<String>),
}

/// An expression and its lock.
pub struct Expression {
    request: Request,
    /// The `forge.lock` beside it.
    pub lock_path: PathBuf,
    /// The description that it was turned from, if it was not an expression.
    pub description: Option<String>,
    lock: Lock,
    written: String,
    cache: EvaluationCache,
}

/// The names that are looked for where a directory is given, first one first.
const DEFAULT_FILES: [&str; 3] = ["runtime.expr", "runtime.yaml", "runtime.yml"];

/// What names a file and no runtime.
pub const SUFFIXES: [&str; 4] = ["expr", "nix", "yaml", "yml"];

impl Expression {
    /// Finds the file and reads its lock.
    pub fn open(arguments: &ExpressionArguments, context: &Context) -> Result<Self> {
        let file = match own_runtime(&arguments.file, context)? {
            Some(file) => file,
            None => expression_file(&arguments.file)?,
        };
        let mut request = request(&file, arguments)?;
        let mut description = None;
        if crate::joblet::is_description(&file) {
            let text = crate::joblet::expression(&file, context)?.text.into_bytes();
            let directory = file.parent().unwrap_or(Path::new("/")).to_owned();
            request.input = Input::Text { text, directory };
            description = std::fs::read_to_string(&file).ok();
        }
        let lock_path = file.with_file_name("forge.lock");
        let (lock, written) = read_lock(&lock_path)?;
        let cache = context.evaluation_cache();
        Ok(Self { request, lock_path, description, lock, written, cache })
    }

    /// Evaluates, and has answered what the lock does not answer.
    ///
    /// `answerer` is asked for only when there is something to answer, so that a locked build needs no network.
    pub fn plan<'a>(&mut self, mode: &LockMode, answerer: &mut dyn FnMut() -> Result<&'a Builder<'a>>) -> Result<Plan> {
        let before = self.lock.clone();
        if let LockMode::Update(names) = mode {
            for name in names {
                if !before.entries.values().any(|entry| has_package(entry, name)) {
                    let failure = Failure::new(code::NOT_FOUND, format!("the lock has no package `{name}`"));
                    return Err(failure.hint("`forge lock --update` without a name asks again for everything"));
                }
            }
            let asked_again = |entry: &LockEntry| names.is_empty() || names.iter().any(|name| has_package(entry, name));
            self.lock.entries.retain(|_, entry| !asked_again(entry));
        }
        let once = Once::new(listener());
        self.request.listener = Some(once.again());
        loop {
            match interrupt::ends(|| self.cache.evaluate(&self.request, &self.lock))? {
                Evaluated::Plan(plan) => {
                    // Of a file with several formations, the others' answers stay.
                    if !self.request.attribute.is_empty() {
                        for (key, entry) in before.entries {
                            self.lock.entries.entry(key).or_insert(entry);
                        }
                    }
                    if *mode != LockMode::Unwritten {
                        self.write_lock()?;
                    }
                    return Ok(*plan);
                }
                Evaluated::Unlocked(questions) if *mode == LockMode::Locked => {
                    return Err(self.refuse(&before, &questions));
                }
                Evaluated::Unlocked(questions) => {
                    let builder = answerer()?;
                    for question in questions {
                        self.lock.insert(outside::answer(builder, &self.request.sources.project, &question)?);
                    }
                }
                Evaluated::Unread(wanted) => {
                    for (path, place) in outside::lay_out(answerer()?, &wanted)? {
                        self.request.sources.show(path, place);
                    }
                }
            }
            self.request.listener = Some(once.again());
        }
    }

    /// Whether the lock has answers that its file has not.
    pub fn is_new(&self) -> bool {
        !self.lock.entries.is_empty() && self.lock.to_string() != self.written
    }

    /// The lock as it is now.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    fn refuse(&self, before: &Lock, questions: &[Question]) -> Failure {
        let path = self.lock_path.display();
        let headline = match before.entries.is_empty() {
            true => format!("there is no `{path}` and --locked forbids to write it"),
            false => format!("`{path}` does not answer everything and --locked forbids to change it"),
        };
        let failure = Failure::new(code::LOCKED, headline);
        let words = questions.iter().map(|question| format!("not locked: {}", words(&question.request)));
        let failure = words.fold(failure, Failure::cause);
        failure.hint("run `forge lock` without --locked, look at the change, and commit it")
    }

    /// Writes the lock if it has changed: beside it first, then renamed over it.
    fn write_lock(&mut self) -> Result<()> {
        let text = self.lock.to_string();
        if text == self.written || self.lock.entries.is_empty() && self.written.is_empty() {
            return Ok(());
        }
        let failed = |error: std::io::Error| {
            let failure = Failure::new(code::REFUSED, format!("cannot write `{}`", self.lock_path.display()));
            failure.cause(error.to_string()).hint("--locked builds from a lock as it is")
        };
        let directory = self.lock_path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".forge.lock").tempfile_in(directory).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.lock_path).map_err(|error| failed(error.error))?;
        self.written = text;
        Ok(())
    }
}

/// The file of a runtime that comes with forge, if its name was given and no file is called so. It is kept, with its lock, among
/// what is forge's own of this user.
fn own_runtime(given: &Path, context: &Context) -> Result<Option<PathBuf>> {
    let Some(name) = given.to_str().filter(|_| !given.exists()).and_then(crate::runtimes::named) else {
        return Ok(None);
    };
    let shown = given.display();
    if !crate::runtimes::has_version(&shown.to_string()) {
        let failure = Failure::new(code::NOT_FOUND, format!("forge has no such version of `{name}`: `{shown}`"));
        return Err(failure.hint(format!("`forge build {name}` makes version {}", crate::runtimes::VERSION)));
    }
    let directory = context.state_path()?.join("runtimes").join(name);
    let file = directory.join(DEFAULT_FILES[0]);
    let text = crate::runtimes::expression(name);
    if std::fs::read_to_string(&file).ok().as_deref() != Some(&text) {
        std::fs::create_dir_all(&directory)?;
        std::fs::write(&file, text)?;
    }
    Ok(Some(file))
}

/// The expression's file that was meant; a directory stands for the one in it.
pub fn expression_file(given: &Path) -> Result<PathBuf> {
    let mut file = context::absolute(given)?;
    if file.is_dir() {
        let name = DEFAULT_FILES.into_iter().find(|name| file.join(name).is_file()).unwrap_or(DEFAULT_FILES[0]);
        file.push(name);
    }
    if file.is_file() {
        // `..` and links on the way are resolved once, so that the project below is the one that is meant.
        let directory = file.parent().unwrap_or(Path::new("/")).canonicalize()?;
        return Ok(file.file_name().map_or(directory.clone(), |name| directory.join(name)));
    }
    let failure = Failure::new(code::NOT_FOUND, format!("no expression `{}`", file.display()));
    let failure = failure.hint("give the path of a runtime expression, for instance ./runtime.expr");
    let is_name = given.components().count() == 1
        && !file.extension().is_some_and(|suffix| SUFFIXES.iter().any(|known| suffix == *known));
    Err(match is_name {
        true => failure.hint(format!("runtimes that come with forge: {}", crate::runtimes::NAMES.join(", "))),
        false => failure,
    })
}

/// The request for an expression's formation.
fn request(file: &Path, arguments: &ExpressionArguments) -> Result<Request> {
    Ok(Request {
        input: Input::File(file.to_owned()),
        attribute: attribute_path(arguments.attribute.as_deref())?,
        arguments: function_arguments(&arguments.arguments),
        system: system(),
        sources: Sources::pure(project_of(file)),
        listener: Some(listener()),
    })
}

/// This machine, as Nix names systems.
pub fn system() -> String {
    format!("{}-linux", std::env::consts::ARCH)
}

/// The directory that an expression may read: the nearest one above its file with a `forge.toml` or a `.git`, else the file's own.
pub fn project_of(file: &Path) -> PathBuf {
    let own = file.parent().unwrap_or(Path::new("/"));
    let marked = |directory: &&Path| directory.join("forge.toml").exists() || directory.join(".git").exists();
    own.ancestors().find(marked).unwrap_or(own).to_owned()
}

/// What an evaluation can read: the project, and what flags add to it.
pub fn sources(project: PathBuf, options: &SourceOptions, context: &Context) -> Result<Sources> {
    let mut sources = if options.impure { Sources::impure(project) } else { Sources::pure(project) };
    let mut entries = options.include.clone();
    if options.impure {
        let around = context.variable("NIX_PATH").map(|path| path.to_string_lossy().into_owned());
        entries.extend(
            around.iter().flat_map(|path| path.split(':')).filter(|entry| !entry.is_empty()).map(str::to_owned),
        );
        sources.home = context.variable("HOME").map(PathBuf::from);
        sources.environment = context.environment.clone();
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().ok();
        sources.time = now.and_then(|since| since.as_secs().try_into().ok());
    }
    for text in &entries {
        let (name, path) = text.split_once('=').unwrap_or(("", text));
        sources.search_path.push((name.to_owned(), context::absolute(Path::new(path))?));
    }
    Ok(sources)
}

/// Shows what an evaluation says while it goes on.
pub fn listener() -> expressions::Listener {
    Arc::new(|message| match message {
        Message::Trace(text) => say!("trace: {text}"),
        Message::EvaluationWarning(text) => say!("evaluation warning: {text}"),
        Message::Warning(finding) => {
            words::show(&crate::render::finding(finding, false, crate::render::Paint::new(false)))
        }
    })
}

/// `--arg NAME EXPR` and `--argstr NAME TEXT`.
pub fn function_arguments(arguments: &FunctionArguments) -> Vec<(String, Argument)> {
    let pairs = |words: &[String], make: fn(String) -> Argument| {
        words.chunks_exact(2).map(|pair| (pair[0].clone(), make(pair[1].clone()))).collect::<Vec<_>>()
    };
    [pairs(&arguments.arg, Argument::Expression), pairs(&arguments.argstr, Argument::String)].concat()
}

/// Checks an attribute path such as `a.b`; empty if none is given.
pub fn attribute_path(text: Option<&str>) -> Result<String> {
    match text {
        Some(text) if text.split('.').any(str::is_empty) => {
            Err(Failure::new(code::USAGE, format!("`{text}` is not an attribute path")))
        }
        text => Ok(text.unwrap_or_default().to_owned()),
    }
}

/// The lock at a path, and its text; empty if there is none.
pub fn read_lock(path: &Path) -> Result<(Lock, String)> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Lock::default(), String::new())),
        Err(error) => {
            return Err(Failure::new(code::USAGE, format!("cannot read `{}`", path.display())).cause(error.to_string()));
        }
    };
    match Lock::parse(&text) {
        Ok(lock) => Ok((lock, text)),
        Err(error) => {
            let failure = Failure::new(code::USAGE, format!("`{}` is not a lock", path.display()));
            let failure = failure
                .cause(error.to_string())
                .hint("if a merge left it so: remove it, and `forge lock` writes it anew");
            let LockError::Syntax { offset: Some(start), .. } = error else { return Err(failure) };
            let text = Arc::new(SourceText { name: path.to_owned(), bytes: text.into_bytes() });
            Err(failure.at(Place { text, start, end: start + 1 }))
        }
    }
}

fn has_package(entry: &LockEntry, name: &str) -> bool {
    entry.records.iter().any(|record| record.get("name").and_then(serde_json::Value::as_str) == Some(name))
}

/// A request in words: `debian bookworm: git, python3`.
pub fn words(request: &LockRequest) -> String {
    let list = |name: &str| {
        let items = request.parameters.get(name)?.as_array()?;
        Some(items.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join(", "))
    };
    let text = |name: &str| request.parameters.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    let of = text("suite").or_else(|| text("python")).map(|of| format!(" {of}")).unwrap_or_default();
    let what = list("packages").or_else(|| list("requirements")).or_else(|| text("url")).or_else(|| text("component"));
    format!("{}{of}: {}", request.kind, what.unwrap_or_default())
}
