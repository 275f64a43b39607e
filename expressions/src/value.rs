//! Values, and what strings refer to. How they lie in memory is said in [`crate::heap`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;

use store::derivation::StorePath;

use crate::heap::ContextId;

pub use crate::heap::{Bytes, Closure, Keys, List, More, Scope, Set, State, Text, Thunk, Value, View};
use crate::places::PlaceId;
use crate::symbols::Symbol;

/// What a string refers to, while it is put together: the contexts of its parts, which are rarely more than one, and more.
#[derive(Debug, Clone, Default)]
pub struct Context {
    first: ContextId,
    others: Vec<ContextId>,
    more: BTreeSet<Rc<Reference>>,
}

/// A context as it is kept: sorted.
pub type References = [Rc<Reference>];

impl Context {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the context of a string.
    #[inline]
    pub fn add(&mut self, context: ContextId) {
        if context == self.first || !context.is_some() {
            return;
        }
        if !self.first.is_some() {
            self.first = context;
        } else if !self.others.contains(&context) {
            self.others.push(context);
        }
    }

    /// Adds one reference.
    pub fn insert(&mut self, reference: Reference) {
        self.more.insert(Rc::new(reference));
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        !self.first.is_some() && self.more.is_empty()
    }

    /// All of it, in order.
    pub fn references(&self) -> Vec<Rc<Reference>> {
        let mut all = self.more.clone();
        for context in std::iter::once(&self.first).chain(&self.others) {
            all.extend(context.references().iter().cloned());
        }
        all.into_iter().collect()
    }

    /// Keeps it, where it is not kept yet.
    #[inline]
    pub fn finish(self) -> ContextId {
        if self.others.is_empty() && self.more.is_empty() {
            return self.first;
        }
        ContextId::new(&self.references())
    }
}

impl<const N: usize> From<[Reference; N]> for Context {
    fn from(references: [Reference; N]) -> Self {
        references.into_iter().collect()
    }
}

impl FromIterator<Reference> for Context {
    fn from_iter<T: IntoIterator<Item = Reference>>(references: T) -> Self {
        Self { more: references.into_iter().map(Rc::new).collect(), ..Self::default() }
    }
}

/// Something in the store that a string refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Clone, Copy)]
pub struct Attribute {
    /// Its name.
    pub name: Symbol,
    /// Where it was defined.
    pub place: PlaceId,
    /// Its value.
    pub value: Value,
}

impl Attribute {
    /// An attribute that was not written anywhere.
    pub fn new(name: Symbol, value: Value) -> Self {
        Self { name, place: PlaceId::NONE, value }
    }
}

impl Set {
    /// Brings attributes into order; of several with one name the first is taken.
    pub fn from_unsorted(mut attributes: Vec<Attribute>) -> Self {
        attributes.sort_by_key(|attribute| attribute.name);
        attributes.dedup_by_key(|attribute| attribute.name);
        Self::from_sorted(&attributes, PlaceId::NONE)
    }
}

impl Value {
    /// A set; of several attributes with one name the first is taken.
    pub fn set(attributes: Vec<Attribute>) -> Self {
        Set::from_unsorted(attributes).into()
    }

    /// A call that is made when its result is asked for.
    #[inline]
    pub fn call_later(function: Self, argument: Self) -> Self {
        Thunk::call(function, argument).into()
    }

    /// The value as far as it is known: a thunk only if it was not worked out.
    #[inline]
    pub fn known(self) -> Self {
        self.thunk().and_then(Thunk::value).unwrap_or(self)
    }

    /// Whether no more can be seen of it than its value: not a function, of which it shows whether it is the same, nor a list,
    /// of which it shows whether it is printed twice, nor a float, nor a thunk.
    #[inline(always)]
    pub fn is_plain(self) -> bool {
        match self.view() {
            View::Integer(_) | View::Set(_) | View::String(_) | View::Null | View::Boolean(_) => true,
            View::Thunk(_)
            | View::List(_)
            | View::Lambda(_)
            | View::Builtin(_)
            | View::Partial(_)
            | View::Float(_)
            | View::Path(_) => false,
        }
    }

    /// The value behind a thunk that was worked out, if it may be taken for it.
    #[inline(always)]
    pub fn compressed(self) -> Self {
        match self.thunk().and_then(Thunk::value) {
            Some(value) if value.is_plain() => value,
            _ => self,
        }
    }

    /// Where a value comes from, as far as it says so without being worked out.
    pub fn place(self, otherwise: PlaceId) -> PlaceId {
        match self.known().view() {
            View::Set(set) => set.place(),
            View::Lambda(closure) => closure.code.place,
            View::Thunk(thunk) => match thunk.state() {
                State::Call(function, _) => function.place(otherwise),
                // Nix does not know where the function is before it was called once.
                State::Each(call, _) if call.is_begun.get() => call.function.place(otherwise),
                State::More(more) => match &*more {
                    More::Call(function, _) => function.place(otherwise),
                    _ => otherwise,
                },
                _ => otherwise,
            },
            _ => otherwise,
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(self) -> Cow<'static, str> {
        Cow::Borrowed(match self.known().view() {
            View::Null => "null",
            View::Boolean(_) => "a Boolean",
            View::Integer(_) => "an integer",
            View::Float(_) => "a float",
            View::String(text) if text.context.is_some() => "a string with context",
            View::String(_) => "a string",
            View::Path(_) => "a path",
            View::Set(_) => "a set",
            View::List(_) => "a list",
            View::Lambda(_) => "a function",
            View::Builtin(builtin) => return format!("the built-in function '{}'", builtin.name).into(),
            View::Partial(partial) => {
                return format!("the partially applied built-in function '{}'", partial.builtin.name).into();
            }
            View::Thunk(_) => "a thunk",
        })
    }
}
