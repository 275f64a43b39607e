//! The evaluator: carries out code, makes thunks of what need not be known yet, and forces them when it must.
//!
//! Depth is bounded twice: by the count of nested calls, as in Nix, and by the room on the stack.

mod call;
mod coerce;
mod compare;
mod force;
mod import;
mod sets;
mod update;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::ast::Operator;
use crate::code::{Code, ConcatenationCode, NameCode, SelectCode};
use crate::compile::Globals;
use crate::failure::{Failure, Result, Sort, suggestions};
use crate::places::{PlaceId, Places};
use crate::registry::Registry;
use crate::settings::Settings;
use crate::sources::Sources;
use crate::symbols::{Symbol, Symbols, known};
use crate::value::{Attribute, Closure, Context, Scope, Set, Thunk, Value, Work};
use crate::{Listener, builtins, stack};

pub use coerce::{Coercion, FETCHURL_PATH, in_store};

/// One evaluation.
pub struct Evaluator {
    /// Names.
    pub symbols: Symbols,
    /// Places.
    pub places: Places,
    /// Files.
    pub sources: Sources,
    /// Derivations and sources that came up.
    pub registry: RefCell<Registry>,
    /// What is allowed.
    pub settings: Settings,
    /// For instance `x86_64-linux`; none where nobody said.
    pub system: Option<String>,
    /// Names that are visible everywhere.
    pub globals: Globals,
    /// Hears what `trace` and `warn` say.
    pub listener: Option<Listener>,
    /// The lock and what it did not answer.
    pub locking: RefCell<crate::locking::Locking>,
    /// Regular expressions that were read.
    pub regexes: RefCell<HashMap<Vec<u8>, Rc<crate::posix_regex::Regex>>>,
    depth: Cell<usize>,
    imports: RefCell<HashMap<Vec<u8>, Value>>,
    /// The functions behind `derivation` and the like, read once.
    internal: RefCell<HashMap<&'static str, Value>>,
}

/// Counts nested calls.
pub struct Depth<'a>(&'a Cell<usize>);

impl Drop for Depth<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Evaluator {
    /// An evaluator that knows the builtins.
    pub fn new(sources: Sources, settings: Settings, system: Option<String>, listener: Option<Listener>) -> Self {
        let mut evaluator = Self {
            symbols: Symbols::default(),
            places: Places::default(),
            sources,
            registry: RefCell::default(),
            settings,
            system,
            globals: Globals::new(),
            listener,
            locking: RefCell::default(),
            regexes: RefCell::default(),
            depth: Cell::new(0),
            imports: RefCell::default(),
            internal: RefCell::default(),
        };
        evaluator.globals = builtins::globals(&evaluator);
        evaluator
    }

    /// One call deeper.
    #[inline]
    pub fn deeper(&self, place: PlaceId) -> Result<Depth<'_>> {
        let depth = self.depth.get();
        if depth > self.settings.max_call_depth || !stack::has_room() {
            return Err(self.too_deep(place));
        }
        self.depth.set(depth + 1);
        Ok(Depth(&self.depth))
    }

    #[cold]
    fn too_deep(&self, place: PlaceId) -> Box<Failure> {
        if stack::interrupted() {
            return Failure::of(Sort::Interrupted, "interrupted").at(place);
        }
        Failure::of(Sort::Depth, "stack overflow; max-call-depth exceeded").at(place)
    }

    /// Evaluates code until it is known what kind of value it is.
    pub fn eval(&self, code: &Code, scope: &Rc<Scope>) -> Result<Value> {
        match code {
            Code::Constant(Value::Thunk(thunk)) => self.force_thunk(thunk, PlaceId::NONE),
            Code::Constant(value) => Ok(value.clone()),
            Code::Variable(level, slot, place) => self.variable(*level, *slot, *place, scope),
            // What follows may go deeper without a call or a thunk between.
            _ if !stack::has_room() => Err(self.too_deep(code.place())),
            Code::FromWith(name, withs, place) => self.name_in_sets(*name, withs, *place, scope),
            Code::Position(place) => Ok(self.position(*place)),
            Code::Concatenation(code) => self.concatenation(code, scope).map_err(|failure| failure.near(code.place)),
            Code::Select(code) => self.select(code, scope),
            Code::Has(from, path) => self.has(from, path, scope),
            Code::Set(code) => self.set(code, scope),
            Code::List(items) => Ok(Value::list(items.iter().map(|item| self.delay(item, scope)).collect())),
            Code::Lambda(code) => {
                Ok(Value::Lambda(Rc::new(Closure { code: Rc::clone(code), scope: Rc::clone(scope) })))
            }
            Code::Call(function, arguments, place) => self.call_code(function, arguments, *place, scope),
            Code::Let(set, body) => {
                let inside = self.recursive_scope(set, scope);
                self.eval(body, &inside)
            }
            Code::With(set, body, _) => {
                let inside = Scope::one(self.delay(set, scope), Some(Rc::clone(scope)));
                self.eval(body, &inside)
            }
            Code::If(parts, place) => {
                let [condition, yes, no] = &**parts;
                let chosen = self.eval_boolean(condition, scope, "while evaluating a branch condition");
                let chosen = chosen.map_err(|failure| failure.near(*place))?;
                self.eval(if chosen { yes } else { no }, scope)
            }
            Code::Assert(condition, body, place, text) => {
                let holds = self.eval_boolean(condition, scope, "in the condition of the assert statement");
                if !holds.map_err(|failure| failure.near(*place))? {
                    return Err(self.assertion_failed(condition, *place, text, scope));
                }
                self.eval(body, scope)
            }
            Code::Not(operand) => Ok(Value::Boolean(!self.eval_boolean(operand, scope, "in the argument of '!'")?)),
            Code::Binary(operator, left, right, place) => {
                self.binary(*operator, left, right, *place, scope).map_err(|failure| failure.near(*place))
            }
        }
    }

    /// A value for code that need not be evaluated yet.
    #[inline]
    pub fn delay(&self, code: &Rc<Code>, scope: &Rc<Scope>) -> Value {
        match &**code {
            Code::Constant(value) => return value.clone(),
            Code::Variable(level, slot, _) => {
                // Not there yet while a recursive scope is being made.
                if let Some(value) = slot_of(scope, *level, *slot) {
                    return value.clone();
                }
            }
            _ => {}
        }
        Value::Thunk(Thunk::new(Work::Code(Rc::clone(code), Rc::clone(scope))))
    }

    #[inline]
    fn variable(&self, level: u32, slot: u32, place: PlaceId, scope: &Rc<Scope>) -> Result<Value> {
        match slot_of(scope, level, slot) {
            Some(Value::Thunk(thunk)) => self.force_thunk(thunk, place),
            Some(value) => Ok(value.clone()),
            None => Err(Failure::of(Sort::InfiniteRecursion(0), "infinite recursion encountered").at(place)),
        }
    }

    fn name_in_sets(&self, name: Symbol, withs: &[(u32, PlaceId)], place: PlaceId, scope: &Rc<Scope>) -> Result<Value> {
        for (level, with) in withs {
            let Some(set) = slot_of(scope, *level, 0) else { break };
            let what = "while evaluating the first subexpression of a with expression";
            let set = self.force_set(set, *with, what)?;
            if let Some(attribute) = set.get(name) {
                return self.force(&attribute.value, place);
            }
        }
        Err(Failure::new(format!("undefined variable '{}'", self.symbols.text(name))).at(place))
    }

    /// `{ file; line; column; }`, or null for nowhere.
    pub fn position(&self, place: PlaceId) -> Value {
        // Only a file has places that the language speaks of.
        let is_file = |place: &crate::error::Place| place.text.name.is_absolute();
        let Some(place) = self.places.get(place).filter(is_file) else { return Value::Null };
        let (line, column) = place.line_and_column();
        let file = place.text.name.as_os_str().as_encoded_bytes().to_vec();
        Value::set(vec![
            Attribute::new(known::FILE, Value::string(file)),
            Attribute::new(known::LINE, Value::Integer(line as i64)),
            Attribute::new(known::COLUMN, Value::Integer(column as i64)),
        ])
    }

    fn eval_during(&self, code: &Code, scope: &Rc<Scope>, what: &str) -> Result<Value> {
        self.eval(code, scope).map_err(|failure| failure.during(code.place(), what))
    }

    fn eval_boolean(&self, code: &Code, scope: &Rc<Scope>, what: &str) -> Result<bool> {
        match self.eval(code, scope) {
            Ok(Value::Boolean(boolean)) => Ok(boolean),
            Ok(other) => {
                let failure = self.expected("a Boolean", &other).at(code.place());
                Err(failure.during(code.place(), what))
            }
            Err(failure) => Err(failure.during(code.place(), what)),
        }
    }

    #[cold]
    fn assertion_failed(&self, condition: &Code, place: PlaceId, text: &str, scope: &Rc<Scope>) -> Box<Failure> {
        if let Code::Binary(Operator::Equal, left, right, operator) = condition {
            let difference = self.eval(left, scope).and_then(|left| {
                let right = self.eval(right, scope)?;
                self.assert_equal(&left, &right, *operator)
            });
            if let Err(failure) = difference {
                return match failure.sort {
                    Sort::Assertion => {
                        failure.during(place, format!("while evaluating the condition of the assertion '{text}'"))
                    }
                    _ => failure,
                };
            }
        }
        Failure::of(Sort::Assertion, format!("assertion '{text}' failed")).at(place)
    }

    fn binary(
        &self,
        operator: Operator,
        left: &Code,
        right: &Code,
        place: PlaceId,
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let boolean = match operator {
            Operator::Equal | Operator::NotEqual => {
                let sides = if operator == Operator::Equal {
                    ["in the left operand of '=='", "in the right operand of '=='", "equality"]
                } else {
                    ["in the left operand of '!='", "in the right operand of '!='", "inequality"]
                };
                let left = self.eval_during(left, scope, sides[0])?;
                let right = self.eval_during(right, scope, sides[1])?;
                self.equal(&left, &right, place)? == (operator == Operator::Equal)
            }
            Operator::And => {
                self.eval_boolean(left, scope, "in the left operand of '&&'")?
                    && self.eval_boolean(right, scope, "in the right operand of '&&'")?
            }
            Operator::Or => {
                self.eval_boolean(left, scope, "in the left operand of '||'")?
                    || self.eval_boolean(right, scope, "in the right operand of '||'")?
            }
            Operator::Implies => {
                !self.eval_boolean(left, scope, "in the left operand of '->'")?
                    || self.eval_boolean(right, scope, "in the right operand of '->'")?
            }
            Operator::Update => return self.update_code(left, right, scope),
            Operator::ConcatenateLists => {
                let left = self.eval_during(left, scope, "in the left operand of '++'")?;
                let right = self.eval_during(right, scope, "in the right operand of '++'")?;
                return self.concatenate_lists(left, &right, place);
            }
        };
        Ok(Value::Boolean(boolean))
    }

    fn concatenate_lists(&self, left: Value, right: &Value, place: PlaceId) -> Result<Value> {
        let what = "while evaluating one of the elements to concatenate";
        let mut first = self.force_list(&left, place, what)?;
        drop(left);
        let second = self.force_list(right, place, what)?;
        if second.is_empty() {
            return Ok(Value::List(first));
        }
        if first.is_empty() {
            return Ok(Value::List(second));
        }
        // A list that nobody else holds grows where it is.
        match Rc::get_mut(&mut first) {
            Some(items) => items.extend(second.iter().cloned()),
            None => first = Rc::new(first.iter().chain(second.iter()).cloned().collect()),
        }
        Ok(Value::List(first))
    }

    /// The name that a component of an attribute path stands for.
    fn name(&self, name: &NameCode, scope: &Rc<Scope>) -> Result<Symbol> {
        match name {
            NameCode::Static(name) => Ok(*name),
            NameCode::Dynamic(code, _) => {
                let value = self.eval(code, scope)?;
                let what = "while evaluating an attribute name";
                let text = self.force_string_without_context(&value, code.place(), what)?;
                Ok(self.symbols.intern(&text.bytes))
            }
        }
    }

    /// An attribute path for messages.
    fn path_text(&self, path: &[NameCode], scope: &Rc<Scope>) -> String {
        let names = path.iter().map(|name| match (self.name(name, scope), name) {
            (Ok(name), _) => crate::ast_print::symbol(&self.symbols, name),
            (Err(_), NameCode::Dynamic(_, text)) => text.to_string(),
            (Err(_), NameCode::Static(name)) => self.symbols.text(*name),
        });
        names.collect::<Vec<_>>().join(".")
    }

    fn select(&self, code: &SelectCode, scope: &Rc<Scope>) -> Result<Value> {
        let mut current = self.eval_during(&code.from, scope, "while selecting an attribute")?;
        let mut defined = PlaceId::NONE;
        let mut done = 0;
        let mut go = || -> Result<Option<Value>> {
            for name in &code.path {
                let name = self.name(name, scope)?;
                let attribute = if code.fallback.is_some() {
                    match self.force(&current, code.place)? {
                        Value::Set(set) => set.get(name).cloned(),
                        _ => None,
                    }
                } else {
                    let set = self.force_set(&current, code.place, "while selecting an attribute")?;
                    match set.get(name) {
                        Some(attribute) => Some(attribute.clone()),
                        None => return Err(self.missing(name, &set)),
                    }
                };
                let Some(attribute) = attribute else { return Ok(None) };
                current = attribute.value;
                defined = attribute.place;
                done += 1;
            }
            self.force(&current, defined.or(code.place)).map(Some)
        };
        match go() {
            Ok(Some(value)) => Ok(value),
            Ok(None) => match &code.fallback {
                Some(fallback) => self.eval(fallback, scope),
                None => Ok(Value::Null),
            },
            Err(mut failure) => {
                if defined.is_some() && !self.is_internal(defined) {
                    let path = self.path_text(&code.path[..done], scope);
                    failure = failure.during(defined, format!("from the definition of '{path}'"));
                }
                let path = self.path_text(&code.path, scope);
                Err(failure.during(code.place, format!("while evaluating the attribute '{path}'")))
            }
        }
    }

    /// Whether a place is in a text that is part of the evaluator.
    fn is_internal(&self, place: PlaceId) -> bool {
        self.places.get(place).is_some_and(|place| {
            place.text.name.as_os_str().as_encoded_bytes().starts_with("«nix-internal»".as_bytes())
        })
    }

    /// There is no such attribute.
    #[cold]
    pub fn missing(&self, name: Symbol, set: &Set) -> Box<Failure> {
        let wanted = self.symbols.text(name);
        let known: Vec<String> = set.entries.iter().map(|entry| self.symbols.text(entry.name)).collect();
        let close = suggestions(&wanted, known.iter().map(String::as_str));
        Failure::new(format!("attribute '{wanted}' missing")).suggesting(close)
    }

    fn has(&self, from: &Rc<Code>, path: &[NameCode], scope: &Rc<Scope>) -> Result<Value> {
        let mut current = self.eval_during(from, scope, "in the argument of '?'")?;
        for name in path {
            let value = self.force(&current, from.place())?;
            let name = self.name(name, scope)?;
            match &value {
                Value::Set(set) if set.get(name).is_some() => {
                    current = set.get(name).map_or(Value::Null, |attribute| attribute.value.clone());
                }
                _ => return Ok(Value::Boolean(false)),
            }
        }
        Ok(Value::Boolean(true))
    }

    /// `file:line:column`
    pub fn place_text(&self, place: PlaceId) -> String {
        match self.places.get(place) {
            None => "«none»".to_owned(),
            Some(place) => {
                let (line, column) = place.line_and_column();
                format!("{}:{line}:{column}", place.text.name.display())
            }
        }
    }

    fn concatenation(&self, code: &ConcatenationCode, scope: &Rc<Scope>) -> Result<Value> {
        let mut context = Context::new();
        let mut bytes = Vec::new();
        // What the first part is decides what all of it is.
        let mut sum: Option<Value> = None;
        for (number, (place, part)) in code.parts.iter().enumerate() {
            let value = self.eval_during(part, scope, "in an operand of '+'")?;
            if number == 0 && !code.forced {
                sum = Some(match &value {
                    Value::Integer(_) => Value::Integer(0),
                    Value::Float(_) => Value::Float(0.0),
                    Value::Path(_) => Value::Null,
                    _ => Value::Boolean(false),
                });
            }
            match (&sum, &value) {
                (Some(Value::Integer(left)), Value::Integer(right)) => {
                    sum = Some(Value::Integer(left.checked_add(*right).ok_or_else(|| {
                        Failure::new(format!("integer overflow in adding {left} + {right}")).at(*place)
                    })?));
                }
                // Adding to zero keeps the sign of a negative zero only without the zero.
                (Some(Value::Integer(left)), Value::Float(right)) => sum = Some(Value::Float(*left as f64 + right)),
                (Some(Value::Float(_)), Value::Float(right)) if number == 0 => sum = Some(Value::Float(*right + 0.0)),
                (Some(Value::Float(left)), Value::Integer(right)) => sum = Some(Value::Float(left + *right as f64)),
                (Some(Value::Float(left)), Value::Float(right)) => sum = Some(Value::Float(left + right)),
                (Some(Value::Integer(_)), other) => {
                    return Err(Failure::new(format!("cannot add {} to an integer", other.kind())).at(*place));
                }
                (Some(Value::Float(_)), other) => {
                    return Err(Failure::new(format!("cannot add {} to a float", other.kind())).at(*place));
                }
                (sum, _) => {
                    let coercion = Coercion {
                        more: false,
                        // Parts of a path are no sources of their own.
                        copy: !matches!(sum, Some(Value::Null)),
                        normal: number > 0 || code.forced,
                    };
                    let what = "while evaluating a path segment";
                    self.coerce_onto(&mut bytes, &value, &mut context, *place, what, coercion)?;
                }
            }
        }
        match sum {
            Some(number @ (Value::Integer(_) | Value::Float(_))) => Ok(number),
            Some(Value::Null) if !context.is_empty() => {
                let message = "a string that refers to a store path cannot be appended to a path";
                Err(Failure::new(message).at(code.place))
            }
            Some(Value::Null) => Ok(Value::path(crate::paths::normal(&bytes))),
            _ => Ok(Value::string_with(bytes, context)),
        }
    }
}

#[inline]
fn slot_of(scope: &Rc<Scope>, level: u32, slot: u32) -> Option<&Value> {
    let mut scope = scope;
    for _ in 0..level {
        scope = scope.outer.as_ref()?;
    }
    scope.get(slot)
}
