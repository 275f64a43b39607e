//! Values, and the work that has yet to be done for some of them.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use store::derivation::StorePath;

use crate::builtins::Builtin;
use crate::code::{Code, LambdaCode};
use crate::eval::Evaluator;
use crate::failure::{Failure, Result};
use crate::places::PlaceId;
use crate::symbols::Symbol;

/// A value, or a [`Thunk`] that will be one. Cheap to clone.
#[derive(Clone)]
pub enum Value {
    /// `null`
    Null,
    /// `true`, `false`
    Boolean(bool),
    /// `1`
    Integer(i64),
    /// `1.5`
    Float(f64),
    /// Bytes and what store paths they stand for.
    String(Rc<Text>),
    /// An absolute path.
    Path(Rc<Vec<u8>>),
    /// An attribute set.
    Set(Rc<Set>),
    /// A list.
    List(Rc<Vec<Value>>),
    /// A function of the language.
    Lambda(Rc<Closure>),
    /// A function of ours.
    Builtin(&'static Builtin),
    /// A function of ours that has some of its arguments.
    Partial(Rc<Partial>),
    /// Not known yet, or known by way of this.
    Thunk(Rc<Thunk>),
}

/// A string with its context.
#[derive(Clone, Default)]
pub struct Text {
    /// The bytes; never NUL.
    pub bytes: Vec<u8>,
    /// What the string refers to.
    pub context: Option<Rc<Context>>,
}

/// What a string refers to.
pub type Context = BTreeSet<Reference>;

/// Something in the store that a string refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// A path as it is.
    Path(StorePath),
    /// A derivation with everything that it is made of.
    Closure(StorePath),
    /// An output of a derivation.
    Output(StorePath, String),
}

impl Reference {
    /// The one text of a reference, as messages show it: without the store directory.
    pub fn to_text(&self) -> String {
        let path = self.path().as_str();
        let base_name = path.rsplit('/').next().unwrap_or(path);
        match self {
            Self::Path(_) => base_name.to_owned(),
            Self::Closure(_) => format!("={base_name}"),
            Self::Output(_, output) => format!("!{output}!{base_name}"),
        }
    }

    /// The path in question.
    pub fn path(&self) -> &StorePath {
        match self {
            Self::Path(path) | Self::Closure(path) | Self::Output(path, _) => path,
        }
    }
}

/// One attribute.
#[derive(Clone)]
pub struct Attribute {
    /// Its name.
    pub name: Symbol,
    /// Where it was defined.
    pub place: PlaceId,
    /// Its value.
    pub value: Value,
}

/// An attribute set, sorted by symbol.
#[derive(Clone, Default)]
pub struct Set {
    /// The attributes.
    pub entries: Vec<Attribute>,
    /// Where the set was written.
    pub place: PlaceId,
}

impl Set {
    /// Brings attributes into order; of several with one name the first is taken.
    pub fn from_unsorted(mut entries: Vec<Attribute>) -> Self {
        entries.sort_by_key(|entry| entry.name);
        entries.dedup_by_key(|entry| entry.name);
        Self { entries, place: PlaceId::NONE }
    }

    /// The attribute of this name.
    #[inline]
    pub fn get(&self, name: Symbol) -> Option<&Attribute> {
        if let [first, ..] = self.entries.as_slice() {
            if self.entries.len() <= 6 {
                return self.entries.iter().find(|entry| entry.name == name);
            }
            debug_assert!(first.name <= self.entries[1].name);
        }
        self.entries.binary_search_by_key(&name, |entry| entry.name).ok().map(|number| &self.entries[number])
    }
}

/// A function of the language with what it sees.
pub struct Closure {
    /// What it does.
    pub code: Rc<LambdaCode>,
    /// What it sees.
    pub scope: Rc<Scope>,
}

/// A builtin that waits for more arguments.
pub struct Partial {
    /// Which.
    pub builtin: &'static Builtin,
    /// Those that are there: fewer than it wants.
    pub arguments: Vec<Value>,
}

/// Values that names stand for; which name is which was settled when the code was made.
pub struct Scope {
    slots: Slots,
    /// The scope around this one.
    pub outer: Option<Rc<Scope>>,
}

/// Most functions have one argument, which then needs no memory of its own.
enum Slots {
    One(OnceCell<Value>),
    Many(Box<[OnceCell<Value>]>),
}

impl Scope {
    /// A scope with one value.
    pub fn one(value: Value, outer: Option<Rc<Scope>>) -> Rc<Self> {
        Rc::new(Self { slots: Slots::One(OnceCell::from(value)), outer })
    }

    /// A scope whose values are to be set.
    pub fn with_capacity(count: usize, outer: Option<Rc<Scope>>) -> Rc<Self> {
        Rc::new(Self { slots: Slots::Many((0..count).map(|_| OnceCell::new()).collect()), outer })
    }

    /// The value in a slot; none while the scope is being made.
    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Value> {
        match &self.slots {
            Slots::One(cell) => cell.get(),
            Slots::Many(cells) => cells[slot as usize].get(),
        }
    }

    /// Sets a slot that was not set.
    pub fn set(&self, slot: usize, value: Value) {
        let cell = match &self.slots {
            Slots::One(cell) => cell,
            Slots::Many(cells) => &cells[slot],
        };
        // Each slot is set once, by what makes the scope.
        let _ = cell.set(value);
    }
}

/// A value that is worked out when it is first asked for.
pub struct Thunk {
    value: OnceCell<Value>,
    work: Cell<Work>,
}

/// How a thunk gets its value.
#[derive(Default)]
pub enum Work {
    /// It is being worked out (and asking for it now would never end), or has been.
    #[default]
    Running,
    /// By evaluating code.
    Code(Rc<Code>, Rc<Scope>),
    /// By a call.
    Call(Value, Value),
    /// It is another value.
    Alias(Value),
    /// By something the evaluator does itself.
    Native(NativeWork),
    /// It was tried, and failed.
    Failed(Box<Failure>),
    /// By a call with two arguments.
    CallTwo(Box<(Value, Value, Value)>),
}

/// Something the evaluator does itself.
pub type NativeWork = Rc<dyn Fn(&Evaluator) -> Result<Value>>;

impl Thunk {
    /// Work for later.
    pub fn new(work: Work) -> Rc<Self> {
        Rc::new(Self { value: OnceCell::new(), work: Cell::new(work) })
    }

    /// The value, if it is known.
    #[inline]
    pub fn value(&self) -> Option<&Value> {
        self.value.get()
    }

    /// Takes the work, which is then running.
    pub fn take(&self) -> Work {
        self.work.take()
    }

    /// Gives the work back.
    pub fn put(&self, work: Work) {
        self.work.set(work);
    }

    /// Notes the value.
    pub fn finish(&self, value: Value) {
        let _ = self.value.set(value);
    }

    /// What is called, if it is a call.
    fn called(&self) -> Option<Value> {
        let work = self.work.take();
        let called = match &work {
            Work::Call(function, _) => Some(function.clone()),
            Work::CallTwo(call) => Some(call.0.clone()),
            _ => None,
        };
        self.work.set(work);
        called
    }

    /// Whether the work is running.
    pub fn is_running(&self) -> bool {
        let work = self.work.take();
        let running = matches!(work, Work::Running) && self.value.get().is_none();
        self.work.set(work);
        running
    }
}

impl Value {
    /// A string without context.
    pub fn string(bytes: impl Into<Vec<u8>>) -> Self {
        Self::String(Rc::new(Text { bytes: bytes.into(), context: None }))
    }

    /// A string with context.
    pub fn string_with(bytes: impl Into<Vec<u8>>, context: Context) -> Self {
        let context = (!context.is_empty()).then(|| Rc::new(context));
        Self::String(Rc::new(Text { bytes: bytes.into(), context }))
    }

    /// A path.
    pub fn path(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Path(Rc::new(bytes.into()))
    }

    /// A list.
    pub fn list(items: Vec<Value>) -> Self {
        Self::List(Rc::new(items))
    }

    /// A set.
    pub fn set(entries: Vec<Attribute>) -> Self {
        Self::Set(Rc::new(Set::from_unsorted(entries)))
    }

    /// A call that is made when its result is asked for.
    pub fn call_later(function: Value, argument: Value) -> Self {
        Self::Thunk(Thunk::new(Work::Call(function, argument)))
    }

    /// The value as far as it is known: a thunk only if it was not worked out.
    pub fn known(&self) -> &Self {
        match self {
            Self::Thunk(thunk) => thunk.value().unwrap_or(self),
            _ => self,
        }
    }

    /// Where a value comes from, as far as it says so without being worked out.
    pub fn place(&self, otherwise: PlaceId) -> PlaceId {
        match self.known() {
            Self::Set(set) => set.place,
            Self::Lambda(closure) => closure.code.place,
            Self::Thunk(thunk) => thunk.called().map_or(otherwise, |function| function.place(otherwise)),
            _ => otherwise,
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.known() {
            Self::Null => "null",
            Self::Boolean(_) => "a Boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::String(text) if text.context.is_some() => "a string with context",
            Self::String(_) => "a string",
            Self::Path(_) => "a path",
            Self::Set(_) => "a set",
            Self::List(_) => "a list",
            Self::Lambda(_) => "a function",
            Self::Builtin(_) => "a built-in function",
            Self::Partial(_) => "a partially applied built-in function",
            Self::Thunk(_) => "a thunk",
        }
    }
}

impl Attribute {
    /// An attribute that was not written anywhere.
    pub fn new(name: Symbol, value: Value) -> Self {
        Self { name, place: PlaceId::NONE, value }
    }
}
