//! From a request to a plan, or to what the lock does not answer yet; and to the text of a value.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use store::derivation::{Fetched, Goal, GoalLayer, Source};
use store::directory::versioned::is_version;
use store::formation::{Launch, Limits, Port, is_variant};
use store::lock::Lock;
use store::{Capabilities, Plan, StorePath};

use crate::builtins::{self, derivation_path, to_json};
use crate::error::Error;
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::library::library;
use crate::locking::{Origin, Question};
use crate::places::PlaceId;
use crate::settings::Settings;
use crate::sources::Sources;
use crate::symbols::known;
use crate::value::{Attribute, Context, Set, Value, View};
use crate::{Listener, paths, report, show, stack};

/// What is to be evaluated.
#[derive(Clone)]
pub struct Request {
    /// Where the expression is.
    pub input: Input,
    /// `-A`: which attribute of it; empty for none.
    pub attribute: String,
    /// `--arg` and `--argstr`, by name.
    pub arguments: Vec<(String, Argument)>,
    /// For which system, for instance `x86_64-linux`.
    pub system: String,
    /// What it can see.
    pub sources: Sources,
    /// Hears traces and warnings.
    pub listener: Option<Listener>,
}

/// Where an expression is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// In a file, or in the `default.nix` of a directory; absolute.
    File(PathBuf),
    /// Right here; relative paths in it start at the directory.
    Text {
        /// The expression.
        text: Vec<u8>,
        /// Absolute.
        directory: PathBuf,
    },
}

/// A value for an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A string.
    String(String),
    /// An expression.
    Expression(String),
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evaluated {
    /// A plan, which also says nothing of the lock is missing.
    Plan(Box<Plan>),
    /// The lock does not answer these.
    Unlocked(Vec<Question>),
    /// These are known by their hash, and were to be read: fetch them, and [`Sources::show`] where they lie.
    Unread(Vec<(StorePath, Fetched)>),
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As the language writes it.
    Nix,
    /// JSON.
    Json,
    /// XML, without places.
    Xml,
    /// XML that says where things are defined.
    XmlWithPlaces,
    /// The bytes of a string.
    Raw,
}

/// Evaluates a runtime expression to a plan.
pub fn evaluate(request: &Request, lock: &Lock) -> std::result::Result<Evaluated, Error> {
    run(request, lock, |evaluator| {
        let value = formation(evaluator, request)?;
        let goal = match evaluator.is_derivation(&value)? {
            true => plain_goal(evaluator, &value)?,
            false => goal(evaluator, &value)?,
        };
        Ok(close(evaluator, goal))
    })
    .map(|outcome| match outcome {
        Outcome::Done(plan) => Evaluated::Plan(Box::new(plan)),
        Outcome::Unlocked(requests) => Evaluated::Unlocked(requests),
        Outcome::Unread(wanted) => Evaluated::Unread(wanted),
    })
}

/// Something, or what the lock should answer first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It is there.
    Done(T),
    /// The lock does not answer these.
    Unlocked(Vec<Question>),
    /// These are known by their hash, and were to be read: fetch them, and [`Sources::show`] where they lie.
    Unread(Vec<(StorePath, Fetched)>),
}

/// Evaluates an expression to the text of its value: all of it if `strict`, else as far as it is known then.
pub fn eval_to(
    request: &Request,
    lock: &Lock,
    format: Format,
    strict: bool,
) -> std::result::Result<Outcome<Vec<u8>>, Error> {
    run(request, lock, |evaluator| {
        let value = select(evaluator, request)?;
        write(evaluator, &value, format, strict)
    })
}

/// The text of a value.
pub(crate) fn write(evaluator: &Evaluator, value: &Value, format: Format, strict: bool) -> Result<Vec<u8>> {
    let mut context = Context::new();
    if strict && format != Format::Raw {
        evaluator.force_deep(value)?;
    }
    match format {
        Format::Nix => show::plain(evaluator, value),
        Format::Json => to_json(evaluator, value, PlaceId::NONE, &mut context, false),
        Format::Xml => builtins::xml::to_xml(evaluator, value, strict, false, &mut context),
        Format::XmlWithPlaces => builtins::xml::to_xml(evaluator, value, strict, true, &mut context),
        Format::Raw => {
            let what = "while generating the eval command output";
            evaluator.coerce(value, &mut context, PlaceId::NONE, what, crate::eval::Coercion::PLAIN)
        }
    }
}

fn run<T: Send>(
    request: &Request,
    lock: &Lock,
    work: impl FnOnce(&Evaluator) -> Result<T> + Send,
) -> std::result::Result<Outcome<T>, Error> {
    let sources = request.sources.clone();
    stack::deep(move || {
        let evaluator =
            Evaluator::new(sources, Settings::forge(), Some(request.system.clone()), request.listener.clone());
        evaluator.locking.borrow_mut().lock = lock.clone();
        let result = evaluator.within_memory(|| work(&evaluator));
        // What failed may have failed for want of an answer.
        let result = result.map_err(|failure| report::error(&evaluator, *failure));
        let mut unanswered = evaluator.locking.borrow_mut().take_unanswered();
        // A builtin function that has no answer goes no further: what it was called for is where it failed.
        let mut nowhere = unanswered.requests.iter_mut().filter(|question| question.origins.is_empty());
        if let (Err(error), Some(question), None) = (&result, nowhere.next(), nowhere.next()) {
            let place = error.findings.first().and_then(|finding| finding.place.clone());
            question.origins.extend(place.filter(|place| report::is_own(&evaluator, place)).map(Origin::of));
        }
        if !unanswered.requests.is_empty() {
            return Ok(Outcome::Unlocked(unanswered.requests));
        }
        if !unanswered.wanted.is_empty() {
            return Ok(Outcome::Unread(unanswered.wanted));
        }
        result.map(Outcome::Done)
    })
}

/// The value of the expression itself, before anything is picked.
fn value(evaluator: &Evaluator, input: &Input) -> Result<Value> {
    use std::os::unix::ffi::OsStrExt as _;
    match input {
        Input::File(path) => evaluator.import(&paths::normal(path.as_os_str().as_bytes())),
        Input::Text { text, directory } => {
            let directory = paths::normal(directory.as_os_str().as_bytes());
            evaluator.eval_text(PathBuf::from("«string»"), text.clone(), &directory)
        }
    }
}

/// Calls a function with the library and what was given on the command line.
fn supply(evaluator: &Evaluator, request: &Request, value: Value) -> Result<Value> {
    if !matches!(value.view(), View::Lambda(_)) {
        return Ok(value);
    }
    let directory = match &request.input {
        Input::Text { directory, .. } => directory.clone(),
        Input::File(path) => path.parent().map(PathBuf::from).unwrap_or_default(),
    };
    supply_with(evaluator, given(evaluator, &request.arguments, &directory)?, value)
}

/// Calls a function with the library and arguments, as far as it wants them by name.
pub(crate) fn supply_with(evaluator: &Evaluator, given: Vec<Attribute>, value: Value) -> Result<Value> {
    let View::Lambda(closure) = value.view() else { return Ok(value) };
    let Some(formals) = &closure.code.formals else { return Ok(value) };
    let mut arguments = vec![Attribute::new(evaluator.symbols.intern(b"forge"), library(evaluator)?)];
    arguments.extend(given);
    for formal in formals.list.iter() {
        if formal.default.is_none() && !arguments.iter().any(|argument| argument.name == formal.name) {
            let name = evaluator.symbols.text(formal.name);
            let message = format!("the expression wants an argument `{name}`, which was not given");
            return Err(Failure::new(message).at(formal.place));
        }
    }
    evaluator.call_with_known(&value, &arguments)
}

/// What was given on the command line.
pub(crate) fn given(
    evaluator: &Evaluator,
    arguments: &[(String, Argument)],
    directory: &std::path::Path,
) -> Result<Vec<Attribute>> {
    let arguments = arguments.iter().map(|(name, argument)| {
        let value = match argument {
            Argument::String(text) => Value::string(text.as_str()),
            Argument::Expression(text) => {
                let name = PathBuf::from(format!("<argument {name}>"));
                let directory = directory.as_os_str().as_encoded_bytes();
                evaluator.eval_text(name, text.as_bytes().to_vec(), directory)?
            }
        };
        Ok(Attribute::new(evaluator.symbols.intern(name.as_bytes()), value))
    });
    arguments.collect()
}

/// The value that is asked for.
fn select(evaluator: &Evaluator, request: &Request) -> Result<Value> {
    let mut current = supply(evaluator, request, value(evaluator, &request.input)?)?;
    for name in attribute_path(&request.attribute) {
        let next = match (current.view(), name.parse::<usize>()) {
            (View::Set(set), _) => {
                let symbol = evaluator.symbols.intern(name.as_bytes());
                set.get(symbol).ok_or_else(|| evaluator.missing(symbol, &set))?.value
            }
            (View::List(list), Ok(number)) => list
                .get(number)
                .ok_or_else(|| Failure::new(format!("list index {number} in selection path is out of range")))?,
            _ => {
                let message = format!("`{name}` cannot be picked from {}", current.kind());
                return Err(Failure::new(message));
            }
        };
        current = supply(evaluator, request, evaluator.force(&next, PlaceId::NONE)?)?;
    }
    Ok(current)
}

/// `a.b."c.d"`
pub(crate) fn attribute_path(text: &str) -> Vec<String> {
    let mut path = Vec::new();
    let (mut name, mut quoted, mut any) = (String::new(), false, false);
    for character in text.chars() {
        match character {
            '"' => (quoted, any) = (!quoted, true),
            '.' if !quoted => {
                path.push(std::mem::take(&mut name));
                any = false;
            }
            _ => name.push(character),
        }
    }
    if any || !name.is_empty() {
        path.push(name);
    }
    path
}

fn is_formation(evaluator: &Evaluator, value: &Value) -> Result<bool> {
    let View::Set(set) = value.view() else { return Ok(false) };
    let Some(kind) = set.get(known::KIND) else { return Ok(false) };
    Ok(matches!(evaluator.force(&kind.value, kind.place)?.view(), View::String(text) if text.bytes == b"formation"))
}

/// The formation that is asked for: the value itself, or `default` of a set of them. A derivation will do too.
fn formation(evaluator: &Evaluator, request: &Request) -> Result<Value> {
    let value = select(evaluator, request)?;
    if is_formation(evaluator, &value)? || evaluator.is_derivation(&value)? {
        return Ok(value);
    }
    let View::Set(set) = value.view() else {
        let shown = show::for_error(evaluator, &value);
        let message = format!("expected a formation but found {}: {shown}", value.kind());
        return Err(Failure::new(message));
    };
    if let Some(default) = set.get(evaluator.symbols.intern(b"default")) {
        let default = supply(evaluator, request, evaluator.force(&default.value, default.place)?)?;
        if is_formation(evaluator, &default)? {
            return Ok(default);
        }
    }
    let mut names = Vec::new();
    for (name, value) in show::sorted(evaluator, &set) {
        // What cannot be evaluated is no reason not to list the others.
        if let Ok(value) = evaluator.force(&value, PlaceId::NONE)
            && is_formation(evaluator, &value).unwrap_or(false)
        {
            names.push(String::from_utf8_lossy(&name).into_owned());
        }
    }
    let message = match names.is_empty() {
        true => "the expression gives a set without formations".to_owned(),
        false => format!("the expression gives several formations; pick one with -A: {}", names.join(", ")),
    };
    Err(Failure::new(message).at(set.place()))
}

/// Reads the fields of a set, and says which one is wrong.
struct Fields<'a> {
    evaluator: &'a Evaluator,
    set: Set,
    of: String,
    /// What the user wrote for it: a wrong setting is shown there and not where the library passes it on.
    written: Option<Set>,
}

impl<'a> Fields<'a> {
    fn new(evaluator: &'a Evaluator, value: &Value, of: impl Into<String>) -> Result<Self> {
        let of = of.into();
        let set = evaluator.force_set(value, PlaceId::NONE, &format!("while evaluating {of}"))?;
        Ok(Self { evaluator, set, of, written: None })
    }

    fn written(self, written: Option<Set>) -> Self {
        Self { written, ..self }
    }

    /// Where it is written.
    fn place(&self, name: &str, passed_on: PlaceId) -> PlaceId {
        let symbol = self.evaluator.symbols.intern(name.as_bytes());
        let written = self.written.as_ref().and_then(|set| set.get(symbol));
        written.map_or(PlaceId::NONE, |attribute| attribute.place).or(passed_on)
    }

    fn find(&self, name: &str) -> Option<Attribute> {
        self.set.get(self.evaluator.symbols.intern(name.as_bytes()))
    }

    fn what(&self, name: &str) -> String {
        format!("while evaluating `{name}` of {}", self.of)
    }

    fn get(&self, name: &str) -> Result<Attribute> {
        self.find(name).ok_or_else(|| Failure::new(format!("{} has no `{name}`", self.of)).at(self.set.place()))
    }

    /// The value, unless it is null or not there.
    fn optional(&self, name: &str) -> Result<Option<(Value, PlaceId)>> {
        let Some(attribute) = self.find(name) else { return Ok(None) };
        let value = self.evaluator.force(&attribute.value, attribute.place);
        let value = value.map_err(|failure| failure.during(attribute.place, self.what(name)))?;
        Ok(if value == Value::NULL { None } else { Some((value, self.place(name, attribute.place))) })
    }

    fn bytes(&self, value: &Value, name: &str, place: PlaceId) -> Result<Vec<u8>> {
        let text = self.evaluator.force_string(value, place, &self.what(name))?;
        Ok(text.bytes.to_vec())
    }

    fn text(&self, name: &str) -> Result<String> {
        let attribute = self.get(name)?;
        let place = self.place(name, attribute.place);
        let bytes = self.bytes(&attribute.value, name, place)?;
        String::from_utf8(bytes).map_err(|_| Failure::new(format!("`{name}` of {} is not UTF-8", self.of)).at(place))
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        let Some((value, place)) = self.optional(name)? else { return Ok(None) };
        let number = self.evaluator.force_integer(&value, place, &self.what(name))?;
        let wrong = |_| Failure::new(format!("`{name}` of {} is negative: {number}", self.of)).at(place);
        u64::try_from(number).map(Some).map_err(wrong)
    }
}

fn goal(evaluator: &Evaluator, value: &Value) -> Result<Goal> {
    let fields = Fields::new(evaluator, value, "the formation")?;
    let written = match fields.optional("specification") {
        Ok(Some((value, _))) => match value.view() {
            View::Set(set) => Some(set),
            _ => None,
        },
        _ => None,
    };
    let fields = fields.written(written);
    let name = fields.text("name")?;
    if !store::formation::is_name(&name) {
        let message = format!(
            "`{name}` is no name for a formation: letters, digits, `.`, `_`, `+` and `-`, and nothing that reads as a digest"
        );
        return Err(Failure::new(message).at(fields.place("name", fields.get("name")?.place)));
    }
    let layers = fields.get("layers")?;
    let list = evaluator.force_list(&layers.value, layers.place, &fields.what("layers"))?;
    let mut goal_layers = Vec::with_capacity(list.len());
    for (number, item) in (1..).zip(list.iter()) {
        let layer = Fields::new(evaluator, &item, format!("layer {number}"))
            .map_err(|failure| failure.during(layers.place, "while evaluating the layers of the formation"))?;
        let attribute = layer.get("drv")?;
        let derivation = derivation_path(evaluator, &attribute.value).map_err(|failure| {
            failure.during(attribute.place, format!("while evaluating the derivation of layer {number}"))
        })?;
        let output = match layer.optional("output")? {
            Some((value, place)) => String::from_utf8_lossy(&layer.bytes(&value, "output", place)?).into_owned(),
            None => "out".to_owned(),
        };
        let known = evaluator
            .registry
            .borrow()
            .derivation(&derivation)
            .is_some_and(|found| found.outputs.contains_key(&output));
        if !known {
            return Err(
                Failure::new(format!("layer {number}: '{derivation}' has no output `{output}`")).at(attribute.place)
            );
        }
        goal_layers.push(GoalLayer { label: layer.text("label")?, derivation, output });
    }
    let launch = fields.get("launch")?;
    let launch = launch_of(&Fields::new(evaluator, &launch.value, "`launch`")?.written(written))?;
    let (version, variant, platform) = (fields.text("version")?, fields.text("variant")?, fields.text("platform")?);
    // `NAME@VERSION` could never be said of another.
    if !version.is_empty() && !is_version(&version) {
        let message = format!(
            "`{}` is no version for a formation: letters, digits, `.`, `_`, `+`, `-` and `~`, 64 at most",
            version.escape_debug()
        );
        return Err(Failure::new(message).at(fields.place("version", fields.get("version")?.place)));
    }
    if !is_variant(&variant) {
        let message = format!("`{variant}` is no variant: letters, digits, `.`, `_` and `+`");
        return Err(Failure::new(message).at(fields.place("variant", fields.get("variant")?.place)));
    }
    Ok(Goal { name, version, variant, platform, layers: goal_layers, launch, plain: false })
}

/// A derivation as it is, without a formation around it.
fn plain_goal(evaluator: &Evaluator, value: &Value) -> Result<Goal> {
    let fields = Fields::new(evaluator, value, "the derivation")?;
    let derivation = derivation_path(evaluator, value)?;
    let output = match fields.optional("outputName")? {
        Some((value, place)) => String::from_utf8_lossy(&fields.bytes(&value, "outputName", place)?).into_owned(),
        None => "out".to_owned(),
    };
    let name = evaluator.registry.borrow().derivation(&derivation).map(|found| found.name);
    let name = name.unwrap_or_default();
    let layer = GoalLayer { label: name.clone(), derivation, output };
    let (version, variant, platform) = (String::new(), String::new(), String::new());
    Ok(Goal { name, version, variant, platform, layers: vec![layer], launch: Launch::default(), plain: true })
}

fn launch_of(fields: &Fields) -> Result<Launch> {
    let evaluator = fields.evaluator;
    let mut launch = Launch::default();
    let nul = |name: &str, place| Failure::new(format!("`{name}` has a null byte")).at(place);
    for (name, words) in [("entrypoint", &mut launch.entrypoint), ("command", &mut launch.command)] {
        if let Some((value, place)) = fields.optional(name)? {
            for word in evaluator.force_list(&value, place, &fields.what(name))?.iter() {
                words.push(fields.bytes(&word, name, place)?);
            }
        }
    }
    if let Some((value, place)) = fields.optional("environment")? {
        let set = evaluator.force_set(&value, place, &fields.what("environment"))?;
        for (name, value) in show::sorted(evaluator, &set) {
            let text = String::from_utf8_lossy(&name).into_owned();
            if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
                return Err(Failure::new(format!("`{text}` is no name for a variable of the environment")).at(place));
            }
            let value = fields.bytes(&value, &format!("environment.{text}"), place)?;
            launch.environment.insert(name.to_vec(), value);
        }
    }
    if let Some((value, place)) = fields.optional("directory")? {
        let directory = fields.bytes(&value, "directory", place)?;
        if !directory.starts_with(b"/") {
            let shown = String::from_utf8_lossy(&directory);
            return Err(Failure::new(format!("the working directory `{shown}` is not absolute")).at(place));
        }
        launch.directory = Some(directory);
    }
    if let Some((value, place)) = fields.optional("user")? {
        let text = String::from_utf8_lossy(&fields.bytes(&value, "user", place)?).into_owned();
        let wrong =
            |_| Failure::new(format!("`user` is `USER` or `USER:GROUP`, names or numbers, not `{text}`")).at(place);
        launch.user = Some(text.parse().map_err(wrong)?);
    }
    if let Some((value, place)) = fields.optional("stopSignal")? {
        let text = String::from_utf8_lossy(&fields.bytes(&value, "stopSignal", place)?).into_owned();
        let wrong = |_| Failure::new(format!("`{text}` is no signal: SIGTERM, SIGRTMIN+3")).at(place);
        launch.stop_signal = Some(text.parse().map_err(wrong)?);
    }
    if let Some((value, place)) = fields.optional("capabilities")? {
        for word in evaluator.force_list(&value, place, &fields.what("capabilities"))?.iter() {
            let text = String::from_utf8_lossy(&fields.bytes(&word, "capabilities", place)?).into_owned();
            let wrong = || Failure::new(format!("`{text}` is no capability: NET_RAW, CHOWN")).at(place);
            launch.capabilities = launch.capabilities.with(Capabilities::named(&text).ok_or_else(wrong)?);
        }
    }
    if let Some((value, place)) = fields.optional("labels")? {
        let set = evaluator.force_set(&value, place, &fields.what("labels"))?;
        for (name, value) in show::sorted(evaluator, &set) {
            let value = fields.bytes(&value, "labels", place)?;
            match (String::from_utf8(name.to_vec()), String::from_utf8(value)) {
                (Ok(name), Ok(value)) if !name.is_empty() => _ = launch.labels.insert(name, value),
                _ => return Err(Failure::new("a label has a name, and it and its value are UTF-8").at(place)),
            }
        }
    }
    if let Some((value, place)) = fields.optional("limits")? {
        let limits = Fields::new(evaluator, &value, "`limits`")
            .map_err(|failure| failure.during(place, fields.what("limits")))?;
        launch.limits = Limits {
            memory: limits.number("memory")?,
            cpu_millis: limits.number("cpu_millis")?,
            pids: limits.number("pids")?,
            timeout_millis: limits.number("timeout_millis")?,
        };
    }
    if let Some((value, place)) = fields.optional("ports")? {
        for port in evaluator.force_list(&value, place, &fields.what("ports"))?.iter() {
            let text = String::from_utf8_lossy(&fields.bytes(&port, "ports", place)?).into_owned();
            let wrong = |_| {
                Failure::new(format!("{text} is no port: they go from 1 to 65535, `53/udp` is one of UDP")).at(place)
            };
            launch.ports.insert(text.parse::<Port>().map_err(wrong)?);
        }
    }
    if let Some((value, place)) = fields.optional("network")? {
        launch.network = evaluator.force_boolean(&value, place, &fields.what("network"))?;
    }
    let words =
        launch.entrypoint.iter().chain(&launch.command).chain(launch.environment.values()).chain(&launch.directory);
    if words.into_iter().any(|word| word.contains(&0)) {
        return Err(nul("launch", PlaceId::NONE));
    }
    Ok(launch)
}

/// Everything that the goal leads to.
fn close(evaluator: &Evaluator, goal: Goal) -> Plan {
    let registry = evaluator.registry.borrow();
    let (mut derivations, mut sources) = (BTreeMap::new(), BTreeMap::<StorePath, Source>::new());
    let mut waiting: BTreeSet<StorePath> = goal.layers.iter().map(|layer| layer.derivation.clone()).collect();
    while let Some(path) = waiting.pop_first() {
        if let Some(derivation) = registry.derivation(&path) {
            let inputs = derivation.input_derivations.keys().chain(&derivation.input_sources);
            waiting.extend(
                inputs.filter(|path| !derivations.contains_key(*path) && !sources.contains_key(*path)).cloned(),
            );
            derivations.insert(path, derivation);
        } else if let Some(source) = registry.sources.get(&path) {
            let references = registry.references.get(&path).into_iter().flatten();
            waiting.extend(references.filter(|path| !sources.contains_key(*path)).cloned());
            sources.insert(path, source.clone());
        }
    }
    Plan { derivations, sources, goal }
}
