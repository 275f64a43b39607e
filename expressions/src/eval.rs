//! The evaluator: carries out code, makes thunks of what need not be known yet, and forces them when it must.
//!
//! Depth is bounded twice: by the count of nested calls, as in Nix, and by the room on the stack.

mod call;
mod coerce;
mod compare;
mod concatenate;
mod force;
mod import;
mod sets;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::ast::Operator;
use crate::code::{Arithmetic, ArithmeticCode, BinaryCode, Code, FromWithCode, HasCode, NameCode, SelectCode};
use crate::compile::Globals;
use crate::failure::{Failure, Result, Sort, suggestions};
use crate::heap::Ref;
use crate::places::{PlaceId, Places};
use crate::registry::Registry;
use crate::settings::Settings;
use crate::sources::Sources;
use crate::symbols::{Symbol, Symbols, known};
use crate::value::{Attribute, More, Scope, Set, Thunk, Value, View};
use crate::{Listener, builtins, heap, machine, stack};

pub use coerce::{Coercion, FETCHURL_PATH, in_store};

/// Something the evaluator does itself.
pub type NativeWork = Rc<dyn Fn(&Evaluator) -> Result<Value>>;

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
    /// What thunks know by number.
    natives: RefCell<Vec<NativeWork>>,
    failures: RefCell<Vec<Failure>>,
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
        heap::set_limit(machine::memory() / 4 * 3);
        let mut evaluator = Self {
            symbols: Symbols::default(),
            places: Places::default(),
            sources,
            registry: RefCell::default(),
            settings,
            system,
            globals: Globals::default(),
            listener,
            locking: RefCell::default(),
            regexes: RefCell::default(),
            depth: Cell::new(0),
            imports: RefCell::default(),
            internal: RefCell::default(),
            natives: RefCell::default(),
            failures: RefCell::default(),
        };
        evaluator.globals = builtins::globals(&evaluator);
        evaluator
    }

    /// One call deeper.
    #[inline]
    pub fn deeper(&self, place: PlaceId) -> Result<Depth<'_>> {
        self.enter(place)?;
        Ok(Depth(&self.depth))
    }

    /// One call deeper, until the caller sets the depth back to what is given here.
    #[inline(always)]
    fn enter(&self, place: PlaceId) -> Result<usize> {
        let depth = self.depth.get();
        if depth > self.settings.max_call_depth || !stack::has_room() {
            return Err(self.too_deep(place));
        }
        self.depth.set(depth + 1);
        Ok(depth)
    }

    #[cold]
    #[inline(never)]
    fn too_deep(&self, place: PlaceId) -> Box<Failure> {
        if heap::is_exhausted() {
            return Failure::of(Sort::Depth, "out of memory: the evaluation wants more than it may have").at(place);
        }
        if stack::interrupted() {
            return Failure::of(Sort::Interrupted, "interrupted").at(place);
        }
        Failure::of(Sort::Depth, "stack overflow; max-call-depth exceeded").at(place)
    }

    /// A thunk for something the evaluator does itself.
    pub fn native(&self, work: NativeWork) -> Value {
        let mut natives = self.natives.borrow_mut();
        natives.push(work);
        Thunk::more(More::Native(natives.len() - 1)).into()
    }

    /// Evaluates code until it is known what kind of value it is.
    #[inline(always)]
    pub fn eval(&self, code: &Code, scope: Scope) -> Result<Value> {
        match code {
            Code::Constant(value) => self.force(value, PlaceId::NONE),
            Code::Variable(level, slot, place) => self.variable(u32::from(*level), *slot, *place, scope),
            _ => self.eval_further(code, scope),
        }
    }

    fn eval_further(&self, code: &Code, scope: Scope) -> Result<Value> {
        // What follows may go deeper without a call or a thunk between.
        if !stack::has_room() {
            return Err(self.too_deep(code.place()));
        }
        match code {
            Code::Call(code) => self.call_code(code, scope),
            Code::Select(code) => self.select(code, scope),
            Code::If(code) => {
                let chosen = self.eval_boolean(&code.condition, scope, "while evaluating a branch condition");
                match chosen {
                    Ok(true) => self.eval(&code.yes, scope),
                    Ok(false) => self.eval(&code.no, scope),
                    Err(failure) => Err(failure.near(code.place)),
                }
            }
            Code::Arithmetic(code) => self.arithmetic(code, scope),
            Code::Add(code) => self.add(code, scope),
            Code::Binary(operator, code) => self.binary(*operator, code, scope),
            Code::Set(code) => self.set(code, scope),
            Code::Let(code) => {
                let inside = self.recursive_scope(&code.set, scope, true);
                self.eval(&code.body, inside)
            }
            Code::Lambda(code) => Ok(Value::lambda(*code, scope)),
            Code::List(items) => Ok(Value::list_of(items.len(), items.refs().map(|item| self.delay(item, scope)))),
            Code::Concatenation(code) => self.concatenation(code, scope),
            Code::Constant(value) => self.force(value, PlaceId::NONE),
            Code::Variable(level, slot, place) => self.variable(u32::from(*level), *slot, *place, scope),
            Code::With(code) => {
                let set = self.delay(code.map(|code| &code.set), scope);
                self.eval(&code.body, Scope::one(set, Some(scope)))
            }
            Code::Not(operand) => Ok(Value::boolean(!self.eval_boolean(operand, scope, "in the argument of '!'")?)),
            Code::Has(code) => self.has(code, scope),
            _ => self.eval_rare(code, scope),
        }
    }

    #[inline(never)]
    fn eval_rare(&self, code: &Code, scope: Scope) -> Result<Value> {
        match code {
            Code::FarVariable(variable) => self.variable(variable.0, variable.1, variable.2, scope),
            Code::FromWith(code) => self.name_in_sets(code, scope),
            Code::Position(place) => Ok(self.position(*place)),
            Code::Assert(code) => {
                let holds = self.eval_boolean(&code.condition, scope, "in the condition of the assert statement");
                if !holds.map_err(|failure| failure.near(code.place))? {
                    return Err(self.assertion_failed(&code.condition, code.place, &code.text, scope));
                }
                self.eval(&code.body, scope)
            }
            _ => self.eval(code, scope),
        }
    }

    /// A value for code that need not be evaluated yet: an attribute of a set or an element of a list, of which it shows
    /// whether it was evaluated.
    #[inline]
    pub fn delay(&self, code: Ref<Code>, scope: Scope) -> Value {
        match &*code {
            Code::Constant(value) => return *value,
            Code::Variable(level, slot, _) => {
                // Not there yet while a recursive scope is being made.
                if let Some(value) = scope.up(u32::from(*level)).get(*slot) {
                    return value.compressed();
                }
            }
            _ => {}
        }
        Thunk::code(code, scope).into()
    }

    /// A value for code that need not be evaluated yet, but may be, where that is cheap and certain.
    #[inline]
    pub fn delay_unseen(&self, code: Ref<Code>, scope: Scope) -> Value {
        match self.cheap(&code, scope) {
            Some(value) => value,
            None => Thunk::code(code, scope).into(),
        }
    }

    #[inline]
    fn cheap(&self, code: &Code, scope: Scope) -> Option<Value> {
        match code {
            Code::Constant(value) => Some(*value),
            Code::Variable(level, slot, _) => Some(scope.up(u32::from(*level)).get(*slot)?.compressed()),
            Code::Arithmetic(_) | Code::Add(_) | Code::Select(_) | Code::Lambda(_) => self.cheap_further(code, scope),
            _ => None,
        }
    }

    fn cheap_further(&self, code: &Code, scope: Scope) -> Option<Value> {
        match code {
            Code::Arithmetic(code) => {
                let left = self.cheap(&code.operands[0], scope)?.small_integer()?;
                let right = self.cheap(&code.operands[1], scope)?.small_integer()?;
                compute(code.operation, left, right)
            }
            Code::Add(code) => {
                let left = self.cheap(&code.left, scope)?.small_integer()?;
                let right = self.cheap(&code.right, scope)?.small_integer()?;
                left.checked_add(right).map(Value::integer)
            }
            Code::Select(code) => {
                let [NameCode::Static(name, guess)] = &*code.path else { return None };
                let Code::Variable(level, slot, _) = code.from else { return None };
                let View::Set(set) = scope.up(u32::from(level)).get(slot)?.known().view() else { return None };
                let (value, _) = set.get_cached(*name, guess)?;
                let value = value.compressed();
                value.is_plain().then_some(value)
            }
            Code::Lambda(code) => Some(Value::lambda(*code, scope)),
            _ => None,
        }
    }

    #[inline(always)]
    fn variable(&self, level: u32, slot: u32, place: PlaceId, scope: Scope) -> Result<Value> {
        let scope = scope.up(level);
        match scope.get(slot) {
            Some(value) => match value.thunk() {
                None => Ok(value),
                Some(thunk) => match thunk.value() {
                    Some(value) => {
                        // Next time it is found at once.
                        if value.is_plain() {
                            scope.set(slot, value);
                        }
                        Ok(value)
                    }
                    None => self.run(thunk, place),
                },
            },
            None => Err(self.needs_itself(place)),
        }
    }

    #[cold]
    fn needs_itself(&self, place: PlaceId) -> Box<Failure> {
        Failure::of(Sort::InfiniteRecursion(0), "infinite recursion encountered").at(place)
    }

    /// An operand of a builtin: where a thunk is forced it is nobody's place, as if it had been an argument.
    #[inline(always)]
    fn operand(&self, code: &Code, scope: Scope) -> Result<Value> {
        match code {
            Code::Constant(value) => self.force(value, PlaceId::NONE),
            Code::Variable(level, slot, place) => match scope.up(u32::from(*level)).get(*slot) {
                Some(value) => self.force(&value, PlaceId::NONE),
                None => Err(self.needs_itself(*place)),
            },
            _ => self.eval_further(code, scope),
        }
    }

    fn arithmetic(&self, code: &ArithmeticCode, scope: Scope) -> Result<Value> {
        let depth = self.enter(code.place)?;
        let result = self.operand(&code.operands[0], scope).and_then(|left| {
            let right = self.operand(&code.operands[1], scope)?;
            Ok((left, right))
        });
        let result = match result {
            Ok((left, right)) => {
                let small = left.small_integer().zip(right.small_integer());
                match small.and_then(|(left, right)| compute(code.operation, left, right)) {
                    Some(value) => Ok(value),
                    None => self.call_builtin(code.builtin, &[left, right], code.place),
                }
            }
            Err(failure) => {
                Err(failure.during(code.place, format!("while calling the '{}' builtin", code.builtin.name)))
            }
        };
        self.depth.set(depth);
        result
    }

    fn add(&self, code: &BinaryCode, scope: Scope) -> Result<Value> {
        let what = "in an operand of '+'";
        let left = match self.eval_during(&code.left, scope, what) {
            Ok(left) => left,
            Err(failure) => return Err(failure.near(code.place)),
        };
        if let Some(number) = left.small_integer() {
            let right = match self.eval_during(&code.right, scope, what) {
                Ok(right) => right,
                Err(failure) => return Err(failure.near(code.place)),
            };
            if let Some(sum) = right.small_integer().and_then(|right| number.checked_add(right)) {
                return Ok(Value::integer(sum));
            }
            return self.sum(left, right, code.operands.1).map_err(|failure| failure.near(code.place));
        }
        self.add_further(code, left, scope).map_err(|failure| failure.near(code.place))
    }

    fn name_in_sets(&self, code: &FromWithCode, scope: Scope) -> Result<Value> {
        for (level, with) in code.withs.iter() {
            let Some(set) = scope.up(*level).get(0) else { break };
            let what = "while evaluating the first subexpression of a with expression";
            let set = self.force_set(&set, *with, what)?;
            if let Some((value, _)) = set.get_cached(code.name, &code.guess) {
                return self.force(&value, code.place);
            }
        }
        Err(Failure::new(format!("undefined variable '{}'", self.symbols.text(code.name))).at(code.place))
    }

    /// `{ file; line; column; }`, or null for nowhere.
    pub fn position(&self, place: PlaceId) -> Value {
        // Only a file has places that the language speaks of.
        let is_file = |place: &crate::error::Place| place.text.name.is_absolute();
        let Some(place) = self.places.get(place).filter(is_file) else { return Value::NULL };
        let (line, column) = place.line_and_column();
        let file = place.text.name.as_os_str().as_encoded_bytes().to_vec();
        Value::set(vec![
            Attribute::new(known::FILE, Value::string(file)),
            Attribute::new(known::LINE, Value::integer(line as i64)),
            Attribute::new(known::COLUMN, Value::integer(column as i64)),
        ])
    }

    #[inline(always)]
    fn eval_during(&self, code: &Code, scope: Scope, what: &'static str) -> Result<Value> {
        match self.eval(code, scope) {
            Ok(value) => Ok(value),
            Err(failure) => Err(failure.during(code.place(), what)),
        }
    }

    #[inline(always)]
    fn eval_boolean(&self, code: &Code, scope: Scope, what: &'static str) -> Result<bool> {
        match self.eval(code, scope) {
            Ok(value) if value == Value::TRUE => Ok(true),
            Ok(value) if value == Value::FALSE => Ok(false),
            other => Err(self.no_boolean(code, other, what)),
        }
    }

    #[cold]
    fn no_boolean(&self, code: &Code, result: Result<Value>, what: &'static str) -> Box<Failure> {
        match result {
            Ok(other) => self.expected("a Boolean", &other).at(code.place()).during(code.place(), what),
            Err(failure) => failure.during(code.place(), what),
        }
    }

    #[cold]
    fn assertion_failed(&self, condition: &Code, place: PlaceId, text: &[u8], scope: Scope) -> Box<Failure> {
        let text = String::from_utf8_lossy(text);
        if let Code::Binary(Operator::Equal, sides) = condition {
            let difference = self.eval(&sides.left, scope).and_then(|left| {
                let right = self.eval(&sides.right, scope)?;
                self.assert_equal(&left, &right, sides.place)
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

    fn binary(&self, operator: Operator, code: &BinaryCode, scope: Scope) -> Result<Value> {
        match self.binary_unplaced(operator, code, scope) {
            Ok(value) => Ok(value),
            Err(failure) => Err(failure.near(code.place)),
        }
    }

    #[inline(always)]
    fn binary_unplaced(&self, operator: Operator, code: &BinaryCode, scope: Scope) -> Result<Value> {
        let BinaryCode { left, right, place, .. } = code;
        let boolean = match operator {
            Operator::Equal | Operator::NotEqual => {
                let sides = if operator == Operator::Equal {
                    ["in the left operand of '=='", "in the right operand of '=='"]
                } else {
                    ["in the left operand of '!='", "in the right operand of '!='"]
                };
                let left = self.eval_during(left, scope, sides[0])?;
                let right = self.eval_during(right, scope, sides[1])?;
                let equal = match (left.small_integer(), right.small_integer()) {
                    (Some(left), Some(right)) => left == right,
                    _ => self.equal(&left, &right, *place)?,
                };
                equal == (operator == Operator::Equal)
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
                return self.concatenate_lists(&left, &right, *place);
            }
        };
        Ok(Value::boolean(boolean))
    }

    fn update_code(&self, left: &Code, right: &Code, scope: Scope) -> Result<Value> {
        // The right side first, as in Nix, which shows when both fail.
        let right = self.eval_set(right, scope, "in the right operand of '//'")?;
        let left = self.eval_set(left, scope, "in the left operand of '//'")?;
        Ok(Set::update(left, right).into())
    }

    fn eval_set(&self, code: &Code, scope: Scope, what: &'static str) -> Result<Set> {
        let value = self.eval_during(code, scope, what)?;
        match value.view() {
            View::Set(set) => Ok(set),
            _ => Err(self.expected("a set", &value).during(code.place(), what)),
        }
    }

    fn concatenate_lists(&self, left: &Value, right: &Value, place: PlaceId) -> Result<Value> {
        let what = "while evaluating one of the elements to concatenate";
        let first = self.force_list(left, place, what)?;
        let second = self.force_list(right, place, what)?;
        if second.is_empty() {
            return Ok(*left);
        }
        if first.is_empty() {
            return Ok(*right);
        }
        Ok(Value::list_of(first.len() + second.len(), first.iter().chain(second.iter())))
    }

    /// The name that a component of an attribute path stands for.
    fn name(&self, name: &NameCode, scope: Scope) -> Result<Symbol> {
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
    fn path_text(&self, path: &[NameCode], scope: Scope) -> String {
        let names = path.iter().map(|name| match (self.name(name, scope), name) {
            (Ok(name), _) => crate::ast_print::symbol(&self.symbols, name),
            (Err(_), NameCode::Dynamic(dynamic)) => String::from_utf8_lossy(&dynamic.1).into_owned(),
            (Err(_), NameCode::Static(name, _)) => self.symbols.text(*name),
        });
        names.collect::<Vec<_>>().join(".")
    }

    fn select(&self, code: &SelectCode, scope: Scope) -> Result<Value> {
        let mut current = self.eval_during(&code.from, scope, "while selecting an attribute")?;
        let mut defined = None;
        for (done, name) in code.path.iter().enumerate() {
            match self.select_one(code, name, &current, scope) {
                Ok(Some((value, place))) => (current, defined) = (value, Some(place)),
                Ok(None) => {
                    return match &code.fallback {
                        Some(fallback) => self.eval(fallback, scope),
                        None => Ok(Value::NULL),
                    };
                }
                Err(failure) => return Err(self.select_failed(code, failure, defined, done, scope)),
            }
        }
        let Some(thunk) = current.thunk() else { return Ok(current) };
        if let Some(value) = thunk.value() {
            return Ok(value);
        }
        let place = defined.map_or(PlaceId::NONE, heap::Place::get).or(code.place);
        match self.run(thunk, place) {
            Ok(value) => Ok(value),
            Err(failure) => Err(self.select_failed(code, failure, defined, code.path.len(), scope)),
        }
    }

    #[inline(always)]
    fn select_one(
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
                None if code.fallback.is_some() => Ok(None),
                None => Err(self.missing(*name, &set)),
            };
        }
        self.select_further(code, name, current, scope)
    }

    fn select_further(
        &self,
        code: &SelectCode,
        name: &NameCode,
        current: &Value,
        scope: Scope,
    ) -> Result<Option<(Value, heap::Place)>> {
        let symbol = self.name(name, scope)?;
        let set = if code.fallback.is_some() {
            match self.force(current, code.place)?.view() {
                View::Set(set) => set,
                _ => return Ok(None),
            }
        } else {
            self.force_set(current, code.place, "while selecting an attribute")?
        };
        match set.get_cached(symbol, &heap::Guess::default()) {
            None if code.fallback.is_none() => Err(self.missing(symbol, &set)),
            found => Ok(found),
        }
    }

    #[cold]
    fn select_failed(
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
            let path = self.path_text(&code.path[..done], scope);
            failure = failure.during(defined, format!("from the definition of '{path}'"));
        }
        let path = self.path_text(&code.path, scope);
        failure.during(code.place, format!("while evaluating the attribute '{path}'"))
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
        let known: Vec<String> = set.iter().map(|entry| self.symbols.text(entry.name)).collect();
        let close = suggestions(&wanted, known.iter().map(String::as_str));
        Failure::new(format!("attribute '{wanted}' missing")).suggesting(close)
    }

    fn has(&self, code: &HasCode, scope: Scope) -> Result<Value> {
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
}

/// What an operation gives for two integers; none where something is special about them.
#[inline(always)]
fn compute(operation: Arithmetic, left: i64, right: i64) -> Option<Value> {
    Some(match operation {
        Arithmetic::Less => Value::boolean(left < right),
        Arithmetic::Subtract => Value::integer(left.checked_sub(right)?),
        Arithmetic::Multiply => Value::integer(left.checked_mul(right)?),
        Arithmetic::Divide => Value::integer(left.checked_div(right)?),
    })
}
