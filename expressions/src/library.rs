//! The library `forge`, and what it asks of the evaluator.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use store::lock::LockRequest;

use crate::builtins::Builtin;
use crate::eval::Evaluator;
use crate::failure::{Failure, Result, suggestions};
use crate::locking::{Origin, Question};
use crate::places::PlaceId;
use crate::value::{Attribute, Value, View};
use crate::{report, show};

const LIBRARY: &str = include_str!("../lib/default.nix");
/// The library's other files, by name. Each is read when something of it is asked for.
const PARTS: &[(&str, &str, &str)] = &[
    ("arguments", "<forge library: arguments>", include_str!("../lib/arguments.nix")),
    ("basics", "<forge library: basics>", include_str!("../lib/basics.nix")),
    ("debian", "<forge library: debian>", include_str!("../lib/debian.nix")),
    ("files", "<forge library: files>", include_str!("../lib/files.nix")),
    ("formation", "<forge library: formation>", include_str!("../lib/formation.nix")),
    ("image", "<forge library: image>", include_str!("../lib/image.nix")),
    ("node", "<forge library: node>", include_str!("../lib/node.nix")),
    ("oci", "<forge library: oci>", include_str!("../lib/oci.nix")),
    ("python", "<forge library: python>", include_str!("../lib/python.nix")),
    ("run", "<forge library: run>", include_str!("../lib/run.nix")),
    ("runtimes", "<forge library: runtimes>", include_str!("../lib/runtimes.nix")),
    ("rust", "<forge library: rust>", include_str!("../lib/rust.nix")),
    ("source", "<forge library: source>", include_str!("../lib/source.nix")),
    ("units", "<forge library: units>", include_str!("../lib/units.nix")),
];

static PART: Builtin = Builtin { name: "part", arity: 1, strict: 0, traced: false, run: part };
static RELATIVE: Builtin = Builtin { name: "relative", arity: 1, strict: 0, traced: false, run: relative };
static LOCK: Builtin = Builtin { name: "lock", arity: 3, strict: 0, traced: false, run: lock };
static FAIL: Builtin = Builtin { name: "fail", arity: 3, strict: 0, traced: false, run: fail };
static WRONG: Builtin = Builtin { name: "wrong", arity: 3, strict: 0, traced: false, run: wrong };
static UNKNOWN: Builtin = Builtin { name: "unknown", arity: 5, strict: 0, traced: false, run: unknown };
static WITHIN: Builtin = Builtin { name: "within", arity: 3, strict: 0, traced: false, run: within };

/// The library as a value.
pub fn library(evaluator: &Evaluator) -> Result<Value> {
    let function = evaluator.internal("<forge library>", LIBRARY)?;
    let symbol = |name: &str| evaluator.symbols.intern(name.as_bytes());
    let system = evaluator.system.clone().unwrap_or_default();
    let architecture = match system.split('-').next() {
        Some("x86_64") => "amd64",
        Some("aarch64") => "arm64",
        other => other.unwrap_or_default(),
    };
    let primitives = Value::set(vec![
        Attribute::new(symbol("part"), Value::builtin(&PART)),
        Attribute::new(symbol("relative"), Value::builtin(&RELATIVE)),
        Attribute::new(symbol("lock"), Value::builtin(&LOCK)),
        Attribute::new(symbol("fail"), Value::builtin(&FAIL)),
        Attribute::new(symbol("wrong"), Value::builtin(&WRONG)),
        Attribute::new(symbol("unknown"), Value::builtin(&UNKNOWN)),
        Attribute::new(symbol("within"), Value::builtin(&WITHIN)),
        Attribute::new(symbol("architecture"), Value::string(architecture)),
        Attribute::new(symbol("system"), Value::string(system)),
    ]);
    evaluator.call(&function, &[primitives], PlaceId::NONE)
}

/// `part name`: what the library's file of this name holds.
fn part(evaluator: &Evaluator, arguments: &[Value], place: PlaceId) -> Result<Value> {
    let name = evaluator.force_string_without_context(&arguments[0], place, "while evaluating a part's name")?;
    match PARTS.iter().find(|(known, ..)| known.as_bytes() == &*name.bytes) {
        Some((_, file, text)) => evaluator.internal(file, text),
        None => Err(Failure::new("the library has no such part")),
    }
}

/// `relative path`: the address of a file of the project that says nothing of where the project lies.
fn relative(evaluator: &Evaluator, arguments: &[Value], place: PlaceId) -> Result<Value> {
    let value = evaluator.force(&arguments[0], place)?;
    let View::Path(path) = value.view() else { return Err(Failure::new("a path is expected")) };
    let path = std::path::PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&path));
    Ok(Value::string(crate::fetching::project_url(&path, &evaluator.sources.project)))
}

/// An attribute of a set, by arguments of a function; none if the user did not write it.
fn written(evaluator: &Evaluator, set: &Value, name: &Value) -> Result<Option<Attribute>> {
    let set = evaluator.force_set(set, PlaceId::NONE, "while evaluating where a failure is")?;
    let name = evaluator.force_string(name, PlaceId::NONE, "while evaluating where a failure is")?;
    Ok(evaluator.symbols.find(&name.bytes).and_then(|name| set.get(name)))
}

/// `fail set name message`: fails where the user wrote the attribute `name` of `set`.
fn fail(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let attribute = written(evaluator, &arguments[0], &arguments[1])?;
    let text = evaluator.force_string(&arguments[2], PlaceId::NONE, "while evaluating a message")?;
    let place = attribute.map_or(PlaceId::NONE, |attribute| attribute.place);
    Err(Failure::of(crate::failure::Sort::Throw, String::from_utf8_lossy(&text.bytes)).at(place))
}

/// `wrong set name message`: the same, with what the attribute is.
fn wrong(evaluator: &Evaluator, arguments: &[Value], place: PlaceId) -> Result<Value> {
    let attribute = written(evaluator, &arguments[0], &arguments[1])?;
    let Err(mut failure) = fail(evaluator, arguments, place) else { return evaluator.force(&arguments[0], place) };
    if let Some(attribute) = attribute {
        let value = evaluator.force(&attribute.value, attribute.place)?;
        failure.message =
            format!("{}, not {}: {}", failure.message, value.kind(), show::for_error(evaluator, &value)).into();
    }
    Err(failure)
}

/// `unknown set name message wanted known`: fails as `fail` does, and says which names of a list are like the one that is wanted.
fn unknown(evaluator: &Evaluator, arguments: &[Value], place: PlaceId) -> Result<Value> {
    let text = |value: &Value| {
        let text = evaluator.force_string(value, PlaceId::NONE, "while evaluating a name")?;
        Ok(String::from_utf8_lossy(&text.bytes).into_owned())
    };
    let wanted = text(&arguments[3])?;
    let known = evaluator.force(&arguments[4], place)?;
    let View::List(known) = known.view() else { return Err(Failure::new("a list of names is expected")) };
    let known = known.iter().map(|name| text(&name)).collect::<Result<Vec<String>>>()?;
    let close = suggestions(&wanted, known.iter().map(String::as_str));
    fail(evaluator, &arguments[..3], place).map_err(|failure| failure.suggesting(close))
}

/// `within set name value`: the value; what fails in it is shown where the user wrote the attribute.
fn within(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let attribute = written(evaluator, &arguments[0], &arguments[1])?;
    let place = attribute.map_or(PlaceId::NONE, |attribute| attribute.place);
    evaluator.force(&arguments[2], place).map_err(|failure| {
        let name = show::for_error(evaluator, &arguments[1]);
        failure.during(place, format!("while evaluating {name}"))
    })
}

/// `lock origins kind parameters`: the records that the lock has, or none and a note that it should, and for what the user wrote:
/// attributes of that `name` in that `set`.
fn lock(evaluator: &Evaluator, arguments: &[Value], place: PlaceId) -> Result<Value> {
    let kind = evaluator.force_string_without_context(&arguments[1], place, "while evaluating a kind of lock")?;
    let set = evaluator.force_set(&arguments[2], place, "while evaluating what the lock is asked")?;
    let mut parameters = BTreeMap::new();
    for (name, value) in show::sorted(evaluator, &set) {
        let name = String::from_utf8_lossy(&name).into_owned();
        let value = plain(evaluator, &value)
            .map_err(|failure| failure.during(place, format!("while evaluating the parameter `{name}`")))?;
        parameters.insert(name, value);
    }
    let request = LockRequest { kind: String::from_utf8_lossy(&kind.bytes).into_owned(), parameters };
    let key = request.key();
    let locking = evaluator.locking.borrow();
    let Some(entry) = locking.lock.answer(&request) else {
        drop(locking);
        evaluator.sources.guard_request(&request)?;
        let origins = origins(evaluator, &arguments[0])?;
        evaluator.locking.borrow_mut().missing.insert(key, Question { request, origins });
        return Ok(Value::list(Vec::new()));
    };
    let records = entry.records.iter().map(|record| {
        let fields = record
            .iter()
            .map(|(name, value)| Attribute::new(evaluator.symbols.intern(name.as_bytes()), of_json(evaluator, value)));
        Value::set(fields.collect())
    });
    Ok(Value::list(records.collect()))
}

/// What of them the user wrote, and where.
fn origins(evaluator: &Evaluator, value: &Value) -> Result<Vec<Origin>> {
    const WHAT: &str = "while evaluating who asks the lock";
    let value = evaluator.force(value, PlaceId::NONE)?;
    let View::List(items) = value.view() else { return Err(Failure::new("a list of origins is expected")) };
    let symbol = |name: &str| evaluator.symbols.intern(name.as_bytes());
    let mut origins = Vec::new();
    for item in items.iter() {
        let item = evaluator.force_set(&item, PlaceId::NONE, WHAT)?;
        let (Some(set), Some(name)) = (item.get(symbol("set")), item.get(symbol("name"))) else { continue };
        let Some(attribute) = written(evaluator, &set.value, &name.value)? else { continue };
        let place = evaluator.places.get(attribute.place).filter(|place| report::is_own(evaluator, place));
        if let Some(place) = place {
            let texts = match plain(evaluator, &attribute.value) {
                Ok(Json::String(text)) => vec![text],
                Ok(Json::Array(items)) => items.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
                _ => Vec::new(),
            };
            origins.push(Origin { place, texts });
        }
    }
    Ok(origins)
}

/// A value that is plain through and through.
fn plain(evaluator: &Evaluator, value: &Value) -> Result<Json> {
    let _depth = evaluator.deeper(PlaceId::NONE)?;
    let value = evaluator.force(value, PlaceId::NONE)?;
    Ok(match value.view() {
        View::Boolean(boolean) => Json::from(boolean),
        View::Integer(integer) => Json::from(integer),
        View::Float(float) => Json::from(float),
        View::String(text) => match std::str::from_utf8(&text.bytes) {
            Ok(string) if text.context.is_none() => Json::from(string),
            Ok(string) => {
                return Err(Failure::new(format!("the lock cannot be asked about something built ('{string}')")));
            }
            Err(_) => return Err(Failure::new("the lock holds UTF-8 only")),
        },
        View::List(list) => Json::Array(list.iter().map(|item| plain(evaluator, &item)).collect::<Result<_>>()?),
        _ => {
            let shown = show::for_error(evaluator, &value);
            return Err(Failure::new(format!("the lock cannot be asked about {}: {shown}", value.kind())));
        }
    })
}

fn of_json(evaluator: &Evaluator, json: &Json) -> Value {
    match json {
        Json::Null => Value::NULL,
        Json::Bool(boolean) => Value::boolean(*boolean),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::integer(integer),
            None => Value::float(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::string(text.as_str()),
        Json::Array(items) => Value::list(items.iter().map(|item| of_json(evaluator, item)).collect()),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| {
                Attribute::new(evaluator.symbols.intern(name.as_bytes()), of_json(evaluator, value))
            });
            Value::set(fields.collect())
        }
    }
}
