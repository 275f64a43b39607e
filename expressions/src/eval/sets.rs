//! Attribute sets and the scopes of recursive ones.

use std::rc::Rc;

use super::Evaluator;
use crate::code::{Code, SetCode, Where};
use crate::failure::{Failure, Result};
use crate::places::PlaceId;
use crate::symbols::Symbol;
use crate::value::{Attribute, Closure, Scope, Set, Thunk, Value, Work};

impl Evaluator {
    fn sources_scope(&self, code: &SetCode, inside: &Rc<Scope>) -> Option<Rc<Scope>> {
        if code.sources.is_empty() {
            return None;
        }
        let scope = Scope::with_capacity(code.sources.len(), Some(Rc::clone(inside)));
        for (number, source) in code.sources.iter().enumerate() {
            scope.set(number, self.delay(source, inside));
        }
        Some(scope)
    }

    /// The scope of a `let` or recursive set.
    pub(super) fn recursive_scope(&self, code: &SetCode, outside: &Rc<Scope>) -> Rc<Scope> {
        let inside = Scope::with_capacity(code.entries.len(), Some(Rc::clone(outside)));
        let sources = self.sources_scope(code, &inside);
        for (number, entry) in code.entries.iter().enumerate() {
            inside.set(number, self.entry(&entry.code, entry.sees, &inside, outside, sources.as_ref()));
        }
        inside
    }

    #[inline]
    fn entry(
        &self,
        code: &Rc<Code>,
        sees: Where,
        inside: &Rc<Scope>,
        outside: &Rc<Scope>,
        sources: Option<&Rc<Scope>>,
    ) -> Value {
        match (sees, sources) {
            (Where::Inside, _) => self.delay(code, inside),
            (Where::Sources, Some(sources)) => self.delay(code, sources),
            _ => self.delay(code, outside),
        }
    }

    pub(super) fn set(&self, code: &SetCode, scope: &Rc<Scope>) -> Result<Value> {
        let mut inside = Rc::clone(scope);
        let mut entries = Vec::with_capacity(code.entries.len() + code.dynamic.len());
        let attribute = |name, place, value| Attribute { name, place, value };
        if !code.recursive {
            let sources = self.sources_scope(code, scope);
            for entry in &code.entries {
                let value = self.entry(&entry.code, entry.sees, scope, scope, sources.as_ref());
                entries.push(attribute(entry.name, entry.place, value));
            }
        } else if let Some(number) = code.overrides {
            inside = Scope::with_capacity(code.entries.len(), Some(Rc::clone(scope)));
            entries = self.overridden(code, number, &inside, scope)?;
        } else {
            inside = self.recursive_scope(code, scope);
            for (slot, entry) in (0..).zip(&code.entries) {
                let value = inside.get(slot).cloned().unwrap_or(Value::Null);
                entries.push(attribute(entry.name, entry.place, value));
            }
        }
        let mut set = Set { entries, place: code.place };
        if !code.dynamic.is_empty() {
            self.dynamic_attributes(code, &mut set, &inside)?;
        }
        Ok(Value::Set(Rc::new(set)))
    }

    /// A recursive set with `__overrides`, which replace what the others see.
    fn overridden(
        &self,
        code: &SetCode,
        number: usize,
        inside: &Rc<Scope>,
        outside: &Rc<Scope>,
    ) -> Result<Vec<Attribute>> {
        let sources = self.sources_scope(code, inside);
        // Everything is a thunk, even a number, so that its work can still be exchanged.
        let later = |entry: &crate::code::EntryCode| {
            let scope = match (entry.sees, &sources) {
                (Where::Inside, _) => inside,
                (Where::Sources, Some(sources)) => sources,
                _ => outside,
            };
            Thunk::new(Work::Code(Rc::clone(&entry.code), Rc::clone(scope)))
        };
        let thunks: Vec<Rc<Thunk>> = code.entries.iter().map(later).collect();
        for (slot, thunk) in thunks.iter().enumerate() {
            inside.set(slot, Value::Thunk(Rc::clone(thunk)));
        }
        let what = "while evaluating the `__overrides` attribute";
        let overrides = Value::Thunk(Rc::clone(&thunks[number]));
        let overrides = self.force_set(&overrides, overrides.place(PlaceId::NONE), what)?;
        let mut entries = Vec::with_capacity(thunks.len() + overrides.entries.len());
        for (entry, thunk) in code.entries.iter().zip(&thunks) {
            entries.push(match overrides.get(entry.name) {
                Some(attribute) => {
                    if thunk.value().is_none() && !thunk.is_running() {
                        thunk.put(Work::Alias(attribute.value.clone()));
                    }
                    attribute.clone()
                }
                None => Attribute { name: entry.name, place: entry.place, value: Value::Thunk(Rc::clone(thunk)) },
            });
        }
        let known = |name| code.entries.binary_search_by_key(&name, |entry| entry.name).is_ok();
        entries.extend(overrides.entries.iter().filter(|entry| !known(entry.name)).cloned());
        entries.sort_by_key(|entry| entry.name);
        Ok(entries)
    }

    fn dynamic_attributes(&self, code: &SetCode, set: &mut Set, inside: &Rc<Scope>) -> Result<()> {
        for (name, value, place) in &code.dynamic {
            let name = self.eval(name, inside)?;
            if let Value::Null = name {
                continue;
            }
            let what = "while evaluating the name of a dynamic attribute";
            let name = self.force_string_without_context(&name, *place, what)?;
            let name = self.symbols.intern(&name.bytes);
            let value = match &**value {
                Code::Lambda(lambda) if lambda.name.is_none() => self.named_lambda(lambda, name, inside),
                _ => self.delay(value, inside),
            };
            match set.entries.binary_search_by_key(&name, |entry| entry.name) {
                Ok(number) => {
                    let earlier = self.place_text(set.entries[number].place);
                    let name = self.symbols.text(name);
                    let message = format!("dynamic attribute '{name}' already defined at {earlier}");
                    return Err(Failure::new(message).at(*place));
                }
                Err(number) => set.entries.insert(number, Attribute { name, place: *place, value }),
            }
        }
        Ok(())
    }

    /// A function that is called after the attribute it is the value of.
    fn named_lambda(&self, lambda: &crate::code::LambdaCode, name: Symbol, scope: &Rc<Scope>) -> Value {
        let code = crate::code::LambdaCode {
            name: Some(name),
            argument: lambda.argument,
            formals: lambda.formals.as_ref().map(crate::code::FormalsCode::share),
            slots: lambda.slots,
            body: Rc::clone(&lambda.body),
            place: lambda.place,
        };
        Value::Lambda(Rc::new(Closure { code: Rc::new(code), scope: Rc::clone(scope) }))
    }
}
