//! Lists.

use super::{Builtin, NOWHERE, builtin};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::heap;
use crate::places::PlaceId;
use crate::symbols::known;
use crate::value::{Attribute, Value, View};

pub(super) static BUILTINS: &[Builtin] = &[
    builtin("length", 1, |evaluator, arguments, _| {
        let what = "while evaluating the first argument passed to builtins.length";
        Ok(Value::integer(evaluator.force_list(&arguments[0], NOWHERE, what)?.len() as i64))
    }),
    builtin("head", 1, head),
    builtin("tail", 1, tail),
    builtin("elemAt", 2, elem_at),
    builtin("elem", 2, elem),
    builtin("map", 2, map),
    builtin("filter", 2, filter),
    builtin("foldl'", 3, foldl),
    builtin("any", 2, |evaluator, arguments, _| any(evaluator, arguments, "any", true)),
    builtin("all", 2, |evaluator, arguments, _| any(evaluator, arguments, "all", false)),
    builtin("genList", 2, gen_list),
    builtin("sort", 2, sort),
    builtin("concatLists", 1, concat_lists),
    builtin("concatMap", 2, concat_map),
    builtin("partition", 2, partition),
    builtin("groupBy", 2, group_by),
];

fn head(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to 'builtins.head'";
    let list = evaluator.force_list(&arguments[0], NOWHERE, what)?;
    match list.first() {
        Some(first) => evaluator.force(&first, NOWHERE),
        None => Err(Failure::new("'builtins.head' called on an empty list")),
    }
}

fn tail(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to 'builtins.tail'";
    let list = evaluator.force_list(&arguments[0], NOWHERE, what)?;
    match list.len().checked_sub(1) {
        Some(length) => Ok(Value::list_of(length, list.iter().skip(1))),
        None => Err(Failure::new("'builtins.tail' called on an empty list")),
    }
}

fn elem_at(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the second argument passed to 'builtins.elemAt'";
    let index = evaluator.force_integer(&arguments[1], NOWHERE, what)?;
    let what = "while evaluating the first argument passed to 'builtins.elemAt'";
    let list = evaluator.force_list(&arguments[0], NOWHERE, what)?;
    match usize::try_from(index).ok().and_then(|index| list.get(index)) {
        Some(item) => evaluator.force(&item, NOWHERE),
        None => {
            let size = list.len();
            Err(Failure::new(format!("'builtins.elemAt' called with index {index} on a list of size {size}")))
        }
    }
}

fn elem(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the second argument passed to builtins.elem";
    for item in evaluator.force_list(&arguments[1], NOWHERE, what)?.iter() {
        if evaluator.equal(&arguments[0], &item, NOWHERE)? {
            return Ok(Value::TRUE);
        }
    }
    Ok(Value::FALSE)
}

fn map(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the second argument passed to builtins.map";
    let list = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    if list.is_empty() {
        return Ok(Value::from(list));
    }
    let what = "while evaluating the first argument passed to builtins.map";
    let function = evaluator.force_function(&arguments[0], NOWHERE, what)?;
    Ok(Value::list_of(list.len(), list.iter().map(|item| Value::call_later(function, item))))
}

fn filter(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the second argument passed to builtins.filter";
    let list = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    if list.is_empty() {
        return Ok(Value::from(list));
    }
    let what = "while evaluating the first argument passed to builtins.filter";
    let function = evaluator.force_function(&arguments[0], NOWHERE, what)?;
    let mut kept = Vec::new();
    for item in list.iter() {
        let answer = evaluator.call(&function, &[item], NOWHERE)?;
        let what = "while evaluating the return value of the filtering function passed to builtins.filter";
        if evaluator.force_boolean(&answer, NOWHERE, what)? {
            kept.push(item);
        }
    }
    Ok(if kept.len() == list.len() { list.into() } else { Value::list(kept) })
}

fn foldl(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.foldlStrict";
    let function = evaluator.force_function(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the third argument passed to builtins.foldlStrict";
    let list = evaluator.force_list(&arguments[2], NOWHERE, what)?;
    let mut result = arguments[1];
    for item in list.iter() {
        result = evaluator.call(&function, &[result, item], NOWHERE)?;
    }
    evaluator.force(&result, NOWHERE)
}

/// Whether the function says so of any element, or of all.
fn any(evaluator: &Evaluator, arguments: &[Value], name: &str, wanted: bool) -> Result<Value> {
    let what = format!("while evaluating the first argument passed to builtins.{name}");
    let function = evaluator.force_function(&arguments[0], NOWHERE, &what)?;
    let what = format!("while evaluating the second argument passed to builtins.{name}");
    let list = evaluator.force_list(&arguments[1], NOWHERE, &what)?;
    let what = format!("while evaluating the return value of the function passed to builtins.{name}");
    for item in list.iter() {
        let answer = evaluator.call(&function, &[item], NOWHERE)?;
        if evaluator.force_boolean(&answer, NOWHERE, &what)? == wanted {
            return Ok(Value::boolean(wanted));
        }
    }
    Ok(Value::boolean(!wanted))
}

fn gen_list(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the second argument passed to builtins.genList";
    let length = evaluator.force_integer(&arguments[1], NOWHERE, what)?;
    let fits = |length: &usize| *length < heap::LONGEST_LIST;
    let Some(count) = usize::try_from(length).ok().filter(fits) else {
        return Err(Failure::new(format!("cannot create list of size {length}")));
    };
    let what = "while evaluating the first argument passed to builtins.genList";
    let function = evaluator.force_function(&arguments[0], NOWHERE, what)?;
    Ok(Value::list_of(count, (0..length).map(|number| Value::call_later(function, Value::integer(number)))))
}

fn sort(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the second argument passed to builtins.sort";
    let list = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    if list.is_empty() {
        return Ok(Value::from(list));
    }
    let what = "while evaluating the first argument passed to builtins.sort";
    let function = evaluator.force_function(&arguments[0], NOWHERE, what)?;
    let plain = matches!(function.view(), View::Builtin(builtin) if builtin.name == "lessThan");
    let items = list.iter().map(|item| evaluator.force(&item, NOWHERE).map(|_| item));
    let items = items.collect::<Result<Vec<_>>>()?;
    let less = |left: &Value, right: &Value| -> Result<bool> {
        if plain {
            return evaluator.less(
                left,
                right,
                NOWHERE,
                "while evaluating the ordering function passed to builtins.sort",
            );
        }
        let answer = evaluator.call(&function, &[*left, *right], NOWHERE)?;
        let what = "while evaluating the return value of the sorting function passed to builtins.sort";
        evaluator.force_boolean(&answer, NOWHERE, what)
    };
    merge_sort(items, &less).map(Value::list)
}

/// A stable sort whose order may fail or make no sense: whatever it says, this ends, and loses nothing.
fn merge_sort(mut items: Vec<Value>, less: &dyn Fn(&Value, &Value) -> Result<bool>) -> Result<Vec<Value>> {
    let mut width = 1;
    while width < items.len() {
        let mut merged = Vec::with_capacity(items.len());
        for pair in items.chunks(2 * width) {
            let (mut left, mut right) = pair.split_at(width.min(pair.len()));
            while let ([first, lefts @ ..], [second, rights @ ..]) = (left, right) {
                if less(second, first)? {
                    merged.push(*second);
                    right = rights;
                } else {
                    merged.push(*first);
                    left = lefts;
                }
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        items = merged;
        width *= 2;
    }
    Ok(items)
}

fn concat_lists(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.concatLists";
    let lists = evaluator.force_list(&arguments[0], NOWHERE, what)?;
    let mut all = Vec::new();
    for list in lists.iter() {
        let what = "while evaluating a value of the list passed to builtins.concatLists";
        heap::check_room(8 * all.len());
        all.extend(evaluator.force_list(&list, NOWHERE, what)?.iter());
    }
    Ok(Value::list(all))
}

fn concat_map(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.concatMap";
    let function = evaluator.force_function(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.concatMap";
    let list = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    let mut all = Vec::new();
    for item in list.iter() {
        let part = evaluator.call(&function, &[item], NOWHERE)?;
        let what = "while evaluating the return value of the function passed to builtins.concatMap";
        heap::check_room(8 * all.len());
        all.extend(evaluator.force_list(&part, part.place(function.place(NOWHERE)), what)?.iter());
    }
    Ok(Value::list(all))
}

fn partition(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.partition";
    let function = evaluator.force_function(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.partition";
    let list = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for item in list.iter() {
        evaluator.force(&item, NOWHERE)?;
        let answer = evaluator.call(&function, &[item], NOWHERE)?;
        let what = "while evaluating the return value of the partition function passed to builtins.partition";
        if evaluator.force_boolean(&answer, NOWHERE, what)? { &mut right } else { &mut wrong }.push(item);
    }
    Ok(Value::set(vec![
        Attribute::new(known::RIGHT, Value::list(right)),
        Attribute::new(known::WRONG, Value::list(wrong)),
    ]))
}

fn group_by(evaluator: &Evaluator, arguments: &[Value], _: PlaceId) -> Result<Value> {
    let what = "while evaluating the first argument passed to builtins.groupBy";
    let function = evaluator.force_function(&arguments[0], NOWHERE, what)?;
    let what = "while evaluating the second argument passed to builtins.groupBy";
    let list = evaluator.force_list(&arguments[1], NOWHERE, what)?;
    let mut groups: std::collections::BTreeMap<_, Vec<Value>> = std::collections::BTreeMap::new();
    for item in list.iter() {
        let name = evaluator.call(&function, &[item], NOWHERE)?;
        let what = "while evaluating the return value of the grouping function passed to builtins.groupBy";
        let name = evaluator.force_string_without_context(&name, NOWHERE, what)?;
        groups.entry(evaluator.symbols.intern(&name.bytes)).or_default().push(item);
    }
    let entries = groups.into_iter().map(|(name, items)| Attribute::new(name, Value::list(items)));
    Ok(Value::set(entries.collect()))
}
