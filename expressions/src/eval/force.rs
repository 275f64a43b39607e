//! Forcing: from what need not be known to what is, and of the kind that is wanted.

use std::collections::HashSet;
use std::rc::Rc;

use super::Evaluator;
use crate::failure::{Failure, Result, Sort};
use crate::places::PlaceId;
use crate::show;
use crate::symbols::known;
use crate::value::{Context, Set, Text, Thunk, Value, Work};

impl Evaluator {
    /// Works a value out until it is known what it is.
    #[inline]
    pub fn force(&self, value: &Value, place: PlaceId) -> Result<Value> {
        match value {
            Value::Thunk(thunk) => self.force_thunk(thunk, place),
            _ => Ok(value.clone()),
        }
    }

    /// Works a thunk out.
    #[inline]
    pub fn force_thunk(&self, thunk: &Rc<Thunk>, place: PlaceId) -> Result<Value> {
        match thunk.value() {
            Some(value) => Ok(value.clone()),
            None => self.run(thunk, place),
        }
    }

    fn run(&self, thunk: &Rc<Thunk>, place: PlaceId) -> Result<Value> {
        if !crate::stack::has_room() {
            return Err(self.too_deep(place));
        }
        let result = match thunk.take() {
            Work::Running => {
                let sort = Sort::InfiniteRecursion(Rc::as_ptr(thunk) as usize);
                return Err(Failure::of(sort, "infinite recursion encountered").at(place));
            }
            Work::Code(code, scope) => self.eval(&code, &scope),
            Work::Call(function, argument) => self.call(&function, &[argument], place),
            Work::CallTwo(call) => {
                let (function, first, second) = *call;
                self.call(&function, &[first], place).and_then(|function| self.call(&function, &[second], place))
            }
            Work::Native(work) => work(self),
            Work::Alias(value) => self.force(&value, place),
            Work::Failed(failure) => Err(failure),
        };
        match result {
            Ok(value) => {
                thunk.finish(value.clone());
                Ok(value)
            }
            Err(mut failure) => {
                if failure.sort == Sort::InfiniteRecursion(Rc::as_ptr(thunk) as usize) {
                    failure = failure.during_always(PlaceId::NONE, "entering the infinite recursion");
                }
                thunk.put(Work::Failed(failure.clone()));
                Err(failure)
            }
        }
    }

    /// Another kind of value was wanted.
    #[cold]
    pub fn expected(&self, wanted: &str, found: &Value) -> Box<Failure> {
        let shown = show::for_error(self, found);
        Failure::new(format!("expected {wanted} but found {}: {shown}", found.kind()))
    }

    #[cold]
    fn unexpected<T>(&self, wanted: &str, found: &Value, place: PlaceId, what: &str) -> Result<T> {
        Err(self.expected(wanted, found).at(place).during(place, what))
    }

    fn force_during(&self, value: &Value, place: PlaceId, what: &str) -> Result<Value> {
        self.force(value, place).map_err(|failure| failure.during(place, what))
    }

    /// A set.
    pub fn force_set(&self, value: &Value, place: PlaceId, what: &str) -> Result<Rc<Set>> {
        match self.force(value, place)? {
            Value::Set(set) => Ok(set),
            other => Err(self.expected("a set", &other).during(place, what)),
        }
    }

    /// A list.
    pub fn force_list(&self, value: &Value, place: PlaceId, what: &str) -> Result<Rc<Vec<Value>>> {
        match self.force(value, place)? {
            Value::List(list) => Ok(list),
            other => Err(self.expected("a list", &other).during(place, what)),
        }
    }

    /// An integer.
    pub fn force_integer(&self, value: &Value, place: PlaceId, what: &str) -> Result<i64> {
        match self.force_during(value, place, what)? {
            Value::Integer(integer) => Ok(integer),
            other => self.unexpected("an integer", &other, place, what),
        }
    }

    /// A number.
    pub fn force_float(&self, value: &Value, place: PlaceId, what: &str) -> Result<f64> {
        match self.force_during(value, place, what)? {
            Value::Float(float) => Ok(float),
            Value::Integer(integer) => Ok(integer as f64),
            other => self.unexpected("a float", &other, place, what),
        }
    }

    /// A Boolean.
    pub fn force_boolean(&self, value: &Value, place: PlaceId, what: &str) -> Result<bool> {
        match self.force_during(value, place, what)? {
            Value::Boolean(boolean) => Ok(boolean),
            other => self.unexpected("a Boolean", &other, place, what),
        }
    }

    /// Something that can be called.
    pub fn force_function(&self, value: &Value, place: PlaceId, what: &str) -> Result<Value> {
        match self.force_during(value, place, what)? {
            function @ (Value::Lambda(_) | Value::Builtin(_) | Value::Partial(_)) => Ok(function),
            Value::Set(set) if set.get(known::FUNCTOR).is_some() => Ok(Value::Set(set)),
            other => self.unexpected("a function", &other, place, what),
        }
    }

    /// A string with its context.
    pub fn force_string(&self, value: &Value, place: PlaceId, what: &str) -> Result<Rc<Text>> {
        match self.force_during(value, place, what)? {
            Value::String(text) => Ok(text),
            other => self.unexpected("a string", &other, place, what),
        }
    }

    /// A string, its context going where others are collected.
    pub fn force_string_into(
        &self,
        value: &Value,
        context: &mut Context,
        place: PlaceId,
        what: &str,
    ) -> Result<Rc<Text>> {
        let text = self.force_string(value, place, what)?;
        if let Some(found) = &text.context {
            context.extend(found.iter().cloned());
        }
        Ok(text)
    }

    /// A string that refers to nothing.
    pub fn force_string_without_context(&self, value: &Value, place: PlaceId, what: &str) -> Result<Rc<Text>> {
        let text = self.force_string(value, place, what)?;
        if let Some(first) = text.context.as_ref().and_then(|context| context.first()) {
            let shown = String::from_utf8_lossy(&text.bytes);
            let path = first.path();
            let message = format!("the string '{shown}' is not allowed to refer to a store path (such as '{path}')");
            return Err(Failure::new(message).during(place, what));
        }
        Ok(text)
    }

    /// Whether it is a set that says it is a derivation.
    pub fn is_derivation(&self, value: &Value) -> Result<bool> {
        let Value::Set(set) = value else { return Ok(false) };
        let Some(kind) = set.get(known::TYPE) else { return Ok(false) };
        Ok(matches!(self.force(&kind.value, kind.place)?, Value::String(text) if text.bytes == b"derivation"))
    }

    /// Works out all that a value is made of.
    pub fn force_deep(&self, value: &Value) -> Result<()> {
        self.force_below(value, &mut HashSet::new())
    }

    fn force_below(&self, value: &Value, seen: &mut HashSet<usize>) -> Result<()> {
        let _depth = self.deeper(value.place(PlaceId::NONE))?;
        match self.force(value, value.place(PlaceId::NONE))? {
            Value::Set(set) => {
                if !seen.insert(Rc::as_ptr(&set) as usize) {
                    return Ok(());
                }
                for entry in &set.entries {
                    self.force_below(&entry.value, seen).map_err(|failure| {
                        let name = self.symbols.text(entry.name);
                        failure.during(entry.place, format!("while evaluating the attribute '{name}'"))
                    })?;
                }
            }
            Value::List(list) => {
                if !seen.insert(Rc::as_ptr(&list) as usize) {
                    return Ok(());
                }
                for (number, item) in list.iter().enumerate() {
                    self.force_below(item, seen).map_err(|failure| {
                        failure.during(PlaceId::NONE, format!("while evaluating list element at index {number}"))
                    })?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
