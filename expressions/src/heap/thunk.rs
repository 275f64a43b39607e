//! Values that are worked out when they are first asked for.

use std::cell::Cell;

use super::region::told;
use super::value::{TAGS, Tag};
use super::{Keys, Ref, Scope, Value, place};
use crate::code::Code;
use crate::symbols::Symbol;

/// Two words: what is to be done, or the value.
#[derive(Clone, Copy, PartialEq)]
pub struct Thunk(pub(super) Ref<Words>);

/// The first word says what the second is:
///
/// | first | second |
/// |---|---|
/// | [`DONE`] | the value |
/// | [`RUNNING`] | |
/// | [`FAILED`] | a number |
/// | a pointer to [`Code`], untagged | the scope |
/// | a pointer to [`More`], tagged as a list; a number in the upper 16 bits, which no address uses | for [`More::Each`] the last argument |
/// | a function, as a value that is neither an integer, a list nor a thunk | the argument |
pub struct Words {
    head: Cell<*const u8>,
    tail: Cell<*const u8>,
}

const DONE: usize = 1;
const RUNNING: usize = 9;
const FAILED: usize = 17;

const INDEX_SHIFT: u32 = 48;
const MOST_EACH: usize = 1 << (usize::BITS - INDEX_SHIFT);

/// What is known of a thunk.
pub enum State {
    /// Its value.
    Done(Value),
    /// It is being worked out.
    Running,
    /// It was tried, and failed; the evaluator knows the failure by this number.
    Failed(usize),
    /// By evaluating code.
    Code(Ref<Code>, Scope),
    /// By a call.
    Call(Value, Value),
    /// By something rarer.
    More(Ref<More>),
    /// By a call with a name and a value: what `mapAttrs` gives for each attribute.
    Each(EachCall, Value),
}

/// A call with a name, and then a value.
#[derive(Clone, Copy)]
pub struct EachCall {
    /// What is called.
    pub function: Value,
    /// With what.
    pub name: Symbol,
    /// Whether one of the calls was made before.
    pub is_begun: Ref<Cell<bool>>,
    head: *const u8,
}

/// Rarer ways to a value.
pub enum More {
    /// By a call of what is a thunk itself.
    Call(Value, Value),
    /// By a call of this function with the name of a number and another value: shared by many thunks.
    Each(Value, Ref<Keys>, Cell<bool>),
    /// It is another value.
    Alias(Value),
    /// By something the evaluator does itself; it knows what by this number.
    Native(usize),
}

impl Thunk {
    fn new(head: *const u8, tail: *const u8) -> Self {
        Self(place(Words { head: Cell::new(head), tail: Cell::new(tail) }))
    }

    /// Code for later.
    #[inline]
    pub fn code(code: Ref<Code>, scope: Scope) -> Self {
        Self::new(code.0.as_ptr().cast::<u8>(), scope.0.as_ptr().cast::<u8>())
    }

    /// A call for later.
    #[inline]
    pub fn call(function: Value, argument: Value) -> Self {
        let function = function.known();
        match function.tag() {
            Tag::Thunk | Tag::Integer | Tag::List => Self::more(More::Call(function, argument)),
            _ => Self::new(function.word(), argument.word()),
        }
    }

    /// Something rarer for later.
    pub fn more(more: More) -> Self {
        let thunk = Self::new(std::ptr::null(), std::ptr::null());
        thunk.put_more(more);
        thunk
    }

    /// What calls of a function with each name of some keys, and a value, have in common; see [`Self::each`].
    pub fn all(function: Value, keys: Ref<Keys>, is_begun: bool) -> Ref<More> {
        place(More::Each(function, keys, Cell::new(is_begun)))
    }

    /// One of these calls.
    #[inline]
    pub fn each(all: Ref<More>, index: usize, value: Value) -> Self {
        if let (More::Each(function, keys, is_begun), true) = (&*all, index >= MOST_EACH) {
            // The number has no room, so there is a record for it alone.
            let keys = Keys::of_names([keys.names[index]].into_iter());
            return Self::each(Self::all(*function, keys, is_begun.get()), 0, value);
        }
        let head = all.0.as_ptr().cast::<u8>().cast_const();
        assert!(head.addr() >> INDEX_SHIFT == 0, "addresses have 48 bits");
        Self::new(head.map_addr(|address| address | Tag::List as usize | index << INDEX_SHIFT), value.word())
    }

    /// Makes it something rarer.
    pub fn put_more(self, more: More) {
        // Whom it tells of is told with it.
        let more = place(more);
        told(self.address(), Value::tagged(more.0, Tag::Boxed));
        self.0.head.set(Self::rarer(more));
    }

    fn rarer(more: Ref<More>) -> *const u8 {
        more.0.as_ptr().cast::<u8>().cast_const().map_addr(|address| address | Tag::List as usize)
    }

    /// The value, if it is known.
    #[inline(always)]
    pub fn value(self) -> Option<Value> {
        if self.0.head.get().addr() == DONE { Value::from_word(self.0.tail.get()) } else { None }
    }

    /// The code that it waits for to be evaluated, if that is what it is.
    #[inline(always)]
    pub fn as_code(self) -> Option<(Ref<Code>, Scope)> {
        let (head, tail) = (self.0.head.get(), self.0.tail.get());
        if head.addr() & TAGS != 0 {
            return None;
        }
        let (code, scope) = (std::ptr::NonNull::new(head.cast_mut())?, std::ptr::NonNull::new(tail.cast_mut())?);
        Some((Ref(code.cast()), Scope(scope.cast())))
    }

    /// What is known.
    #[inline]
    pub fn state(self) -> State {
        let (head, tail) = (self.0.head.get(), self.0.tail.get());
        let untagged = || head.map_addr(|address| address & !TAGS & ((1 << INDEX_SHIFT) - 1)).cast_mut();
        match head.addr() & TAGS {
            0 => match (std::ptr::NonNull::new(head.cast_mut()), std::ptr::NonNull::new(tail.cast_mut())) {
                (Some(code), Some(scope)) => State::Code(Ref(code.cast()), Scope(scope.cast())),
                _ => State::Running,
            },
            tag if tag == Tag::Integer as usize => match (head.addr(), Value::from_word(tail)) {
                (DONE, Some(value)) => State::Done(value),
                (FAILED, _) => State::Failed(tail.addr()),
                _ => State::Running,
            },
            tag if tag == Tag::List as usize => match std::ptr::NonNull::new(untagged()) {
                Some(more) => {
                    let more: Ref<More> = Ref(more.cast());
                    match (&*more, Value::from_word(tail)) {
                        (More::Each(function, keys, is_begun), Some(value)) => {
                            let name = keys.names[head.addr() >> INDEX_SHIFT];
                            let is_begun = Ref(std::ptr::NonNull::from(is_begun));
                            State::Each(EachCall { function: *function, name, is_begun, head }, value)
                        }
                        _ => State::More(more),
                    }
                }
                None => State::Running,
            },
            _ => match (Value::from_word(head), Value::from_word(tail)) {
                (Some(function), Some(argument)) => State::Call(function, argument),
                _ => State::Running,
            },
        }
    }

    /// Notes that it is being worked out.
    #[inline]
    pub fn start(self) {
        self.0.head.set(std::ptr::without_provenance(RUNNING));
    }

    /// Notes that what was begun is to be begun again, with the state that it had before.
    #[cold]
    pub fn again(self, state: State) {
        let head = match state {
            State::Code(code, _) => code.0.as_ptr().cast::<u8>().cast_const(),
            State::Call(function, _) => function.word(),
            State::More(more) => Self::rarer(more),
            State::Each(call, _) => call.head,
            State::Done(_) | State::Running | State::Failed(_) => return,
        };
        self.0.head.set(head);
    }

    /// Notes the value.
    #[inline]
    pub fn finish(self, value: Value) {
        told(self.address(), value);
        self.0.tail.set(value.word());
        self.0.head.set(std::ptr::without_provenance(DONE));
    }

    /// Notes that it failed.
    pub fn fail(self, number: usize) {
        self.0.head.set(std::ptr::without_provenance(FAILED));
        self.0.tail.set(std::ptr::without_provenance(number));
    }

    /// Whether the work is running.
    pub fn is_running(self) -> bool {
        matches!(self.state(), State::Running)
    }

    /// A number that no other thunk has.
    pub fn address(self) -> usize {
        self.0.address()
    }
}
