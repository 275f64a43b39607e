//! Values: one word each.

use std::ptr::NonNull;

use super::{Bytes, ContextId, Ref, Scope, Set, Slice, Thunk, allocate, bytes, place};
use crate::builtins::Builtin;
use crate::code::LambdaCode;
use crate::value::Context;

/// A value, or a [`Thunk`] that will be one: a word that is a small number, or a pointer with its kind in the lowest bits.
#[derive(Clone, Copy, PartialEq)]
pub struct Value(NonNull<u8>);

/// The bits that say what kind of value it is.
pub(super) const TAGS: usize = 7;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Tag {
    Thunk = 0,
    Integer = 1,
    Set = 2,
    List = 3,
    String = 4,
    Lambda = 5,
    /// `null`, `false`, `true`, or a builtin.
    Constant = 6,
    /// What needs a word to say what it is.
    Boxed = 7,
}

const NULL: usize = 0x06;
const FALSE: usize = 0x0e;
const TRUE: usize = 0x16;

/// What a value is.
#[derive(Clone, Copy)]
pub enum View {
    /// `null`
    Null,
    /// `true`, `false`
    Boolean(bool),
    /// `1`
    Integer(i64),
    /// `1.5`
    Float(f64),
    /// Bytes and what store paths they stand for.
    String(Text),
    /// An absolute path.
    Path(Bytes),
    /// An attribute set.
    Set(Set),
    /// A list.
    List(List),
    /// A function of the language.
    Lambda(Ref<Closure>),
    /// A function of ours.
    Builtin(&'static Builtin),
    /// A function of ours that has some of its arguments.
    Partial(Ref<Partial>),
    /// Not known yet, or known by way of this.
    Thunk(Thunk),
}

/// A string with its context.
#[derive(Clone, Copy)]
pub struct Text {
    /// The bytes; never NUL.
    pub bytes: Bytes,
    /// What the string refers to.
    pub context: ContextId,
}

/// A string in memory.
pub(super) struct PackedText {
    pub(super) start: NonNull<u8>,
    pub(super) length: u32,
    context: ContextId,
}

/// A function of the language with what it sees.
pub struct Closure {
    /// What it does.
    pub code: Ref<LambdaCode>,
    /// What it sees.
    pub scope: Scope,
}

/// A builtin that waits for more arguments.
pub struct Partial {
    /// Which.
    pub builtin: &'static Builtin,
    /// Those that are there: fewer than it wants.
    pub arguments: Slice<Value>,
}

/// Values that are rare.
pub enum Boxed {
    /// `1.5`
    Float(f64),
    /// An integer of more than 61 bits.
    Integer(i64),
    /// A path.
    Path(Bytes),
    /// A builtin with some arguments.
    Partial(Partial),
}

/// A list: its length, then its elements.
#[derive(Clone, Copy, PartialEq)]
pub struct List(NonNull<usize>);

impl Value {
    /// `null`
    pub const NULL: Self = Self::constant(NULL);
    /// `false`
    pub const FALSE: Self = Self::constant(FALSE);
    /// `true`
    pub const TRUE: Self = Self::constant(TRUE);

    const fn constant(bits: usize) -> Self {
        match NonNull::new(std::ptr::without_provenance_mut(bits)) {
            Some(word) => Self(word),
            None => panic!("no constant is 0"),
        }
    }

    #[inline(always)]
    pub(super) fn tagged<T>(pointer: NonNull<T>, tag: Tag) -> Self {
        // Aligned to 8 bytes, so that the tag has room; and so the sum is not 0.
        Self(pointer.cast().map_addr(|address| address | tag as usize))
    }

    #[inline(always)]
    pub(super) fn pointer<T>(self) -> NonNull<T> {
        let address = self.0.as_ptr().map_addr(|address| address & !TAGS);
        // SAFETY: the tag was put onto a pointer, which was not null.
        unsafe { NonNull::new_unchecked(address.cast()) }
    }

    #[inline(always)]
    pub(super) fn tag(self) -> Tag {
        match self.0.addr().get() & TAGS {
            0 => Tag::Thunk,
            1 => Tag::Integer,
            2 => Tag::Set,
            3 => Tag::List,
            4 => Tag::String,
            5 => Tag::Lambda,
            6 => Tag::Constant,
            _ => Tag::Boxed,
        }
    }

    #[inline(always)]
    pub(super) fn word(self) -> *const u8 {
        self.0.as_ptr()
    }

    /// The value of a word; none for 0.
    #[inline(always)]
    pub(super) fn from_word(word: *const u8) -> Option<Self> {
        NonNull::new(word.cast_mut()).map(Self)
    }

    /// `true` or `false`
    #[inline(always)]
    pub fn boolean(boolean: bool) -> Self {
        if boolean { Self::TRUE } else { Self::FALSE }
    }

    /// An integer.
    #[inline(always)]
    pub fn integer(integer: i64) -> Self {
        let shifted = integer << 3;
        if shifted >> 3 == integer {
            Self::constant(shifted as usize | Tag::Integer as usize)
        } else {
            Self::boxed(Boxed::Integer(integer))
        }
    }

    /// The integer it is, if it is one of at most 61 bits.
    #[inline(always)]
    pub fn small_integer(self) -> Option<i64> {
        let bits = self.0.addr().get();
        (bits & TAGS == Tag::Integer as usize).then_some(bits as i64 >> 3)
    }

    /// The thunk it is, if it is one.
    #[inline(always)]
    pub fn thunk(self) -> Option<Thunk> {
        (self.0.addr().get() & TAGS == 0).then(|| Thunk(Ref(self.pointer())))
    }

    #[cold]
    fn boxed(boxed: Boxed) -> Self {
        Self::tagged(place(boxed).0, Tag::Boxed)
    }

    /// A float.
    pub fn float(float: f64) -> Self {
        Self::boxed(Boxed::Float(float))
    }

    /// A path.
    pub fn path(path: impl AsRef<[u8]>) -> Self {
        Self::boxed(Boxed::Path(bytes(path.as_ref())))
    }

    /// A string without context.
    pub fn string(text: impl AsRef<[u8]>) -> Self {
        Self::text(bytes(text.as_ref()), ContextId::NONE)
    }

    /// A string with context.
    pub fn string_with(text: impl AsRef<[u8]>, context: Context) -> Self {
        Self::text(bytes(text.as_ref()), context.finish())
    }

    /// A string whose bytes lie somewhere already.
    #[inline]
    pub fn text(text: Bytes, context: ContextId) -> Self {
        // Strings have less than 4 GiB.
        let length = u32::try_from(text.length).unwrap_or_else(|_| super::limit::give_up());
        Self::tagged(place(PackedText { start: text.pointer, length, context }).0, Tag::String)
    }

    /// A list.
    pub fn list(items: Vec<Self>) -> Self {
        Self::list_of(items.len(), items.into_iter())
    }

    /// A list of so many items; if there are fewer, the rest is `null`.
    #[inline]
    pub fn list_of(length: usize, items: impl Iterator<Item = Self>) -> Self {
        let memory = allocate(length.saturating_mul(8).saturating_add(8)).cast::<usize>();
        // SAFETY: so many words were allocated. The items are not reachable before all are there.
        unsafe {
            memory.write(length);
            let start = memory.add(1).cast::<Self>();
            for (index, item) in (0..length).zip(items.chain(std::iter::repeat(Self::NULL))) {
                start.add(index).write(item);
            }
        }
        Self::tagged(memory, Tag::List)
    }

    /// A function.
    #[inline]
    pub fn lambda(code: Ref<LambdaCode>, scope: Scope) -> Self {
        Self::tagged(place(Closure { code, scope }).0, Tag::Lambda)
    }

    /// A function of ours.
    pub fn builtin(builtin: &'static Builtin) -> Self {
        Self::tagged(NonNull::from(builtin), Tag::Constant)
    }

    /// A function of ours with some of its arguments.
    pub fn partial(builtin: &'static Builtin, arguments: &[Self]) -> Self {
        Self::boxed(Boxed::Partial(Partial { builtin, arguments: Slice::new(arguments.iter().copied()) }))
    }

    /// What it is.
    #[inline(always)]
    pub fn view(self) -> View {
        match self.tag() {
            Tag::Thunk => View::Thunk(Thunk(Ref(self.pointer()))),
            Tag::Integer => View::Integer(self.0.addr().get() as i64 >> 3),
            Tag::Set => View::Set(Set(Ref(self.pointer()))),
            Tag::List => View::List(List(self.pointer())),
            Tag::String => {
                // SAFETY: only `text` makes values of this tag, and it points to a packed text.
                let packed = unsafe { self.pointer::<PackedText>().as_ref() };
                let bytes = Slice { pointer: packed.start, length: packed.length as usize };
                View::String(Text { bytes, context: packed.context })
            }
            Tag::Lambda => View::Lambda(Ref(self.pointer())),
            Tag::Constant => match self.0.addr().get() {
                NULL => View::Null,
                FALSE => View::Boolean(false),
                TRUE => View::Boolean(true),
                // SAFETY: only `builtin` makes other values of this tag, and what it points to is static.
                _ => View::Builtin(unsafe { self.pointer::<Builtin>().as_ref() }),
            },
            Tag::Boxed => {
                let boxed: Ref<Boxed> = Ref(self.pointer());
                match &*boxed {
                    Boxed::Float(float) => View::Float(*float),
                    Boxed::Integer(integer) => View::Integer(*integer),
                    Boxed::Path(path) => View::Path(*path),
                    Boxed::Partial(_) => View::Partial(boxed.map(|boxed| match boxed {
                        Boxed::Partial(partial) => partial,
                        _ => unreachable!("it was one just now"),
                    })),
                }
            }
        }
    }

    /// Whether it is a list, of which there may be several that look alike and are not one.
    #[inline(always)]
    pub fn is_list(self) -> bool {
        self.tag() == Tag::List
    }
}

impl From<Set> for Value {
    #[inline]
    fn from(set: Set) -> Self {
        Self::tagged(set.0.0, Tag::Set)
    }
}

impl From<List> for Value {
    #[inline]
    fn from(list: List) -> Self {
        Self::tagged(list.0, Tag::List)
    }
}

impl From<Thunk> for Value {
    #[inline]
    fn from(thunk: Thunk) -> Self {
        Self::tagged(thunk.0.0, Tag::Thunk)
    }
}

impl From<Text> for Value {
    fn from(text: Text) -> Self {
        Self::text(text.bytes, text.context)
    }
}

impl From<bool> for Value {
    fn from(boolean: bool) -> Self {
        Self::boolean(boolean)
    }
}

impl List {
    /// How many elements.
    #[inline(always)]
    pub fn len(self) -> usize {
        // SAFETY: a list begins with its length.
        unsafe { self.0.read() }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The elements where they are.
    #[inline(always)]
    pub fn values(&self) -> &[Value] {
        // SAFETY: so many elements follow the length; they are never written to again, and live as long as the thread.
        unsafe { std::slice::from_raw_parts(self.0.add(1).cast().as_ptr(), self.len()) }
    }

    /// The elements.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Value> + DoubleEndedIterator {
        self.values().iter().copied()
    }

    /// An element.
    #[inline]
    pub fn get(&self, index: usize) -> Option<Value> {
        self.values().get(index).copied()
    }

    /// A number that no other list has.
    pub fn address(self) -> usize {
        self.0.addr().get()
    }

    /// The first.
    pub fn first(&self) -> Option<Value> {
        self.get(0)
    }
}
