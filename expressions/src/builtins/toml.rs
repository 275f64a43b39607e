//! TOML.

use super::{Builtin, NOWHERE, builtin};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::from_toml;
use crate::places::PlaceId;
use crate::value::{Attribute, Value};

pub(super) static BUILTINS: &[Builtin] = &[builtin("fromTOML", 1, from_toml)];

fn from_toml(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the argument passed to builtins.fromTOML";
    let text = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let table = from_toml::read(&text.bytes, evaluator.settings.has("parse-toml-timestamps"))
        .map_err(|error| Failure::new(error.to_string()))?;
    value(evaluator, toml::Value::Table(table)).map_err(Failure::new)
}

fn value(evaluator: &Evaluator, item: toml::Value) -> std::result::Result<Value, &'static str> {
    let name = |name: &str| {
        if name.contains('\0') { Err("a key has a null byte") } else { Ok(evaluator.symbols.intern(name.as_bytes())) }
    };
    Ok(match item {
        toml::Value::String(text) if text.contains('\0') => {
            return Err("a string with null bytes cannot be represented as Nix string");
        }
        toml::Value::String(text) => Value::string(text),
        toml::Value::Integer(integer) => Value::integer(integer),
        toml::Value::Float(float) => Value::float(float),
        toml::Value::Boolean(boolean) => Value::boolean(boolean),
        toml::Value::Datetime(datetime) => Value::set(vec![
            Attribute::new(name("_type")?, Value::string("timestamp")),
            Attribute::new(name("value")?, Value::string(from_toml::timestamp(&datetime))),
        ]),
        toml::Value::Array(items) => {
            let items = items.into_iter().map(|item| value(evaluator, item));
            Value::list(items.collect::<std::result::Result<_, _>>()?)
        }
        toml::Value::Table(table) => {
            let entries = table.into_iter().map(|(key, item)| Ok(Attribute::new(name(&key)?, value(evaluator, item)?)));
            Value::set(entries.collect::<std::result::Result<_, &'static str>>()?)
        }
    })
}
