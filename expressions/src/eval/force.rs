//! Forcing: from what need not be known to what is, and of the kind that is wanted.

use super::Evaluator;
use crate::code::Code;
use crate::failure::{Failure, Result, Sort};
use crate::fast_hash::FastSet;
use crate::heap::region;
use crate::places::PlaceId;
use crate::symbols::{Symbol, known};
use crate::value::{Context, List, More, Set, State, Text, Thunk, Value, View};
use crate::{show, stack};

impl Evaluator {
    /// Works a value out until it is known what it is.
    #[inline(always)]
    pub fn force(&self, value: &Value, place: PlaceId) -> Result<Value> {
        match value.thunk() {
            Some(thunk) => self.force_thunk(thunk, place),
            None => Ok(*value),
        }
    }

    /// Works a thunk out.
    #[inline(always)]
    pub fn force_thunk(&self, thunk: Thunk, place: PlaceId) -> Result<Value> {
        match thunk.value() {
            Some(value) => Ok(value),
            None => self.run(thunk, place),
        }
    }

    pub(super) fn run(&self, thunk: Thunk, place: PlaceId) -> Result<Value> {
        let Some((code, scope)) = thunk.as_code() else { return self.run_further(thunk, place) };
        if !stack::has_room() {
            return Err(self.too_deep(code.place()));
        }
        thunk.start();
        match region(|| self.eval(&code, scope)) {
            Ok(value) => {
                thunk.finish(value);
                Ok(value)
            }
            Err(failure) => Err(self.run_failed(thunk, State::Code(code, scope), failure)),
        }
    }

    /// What is known otherwise than by its code.
    #[inline(never)]
    fn run_further(&self, thunk: Thunk, place: PlaceId) -> Result<Value> {
        if !stack::has_room() {
            return Err(self.too_deep(place));
        }
        let state = thunk.state();
        let result = match &state {
            State::Call(function, argument) => {
                thunk.start();
                region(|| self.call(function, &[*argument], place))
            }
            State::Each(call, value) => {
                thunk.start();
                call.is_begun.set(true);
                region(|| self.call_each(&call.function, call.name, *value, place))
            }
            State::More(more) => {
                thunk.start();
                region(|| self.run_more(more, place))
            }
            State::Code(code, scope) => {
                thunk.start();
                region(|| self.eval(code, *scope))
            }
            State::Done(value) => return Ok(*value),
            State::Running => {
                let sort = Sort::InfiniteRecursion(thunk.address());
                return Err(Failure::of(sort, "infinite recursion encountered").at(place));
            }
            State::Failed(number) => return self.failed(*number),
        };
        match result {
            Ok(value) => {
                thunk.finish(value);
                Ok(value)
            }
            Err(failure) => Err(self.run_failed(thunk, state, failure)),
        }
    }

    #[cold]
    #[inline(never)]
    fn run_failed(&self, thunk: Thunk, state: State, failure: Box<Failure>) -> Box<Failure> {
        if stack::interrupted() {
            // It did not fail by itself, and begins again when it is asked for again.
            thunk.again(state);
            return failure;
        }
        self.fail(thunk, failure)
    }

    /// One call after the other, which shows where they fail; where nothing can fail between, it is one.
    #[inline(never)]
    fn call_each(&self, function: &Value, name: Symbol, value: Value, place: PlaceId) -> Result<Value> {
        let (first, second) = (self.symbols.value(name), value);
        if let View::Lambda(closure) = function.known().view()
            && closure.code.formals.is_none()
            && matches!(*closure.code.body, Code::Lambda(_))
        {
            return self.call(&function.known(), &[first, second], place);
        }
        let function = self.call(function, &[first], place)?;
        self.call(&function, &[second], place)
    }

    #[inline(never)]
    fn run_more(&self, more: &More, place: PlaceId) -> Result<Value> {
        match more {
            More::Call(function, argument) => self.call(function, &[*argument], place),
            More::Alias(value) => self.force(value, place),
            // Those are found with their numbers.
            More::Each(function, ..) => self.force(function, place),
            More::Native(number) => {
                let work = self.natives.borrow().get(*number).cloned();
                work.map_or(Ok(Value::NULL), |work| work(self))
            }
        }
    }

    #[cold]
    fn failed(&self, number: usize) -> Result<Value> {
        self.failures.borrow().get(number).map_or(Ok(Value::NULL), |failure| Err(Box::new(failure.clone())))
    }

    /// A thunk that has failed already.
    #[cold]
    pub(super) fn failed_later(&self, failure: Box<Failure>) -> Value {
        let thunk = Thunk::call(Value::NULL, Value::NULL);
        self.fail(thunk, failure);
        thunk.into()
    }

    /// What failed once fails again, in the same way.
    #[cold]
    fn fail(&self, thunk: Thunk, failure: Box<Failure>) -> Box<Failure> {
        let mut failure = failure;
        if failure.sort == Sort::InfiniteRecursion(thunk.address()) {
            failure = failure.during_always(PlaceId::NONE, "entering the infinite recursion");
        }
        let mut failures = self.failures.borrow_mut();
        failures.push((*failure).clone());
        thunk.fail(failures.len() - 1);
        failure
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

    #[inline(always)]
    fn force_during(&self, value: &Value, place: PlaceId, what: &str) -> Result<Value> {
        match self.force(value, place) {
            Ok(value) => Ok(value),
            Err(failure) => Err(failure.during(place, what)),
        }
    }

    /// A set.
    #[inline]
    pub fn force_set(&self, value: &Value, place: PlaceId, what: &str) -> Result<Set> {
        let value = self.force(value, place)?;
        match value.view() {
            View::Set(set) => Ok(set),
            _ => Err(self.expected("a set", &value).during(place, what)),
        }
    }

    /// A list.
    #[inline]
    pub fn force_list(&self, value: &Value, place: PlaceId, what: &str) -> Result<List> {
        let value = self.force(value, place)?;
        match value.view() {
            View::List(list) => Ok(list),
            _ => Err(self.expected("a list", &value).during(place, what)),
        }
    }

    /// An integer.
    pub fn force_integer(&self, value: &Value, place: PlaceId, what: &str) -> Result<i64> {
        let value = self.force_during(value, place, what)?;
        match value.view() {
            View::Integer(integer) => Ok(integer),
            _ => self.unexpected("an integer", &value, place, what),
        }
    }

    /// A number.
    pub fn force_float(&self, value: &Value, place: PlaceId, what: &str) -> Result<f64> {
        let value = self.force_during(value, place, what)?;
        match value.view() {
            View::Float(float) => Ok(float),
            View::Integer(integer) => Ok(integer as f64),
            _ => self.unexpected("a float", &value, place, what),
        }
    }

    /// A Boolean.
    #[inline]
    pub fn force_boolean(&self, value: &Value, place: PlaceId, what: &str) -> Result<bool> {
        let value = self.force_during(value, place, what)?;
        match value.view() {
            View::Boolean(boolean) => Ok(boolean),
            _ => self.unexpected("a Boolean", &value, place, what),
        }
    }

    /// Something that can be called.
    pub fn force_function(&self, value: &Value, place: PlaceId, what: &str) -> Result<Value> {
        let value = self.force_during(value, place, what)?;
        match value.view() {
            View::Lambda(_) | View::Builtin(_) | View::Partial(_) => Ok(value),
            View::Set(set) if set.get(known::FUNCTOR).is_some() => Ok(value),
            _ => self.unexpected("a function", &value, place, what),
        }
    }

    /// A string with its context.
    #[inline]
    pub fn force_string(&self, value: &Value, place: PlaceId, what: &str) -> Result<Text> {
        let value = self.force_during(value, place, what)?;
        match value.view() {
            View::String(text) => Ok(text),
            _ => self.unexpected("a string", &value, place, what),
        }
    }

    /// A string, its context going where others are collected.
    pub fn force_string_into(&self, value: &Value, context: &mut Context, place: PlaceId, what: &str) -> Result<Text> {
        let text = self.force_string(value, place, what)?;
        context.add(text.context);
        Ok(text)
    }

    /// A string that refers to nothing.
    #[inline]
    pub fn force_string_without_context(&self, value: &Value, place: PlaceId, what: &str) -> Result<Text> {
        let text = self.force_string(value, place, what)?;
        if text.context.is_some() { Err(self.refers_to_store(text, place, what)) } else { Ok(text) }
    }

    #[cold]
    fn refers_to_store(&self, text: Text, place: PlaceId, what: &str) -> Box<Failure> {
        let shown = String::from_utf8_lossy(&text.bytes);
        let references = text.context.references();
        let path = references.first().map(|reference| reference.path().to_string()).unwrap_or_default();
        let message = format!("the string '{shown}' is not allowed to refer to a store path (such as '{path}')");
        Failure::new(message).during(place, what)
    }

    /// Whether it is a set that says it is a derivation.
    pub fn is_derivation(&self, value: &Value) -> Result<bool> {
        let View::Set(set) = value.view() else { return Ok(false) };
        let Some(kind) = set.get(known::TYPE) else { return Ok(false) };
        let kind = self.force(&kind.value, kind.place)?;
        Ok(matches!(kind.view(), View::String(text) if *text.bytes == *b"derivation"))
    }

    /// Works out all that a value is made of.
    pub fn force_deep(&self, value: &Value) -> Result<()> {
        self.force_below(value, &mut FastSet::default())
    }

    fn force_below(&self, value: &Value, seen: &mut FastSet<usize>) -> Result<()> {
        let _depth = self.deeper(value.place(PlaceId::NONE))?;
        match self.force(value, value.place(PlaceId::NONE))?.view() {
            View::Set(set) => {
                if !seen.insert(set.address()) {
                    return Ok(());
                }
                for entry in set.iter() {
                    self.force_below(&entry.value, seen).map_err(|failure| {
                        let name = self.symbols.text(entry.name);
                        failure.during(entry.place, format!("while evaluating the attribute '{name}'"))
                    })?;
                }
            }
            View::List(list) => {
                if !seen.insert(list.address()) {
                    return Ok(());
                }
                for (number, item) in list.iter().enumerate() {
                    self.force_below(&item, seen).map_err(|failure| {
                        failure.during(PlaceId::NONE, format!("while evaluating list element at index {number}"))
                    })?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
