//! Values as text: shortened for messages, as `nix-instantiate --eval` prints them, and as `nix eval` does.

use std::collections::HashSet;
use std::rc::Rc;

use crate::eval::Evaluator;
use crate::failure::{Failure, Result, Sort};
use crate::text;
use crate::value::{Set, Value};

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
    shower.show(value, 0);
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

    fn show(&mut self, value: &Value, depth: usize) {
        if !crate::stack::has_room() {
            return self.push("...");
        }
        match value.known() {
            Value::Null => self.push("null"),
            Value::Boolean(boolean) => self.push(if *boolean { "true" } else { "false" }),
            Value::Integer(integer) => self.push(&integer.to_string()),
            Value::Float(float) => self.push(&text::float(*float)),
            Value::String(string) => self.push(&text::quoted_up_to(&string.bytes, self.bounds.bytes)),
            Value::Path(path) => self.push(&String::from_utf8_lossy(path)),
            Value::Set(set) => self.set(set, depth),
            Value::List(list) => self.list(list, identity(value), depth),
            Value::Thunk(thunk) if thunk.is_running() => self.push("«potential infinite recursion»"),
            Value::Thunk(_) => self.push("«thunk»"),
            function => {
                let text = function_text(self.evaluator, function);
                self.push(&text);
            }
        }
    }

    fn set(&mut self, set: &Rc<Set>, depth: usize) {
        if !set.entries.is_empty() && !self.seen.insert(Rc::as_ptr(set) as usize) {
            return self.push("«repeated»");
        }
        if depth >= self.bounds.depth {
            return self.push("{ ... }");
        }
        self.push("{");
        let mut sorted: Vec<_> =
            set.entries.iter().map(|entry| (self.evaluator.symbols.bytes(entry.name), &entry.value)).collect();
        // What kind of set it is says most, where not all is shown.
        let later = |name: &[u8]| self.bounds.attributes < usize::MAX && name != b"type" && name != b"_type";
        sorted.sort_by(|left, right| (later(&left.0), &left.0).cmp(&(later(&right.0), &right.0)));
        for (number, (name, value)) in sorted.iter().enumerate() {
            self.push(" ");
            if self.attributes >= self.bounds.attributes {
                self.push(&text::elided(sorted.len() - number, "attribute"));
                break;
            }
            self.push(&text::identifier(name));
            self.push(" = ");
            self.show(value, depth + 1);
            self.push(";");
            self.attributes += 1;
        }
        self.push(" }");
    }

    fn list(&mut self, list: &Rc<Vec<Value>>, identity: usize, depth: usize) {
        if !list.is_empty() && !self.seen.insert(identity) {
            return self.push("«repeated»");
        }
        if depth >= self.bounds.depth {
            return self.push("[ ... ]");
        }
        self.push("[");
        for (number, item) in list.iter().enumerate() {
            self.push(" ");
            if self.items >= self.bounds.items {
                self.push(&text::elided(list.len() - number, "item"));
                break;
            }
            self.show(item, depth + 1);
            self.items += 1;
        }
        self.push(" ]");
    }
}

/// What makes a list the same list: the thunk it came from, or where it lies. One list in two places is two, as in Nix.
fn identity(value: &Value) -> usize {
    match value {
        Value::Thunk(thunk) => Rc::as_ptr(thunk) as usize,
        _ => std::ptr::from_ref(value) as usize,
    }
}

fn function_text(evaluator: &Evaluator, value: &Value) -> String {
    match value {
        Value::Lambda(closure) => {
            let name = closure.code.name.map(|name| format!("{} ", evaluator.symbols.text(name))).unwrap_or_default();
            format!("«lambda {name}@ {}»", evaluator.place_text(closure.code.place))
        }
        Value::Builtin(builtin) => format!("«primop {}»", builtin.name),
        Value::Partial(partial) => format!("«partially applied primop {}»", partial.builtin.name),
        _ => "«unknown»".to_owned(),
    }
}

/// A value as `nix-instantiate --eval` prints it: what is not known is `<CODE>`.
pub fn plain(evaluator: &Evaluator, value: &Value) -> Result<Vec<u8>> {
    let mut output = Vec::new();
    plain_onto(evaluator, value, &mut output, &mut HashSet::new())?;
    Ok(output)
}

fn plain_onto(evaluator: &Evaluator, value: &Value, output: &mut Vec<u8>, seen: &mut HashSet<usize>) -> Result<()> {
    if !crate::stack::has_room() {
        return Err(Failure::of(Sort::Depth, "stack overflow; max-call-depth exceeded"));
    }
    match value.known() {
        Value::Null => output.extend(b"null"),
        Value::Boolean(boolean) => output.extend(if *boolean { &b"true"[..] } else { b"false" }),
        Value::Integer(integer) => output.extend(integer.to_string().bytes()),
        Value::Float(float) => output.extend(text::float(*float).bytes()),
        Value::String(string) => output.extend(text::quoted_bytes(&string.bytes)),
        Value::Path(path) => output.extend_from_slice(path),
        Value::Set(set) => {
            if !set.entries.is_empty() && !seen.insert(Rc::as_ptr(set) as usize) {
                output.extend("«repeated»".bytes());
                return Ok(());
            }
            output.extend(b"{ ");
            let mut sorted: Vec<_> =
                set.entries.iter().map(|entry| (evaluator.symbols.bytes(entry.name), &entry.value)).collect();
            sorted.sort_by(|left, right| left.0.cmp(&right.0));
            for (name, value) in sorted {
                output.extend(text::identifier(&name).bytes());
                output.extend(b" = ");
                plain_onto(evaluator, value, output, seen)?;
                output.extend(b"; ");
            }
            output.push(b'}');
        }
        Value::List(list) => {
            if !list.is_empty() && !seen.insert(identity(value)) {
                output.extend("«repeated»".bytes());
                return Ok(());
            }
            output.extend(b"[ ");
            for item in list.iter() {
                plain_onto(evaluator, item, output, seen)?;
                output.push(b' ');
            }
            output.push(b']');
        }
        Value::Lambda(_) => output.extend(b"<LAMBDA>"),
        Value::Builtin(_) => output.extend(b"<PRIMOP>"),
        Value::Partial(_) => output.extend(b"<PRIMOP-APP>"),
        Value::Thunk(thunk) if thunk.is_running() => output.extend("«potential infinite recursion»".bytes()),
        Value::Thunk(_) => output.extend(b"<CODE>"),
    }
    Ok(())
}

/// Attributes in order of the bytes of their names.
pub fn sorted(evaluator: &Evaluator, set: &Set) -> Vec<(Rc<[u8]>, Value)> {
    let mut sorted: Vec<_> =
        set.entries.iter().map(|entry| (evaluator.symbols.bytes(entry.name), entry.value.clone())).collect();
    sorted.sort_by(|left, right| left.0.cmp(&right.0));
    sorted
}
