//! What strings refer to.

use std::collections::BTreeMap;

use store::StorePath;

use super::{Builtin, NOWHERE, builtin};
use crate::eval::{Coercion, Evaluator};
use crate::failure::{Failure, Result};
use crate::places::PlaceId;
use crate::symbols::known;
use crate::value::{Attribute, Context, Reference, Value};

pub(super) static BUILTINS: &[Builtin] = &[
    builtin("hasContext", 1, has_context),
    builtin("getContext", 1, get_context),
    builtin("appendContext", 2, append_context),
    builtin("unsafeDiscardStringContext", 1, discard),
    builtin("unsafeDiscardOutputDependency", 1, discard_output_dependency),
    builtin("addDrvOutputDependencies", 1, add_output_dependencies),
];

fn coerced(evaluator: &Evaluator, value: &Value, name: &str) -> Result<(Vec<u8>, Context)> {
    let mut context = Context::new();
    let what = format!("while evaluating the argument passed to builtins.{name}");
    let text = evaluator.coerce(value, &mut context, NOWHERE, &what, Coercion::INTERPOLATION)?;
    Ok((text, context))
}

fn has_context(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the argument passed to builtins.hasContext";
    let text = evaluator.force_string(&arguments[0], NOWHERE, what)?;
    Ok(Value::boolean(text.context.is_some()))
}

fn discard(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let (text, _) = coerced(evaluator, &arguments[0], "unsafeDiscardStringContext")?;
    Ok(Value::string(text))
}

fn discard_output_dependency(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let (text, context) = coerced(evaluator, &arguments[0], "unsafeDiscardOutputDependency")?;
    let references = context.references();
    let context = references.iter().map(|reference| match &**reference {
        Reference::Closure(path) => Reference::Path(path.clone()),
        other => other.clone(),
    });
    Ok(Value::string_with(text, context.collect()))
}

fn add_output_dependencies(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let (text, context) = coerced(evaluator, &arguments[0], "addDrvOutputDependencies")?;
    let shown = String::from_utf8_lossy(&text);
    let references = context.references();
    let count = references.len();
    let only = references.first().map(|reference| (**reference).clone());
    let path = match (only, count) {
        (Some(Reference::Path(path)), 1) if path.as_str().ends_with(".drv") => path,
        (Some(Reference::Path(path)), 1) => {
            return Err(Failure::new(format!("path '{path}' is not a derivation")));
        }
        (Some(Reference::Output(_, output)), 1) => {
            return Err(Failure::new(format!(
                "`addDrvOutputDependencies` can only act on derivations, not on a derivation output such as '{output}'"
            )));
        }
        (Some(Reference::Closure(path)), 1) => path,
        _ => {
            let message = format!("context of string '{shown}' must have exactly one element, but has {count}");
            return Err(Failure::new(message));
        }
    };
    Ok(Value::string_with(text, Context::from([Reference::Closure(path)])))
}

fn get_context(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the argument passed to builtins.getContext";
    let text = evaluator.force_string(&arguments[0], NOWHERE, what)?;
    let mut paths: BTreeMap<&StorePath, (bool, bool, Vec<Value>)> = BTreeMap::new();
    let references = text.context.references();
    for reference in references.iter() {
        let entry = paths.entry(reference.path()).or_default();
        match &**reference {
            Reference::Path(_) => entry.0 = true,
            Reference::Closure(_) => entry.1 = true,
            Reference::Output(_, output) => entry.2.push(Value::string(output.as_str())),
        }
    }
    let entries = paths.into_iter().map(|(path, (plain, closure, outputs))| {
        let mut entries = Vec::new();
        if plain {
            entries.push(Attribute::new(known::PATH, Value::TRUE));
        }
        if closure {
            entries.push(Attribute::new(known::ALL_OUTPUTS, Value::TRUE));
        }
        if !outputs.is_empty() {
            entries.push(Attribute::new(known::OUTPUTS, Value::list(outputs)));
        }
        Attribute::new(evaluator.symbols.intern(path.as_str().as_bytes()), Value::set(entries))
    });
    Ok(Value::set(entries.collect()))
}

fn append_context(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let mut context = Context::new();
    let what = "while evaluating the first argument passed to builtins.appendContext";
    let text = evaluator.force_string_into(&arguments[0], &mut context, NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.appendContext";
    let set = evaluator.force_set(&arguments[1], NOWHERE, what)?;
    for entry in set.iter() {
        let name = evaluator.symbols.text(entry.name);
        let Some(path) = StorePath::parse(&name) else {
            return Err(Failure::new(format!("context key '\"{name}\"' is not a store path")).at(entry.place));
        };
        let is_derivation = name.ends_with(".drv");
        let kinds = evaluator.force_set(&entry.value, entry.place, "while evaluating the value of a string context")?;
        let flag = |symbol, what: &str| match kinds.get(symbol) {
            Some(attribute) => evaluator.force_boolean(&attribute.value, attribute.place, what),
            None => Ok(false),
        };
        if flag(known::PATH, "while evaluating the `path` attribute of a string context")? {
            context.insert(Reference::Path(path.clone()));
        }
        if flag(known::ALL_OUTPUTS, "while evaluating the `allOutputs` attribute of a string context")? {
            if !is_derivation {
                let message =
                    format!("tried to add all-outputs context of {name}, which is not a derivation, to a string");
                return Err(Failure::new(message).at(entry.place));
            }
            context.insert(Reference::Closure(path.clone()));
        }
        if let Some(attribute) = kinds.get(known::OUTPUTS) {
            let what = "while evaluating the `outputs` attribute of a string context";
            let outputs = evaluator.force_list(&attribute.value, attribute.place, what)?;
            if !outputs.is_empty() && !is_derivation {
                let message =
                    format!("tried to add derivation output context of {name}, which is not a derivation, to a string");
                return Err(Failure::new(message).at(entry.place));
            }
            for output in outputs.iter() {
                let what = "while evaluating an output name within a string context";
                let output = evaluator.force_string_without_context(&output, attribute.place, what)?;
                let output = String::from_utf8_lossy(&output.bytes).into_owned();
                context.insert(Reference::Output(path.clone(), output));
            }
        }
    }
    Ok(Value::text(text.bytes, context.finish()))
}
