//! Calls.

use super::Evaluator;
use crate::builtins::Builtin;
use crate::code::{CallCode, Code, FormalsCode, LambdaCode};
use crate::failure::{Failure, Result, suggestions};
use crate::heap::{self, Ref, Thunk};
use crate::places::PlaceId;
use crate::show;
use crate::symbols::{Symbol, known};
use crate::value::{Attribute, Closure, Scope, Set, Value, View};

impl Evaluator {
    #[inline(never)]
    pub(super) fn call_code(&self, code: &CallCode, scope: Scope) -> Result<Value> {
        let function = self.eval(&code.function, scope)?;
        let strict = match function.view() {
            View::Lambda(closure) => {
                let strict = closure.code.strict(code.arguments.len());
                if code.arguments.len() == 1 && closure.code.formals.is_none() {
                    return self.call_one(closure, code, strict != 0, scope);
                }
                strict
            }
            View::Builtin(builtin) if builtin.arity <= code.arguments.len() => builtin.strict,
            _ => 0,
        };
        self.call_some(function, code, strict, scope)
    }

    /// A call of a function of the language that does not look into its only argument before its body does.
    #[inline(never)]
    fn call_one(&self, closure: Ref<Closure>, code: &CallCode, is_strict: bool, scope: Scope) -> Result<Value> {
        let argument = code.arguments.at(0);
        let argument = match self.cheap(&argument, scope) {
            Some(value) => value,
            None if is_strict => self.evaluated_now(&argument, code.place, scope)?,
            None => Thunk::code(argument, scope).into(),
        };
        let depth = self.enter(code.place)?;
        let lambda = closure.code;
        let result = heap::region(|| {
            let inside = scope_of(lambda, lambda, closure.scope);
            inside.set(lambda.before, argument);
            self.eval(&lambda.body, inside)
        });
        self.depth.set(depth);
        match result {
            Ok(value) => Ok(value),
            Err(failure) => Err(self.trace_call(failure, lambda.name, lambda.place, code.place)),
        }
    }

    /// Any other call. The arguments whose bits are set are evaluated at once, and need no thunk.
    #[inline(never)]
    fn call_some(&self, function: Value, code: &CallCode, strict: u8, scope: Scope) -> Result<Value> {
        let argument = |index: usize| {
            let argument = code.arguments.at(index);
            match self.cheap(&argument, scope) {
                Some(value) => Ok(value),
                None if index < 8 && strict >> index & 1 != 0 => self.evaluated_now(&argument, code.place, scope),
                None => Ok(Thunk::code(argument, scope).into()),
            }
        };
        match code.arguments.len() {
            1 => self.call(&function, &[argument(0)?], code.place),
            2 => self.call(&function, &[argument(0)?, argument(1)?], code.place),
            count => self.call_many(function, (0..count).map(argument).collect::<Result<_>>()?, code.place),
        }
    }

    /// An argument that is evaluated as the first thing in the call; if that fails, so does the call, in its own words.
    #[inline(never)]
    fn evaluated_now(&self, code: &Code, place: PlaceId, scope: Scope) -> Result<Value> {
        let depth = self.enter(place)?;
        let result = heap::region(|| self.eval(code, scope));
        self.depth.set(depth);
        match result {
            Err(failure) if !crate::stack::interrupted() => Ok(self.failed_later(failure)),
            // What shows whether it is the same twice is behind one thunk, as in Nix.
            Ok(value) if !value.is_plain() => {
                let thunk = Thunk::call(Value::NULL, Value::NULL);
                thunk.finish(value);
                Ok(thunk.into())
            }
            result => result,
        }
    }

    #[inline(never)]
    fn call_many(&self, function: Value, arguments: Vec<Value>, place: PlaceId) -> Result<Value> {
        self.call(&function, &arguments, place)
    }

    /// Calls a function with some arguments; what it gives is known, not a thunk.
    #[inline]
    pub fn call(&self, function: &Value, arguments: &[Value], place: PlaceId) -> Result<Value> {
        let depth = self.enter(place)?;
        let result = match function.view() {
            // Mostly.
            View::Lambda(closure) => {
                let mut rest = arguments;
                let result = self.call_lambda(closure.code, closure.scope, &mut rest, place);
                match result {
                    Ok(value) if !rest.is_empty() => self.apply(&value, rest, place),
                    result => result,
                }
            }
            _ => self.apply(function, arguments, place),
        };
        self.depth.set(depth);
        result
    }

    fn apply(&self, function: &Value, arguments: &[Value], place: PlaceId) -> Result<Value> {
        let mut current = self.force(function, place)?;
        let mut rest = arguments;
        while let [first, others @ ..] = rest {
            current = match current.view() {
                View::Lambda(closure) => self.call_lambda(closure.code, closure.scope, &mut rest, place)?,
                View::Builtin(builtin) => match rest.split_at_checked(builtin.arity) {
                    Some((now, later)) => {
                        rest = later;
                        self.call_builtin(builtin, now, place)?
                    }
                    None => return Ok(Value::partial(builtin, rest)),
                },
                View::Partial(begun) => {
                    let mut all = begun.arguments.to_vec();
                    let (now, later) = rest.split_at(rest.len().min(begun.builtin.arity - all.len()));
                    all.extend_from_slice(now);
                    rest = later;
                    if all.len() < begun.builtin.arity {
                        return Ok(Value::partial(begun.builtin, &all));
                    }
                    self.call_builtin(begun.builtin, &all, place)?
                }
                View::Set(set) => match set.get(known::FUNCTOR) {
                    Some(functor) => {
                        rest = others;
                        let arguments = [current, *first];
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

    #[inline]
    pub(super) fn call_builtin(&self, builtin: &'static Builtin, arguments: &[Value], place: PlaceId) -> Result<Value> {
        match (builtin.run)(self, arguments, place) {
            Ok(value) => self.force(&value, place),
            Err(failure) if builtin.traced => {
                Err(failure.during(place, format!("while calling the '{}' builtin", builtin.name)))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Calls a function with the first argument; where that gives a function at once, also with the next ones, so that no
    /// memory is needed for the functions between.
    fn call_lambda(&self, code: Ref<LambdaCode>, outer: Scope, rest: &mut &[Value], place: PlaceId) -> Result<Value> {
        heap::region(|| {
            let (mut code, mut outer) = (code, outer);
            loop {
                let [argument, others @ ..] = *rest else { return Ok(Value::lambda(code, outer)) };
                *rest = others;
                let last = last_in_scope(code, rest.len());
                let scope = match code.formals {
                    None => {
                        let scope = scope_of(code, last, outer);
                        scope.set(code.before, *argument);
                        scope
                    }
                    Some(formals) => {
                        let set = self.wanted_set(code, argument, place)?;
                        let scope = scope_of(code, last, outer);
                        self.bind(code, formals, argument, set, scope, place)?;
                        scope
                    }
                };
                while code != last
                    && let Code::Lambda(inner) = *code.body
                    && let [argument, others @ ..] = *rest
                {
                    scope.set(inner.before, *argument);
                    (code, *rest) = (inner, others);
                }
                match *code.body {
                    Code::Lambda(inner) if !rest.is_empty() => (code, outer) = (inner, scope),
                    _ => {
                        return match self.eval(&code.body, scope) {
                            Ok(value) => Ok(value),
                            Err(failure) => Err(self.trace_call(failure, code.name, code.place, place)),
                        };
                    }
                }
            }
        })
    }

    #[cold]
    fn trace_call(&self, failure: Box<Failure>, name: Option<Symbol>, lambda: PlaceId, place: PlaceId) -> Box<Failure> {
        let name = name.map_or("anonymous lambda".to_owned(), |name| format!("'{}'", self.symbols.text(name)));
        let failure = failure.during_in_full(lambda, format!("while calling {name}"));
        if place.is_some() { failure.during_in_full(place, "from call site") } else { failure }
    }

    #[inline]
    fn wanted_set(&self, code: Ref<LambdaCode>, argument: &Value, place: PlaceId) -> Result<Set> {
        let what = "while evaluating the value passed for the lambda argument";
        self.force_set(argument, code.place, what)
            .map_err(|failure| if place.is_some() { failure.during(place, "from call site") } else { failure })
    }

    /// Fills the scope of a function that wants attributes.
    fn bind(
        &self,
        code: Ref<LambdaCode>,
        formals: Ref<FormalsCode>,
        argument: &Value,
        set: Set,
        scope: Scope,
        place: PlaceId,
    ) -> Result<()> {
        let mut slot = 0;
        if code.argument.is_some() {
            scope.set(0, *argument);
            slot = 1;
        }
        let mut used = 0;
        for formal in formals.list.refs() {
            let value = match set.get_cached(formal.name, &formal.guess) {
                Some((value, _)) => {
                    used += 1;
                    value
                }
                None if formal.default.is_some() => {
                    let default = formal.map(|formal| match &formal.default {
                        Some(default) => default,
                        None => &Code::Constant(Value::NULL),
                    });
                    self.delay_unseen(default, scope)
                }
                None => {
                    let function = self.function_name(code.name);
                    let missing = self.symbols.text(formal.name);
                    let message = format!("function '{function}' called without required argument '{missing}'");
                    let failure = Failure::new(message).at(code.place).near(self.meant(formals, &set, formal.name));
                    return Err(failure.during(place, "from call site"));
                }
            };
            scope.set(slot, value);
            slot += 1;
        }
        if !formals.ellipsis && used != set.len() {
            return Err(self.unexpected_argument(code, formals, &set, place));
        }
        Ok(())
    }

    fn function_name(&self, name: Option<Symbol>) -> String {
        name.map_or("anonymous lambda".to_owned(), |name| self.symbols.text(name))
    }

    #[cold]
    fn unexpected_argument(
        &self,
        code: Ref<LambdaCode>,
        formals: Ref<FormalsCode>,
        set: &Set,
        place: PlaceId,
    ) -> Box<Failure> {
        let function = self.function_name(code.name);
        let entry = set.iter().find(|entry| !formals.has(entry.name));
        let name = entry.map(|entry| self.symbols.text(entry.name)).unwrap_or_default();
        let known: Vec<String> = formals.list.iter().map(|formal| self.symbols.text(formal.name)).collect();
        let close = suggestions(&name, known.iter().map(String::as_str));
        let message = format!("function '{function}' called with unexpected argument '{name}'");
        let failure = Failure::new(message).at(code.place).near(entry.map_or(set.place(), |entry| entry.place));
        failure.during(place, "from call site").suggesting(close)
    }

    /// Where an argument that is missing was meant: at one that is unknown and looks like it, else at all of them.
    #[cold]
    fn meant(&self, formals: Ref<FormalsCode>, set: &Set, missing: Symbol) -> PlaceId {
        let missing = self.symbols.text(missing);
        let alike = |name: Symbol| !suggestions(&missing, std::iter::once(&*self.symbols.text(name))).is_empty();
        let mut unknown = set.iter().filter(|entry| !formals.has(entry.name));
        unknown.find(|entry| alike(entry.name)).map_or(set.place(), |entry| entry.place)
    }

    /// Calls a function that wants attributes with those of `arguments` that it wants; anything else is given back as it is.
    pub fn call_with_known(&self, function: &Value, arguments: &[Attribute]) -> Result<Value> {
        let function = self.force(function, PlaceId::NONE)?;
        if let View::Set(set) = function.view()
            && let Some(functor) = set.get(known::FUNCTOR)
        {
            let inner = self.call(&functor.value, std::slice::from_ref(&function), functor.place)?;
            return self.call_with_known(&inner, arguments);
        }
        let View::Lambda(closure) = function.view() else { return Ok(function) };
        let Some(formals) = closure.code.formals else { return Ok(function) };
        let mut entries = Vec::new();
        if formals.ellipsis {
            entries.extend(arguments);
        } else {
            for formal in formals.list.iter() {
                match arguments.iter().find(|argument| argument.name == formal.name) {
                    Some(argument) => entries.push(*argument),
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

/// The innermost of the functions whose scope is that of this one, and that so many more arguments lead to.
#[inline]
fn last_in_scope(code: Ref<LambdaCode>, arguments: usize) -> Ref<LambdaCode> {
    let mut last = code;
    for _ in 0..arguments {
        match *last.body {
            Code::Lambda(inner) if inner.before > 0 => last = inner,
            _ => break,
        }
    }
    last
}

/// A scope for a call of a function, up to the innermost one that shares it; `around` is what the function sees, with the
/// arguments of those whose body it is.
#[inline]
fn scope_of(code: Ref<LambdaCode>, last: Ref<LambdaCode>, around: Scope) -> Scope {
    match code.before {
        0 => Scope::new(last.slots as usize, Some(around)),
        before => around.longer(before, last.slots as usize),
    }
}
