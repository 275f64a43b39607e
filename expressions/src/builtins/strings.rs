//! Strings.

use std::rc::Rc;

use super::{Builtin, NOWHERE, builtin};
use crate::eval::{Coercion, Evaluator};
use crate::failure::{Failure, Result};
use crate::heap::{self, ContextId};
use crate::places::PlaceId;
use crate::posix_regex::{Captures, Regex};
use crate::value::{Attribute, Bytes, Context, Text, Value, View};
use crate::{paths, text, version};

pub(super) static BUILTINS: &[Builtin] = &[
    builtin("toString", 1, to_string),
    builtin("stringLength", 1, string_length),
    builtin("substring", 3, substring),
    builtin("concatStringsSep", 2, concat_strings_sep),
    builtin("replaceStrings", 3, replace_strings),
    builtin("match", 2, match_),
    builtin("split", 2, split),
    builtin("baseNameOf", 1, base_name_of),
    builtin("dirOf", 1, dir_of),
    builtin("compareVersions", 2, compare_versions),
    builtin("splitVersion", 1, split_version),
    builtin("parseDrvName", 1, parse_drv_name),
];

fn to_string(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let value = evaluator.force(&arguments[0], NOWHERE)?;
    match value.view() {
        View::String(_) => return Ok(value),
        View::Integer(integer) => return Ok(Value::string(text::Decimal::new(integer))),
        _ => {}
    }
    let mut context = Context::new();
    let what = "while evaluating the first argument passed to builtins.toString";
    let text = evaluator.coerce(&arguments[0], &mut context, NOWHERE, what, Coercion::TO_STRING)?;
    Ok(Value::string_with(text, context))
}

fn string_length(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the argument passed to builtins.stringLength";
    if let View::String(text) = evaluator.force(&arguments[0], NOWHERE)?.view() {
        return Ok(Value::integer(text.bytes.len() as i64));
    }
    let text = evaluator.coerce(&arguments[0], &mut Context::new(), NOWHERE, what, Coercion::INTERPOLATION)?;
    Ok(Value::integer(text.len() as i64))
}

fn substring(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument (the start offset) passed to builtins.substring";
    let start = evaluator.force_integer(&arguments[0], NOWHERE, what)?;
    if start < 0 {
        return Err(Failure::new("negative start position in 'substring'"));
    }
    let what = "while evaluating the second argument (the substring length) passed to builtins.substring";
    let length = evaluator.force_integer(&arguments[1], NOWHERE, what)?;
    let value = evaluator.force(&arguments[2], NOWHERE)?;
    let mut context = Context::new();
    let what = "while evaluating the third argument (the string) passed to builtins.substring";
    // A negative length stands for all the rest.
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    if let View::String(text) = value.view() {
        // A part of the same bytes.
        let start = start.min(text.bytes.len());
        let end = start.saturating_add(length).min(text.bytes.len());
        return Ok(Value::text(text.bytes.part(start, end), text.context));
    }
    let text = evaluator.coerce(&value, &mut context, NOWHERE, what, Coercion::INTERPOLATION)?;
    let rest = text.get(start..).unwrap_or_default();
    Ok(Value::string_with(&rest[..rest.len().min(length)], context))
}

fn concat_strings_sep(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let mut context = Context::new();
    let what = "while evaluating the first argument (the separator string) passed to builtins.concatStringsSep";
    let separator = evaluator.force_string_into(&arguments[0], &mut context, NOWHERE, what)?;
    let what =
        "while evaluating the second argument (the list of strings to concat) passed to builtins.concatStringsSep";
    let list = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    let mut text = Vec::new();
    for (number, item) in list.iter().enumerate() {
        if number > 0 {
            heap::check_room(text.len());
            text.extend_from_slice(&separator.bytes);
        }
        if let View::String(part) = item.known().view() {
            context.add(part.context);
            text.extend_from_slice(&part.bytes);
            continue;
        }
        let what = "while evaluating one element of the list of strings to concat passed to builtins.concatStringsSep";
        evaluator.coerce_onto(&mut text, &item, &mut context, NOWHERE, what, Coercion::INTERPOLATION)?;
    }
    Ok(Value::string_with(text, context))
}

fn replace_strings(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.replaceStrings";
    let from = evaluator.force_list(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.replaceStrings";
    let to = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    if from.len() != to.len() {
        let message = "'from' and 'to' arguments passed to builtins.replaceStrings have different lengths";
        return Err(Failure::new(message));
    }
    let what = "while evaluating one of the strings to replace passed to builtins.replaceStrings";
    let from = from.iter().map(|item| evaluator.force_string(&item, NOWHERE, what)).collect::<Result<Vec<_>>>()?;
    let mut context = Context::new();
    let what = "while evaluating the third argument passed to builtins.replaceStrings";
    let text = evaluator.force_string_into(&arguments[2], &mut context, NOWHERE, what)?;
    // A replacement counts, and is evaluated, only where it is used.
    let mut known: Vec<Option<Text>> = vec![None; to.len()];
    // Which strings may begin with a byte; an empty one matches everywhere.
    let begins = |byte: Option<u8>| {
        from.iter().position(|item| item.bytes.first().is_none_or(|first| Some(*first) == byte)).is_some()
    };
    let possible: Vec<bool> = (0..=u8::MAX).map(|byte| begins(Some(byte))).collect();
    let at_end = begins(None);
    let mut result = Vec::with_capacity(text.bytes.len());
    let mut position = 0;
    while position <= text.bytes.len() {
        let rest = &text.bytes[position..];
        let candidate = rest.first().map_or(at_end, |byte| possible[usize::from(*byte)]);
        let found = if candidate { from.iter().position(|item| rest.starts_with(&item.bytes)) } else { None };
        let mut advance = 1;
        if let Some(number) = found {
            if known[number].is_none() {
                let what = "while evaluating one of the replacement strings passed to builtins.replaceStrings";
                known[number] = Some(evaluator.force_string_into(
                    &to.get(number).unwrap_or(Value::NULL),
                    &mut context,
                    NOWHERE,
                    what,
                )?);
            }
            if let Some(replacement) = &known[number] {
                heap::check_room(result.len());
                result.extend_from_slice(&replacement.bytes);
            }
            advance = from[number].bytes.len();
        }
        if found.is_none() || advance == 0 {
            result.extend(rest.first());
            advance = 1;
        }
        position += advance;
    }
    Ok(Value::string_with(result, context))
}

/// Expressions are read once.
fn regex(evaluator: &Evaluator, pattern: &[u8]) -> Result<Rc<Regex>> {
    if let Some(regex) = evaluator.regexes.borrow().get(pattern) {
        return Ok(Rc::clone(regex));
    }
    let regex = Rc::new(Regex::new(pattern).map_err(|error| Failure::new(error.to_string()))?);
    evaluator.regexes.borrow_mut().insert(pattern.to_vec(), Rc::clone(&regex));
    Ok(regex)
}

fn groups(captures: &Captures, text: Bytes) -> Value {
    let groups = captures.iter().skip(1).map(|range| match range {
        Some(range) => part(text, range.start, range.end),
        None => Value::NULL,
    });
    Value::list_of(captures.len() - 1, groups)
}

/// A part of a string, which refers to nothing.
fn part(text: Bytes, start: usize, end: usize) -> Value {
    Value::text(text.part(start, end), ContextId::NONE)
}

fn match_(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.match";
    let pattern = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let regex = regex(evaluator, &pattern.bytes)?;
    let what = "while evaluating the second argument passed to builtins.match";
    let text = evaluator.force_string(&arguments[1], NOWHERE, what)?;
    let captures = regex.match_full(&text.bytes).map_err(|error| Failure::new(error.to_string()))?;
    Ok(captures.map_or(Value::NULL, |captures| groups(&captures, text.bytes)))
}

fn split(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.split";
    let pattern = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let regex = regex(evaluator, &pattern.bytes)?;
    let what = "while evaluating the second argument passed to builtins.split";
    let text = evaluator.force_string(&arguments[1], NOWHERE, what)?;
    let found = regex.find_all(&text.bytes).map_err(|error| Failure::new(error.to_string()))?;
    if found.is_empty() {
        return Ok(Value::list(vec![arguments[1]]));
    }
    let mut parts = Vec::with_capacity(2 * found.len() + 1);
    let mut end = 0;
    for captures in &found {
        let whole = captures.first().cloned().flatten().unwrap_or(end..end);
        parts.push(part(text.bytes, end, whole.start));
        parts.push(groups(captures, text.bytes));
        end = whole.end;
    }
    parts.push(part(text.bytes, end, text.bytes.len()));
    Ok(Value::list(parts))
}

fn base_name_of(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let mut context = Context::new();
    let what = "while evaluating the first argument passed to builtins.baseNameOf";
    let path = evaluator.coerce(&arguments[0], &mut context, NOWHERE, what, Coercion::PLAIN)?;
    // One slash at the end does not count.
    let path = path.strip_suffix(b"/").unwrap_or(&path);
    Ok(Value::string_with(paths::base_name(path), context))
}

fn dir_of(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    if let View::Path(path) = evaluator.force(&arguments[0], NOWHERE)?.view() {
        return Ok(Value::path(paths::directory(&path)));
    }
    let mut context = Context::new();
    let what = "while evaluating the first argument passed to 'builtins.dirOf'";
    let path = evaluator.coerce(&arguments[0], &mut context, NOWHERE, what, Coercion::PLAIN)?;
    let directory: &[u8] = match path.iter().rposition(|byte| *byte == b'/') {
        None => b".",
        Some(0) => b"/",
        Some(slash) => &path[..slash],
    };
    Ok(Value::string_with(directory, context))
}

fn compare_versions(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.compareVersions";
    let left = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.compareVersions";
    let right = evaluator.force_string_without_context(&arguments[1], NOWHERE, what)?;
    Ok(Value::integer(version::compare_versions(&left.bytes, &right.bytes) as i64))
}

fn split_version(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.splitVersion";
    let text = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    Ok(Value::list(version::split_version(&text.bytes).map(Value::string).collect()))
}

fn parse_drv_name(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    use crate::symbols::known;
    let what = "while evaluating the first argument passed to builtins.parseDrvName";
    let text = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let (name, version) = version::parse_name(&text.bytes);
    Ok(Value::set(vec![
        Attribute::new(known::NAME, Value::string(name)),
        Attribute::new(known::VERSION, Value::string(version)),
    ]))
}
