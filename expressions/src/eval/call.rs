//! Calls.

use std::rc::Rc;

use super::Evaluator;
use crate::builtins::Builtin;
use crate::code::{Code, FormalsCode};
use crate::failure::{Failure, Result, suggestions};
use crate::places::PlaceId;
use crate::show;
use crate::symbols::{Symbol, known};
use crate::value::{Attribute, Closure, Partial, Scope, Set, Value};

impl Evaluator {
    pub(super) fn call_code(
        &self,
        function: &Code,
        arguments: &[Rc<Code>],
        place: PlaceId,
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let function = self.eval(function, scope)?;
        match arguments {
            [only] => self.call(&function, &[self.delay(only, scope)], place),
            [first, second] => self.call(&function, &[self.delay(first, scope), self.delay(second, scope)], place),
            _ => {
                let arguments: Vec<_> = arguments.iter().map(|argument| self.delay(argument, scope)).collect();
                self.call(&function, &arguments, place)
            }
        }
    }

    /// Calls a function with some arguments; what it gives is known, not a thunk.
    pub fn call(&self, function: &Value, arguments: &[Value], place: PlaceId) -> Result<Value> {
        let _depth = self.deeper(place)?;
        let mut current = self.force(function, place)?;
        let mut rest = arguments;
        while let [first, others @ ..] = rest {
            current = match &current {
                Value::Lambda(closure) => {
                    rest = others;
                    self.call_closure(closure, first, place)?
                }
                Value::Builtin(builtin) => match rest.split_at_checked(builtin.arity) {
                    Some((now, later)) => {
                        rest = later;
                        self.call_builtin(builtin, now, place)?
                    }
                    None => return Ok(partial(builtin, rest.to_vec())),
                },
                Value::Partial(begun) => {
                    let mut all = begun.arguments.clone();
                    let (now, later) = rest.split_at(rest.len().min(begun.builtin.arity - all.len()));
                    all.extend_from_slice(now);
                    rest = later;
                    if all.len() < begun.builtin.arity {
                        return Ok(partial(begun.builtin, all));
                    }
                    self.call_builtin(begun.builtin, &all, place)?
                }
                Value::Set(set) => match set.get(known::FUNCTOR) {
                    Some(functor) => {
                        rest = others;
                        let arguments = [current.clone(), first.clone()];
                        self.call(&functor.value, &arguments, functor.place).map_err(|failure| {
                            let what = "while calling a functor (an attribute set with a '__functor' attribute)";
                            failure.during(place, what)
                        })?
                    }
                    None => return Err(self.not_a_function(&current, place)),
                },
                _ => return Err(self.not_a_function(&current, place)),
            };
        }
        Ok(current)
    }

    #[cold]
    fn not_a_function(&self, value: &Value, place: PlaceId) -> Box<Failure> {
        let (kind, shown) = (value.kind(), show::for_error(self, value));
        Failure::new(format!("attempt to call something which is not a function but {kind}: {shown}")).at(place)
    }

    fn call_builtin(&self, builtin: &'static Builtin, arguments: &[Value], place: PlaceId) -> Result<Value> {
        match (builtin.run)(self, arguments, place) {
            Ok(Value::Thunk(thunk)) => self.force_thunk(&thunk, place),
            Ok(value) => Ok(value),
            Err(failure) if builtin.traced => {
                Err(failure.during(place, format!("while calling the '{}' builtin", builtin.name)))
            }
            Err(failure) => Err(failure),
        }
    }

    fn call_closure(&self, closure: &Rc<Closure>, argument: &Value, place: PlaceId) -> Result<Value> {
        let code = &closure.code;
        let scope = match &code.formals {
            None => Scope::one(argument.clone(), Some(Rc::clone(&closure.scope))),
            Some(formals) => self.bind(closure, formals, argument, place)?,
        };
        match self.eval(&code.body, &scope) {
            Ok(value) => Ok(value),
            Err(failure) => Err(self.trace_call(failure, code.name, code.place, place)),
        }
    }

    #[cold]
    fn trace_call(&self, failure: Box<Failure>, name: Option<Symbol>, lambda: PlaceId, place: PlaceId) -> Box<Failure> {
        let name = name.map_or("anonymous lambda".to_owned(), |name| format!("'{}'", self.symbols.text(name)));
        let failure = failure.during_in_full(lambda, format!("while calling {name}"));
        if place.is_some() { failure.during_in_full(place, "from call site") } else { failure }
    }

    /// The scope of a function that wants attributes.
    fn bind(
        &self,
        closure: &Rc<Closure>,
        formals: &FormalsCode,
        argument: &Value,
        place: PlaceId,
    ) -> Result<Rc<Scope>> {
        let code = &closure.code;
        let what = "while evaluating the value passed for the lambda argument";
        let set = self
            .force_set(argument, code.place, what)
            .map_err(|failure| if place.is_some() { failure.during(place, "from call site") } else { failure })?;
        let scope = Scope::with_capacity(code.slots, Some(Rc::clone(&closure.scope)));
        let mut slot = 0;
        if code.argument.is_some() {
            scope.set(0, argument.clone());
            slot = 1;
        }
        let mut used = 0;
        for formal in &formals.list {
            let value = match (set.get(formal.name), &formal.default) {
                (Some(attribute), _) => {
                    used += 1;
                    attribute.value.clone()
                }
                (None, Some(default)) => self.delay(default, &scope),
                (None, None) => {
                    let function = self.function_name(code.name);
                    let missing = self.symbols.text(formal.name);
                    let message = format!("function '{function}' called without required argument '{missing}'");
                    return Err(Failure::new(message).at(code.place).during(place, "from call site"));
                }
            };
            scope.set(slot, value);
            slot += 1;
        }
        if !formals.ellipsis && used != set.entries.len() {
            return Err(self.unexpected_argument(closure, formals, &set, place));
        }
        Ok(scope)
    }

    fn function_name(&self, name: Option<Symbol>) -> String {
        name.map_or("anonymous lambda".to_owned(), |name| self.symbols.text(name))
    }

    #[cold]
    fn unexpected_argument(&self, closure: &Closure, formals: &FormalsCode, set: &Set, place: PlaceId) -> Box<Failure> {
        let function = self.function_name(closure.code.name);
        let name = set.entries.iter().map(|entry| entry.name).find(|name| !formals.has(*name));
        let name = name.map(|name| self.symbols.text(name)).unwrap_or_default();
        let known: Vec<String> = formals.list.iter().map(|formal| self.symbols.text(formal.name)).collect();
        let close = suggestions(&name, known.iter().map(String::as_str));
        let message = format!("function '{function}' called with unexpected argument '{name}'");
        Failure::new(message).at(closure.code.place).during(place, "from call site").suggesting(close)
    }

    /// Calls a function that wants attributes with those of `arguments` that it wants; anything else is given back as it is.
    pub fn call_with_known(&self, function: &Value, arguments: &[Attribute]) -> Result<Value> {
        let function = self.force(function, PlaceId::NONE)?;
        if let Value::Set(set) = &function
            && let Some(functor) = set.get(known::FUNCTOR)
        {
            let inner = self.call(&functor.value, std::slice::from_ref(&function), functor.place)?;
            return self.call_with_known(&inner, arguments);
        }
        let Value::Lambda(closure) = &function else { return Ok(function) };
        let Some(formals) = &closure.code.formals else { return Ok(function) };
        let mut entries = Vec::new();
        if formals.ellipsis {
            entries.extend(arguments.iter().cloned());
        } else {
            for formal in &formals.list {
                match arguments.iter().find(|argument| argument.name == formal.name) {
                    Some(argument) => entries.push(argument.clone()),
                    None if formal.default.is_some() => {}
                    None => {
                        let name = self.symbols.text(formal.name);
                        let message = format!(
                            "cannot evaluate a function that has an argument without a value ('{name}')\n\
                             Nix attempted to evaluate a function as a top level expression; in\n\
                             this case it must have its arguments supplied either by default\n\
                             values, or passed explicitly with '--arg' or '--argstr'. See\n\
                             https://nix.dev/manual/nix/stable/language/syntax.html#functions."
                        );
                        return Err(Failure::new(message).at(formal.place));
                    }
                }
            }
        }
        self.call(&function, &[Value::set(entries)], PlaceId::NONE)
    }
}

fn partial(builtin: &'static Builtin, arguments: Vec<Value>) -> Value {
    Value::Partial(Rc::new(Partial { builtin, arguments }))
}
