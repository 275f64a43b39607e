//! Attribute sets.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use super::{Builtin, NOWHERE, builtin};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::places::PlaceId;
use crate::show;
use crate::symbols::{Symbol, known};
use crate::value::{Attribute, Set, Thunk, Value, Work};

pub(super) static BUILTINS: &[Builtin] = &[
    builtin("attrNames", 1, attr_names),
    builtin("attrValues", 1, attr_values),
    builtin("getAttr", 2, get_attr),
    builtin("hasAttr", 2, has_attr),
    builtin("removeAttrs", 2, remove_attrs),
    builtin("intersectAttrs", 2, intersect_attrs),
    builtin("listToAttrs", 1, list_to_attrs),
    builtin("catAttrs", 2, cat_attrs),
    builtin("mapAttrs", 2, map_attrs),
    builtin("zipAttrsWith", 2, zip_attrs_with),
    builtin("unsafeGetAttrPos", 2, unsafe_get_attr_pos),
];

/// An attribute that must be there.
pub(super) fn wanted(evaluator: &Evaluator, set: &Rc<Set>, name: Symbol, context: &str) -> Result<Attribute> {
    set.get(name).cloned().ok_or_else(|| {
        let name = evaluator.symbols.text(name);
        Failure::new(format!("attribute '{name}' missing")).during(NOWHERE, context)
    })
}

fn attr_names(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the argument passed to builtins.attrNames";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let mut names: Vec<_> = set.entries.iter().map(|entry| evaluator.symbols.bytes(entry.name)).collect();
    names.sort();
    Ok(Value::list(names.iter().map(|name| Value::string(&name[..])).collect()))
}

fn attr_values(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the argument passed to builtins.attrValues";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    Ok(Value::list(show::sorted(evaluator, &set).into_iter().map(|(_, value)| value).collect()))
}

fn get_attr(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.getAttr";
    let name = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.getAttr";
    let set = evaluator.force_set(&arguments[1], NOWHERE, what)?;
    let attribute =
        wanted(evaluator, &set, evaluator.symbols.intern(&name.bytes), "in the attribute set under consideration")?;
    evaluator.force(&attribute.value, attribute.place)
}

fn has_attr(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.hasAttr";
    let name = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.hasAttr";
    let set = evaluator.force_set(&arguments[1], NOWHERE, what)?;
    let has = evaluator.symbols.find(&name.bytes).is_some_and(|name| set.get(name).is_some());
    Ok(Value::Boolean(has))
}

fn remove_attrs(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.removeAttrs";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.removeAttrs";
    let list = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    let mut names = HashSet::new();
    for name in list.iter() {
        let what = "while evaluating the values of the second argument passed to builtins.removeAttrs";
        let name = evaluator.force_string_without_context(name, NOWHERE, what)?;
        names.extend(evaluator.symbols.find(&name.bytes));
    }
    let entries = set.entries.iter().filter(|entry| !names.contains(&entry.name)).cloned().collect();
    Ok(Value::Set(Rc::new(Set { entries, place: NOWHERE })))
}

fn intersect_attrs(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.intersectAttrs";
    let left = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.intersectAttrs";
    let right = evaluator.force_set(&arguments[1], NOWHERE, what)?;
    let entries = if left.entries.len() < right.entries.len() {
        left.entries.iter().filter_map(|entry| right.get(entry.name)).cloned().collect()
    } else {
        right.entries.iter().filter(|entry| left.get(entry.name).is_some()).cloned().collect()
    };
    Ok(Value::Set(Rc::new(Set { entries, place: NOWHERE })))
}

fn list_to_attrs(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the argument passed to builtins.listToAttrs";
    let list = evaluator.force_list(&arguments[0], NOWHERE, what)?;
    let mut entries = Vec::with_capacity(list.len());
    let mut seen = HashSet::new();
    for item in list.iter() {
        let what = "while evaluating an element of the list passed to builtins.listToAttrs";
        let pair = evaluator.force_set(item, NOWHERE, what)?;
        let context = "in a {name=...; value=...;} pair";
        let name = wanted(evaluator, &pair, known::NAME, context)?;
        let what = "while evaluating the `name` attribute of an element of the list passed to builtins.listToAttrs";
        let text = evaluator.force_string_without_context(&name.value, name.place, what)?;
        let symbol = evaluator.symbols.intern(&text.bytes);
        if seen.insert(symbol) {
            let value = wanted(evaluator, &pair, known::VALUE, context)?;
            entries.push(Attribute { name: symbol, place: value.place, value: value.value });
        }
    }
    Ok(Value::set(entries))
}

fn cat_attrs(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.catAttrs";
    let name = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let name = evaluator.symbols.intern(&name.bytes);
    let what = "while evaluating the second argument passed to builtins.catAttrs";
    let list = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    let mut values = Vec::new();
    for item in list.iter() {
        let what = "while evaluating an element in the list passed as second argument to builtins.catAttrs";
        let set = evaluator.force_set(item, NOWHERE, what)?;
        values.extend(set.get(name).map(|attribute| attribute.value.clone()));
    }
    Ok(Value::list(values))
}

fn map_attrs(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the second argument passed to builtins.mapAttrs";
    let set = evaluator.force_set(&arguments[1], NOWHERE, what)?;
    let entries = set.entries.iter().map(|entry| {
        let name = Value::string(&evaluator.symbols.bytes(entry.name)[..]);
        let call = Box::new((arguments[0].clone(), name, entry.value.clone()));
        Attribute::new(entry.name, Value::Thunk(Thunk::new(Work::CallTwo(call))))
    });
    Ok(Value::Set(Rc::new(Set { entries: entries.collect(), place: NOWHERE })))
}

fn zip_attrs_with(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.zipAttrsWith";
    let function = evaluator.force_function(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.zipAttrsWith";
    let list = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    let mut values: BTreeMap<Symbol, Vec<Value>> = BTreeMap::new();
    for item in list.iter() {
        let what = "while evaluating a value of the list passed as second argument to builtins.zipAttrsWith";
        for entry in &evaluator.force_set(item, NOWHERE, what)?.entries {
            values.entry(entry.name).or_default().push(entry.value.clone());
        }
    }
    let entries = values.into_iter().map(|(name, values)| {
        let text = Value::string(&evaluator.symbols.bytes(name)[..]);
        let call = Box::new((function.clone(), text, Value::list(values)));
        Attribute::new(name, Value::Thunk(Thunk::new(Work::CallTwo(call))))
    });
    Ok(Value::Set(Rc::new(Set { entries: entries.collect(), place: NOWHERE })))
}

fn unsafe_get_attr_pos(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.unsafeGetAttrPos";
    let name = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.unsafeGetAttrPos";
    let set = evaluator.force_set(&arguments[1], NOWHERE, what)?;
    let attribute = evaluator.symbols.find(&name.bytes).and_then(|name| set.get(name));
    Ok(attribute.map_or(Value::Null, |attribute| evaluator.position(attribute.place)))
}
