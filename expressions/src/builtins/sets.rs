//! Attribute sets.

use std::collections::BTreeMap;

use super::{Builtin, NOWHERE, builtin};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::fast_hash::FastSet;
use crate::places::PlaceId;
use crate::symbols::{Symbol, known};
use crate::value::{Attribute, Keys, Set, Thunk, Value};

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
pub(super) fn wanted(evaluator: &Evaluator, set: &Set, name: Symbol, context: &str) -> Result<Attribute> {
    set.get(name).ok_or_else(|| {
        let name = evaluator.symbols.text(name);
        Failure::new(format!("attribute '{name}' missing")).during(NOWHERE, context)
    })
}

fn attr_names(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the argument passed to builtins.attrNames";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let (keys, _) = set.parts();
    let names = keys.in_order(&evaluator.symbols);
    let names = names.iter().map(|index| evaluator.symbols.value(keys.names[*index as usize]));
    Ok(Value::list_of(set.len(), names))
}

fn attr_values(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the argument passed to builtins.attrValues";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let (keys, values) = set.parts();
    let values =
        keys.in_order(&evaluator.symbols).iter().map(|index| values[*index as usize].get()).collect::<Vec<_>>();
    Ok(Value::list(values))
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
    Ok(Value::boolean(has))
}

fn remove_attrs(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.removeAttrs";
    let set = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.removeAttrs";
    let list = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    let mut names = FastSet::default();
    for name in list.iter() {
        let what = "while evaluating the values of the second argument passed to builtins.removeAttrs";
        let name = evaluator.force_string_without_context(&name, NOWHERE, what)?;
        names.extend(evaluator.symbols.find(&name.bytes));
    }
    if names.iter().all(|name| set.get(*name).is_none()) {
        return Ok(set.into());
    }
    let entries: Vec<_> = set.iter().filter(|entry| !names.contains(&entry.name)).collect();
    Ok(Set::from_sorted(&entries, NOWHERE).into())
}

fn intersect_attrs(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.intersectAttrs";
    let left = evaluator.force_set(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.intersectAttrs";
    let right = evaluator.force_set(&arguments[1], NOWHERE, what)?;
    let entries: Vec<_> = if left.len() < right.len() {
        left.iter().filter_map(|entry| right.get(entry.name)).collect()
    } else {
        right.iter().filter(|entry| left.get(entry.name).is_some()).collect()
    };
    Ok(Set::from_sorted(&entries, NOWHERE).into())
}

fn list_to_attrs(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the argument passed to builtins.listToAttrs";
    let list = evaluator.force_list(&arguments[0], NOWHERE, what)?;
    let mut entries = Vec::with_capacity(list.len());
    // Few are looked through, many hashed.
    let mut seen = (list.len() > 16).then(FastSet::default);
    for item in list.iter() {
        let what = "while evaluating an element of the list passed to builtins.listToAttrs";
        let pair = evaluator.force_set(&item, NOWHERE, what)?;
        let context = "in a {name=...; value=...;} pair";
        let name = wanted(evaluator, &pair, known::NAME, context)?;
        let what = "while evaluating the `name` attribute of an element of the list passed to builtins.listToAttrs";
        let text = evaluator.force_string_without_context(&name.value, name.place, what)?;
        let symbol = evaluator.symbols.intern(&text.bytes);
        let is_new = match &mut seen {
            Some(seen) => seen.insert(symbol),
            None => entries.iter().all(|entry: &Attribute| entry.name != symbol),
        };
        if is_new {
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
        let set = evaluator.force_set(&item, NOWHERE, what)?;
        values.extend(set.get(name).map(|attribute| attribute.value));
    }
    Ok(Value::list(values))
}

fn map_attrs(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the second argument passed to builtins.mapAttrs";
    let set = evaluator.force_set(&arguments[1], NOWHERE, what)?;
    let (keys, values) = set.parts();
    // The same names, but defined nowhere.
    let keys = Keys::without_places(keys);
    let all = Thunk::all(arguments[0], keys, false);
    let set = Set::new(keys, |index| Thunk::each(all, index, values[index].get()).into());
    Ok(set.into())
}

fn zip_attrs_with(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.zipAttrsWith";
    let function = evaluator.force_function(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.zipAttrsWith";
    let list = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    let mut values: BTreeMap<Symbol, Vec<Value>> = BTreeMap::new();
    for item in list.iter() {
        let what = "while evaluating a value of the list passed as second argument to builtins.zipAttrsWith";
        for entry in evaluator.force_set(&item, NOWHERE, what)?.iter() {
            values.entry(entry.name).or_default().push(entry.value);
        }
    }
    let keys = Keys::of_names(values.keys().copied().collect::<Vec<_>>().into_iter());
    let all = Thunk::all(function, keys, true);
    let mut values = values.into_values();
    let call = |index| Thunk::each(all, index, Value::list(values.next().unwrap_or_default())).into();
    Ok(Set::new(keys, call).into())
}

fn unsafe_get_attr_pos(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.unsafeGetAttrPos";
    let name = evaluator.force_string_without_context(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.unsafeGetAttrPos";
    let set = evaluator.force_set(&arguments[1], NOWHERE, what)?;
    let attribute = evaluator.symbols.find(&name.bytes).and_then(|name| set.get(name));
    Ok(attribute.map_or(Value::NULL, |attribute| evaluator.position(attribute.place)))
}
