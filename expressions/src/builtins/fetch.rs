//! Flake references, and what comes from elsewhere: the glue between values and the modules that know no values.

use super::{Builtin, NOWHERE, builtin};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::flake_reference::{self, Attributes};
use crate::places::PlaceId;
use crate::settings::Settings;
use crate::show;
use crate::value::{Attribute, Value, View};

pub(super) static BUILTINS: &[Builtin] =
    &[builtin("parseFlakeRef", 1, parse_flake_ref), builtin("flakeRefToString", 1, flake_ref_to_string)];

/// Whether a builtin is there at all: some are not while Nix's feature of their name is off.
pub(super) fn is_on(name: &str, settings: &Settings) -> bool {
    match name {
        "fetchTree" => settings.has("fetch-tree"),
        "fetchClosure" => settings.has("fetch-closure"),
        "outputOf" => settings.has("dynamic-derivations"),
        _ => true,
    }
}

fn parse_flake_ref(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    evaluator.settings.needs("flakes")?;
    let what = "while evaluating the argument passed to builtins.parseFlakeRef";
    let text = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let attributes = flake_reference::parse(&String::from_utf8_lossy(&text.bytes)).map_err(refused)?;
    Ok(to_value(evaluator, &attributes))
}

fn flake_ref_to_string(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    evaluator.settings.needs("flakes")?;
    let what = "while evaluating the argument passed to builtins.flakeRefToString";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let mut attributes = Attributes::new();
    for (name, value) in show::sorted(evaluator, &set) {
        let name = String::from_utf8_lossy(&name).into_owned();
        let value = evaluator.force(&value, NOWHERE)?;
        let attribute = match value.view() {
            View::Integer(integer) => flake_reference::Attribute::Number(
                u64::try_from(integer)
                    .map_err(|_| Failure::new(format!("negative value given for flake ref attr {name}: {integer}")))?,
            ),
            View::Boolean(flag) => flake_reference::Attribute::Flag(flag),
            View::String(text) => flake_reference::Attribute::Text(String::from_utf8_lossy(&text.bytes).into_owned()),
            _ => {
                let kind = value.kind();
                return Err(Failure::new(format!(
                    "flake reference attribute sets may only contain integers, Booleans, and strings, but attribute '{name}' is {kind}"
                )));
            }
        };
        attributes.insert(name, attribute);
    }
    Ok(Value::string(flake_reference::to_string(&attributes).map_err(refused)?))
}

fn refused(error: flake_reference::ReferenceError) -> Box<Failure> {
    Failure::new(error.message)
}

fn to_value(evaluator: &Evaluator, attributes: &Attributes) -> Value {
    let entries = attributes.iter().map(|(name, attribute)| {
        let value = match attribute {
            flake_reference::Attribute::Text(text) => Value::string(text.as_str()),
            flake_reference::Attribute::Number(number) =>
            // As Nix does, beyond its largest.
            {
                Value::integer(number.cast_signed())
            }
            flake_reference::Attribute::Flag(flag) => Value::boolean(*flag),
        };
        Attribute::new(evaluator.symbols.intern(name.as_bytes()), value)
    });
    Value::set(entries.collect())
}
