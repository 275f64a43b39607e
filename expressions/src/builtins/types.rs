//! What kind of value something is.

use super::{Builtin, NOWHERE, builtin};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::places::PlaceId;
use crate::value::{Attribute, Value};

macro_rules! is {
    ($name:literal, $pattern:pat) => {
        builtin($name, 1, |evaluator, arguments, _| {
            Ok(Value::Boolean(matches!(evaluator.force(&arguments[0], NOWHERE)?, $pattern)))
        })
    };
}

pub(super) static BUILTINS: &[Builtin] = &[
    is!("isNull", Value::Null),
    is!("isBool", Value::Boolean(_)),
    is!("isInt", Value::Integer(_)),
    is!("isFloat", Value::Float(_)),
    is!("isString", Value::String(_)),
    is!("isPath", Value::Path(_)),
    is!("isAttrs", Value::Set(_)),
    is!("isList", Value::List(_)),
    is!("isFunction", Value::Lambda(_) | Value::Builtin(_) | Value::Partial(_)),
    builtin("typeOf", 1, type_of),
    builtin("functionArgs", 1, function_args),
];

fn type_of(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    Ok(Value::string(match evaluator.force(&arguments[0], NOWHERE)? {
        Value::Null => "null",
        Value::Boolean(_) => "bool",
        Value::Integer(_) => "int",
        Value::Float(_) => "float",
        Value::String(_) => "string",
        Value::Path(_) => "path",
        Value::Set(_) => "set",
        Value::List(_) => "list",
        _ => "lambda",
    }))
}

fn function_args(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let closure = match evaluator.force(&arguments[0], NOWHERE)? {
        Value::Lambda(closure) => closure,
        Value::Builtin(_) | Value::Partial(_) => return Ok(Value::set(Vec::new())),
        _ => return Err(Failure::new("'functionArgs' requires a function")),
    };
    let formals = closure.code.formals.iter().flat_map(|formals| &formals.list);
    let entries = formals.map(|formal| Attribute {
        name: formal.name,
        place: formal.place,
        value: Value::Boolean(formal.default.is_some()),
    });
    Ok(Value::set(entries.collect()))
}
