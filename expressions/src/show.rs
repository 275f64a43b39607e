//! Values as text: shortened for messages, as `nix-instantiate --eval` prints them, and as `nix eval` does.

use std::collections::HashSet;

use crate::eval::Evaluator;
use crate::failure::{Failure, Result, Sort};
use crate::text;
use crate::value::{Bytes, List, Set, Value, View};

/// How much of a value is shown in a message.
struct Bounds {
    depth: usize,
    attributes: usize,
    items: usize,
    bytes: usize,
}

/// A value for a message: what is known of it, and not too much.
pub fn for_error(evaluator: &Evaluator, value: &Value) -> String {
    let bounds = Bounds { depth: 10, attributes: 10, items: 10, bytes: 1024 };
    shown(evaluator, value, bounds)
}

/// A value for `builtins.trace`.
pub fn for_trace(evaluator: &Evaluator, value: &Value) -> String {
    shown(evaluator, value, Bounds { depth: usize::MAX, attributes: usize::MAX, items: usize::MAX, bytes: usize::MAX })
}

fn shown(evaluator: &Evaluator, value: &Value, bounds: Bounds) -> String {
    let (text, seen) = (String::new(), HashSet::new());
    let mut shower = Shower { evaluator, bounds, text, seen, attributes: 0, items: 0 };
    shower.show(value, 0, 0);
    shower.text
}

struct Shower<'a> {
    evaluator: &'a Evaluator,
    bounds: Bounds,
    text: String,
    seen: HashSet<usize>,
    attributes: usize,
    items: usize,
}

impl Shower<'_> {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// `slot` is where the value is kept.
    fn show(&mut self, value: &Value, slot: usize, depth: usize) {
        if !crate::stack::has_room() {
            return self.push("...");
        }
        match value.known().view() {
            View::Null => self.push("null"),
            View::Boolean(boolean) => self.push(if boolean { "true" } else { "false" }),
            View::Integer(integer) => self.push(&integer.to_string()),
            View::Float(float) => self.push(&text::float(float)),
            View::String(string) => self.push(&text::quoted_up_to(&string.bytes, self.bounds.bytes)),
            View::Path(path) if *path == *crate::eval::FETCHURL_PATH => self.push("<nix/fetchurl.nix>"),
            View::Path(path) => self.push(&String::from_utf8_lossy(&path)),
            View::Set(set) => self.set(&set, depth),
            View::List(list) => self.list(&list, identity(value, slot), depth),
            View::Thunk(thunk) if thunk.is_running() => self.push("«potential infinite recursion»"),
            View::Thunk(_) => self.push("«thunk»"),
            _ => {
                let text = function_text(self.evaluator, value.known());
                self.push(&text);
            }
        }
    }

    fn set(&mut self, set: &Set, depth: usize) {
        if !set.is_empty() && !self.seen.insert(set.address()) {
            return self.push("«repeated»");
        }
        if depth >= self.bounds.depth {
            return self.push("{ ... }");
        }
        self.push("{");
        let mut sorted = slots(self.evaluator, set);
        // What kind of set it is says most, where not all is shown.
        let later = |name: &[u8]| self.bounds.attributes < usize::MAX && name != b"type" && name != b"_type";
        sorted.sort_by(|left, right| (later(&left.0), &left.0).cmp(&(later(&right.0), &right.0)));
        for (number, (name, value, slot)) in sorted.iter().enumerate() {
            self.push(" ");
            if self.attributes >= self.bounds.attributes {
                self.push(&text::elided(sorted.len() - number, "attribute"));
                break;
            }
            self.push(&text::identifier(name));
            self.push(" = ");
            self.show(value, *slot, depth + 1);
            self.push(";");
            self.attributes += 1;
        }
        self.push(" }");
    }

    fn list(&mut self, list: &List, identity: usize, depth: usize) {
        if !list.is_empty() && !self.seen.insert(identity) {
            return self.push("«repeated»");
        }
        if depth >= self.bounds.depth {
            return self.push("[ ... ]");
        }
        self.push("[");
        for (number, item) in list.values().iter().enumerate() {
            self.push(" ");
            if self.items >= self.bounds.items {
                self.push(&text::elided(list.len() - number, "item"));
                break;
            }
            self.show(item, std::ptr::from_ref(item).addr(), depth + 1);
            self.items += 1;
        }
        self.push(" ]");
    }
}

/// What makes a list the same list: the thunk it came from, or where it lies. One list in two places is two, as in Nix.
fn identity(value: &Value, slot: usize) -> usize {
    match value.view() {
        View::Thunk(thunk) => thunk.address(),
        _ => slot,
    }
}

fn function_text(evaluator: &Evaluator, value: Value) -> String {
    match value.view() {
        View::Lambda(closure) => {
            let name = closure.code.name.map(|name| format!("{} ", evaluator.symbols.text(name))).unwrap_or_default();
            format!("«lambda {name}@ {}»", evaluator.place_text(closure.code.place))
        }
        View::Builtin(builtin) => format!("«primop {}»", builtin.name),
        View::Partial(partial) => format!("«partially applied primop {}»", partial.builtin.name),
        _ => "«unknown»".to_owned(),
    }
}

/// A value as `nix-instantiate --eval` prints it: what is not known is `<CODE>`.
pub fn plain(evaluator: &Evaluator, value: &Value) -> Result<Vec<u8>> {
    let mut output = Vec::new();
    plain_onto(evaluator, value, 0, &mut output, &mut HashSet::new())?;
    Ok(output)
}

/// Attributes in order of the bytes of their names, and where their values are kept.
fn slots(evaluator: &Evaluator, set: &Set) -> Vec<(Bytes, Value, usize)> {
    let (keys, values) = set.parts();
    let slot = |index: &u32| {
        let name = evaluator.symbols.bytes(keys.names[*index as usize]);
        (name, values[*index as usize].get(), std::ptr::from_ref(&values[*index as usize]).addr())
    };
    keys.in_order(&evaluator.symbols).iter().map(slot).collect()
}

fn plain_onto(
    evaluator: &Evaluator,
    value: &Value,
    slot: usize,
    output: &mut Vec<u8>,
    seen: &mut HashSet<usize>,
) -> Result<()> {
    if !crate::stack::has_room() {
        return Err(Failure::of(Sort::Depth, "stack overflow; max-call-depth exceeded"));
    }
    match value.known().view() {
        View::Null => output.extend(b"null"),
        View::Boolean(boolean) => output.extend(if boolean { &b"true"[..] } else { b"false" }),
        View::Integer(integer) => output.extend(integer.to_string().bytes()),
        View::Float(float) => output.extend(text::float(float).bytes()),
        View::String(string) => output.extend(text::quoted_bytes(&string.bytes)),
        View::Path(path) if *path == *crate::eval::FETCHURL_PATH => output.extend(b"<nix/fetchurl.nix>"),
        View::Path(path) => output.extend_from_slice(&path),
        View::Set(set) => {
            if !set.is_empty() && !seen.insert(set.address()) {
                output.extend("«repeated»".bytes());
                return Ok(());
            }
            output.extend(b"{ ");
            for (name, value, slot) in slots(evaluator, &set) {
                output.extend(text::identifier(&name).bytes());
                output.extend(b" = ");
                plain_onto(evaluator, &value, slot, output, seen)?;
                output.extend(b"; ");
            }
            output.push(b'}');
        }
        View::List(list) => {
            if !list.is_empty() && !seen.insert(identity(value, slot)) {
                output.extend("«repeated»".bytes());
                return Ok(());
            }
            output.extend(b"[ ");
            for item in list.values() {
                plain_onto(evaluator, item, std::ptr::from_ref(item).addr(), output, seen)?;
                output.push(b' ');
            }
            output.push(b']');
        }
        View::Lambda(_) => output.extend(b"<LAMBDA>"),
        View::Builtin(_) => output.extend(b"<PRIMOP>"),
        View::Partial(_) => output.extend(b"<PRIMOP-APP>"),
        View::Thunk(thunk) if thunk.is_running() => output.extend("«potential infinite recursion»".bytes()),
        View::Thunk(_) => output.extend(b"<CODE>"),
    }
    Ok(())
}

/// Attributes in order of the bytes of their names.
pub fn sorted(evaluator: &Evaluator, set: &Set) -> Vec<(Bytes, Value)> {
    set.in_order(&evaluator.symbols).map(|(name, attribute)| (name, attribute.value)).collect()
}
