//! The evaluator: carries out code, makes thunks of what need not be known yet, and forces them when it must.
//!
//! Depth is bounded twice: by the count of nested calls, as in Nix, and by the room on the stack.

mod call;
mod coerce;
mod compare;
mod concatenate;
mod copied;
mod delay;
mod force;
mod import;
mod operators;
mod select;
mod sets;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::ast::Operator;
use crate::code::{Code, FromWithCode, IfCode, LetCode};
use crate::compile::Globals;
use crate::failure::{Failure, Result, Sort};
use crate::places::{PlaceId, Places};
use crate::registry::Registry;
use crate::settings::Settings;
use crate::sources::Sources;
use crate::symbols::{Symbols, known};
use crate::value::{Attribute, More, Scope, Thunk, Value};
use crate::{Listener, builtins, heap, machine, stack};

pub use coerce::Coercion;
pub use copied::{FETCHURL_PATH, in_store};

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
    /// Nobody will see what of a value was evaluated: none is printed as far as it is known. Then what is cheap is evaluated at once.
    pub is_unseen: Cell<bool>,
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
            is_unseen: Cell::new(false),
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
            return Self::out_of_memory().at(place);
        }
        if stack::interrupted() {
            return Failure::of(Sort::Interrupted, "interrupted").at(place);
        }
        Failure::of(Sort::Depth, "stack overflow; max-call-depth exceeded").at(place)
    }

    /// Carries out work, which fails if it wants more memory than it may have.
    pub fn within_memory<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        heap::within(work).unwrap_or_else(|| Err(Self::out_of_memory()))
    }

    fn out_of_memory() -> Box<Failure> {
        Failure::of(Sort::Depth, "out of memory: the evaluation wants more than it may have")
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

    /// Every kind of code is carried out by a function of its own, to which this one jumps: it takes no room on the stack itself,
    /// and none of the others takes the room that another one wants.
    #[inline(never)]
    fn eval_further(&self, code: &Code, scope: Scope) -> Result<Value> {
        match code {
            Code::Call(code) => self.call_code(code, scope),
            Code::Select(code) => self.select(code, scope),
            Code::If(code) => self.choose(code, scope),
            Code::Arithmetic(code) => self.arithmetic(code, scope),
            Code::Add(code) => self.add(code, scope),
            Code::Binary(operator, code) => self.binary(*operator, code, scope),
            Code::Set(code) => self.set(code, scope),
            Code::Let(code) => self.bind_and_eval(code, scope),
            Code::Lambda(_) | Code::List(_) | Code::Constant(_) => self.value(code, scope),
            Code::Concatenation(code) => self.concatenation(code, scope),
            Code::Not(operand) => self.not(operand, scope),
            Code::Has(code) => self.has(code, scope),
            _ => self.eval_rare(code, scope),
        }
    }

    #[inline(never)]
    fn choose(&self, code: &IfCode, scope: Scope) -> Result<Value> {
        match self.eval_boolean(&code.condition, scope, "while evaluating a branch condition") {
            Ok(true) => self.eval(&code.yes, scope),
            Ok(false) => self.eval(&code.no, scope),
            Err(failure) => Err(failure.near(code.place)),
        }
    }

    #[inline(never)]
    fn bind_and_eval(&self, code: &LetCode, scope: Scope) -> Result<Value> {
        let inside = match code.from {
            Some(from) => {
                self.fill_scope(&code.set, scope, scope, from, true);
                scope
            }
            None => self.recursive_scope(&code.set, scope, true),
        };
        self.eval(&code.body, inside)
    }

    /// What is known without anything else being evaluated.
    #[inline(never)]
    fn value(&self, code: &Code, scope: Scope) -> Result<Value> {
        match code {
            Code::Lambda(code) => Ok(Value::lambda(*code, scope)),
            Code::List(items) => Ok(Value::list_of(items.len(), items.refs().map(|item| self.delay(item, scope)))),
            Code::Constant(value) => self.force(value, PlaceId::NONE),
            code => self.eval(code, scope),
        }
    }

    #[inline(never)]
    fn not(&self, operand: &Code, scope: Scope) -> Result<Value> {
        Ok(Value::boolean(!self.eval_boolean(operand, scope, "in the argument of '!'")?))
    }

    #[inline(never)]
    fn eval_rare(&self, code: &Code, scope: Scope) -> Result<Value> {
        match code {
            Code::With(code) => {
                let set = self.delay(code.map(|code| &code.set), scope);
                self.eval(&code.body, Scope::one(set, Some(scope)))
            }
            Code::FromWith(code) => self.name_in_sets(code, scope),
            Code::FarVariable(variable) => self.variable(variable.0, variable.1, variable.2, scope),
            Code::Position(place) => Ok(self.position(*place)),
            Code::Assert(code) => {
                let holds = self.eval_boolean(&code.condition, scope, "in the condition of the assert statement");
                if !holds.map_err(|failure| failure.near(code.place))? {
                    return Err(self.assertion_failed(&code.condition, code.place, &code.text, scope));
                }
                self.eval(&code.body, scope)
            }
            Code::Deep(code) if !stack::has_room() => Err(self.too_deep(code.place())),
            Code::Deep(code) => self.eval(code, scope),
            _ => self.eval(code, scope),
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
        if let Code::Binary(Operator::Equal, sides) = condition.shallow() {
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
