//! Attribute sets and the scopes of recursive ones.

use super::Evaluator;
use crate::code::{Code, LambdaCode, SetCode, Where};
use crate::failure::{Failure, Result};
use crate::heap;
use crate::places::PlaceId;
use crate::symbols::Symbol;
use crate::value::{Attribute, More, Scope, Set, Thunk, Value};

impl Evaluator {
    #[inline]
    fn sources_scope(&self, code: &SetCode, inside: Scope) -> Option<Scope> {
        let sources = code.sources();
        if sources.is_empty() {
            return None;
        }
        let scope = Scope::new(sources.len(), Some(inside));
        for (number, source) in (0..).zip(sources.refs()) {
            scope.set(number, self.delay_unseen(source, inside));
        }
        Some(scope)
    }

    /// The scope of a `let` or recursive set; nobody sees what of a `let` was evaluated.
    #[inline]
    pub(super) fn recursive_scope(&self, code: &SetCode, outside: Scope, unseen: bool) -> Scope {
        let inside = Scope::new(code.entries.len(), Some(outside));
        self.fill_scope(code, inside, outside, 0, unseen);
        inside
    }

    /// Sets the slots of a scope, from this one on, to the attributes of a `let` or recursive set.
    #[inline]
    pub(super) fn fill_scope(&self, code: &SetCode, inside: Scope, outside: Scope, from: u32, unseen: bool) {
        let sources = self.sources_scope(code, inside);
        for (number, (slot, entry)) in (from..).zip(code.entries.refs()).enumerate() {
            let scope = seen(code.sees(number), inside, outside, sources);
            inside.set(slot, if unseen { self.delay_unseen(entry, scope) } else { self.delay(entry, scope) });
        }
    }

    #[inline(never)]
    pub(super) fn set(&self, code: &SetCode, scope: Scope) -> Result<Value> {
        let (set, inside) = if !code.recursive {
            let sources = self.sources_scope(code, scope);
            let set = Set::new(code.keys, |index| {
                self.delay(code.entries.at(index), seen(code.sees(index), scope, scope, sources))
            });
            (set, scope)
        } else if let Some(number) = code.more.and_then(|more| more.overrides) {
            let inside = Scope::new(code.entries.len(), Some(scope));
            let entries = self.overridden(code, number as usize, inside, scope)?;
            (Set::from_sorted(&entries, code.keys.set_place), inside)
        } else {
            let inside = self.recursive_scope(code, scope, false);
            (Set::new(code.keys, |slot| inside.get(slot as u32).unwrap_or(Value::NULL)), inside)
        };
        if code.dynamic().is_empty() { Ok(set.into()) } else { self.dynamic_attributes(code, set, inside) }
    }

    /// A recursive set with `__overrides`, which replace what the others see.
    fn overridden(&self, code: &SetCode, number: usize, inside: Scope, outside: Scope) -> Result<Vec<Attribute>> {
        let sources = self.sources_scope(code, inside);
        // Everything is a thunk, even a number, so that its work can still be exchanged.
        let later = |(number, entry)| Thunk::code(entry, seen(code.sees(number), inside, outside, sources));
        let thunks: Vec<Thunk> = code.entries.refs().enumerate().map(later).collect();
        for (slot, thunk) in (0..).zip(&thunks) {
            inside.set(slot, Value::from(*thunk));
        }
        let what = "while evaluating the `__overrides` attribute";
        let overrides = Value::from(thunks[number]);
        let overrides = self.force_set(&overrides, overrides.place(PlaceId::NONE), what)?;
        let names = &code.keys.names;
        let mut entries = Vec::with_capacity(thunks.len() + overrides.len());
        for (index, thunk) in thunks.iter().enumerate() {
            entries.push(match overrides.get(names[index]) {
                Some(attribute) => {
                    if thunk.value().is_none() && !thunk.is_running() {
                        thunk.put_more(More::Alias(attribute.value));
                    }
                    attribute
                }
                None => Attribute { name: names[index], place: code.keys.place(index), value: (*thunk).into() },
            });
        }
        entries.extend(overrides.iter().filter(|entry| code.keys.find(entry.name).is_none()));
        entries.sort_by_key(|entry| entry.name);
        Ok(entries)
    }

    #[inline(never)]
    fn dynamic_attributes(&self, code: &SetCode, set: Set, inside: Scope) -> Result<Value> {
        let mut entries: Vec<Attribute> = set.iter().collect();
        for dynamic in code.dynamic().refs() {
            let name = self.eval(&dynamic.name, inside)?;
            if name == Value::NULL {
                continue;
            }
            let place = dynamic.place;
            let what = "while evaluating the name of a dynamic attribute";
            let name = self.force_string_without_context(&name, place, what)?;
            let name = self.symbols.intern(&name.bytes);
            let value = match &dynamic.value {
                Code::Lambda(lambda) if lambda.name.is_none() => named_lambda(**lambda, name, inside),
                _ => self.delay(dynamic.map(|dynamic| &dynamic.value), inside),
            };
            match entries.binary_search_by_key(&name, |entry| entry.name) {
                Ok(number) => {
                    let earlier = self.place_text(entries[number].place);
                    let name = self.symbols.text(name);
                    let message = format!("dynamic attribute '{name}' already defined at {earlier}");
                    return Err(Failure::new(message).at(place));
                }
                Err(number) => entries.insert(number, Attribute { name, place, value }),
            }
        }
        Ok(Set::from_sorted(&entries, code.keys.set_place).into())
    }
}

/// The scope that an attribute's value sees.
#[inline(always)]
fn seen(sees: Where, inside: Scope, outside: Scope, sources: Option<Scope>) -> Scope {
    match (sees, sources) {
        (Where::Inside, _) => inside,
        (Where::Sources, Some(sources)) => sources,
        _ => outside,
    }
}

/// A function that is called after the attribute it is the value of.
fn named_lambda(lambda: LambdaCode, name: Symbol, scope: Scope) -> Value {
    Value::lambda(heap::place(LambdaCode { name: Some(name), ..lambda }), scope)
}
