//! Attribute paths: `set.a.b or fallback` and `set ? a.b`.

use super::Evaluator;
use crate::code::{HasCode, NameCode, SelectCode};
use crate::failure::{Failure, Result, suggestions};
use crate::heap;
use crate::places::PlaceId;
use crate::symbols::Symbol;
use crate::value::{Scope, Set, Thunk, Value, View};

impl Evaluator {
    /// The name that a component of an attribute path stands for.
    pub(super) fn name(&self, name: &NameCode, scope: Scope) -> Result<Symbol> {
        match name {
            NameCode::Static(name, _) => Ok(*name),
            NameCode::Dynamic(dynamic) => {
                let code = &dynamic.0;
                let value = self.eval(code, scope)?;
                let what = "while evaluating an attribute name";
                let text = self.force_string_without_context(&value, code.place(), what)?;
                Ok(self.symbols.intern(&text.bytes))
            }
        }
    }

    /// An attribute path for messages.
    pub(super) fn path_text<'b>(&self, path: impl Iterator<Item = &'b NameCode>, scope: Scope) -> String {
        let names = path.map(|name| match (self.name(name, scope), name) {
            (Ok(name), _) => crate::ast_print::symbol(&self.symbols, name),
            (Err(_), NameCode::Dynamic(dynamic)) => String::from_utf8_lossy(&dynamic.1).into_owned(),
            (Err(_), NameCode::Static(name, _)) => self.symbols.text(*name),
        });
        names.collect::<Vec<_>>().join(".")
    }

    #[inline(never)]
    pub(super) fn select(&self, code: &SelectCode, scope: Scope) -> Result<Value> {
        let from = self.eval_during(&code.from, scope, "while selecting an attribute")?;
        // Mostly.
        if let Some(NameCode::Static(name, guess)) = code.only()
            && let View::Set(set) = from.view()
            && let Some((value, place)) = set.get_cached(*name, guess)
        {
            let Some(thunk) = value.thunk() else { return Ok(value) };
            return match thunk.value() {
                Some(value) => Ok(value),
                None => self.select_run(code, thunk, Some(place), scope),
            };
        }
        self.select_path(code, from, scope)
    }

    /// Works out what was selected.
    #[inline(never)]
    fn select_run(&self, code: &SelectCode, thunk: Thunk, defined: Option<heap::Place>, scope: Scope) -> Result<Value> {
        let place = defined.map_or(PlaceId::NONE, heap::Place::get).or(code.place);
        match self.run(thunk, place) {
            Ok(value) => Ok(value),
            Err(failure) => Err(self.select_failed(code, failure, defined, usize::MAX, scope)),
        }
    }

    #[inline(never)]
    fn select_path(&self, code: &SelectCode, from: Value, scope: Scope) -> Result<Value> {
        let (mut current, mut defined) = (from, None);
        for (done, name) in code.path().enumerate() {
            match self.select_one(code, name, &current, scope) {
                Ok(Some((value, place))) => (current, defined) = (value, Some(place)),
                Ok(None) => {
                    return match code.fallback() {
                        Some(fallback) => self.eval(fallback, scope),
                        None => Ok(Value::NULL),
                    };
                }
                Err(failure) => return Err(self.select_failed(code, failure, defined, done, scope)),
            }
        }
        let Some(thunk) = current.thunk() else { return Ok(current) };
        match thunk.value() {
            Some(value) => Ok(value),
            None => self.select_run(code, thunk, defined, scope),
        }
    }

    #[inline(always)]
    pub(super) fn select_one(
        &self,
        code: &SelectCode,
        name: &NameCode,
        current: &Value,
        scope: Scope,
    ) -> Result<Option<(Value, heap::Place)>> {
        if let NameCode::Static(name, guess) = name
            && let View::Set(set) = current.known().view()
        {
            return match set.get_cached(*name, guess) {
                Some(found) => Ok(Some(found)),
                None if code.fallback().is_some() => Ok(None),
                None => Err(self.missing(*name, &set)),
            };
        }
        self.select_further(code, name, current, scope)
    }

    pub(super) fn select_further(
        &self,
        code: &SelectCode,
        name: &NameCode,
        current: &Value,
        scope: Scope,
    ) -> Result<Option<(Value, heap::Place)>> {
        let symbol = self.name(name, scope)?;
        let set = if code.fallback().is_some() {
            match self.force(current, code.place)?.view() {
                View::Set(set) => set,
                _ => return Ok(None),
            }
        } else {
            self.force_set(current, code.place, "while selecting an attribute")?
        };
        match set.get_cached(symbol, &heap::Guess::default()) {
            None if code.fallback().is_none() => Err(self.missing(symbol, &set)),
            found => Ok(found),
        }
    }

    #[cold]
    pub(super) fn select_failed(
        &self,
        code: &SelectCode,
        failure: Box<Failure>,
        defined: Option<heap::Place>,
        done: usize,
        scope: Scope,
    ) -> Box<Failure> {
        let mut failure = failure;
        let defined = defined.map_or(PlaceId::NONE, heap::Place::get);
        if defined.is_some() && !self.is_internal(defined) {
            let path = self.path_text(code.path().take(done), scope);
            failure = failure.during(defined, format!("from the definition of '{path}'"));
        }
        let path = self.path_text(code.path(), scope);
        failure.during(code.place, format!("while evaluating the attribute '{path}'"))
    }

    /// Whether a place is in a text that is part of the evaluator.
    pub(super) fn is_internal(&self, place: PlaceId) -> bool {
        self.places.get(place).is_some_and(|place| {
            place.text.name.as_os_str().as_encoded_bytes().starts_with("«nix-internal»".as_bytes())
        })
    }

    /// There is no such attribute.
    #[cold]
    pub fn missing(&self, name: Symbol, set: &Set) -> Box<Failure> {
        let wanted = self.symbols.text(name);
        let known: Vec<String> = set.iter().map(|entry| self.symbols.text(entry.name)).collect();
        let close = suggestions(&wanted, known.iter().map(String::as_str));
        Failure::new(format!("attribute '{wanted}' missing")).suggesting(close)
    }

    #[inline(never)]
    pub(super) fn has(&self, code: &HasCode, scope: Scope) -> Result<Value> {
        let mut current = self.eval_during(&code.from, scope, "in the argument of '?'")?;
        for name in code.path.iter() {
            let value = self.force(&current, code.from.place())?;
            let found = match (value.view(), name) {
                (View::Set(set), NameCode::Static(name, guess)) => set.get_cached(*name, guess).map(|found| found.0),
                (View::Set(set), _) => set.get(self.name(name, scope)?).map(|attribute| attribute.value),
                _ => {
                    self.name(name, scope)?;
                    None
                }
            };
            match found {
                Some(value) => current = value,
                None => return Ok(Value::FALSE),
            }
        }
        Ok(Value::TRUE)
    }
}
