//! What kind of value something is.

use super::{Builtin, NOWHERE, builtin};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::places::PlaceId;
use crate::value::{Attribute, Value, View};

macro_rules! is {
    ($name:literal, $pattern:pat) => {
        builtin($name, 1, |evaluator, arguments, _| {
            Ok(Value::boolean(matches!(evaluator.force(&arguments[0], NOWHERE)?.view(), $pattern)))
        })
    };
}

pub(super) static BUILTINS: &[Builtin] = &[
    is!("isNull", View::Null),
    is!("isBool", View::Boolean(_)),
    is!("isInt", View::Integer(_)),
    is!("isFloat", View::Float(_)),
    is!("isString", View::String(_)),
    is!("isPath", View::Path(_)),
    is!("isAttrs", View::Set(_)),
    is!("isList", View::List(_)),
    is!("isFunction", View::Lambda(_) | View::Builtin(_) | View::Partial(_)),
    builtin("typeOf", 1, type_of),
    builtin("functionArgs", 1, function_args),
];

fn type_of(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    Ok(Value::string(match evaluator.force(&arguments[0], NOWHERE)?.view() {
        View::Null => "null",
        View::Boolean(_) => "bool",
        View::Integer(_) => "int",
        View::Float(_) => "float",
        View::String(_) => "string",
        View::Path(_) => "path",
        View::Set(_) => "set",
        View::List(_) => "list",
        _ => "lambda",
    }))
}

fn function_args(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let closure = match evaluator.force(&arguments[0], NOWHERE)?.view() {
        View::Lambda(closure) => closure,
        View::Builtin(_) | View::Partial(_) => return Ok(Value::set(Vec::new())),
        _ => return Err(Failure::new("'functionArgs' requires a function")),
    };
    let formals = closure.code.formals;
    let formals = formals.iter().flat_map(|formals| formals.list.iter());
    let entries = formals.map(|formal| Attribute {
        name: formal.name,
        place: formal.place,
        value: Value::boolean(formal.default.is_some()),
    });
    Ok(Value::set(entries.collect()))
}
