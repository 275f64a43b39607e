//! JSON, read straight into values.

use super::{Builtin, NOWHERE, builtin};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::heap;
use crate::json::{Event, JsonError, JsonReader, float_onto, string_onto};
use crate::places::PlaceId;
use crate::symbols::Symbol;
use crate::value::{Attribute, Context, Set, Value, View};

pub(super) static BUILTINS: &[Builtin] = &[builtin("toJSON", 1, to_json_builtin), builtin("fromJSON", 1, from_json)];

fn to_json_builtin(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let mut context = Context::new();
    let text = to_json(evaluator, &arguments[0], NOWHERE, &mut context, true)?;
    Ok(Value::string_with(text, context))
}

fn from_json(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.fromJSON";
    let text = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    read(evaluator, &text.bytes)
}

/// The JSON of a value, all of it worked out; paths become sources if `copy` says so.
pub fn to_json(
    evaluator: &Evaluator,
    value: &Value,
    place: PlaceId,
    context: &mut Context,
    copy: bool,
) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    write(evaluator, value, place, context, copy, &mut text)?;
    Ok(text)
}

fn write(
    evaluator: &Evaluator,
    value: &Value,
    place: PlaceId,
    context: &mut Context,
    copy: bool,
    text: &mut Vec<u8>,
) -> Result<()> {
    heap::check_room(text.len());
    let _depth = evaluator.deeper(place)?;
    let value = evaluator.force(value, place)?;
    match value.view() {
        View::Null => text.extend(b"null"),
        View::Boolean(boolean) => text.extend(if boolean { &b"true"[..] } else { b"false" }),
        View::Integer(integer) => text.extend_from_slice(crate::text::Decimal::new(integer).as_ref()),
        View::Float(float) => float_onto(text, float),
        View::String(string) => {
            context.add(string.context);
            write_string(&string.bytes, text)?;
        }
        View::Path(path) if copy => {
            let path = evaluator.copy_to_store(&path, context)?;
            write_string(path.as_str().as_bytes(), text)?;
        }
        View::Path(path) => write_string(&path, text)?,
        View::Set(_) => evaluator.peel(&value, place, true, &mut |peeled, called| match peeled.view() {
            View::Set(set) => write_set(evaluator, &set, context, copy, text),
            // Nix takes a path that comes out of `__toString` as it stands.
            _ => write(evaluator, peeled, place, context, copy && !called, text),
        })?,
        View::List(list) => {
            text.push(b'[');
            for (number, item) in list.iter().enumerate() {
                if number > 0 {
                    text.push(b',');
                }
                write(evaluator, &item, place, context, copy, text).map_err(|failure| {
                    failure.during(place, format!("while evaluating list element at index {number}"))
                })?;
            }
            text.push(b']');
        }
        _ => return Err(Failure::new(format!("cannot convert {} to JSON", value.kind())).at(place)),
    }
    Ok(())
}

fn write_set(evaluator: &Evaluator, set: &Set, context: &mut Context, copy: bool, text: &mut Vec<u8>) -> Result<()> {
    text.push(b'{');
    for (number, (name, entry)) in set.in_order(&evaluator.symbols).enumerate() {
        if number > 0 {
            text.push(b',');
        }
        write_string(&name, text)?;
        text.push(b':');
        write(evaluator, &entry.value, entry.place, context, copy, text).map_err(|failure| {
            let name = String::from_utf8_lossy(&name);
            failure.during(entry.place, format!("while evaluating attribute '{name}'"))
        })?;
    }
    text.push(b'}');
    Ok(())
}

fn write_string(bytes: &[u8], text: &mut Vec<u8>) -> Result<()> {
    string_onto(text, bytes).map_err(|error| Failure::new(error.to_string()))
}

/// What is being read: a list, or a set with the key of the value that comes next.
enum Open {
    List(Vec<Value>),
    Set(Vec<Attribute>, Option<Symbol>),
}

fn bad(error: JsonError) -> Box<Failure> {
    let failure = Failure::new(error.to_string());
    match error {
        JsonError::Syntax { .. } => failure.during(NOWHERE, "while decoding a JSON string"),
        _ => failure,
    }
}

fn read(evaluator: &Evaluator, text: &[u8]) -> Result<Value> {
    let mut reader = JsonReader::new(text);
    let mut open: Vec<Open> = Vec::new();
    let mut whole = None;
    while let Some(event) = reader.next_event().map_err(bad)? {
        let value = match event {
            Event::Null => Value::NULL,
            Event::Boolean(boolean) => Value::boolean(boolean),
            Event::Integer(integer) => Value::integer(integer),
            Event::Float(float) => Value::float(float),
            Event::String(text) => Value::string(text),
            Event::Key(name) => {
                if let Some(Open::Set(_, key)) = open.last_mut() {
                    *key = Some(evaluator.symbols.intern(&name));
                }
                continue;
            }
            Event::StartArray => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::StartObject => {
                open.push(Open::Set(Vec::new(), None));
                continue;
            }
            Event::EndArray | Event::EndObject => match open.pop() {
                Some(Open::List(items)) => Value::list(items),
                Some(Open::Set(mut entries, _)) => {
                    // Of several with one key the last counts.
                    entries.reverse();
                    Value::set(entries)
                }
                None => continue,
            },
        };
        match open.last_mut() {
            None => whole = Some(value),
            Some(Open::List(items)) => items.push(value),
            Some(Open::Set(entries, key)) => entries.extend(key.take().map(|key| Attribute::new(key, value))),
        }
    }
    Ok(whole.unwrap_or(Value::NULL))
}
