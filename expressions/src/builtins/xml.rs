//! Values as XML.

use std::collections::BTreeSet;

use super::{Builtin, NOWHERE, builtin};
use crate::eval::Evaluator;
use crate::failure::Result;
use crate::heap;
use crate::places::PlaceId;
use crate::symbols::known;
use crate::text;
use crate::value::{Context, Set, Value, View};

pub(super) static BUILTINS: &[Builtin] = &[builtin("toXML", 1, |evaluator, arguments, _| {
    let mut context = Context::new();
    let text = to_xml(evaluator, &arguments[0], true, false, &mut context)?;
    Ok(Value::string_with(text, context))
})];

/// A document that says what a value is; unless `strict`, only as far as that is known, and with `places` where it was defined.
pub fn to_xml(
    evaluator: &Evaluator,
    value: &Value,
    strict: bool,
    places: bool,
    context: &mut Context,
) -> Result<Vec<u8>> {
    let (text, seen) = (b"<?xml version='1.0' encoding='utf-8'?>\n".to_vec(), BTreeSet::new());
    let mut writer = Writer { evaluator, strict, places, context, text, seen, depth: 0 };
    writer.open("expr", &[]);
    writer.value(value, NOWHERE)?;
    writer.close("expr");
    Ok(writer.text)
}

struct Writer<'a> {
    evaluator: &'a Evaluator,
    strict: bool,
    places: bool,
    context: &'a mut Context,
    text: Vec<u8>,
    seen: BTreeSet<Vec<u8>>,
    depth: usize,
}

type Fields<'a> = &'a [(&'a str, Vec<u8>)];

impl Writer<'_> {
    fn tag(&mut self, name: &str, fields: Fields, end: &str) {
        heap::check_room(self.text.len());
        self.text.extend("  ".repeat(self.depth).bytes());
        self.text.push(b'<');
        self.text.extend(name.bytes());
        let mut sorted: Vec<_> = fields.iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        for (name, value) in sorted {
            self.text.extend(format!(" {name}=\"").bytes());
            for byte in value {
                match byte {
                    b'"' => self.text.extend(b"&quot;"),
                    b'<' => self.text.extend(b"&lt;"),
                    b'>' => self.text.extend(b"&gt;"),
                    b'&' => self.text.extend(b"&amp;"),
                    // Otherwise readers would make a blank of it.
                    b'\n' => self.text.extend(b"&#xA;"),
                    _ => self.text.push(*byte),
                }
            }
            self.text.push(b'"');
        }
        self.text.extend(end.bytes());
    }

    fn open(&mut self, name: &str, fields: Fields) {
        self.tag(name, fields, ">\n");
        self.depth += 1;
    }

    fn close(&mut self, name: &str) {
        self.depth -= 1;
        self.text.extend("  ".repeat(self.depth).bytes());
        self.text.extend(format!("</{name}>\n").bytes());
    }

    fn empty(&mut self, name: &str, fields: Fields) {
        self.tag(name, fields, " />\n");
    }

    fn place(&self, place: PlaceId) -> Vec<(&'static str, Vec<u8>)> {
        let Some(place) = self.evaluator.places.get(place).filter(|_| self.places) else { return Vec::new() };
        let (line, column) = place.line_and_column();
        let mut fields = vec![("line", line.to_string().into_bytes()), ("column", column.to_string().into_bytes())];
        let name = place.text.name.as_os_str().as_encoded_bytes();
        if name.starts_with(b"/") {
            fields.push(("path", name.to_vec()));
        }
        fields
    }

    fn known(&self, value: &Value, place: PlaceId) -> Result<Value> {
        if self.strict { self.evaluator.force(value, place) } else { Ok(value.known()) }
    }

    fn value(&mut self, value: &Value, place: PlaceId) -> Result<()> {
        let evaluator = self.evaluator;
        let _depth = evaluator.deeper(place)?;
        let value = self.known(value, place)?;
        let simple = |text: String| vec![("value", text.into_bytes())];
        match value.view() {
            View::Null => self.empty("null", &[]),
            View::Boolean(boolean) => self.empty("bool", &simple(boolean.to_string())),
            View::Integer(integer) => self.empty("int", &simple(integer.to_string())),
            View::Float(float) => self.empty("float", &simple(text::float(float))),
            View::String(string) => {
                self.context.add(string.context);
                self.empty("string", &[("value", string.bytes.to_vec())]);
            }
            View::Path(path) => self.empty("path", &[("value", path.to_vec())]),
            View::List(list) => {
                self.open("list", &[]);
                for item in list.iter() {
                    self.value(&item, place)?;
                }
                self.close("list");
            }
            View::Set(set) if evaluator.is_derivation(&value)? => self.derivation(&set)?,
            View::Set(set) => {
                self.open("attrs", &[]);
                self.attributes(&set)?;
                self.close("attrs");
            }
            View::Lambda(closure) => {
                let code = &closure.code;
                let name = |symbol| evaluator.symbols.bytes(symbol).to_vec();
                self.open("function", &self.place(code.place));
                match (&code.formals, code.argument) {
                    (Some(formals), argument) => {
                        let mut fields: Vec<_> =
                            argument.map(|argument| ("name", name(argument))).into_iter().collect();
                        if formals.ellipsis {
                            fields.push(("ellipsis", b"1".to_vec()));
                        }
                        self.open("attrspat", &fields);
                        let mut names: Vec<_> = formals.list.iter().map(|formal| name(formal.name)).collect();
                        names.sort();
                        for name in names {
                            self.empty("attr", &[("name", name)]);
                        }
                        self.close("attrspat");
                    }
                    (None, Some(argument)) => self.empty("varpat", &[("name", name(argument))]),
                    (None, None) => {}
                }
                self.close("function");
            }
            _ => self.empty("unevaluated", &[]),
        }
        Ok(())
    }

    fn derivation(&mut self, set: &Set) -> Result<()> {
        let mut fields = Vec::new();
        let mut path = Vec::new();
        for (name, symbol) in [("drvPath", known::DRV_PATH), ("outPath", known::OUT_PATH)] {
            if let Some(attribute) = set.get(symbol)
                && let View::String(text) = self.known(&attribute.value, attribute.place)?.view()
            {
                if symbol == known::DRV_PATH {
                    path = text.bytes.to_vec();
                }
                fields.push((name, text.bytes.to_vec()));
            }
        }
        self.open("derivation", &fields);
        if !path.is_empty() && self.seen.insert(path) {
            self.attributes(set)?;
        } else {
            self.empty("repeated", &[]);
        }
        self.close("derivation");
        Ok(())
    }

    fn attributes(&mut self, set: &Set) -> Result<()> {
        for (name, entry) in set.in_order(&self.evaluator.symbols) {
            let mut fields = self.place(entry.place);
            fields.push(("name", name.to_vec()));
            self.open("attr", &fields);
            self.value(&entry.value, entry.place)?;
            self.close("attr");
        }
        Ok(())
    }
}
