//! Attribute sets: names that many sets share, and each set's own values. The result of `//` may be a layer over another set.

use std::cell::{Cell, RefCell};
use std::hash::Hasher as _;
use std::ptr::NonNull;

use super::permanent::permanently;
use super::region::told;
use super::{Bytes, Ref, Slice, Value, allocate, place};
use crate::fast_hash::{FastHasher, FastMap};
use crate::places::PlaceId;
use crate::symbols::{Symbol, Symbols};
use crate::value::Attribute;

/// The names of a set in order of their symbols, and where each was defined. Sets that are made by one piece of code share it.
pub struct Keys {
    /// The names.
    pub names: Slice<Symbol>,
    /// Where they were defined, as many as there are names; none for nowhere, all of them.
    places: Option<NonNull<PlaceId>>,
    /// What few of them need.
    more: Cell<Option<Ref<MoreKeys>>>,
    /// Where the sets are written.
    pub set_place: PlaceId,
    /// A piece of code makes sets with them, so that they are met again and again.
    is_common: Cell<bool>,
}

/// What is known of keys once somebody asked.
#[derive(Default)]
struct MoreKeys {
    /// The numbers of the names in order of their bytes.
    sorted: Cell<Option<Slice<u32>>>,
    /// By whose bytes.
    sorted_by: Cell<u32>,
    /// The same for sets that are not written anywhere.
    unwritten: Cell<Option<Ref<Keys>>>,
}

/// An attribute set.
#[derive(Clone, Copy, PartialEq)]
pub struct Set(pub(super) Ref<Head>);

/// What a set begins with; values in the number of its keys follow, unless it is a [`Layer`].
pub struct Head {
    /// A pointer to [`Keys`]; its lowest bit says that this is the head of a [`Layer`].
    keys: Cell<NonNull<u8>>,
}

/// What a set begins with that has attributes elsewhere; values in the number of its keys follow, unless they were moved.
#[repr(C)]
struct Layer {
    head: Head,
    /// A [`Link`] in one word.
    link: Cell<*const u8>,
    /// How many attributes there are, with the layers below.
    length: usize,
}

/// The lowest bit of the keys of a layer.
const LAYER: usize = 1;

/// Where else a set has attributes.
#[derive(Clone, Copy)]
enum Link {
    /// Nowhere: the values follow the head.
    Here,
    /// The values were moved: layers have become one.
    Moved(NonNull<Cell<Value>>),
    /// In a set below, unless they are here, too.
    Below(Set),
}

/// The lowest bit of a link to values that were moved.
const MOVED: usize = 1;

impl Link {
    fn to_word(self) -> *const u8 {
        match self {
            Self::Here => std::ptr::null(),
            Self::Moved(values) => values.as_ptr().cast::<u8>().cast_const().map_addr(|address| address | MOVED),
            Self::Below(set) => set.0.0.as_ptr().cast(),
        }
    }

    #[inline]
    fn of_word(word: *const u8) -> Self {
        let address = word.map_addr(|address| address & !MOVED).cast_mut();
        match NonNull::new(address) {
            None => Self::Here,
            Some(values) if word.addr() & MOVED != 0 => Self::Moved(values.cast()),
            Some(below) => Self::Below(Set(Ref(below.cast()))),
        }
    }
}

thread_local! {
    /// Keys by the hash of their names and places.
    static KNOWN: RefCell<FastMap<u64, Ref<Keys>>> = RefCell::default();
    /// Names by their hash.
    static NAMES: RefCell<FastMap<u64, Slice<Symbol>>> = RefCell::default();
    /// The common names of two sets with common names, by the addresses of theirs.
    static MERGED: RefCell<FastMap<(usize, usize), Ref<Keys>>> = RefCell::default();
}

/// Up to so many names are searched from front to back.
const FEW: usize = 8;

impl Keys {
    fn new(names: Slice<Symbol>, places: Option<Slice<PlaceId>>, set_place: PlaceId, is_common: bool) -> Ref<Self> {
        debug_assert!(names.is_sorted_by(|left, right| left < right));
        debug_assert!(places.is_none_or(|places| places.len() == names.len()));
        permanently(|| {
            let places = places.map(|places| places.pointer);
            place(Self { names, places, more: Cell::new(None), set_place, is_common: Cell::new(is_common) })
        })
    }

    /// Names where they are kept once; where one was found may so be remembered by their address.
    fn names(names: impl ExactSizeIterator<Item = Symbol> + Clone, hash: u64) -> Slice<Symbol> {
        let is_it = |known: &Slice<Symbol>| known.iter().copied().eq(names.clone());
        if let Some(known) = NAMES.with(|known| known.borrow().get(&hash).copied()).filter(is_it) {
            return known;
        }
        let slice = permanently(|| Slice::of(names.len(), names));
        NAMES.with(|known| known.borrow_mut().insert(hash, slice));
        slice
    }

    /// Names in order of their symbols, none of them twice. They are kept once, and as long as the thread.
    pub fn of(
        names: impl ExactSizeIterator<Item = Symbol> + Clone,
        places: Option<impl Iterator<Item = PlaceId> + Clone>,
        set_place: PlaceId,
    ) -> Ref<Self> {
        let mut hasher = FastHasher::default();
        names.clone().for_each(|name| hasher.write_u32(name.number()));
        let hash_of_names = hasher.finish();
        hasher.write_u32(set_place.number());
        if let Some(places) = places.clone() {
            places.for_each(|place| hasher.write_u32(place.number()));
        }
        let hash = hasher.finish();
        let is_it = |known: &Ref<Self>| {
            known.set_place == set_place
                && known.names.iter().copied().eq(names.clone())
                && match (known.places(), places.clone()) {
                    (None, None) => true,
                    (Some(known), Some(places)) => known.iter().copied().eq(places),
                    _ => false,
                }
        };
        if let Some(keys) = KNOWN.with(|known| known.borrow().get(&hash).copied()).filter(is_it) {
            return keys;
        }
        let names = Self::names(names, hash_of_names);
        let places = places.map(|places| permanently(|| Slice::of(names.len(), places)));
        let keys = Self::new(names, places, set_place, false);
        // Of two that happen to have one hash the later one is known.
        KNOWN.with(|known| known.borrow_mut().insert(hash, keys));
        keys
    }

    /// Names without places.
    pub fn of_names(names: impl ExactSizeIterator<Item = Symbol> + Clone) -> Ref<Self> {
        Self::of(names, None::<std::iter::Empty<PlaceId>>, PlaceId::NONE)
    }

    /// The same names, defined nowhere.
    pub fn without_places(keys: Ref<Self>) -> Ref<Self> {
        if keys.places.is_none() && !keys.set_place.is_some() {
            return keys;
        }
        Self::of_names(keys.names.iter().copied())
    }

    /// The same for sets that are not written anywhere.
    fn unwritten(keys: Ref<Self>) -> Ref<Self> {
        if !keys.set_place.is_some() {
            return keys;
        }
        let more = keys.more();
        more.unwritten.get().unwrap_or_else(|| {
            let unwritten = Self::new(keys.names, keys.places(), PlaceId::NONE, keys.is_common.get());
            more.unwritten.set(Some(unwritten));
            unwritten
        })
    }

    /// Says that a piece of code makes sets with them.
    pub fn common(names: &[Symbol], places: &[PlaceId], set_place: PlaceId) -> Ref<Self> {
        let mut hasher = FastHasher::default();
        names.iter().for_each(|name| hasher.write_u32(name.number()));
        let names = Self::names(names.iter().copied(), hasher.finish());
        let places = permanently(|| Slice::of(places.len(), places.iter().copied()));
        Self::new(names, Some(places), set_place, true)
    }

    /// Which is called so.
    #[inline]
    pub fn find(&self, name: Symbol) -> Option<usize> {
        let names = &*self.names;
        if names.len() <= FEW {
            return names.iter().position(|other| *other == name);
        }
        names.binary_search(&name).ok()
    }

    /// The numbers of the names in order of their bytes.
    pub fn in_order(&self, symbols: &Symbols) -> Slice<u32> {
        let more = self.more();
        if let Some(sorted) = more.sorted.get()
            && more.sorted_by.get() == symbols.id()
        {
            return sorted;
        }
        let mut named: Vec<_> = (0u32..).zip(self.names.iter().map(|name| symbols.bytes(*name))).collect();
        named.sort_unstable_by_key(|left| left.1);
        let numbers = named.into_iter().map(|(number, _)| number);
        let sorted = permanently(|| Slice::new(numbers));
        more.sorted.set(Some(sorted));
        more.sorted_by.set(symbols.id());
        sorted
    }

    fn more(&self) -> Ref<MoreKeys> {
        self.more.get().unwrap_or_else(|| {
            let more = permanently(|| place(MoreKeys::default()));
            self.more.set(Some(more));
            more
        })
    }

    /// Where the names were defined; none for nowhere, all of them.
    #[inline]
    fn places(&self) -> Option<Slice<PlaceId>> {
        self.places.map(|pointer| Slice { pointer, length: self.names.len() })
    }

    /// Where one was defined.
    #[inline]
    pub fn place(&self, index: usize) -> PlaceId {
        self.places().map_or(PlaceId::NONE, |places| places[index])
    }
}

impl Set {
    /// A set of these names with values by their number.
    #[inline]
    pub fn new(keys: Ref<Keys>, value: impl FnMut(usize) -> Value) -> Self {
        let count = keys.names.len();
        let memory = allocate(size_of::<Head>() + 8 * count).cast::<Head>();
        // SAFETY: the memory is large enough for the head and so many values.
        unsafe {
            memory.write(Head { keys: Cell::new(keys.0.cast()) });
            fill(memory.add(1).cast(), count, value);
        }
        Self(Ref(memory))
    }

    /// A set of these names above another one, with which it has so many attributes.
    fn layer(keys: Ref<Keys>, below: Self, length: usize, value: impl FnMut(usize) -> Value) -> Self {
        let count = keys.names.len();
        let memory = allocate(size_of::<Layer>() + 8 * count).cast::<Layer>();
        let keys = keys.0.cast().map_addr(|address| address | LAYER);
        // SAFETY: the memory is large enough for the head and so many values.
        unsafe {
            let link = Cell::new(Link::Below(below).to_word());
            memory.write(Layer { head: Head { keys: Cell::new(keys) }, link, length });
            fill(memory.add(1).cast(), count, value);
        }
        Self(Ref(memory.cast()))
    }

    /// A set of attributes that are in order of their symbols, none of them twice.
    pub fn from_sorted(attributes: &[Attribute], place: PlaceId) -> Self {
        Self::new(keys_of(attributes, place), |index| attributes[index].value)
    }

    #[inline(always)]
    fn is_layer(self) -> bool {
        self.0.keys.get().addr().get() & LAYER != 0
    }

    /// The names of this layer.
    #[inline(always)]
    fn keys(self) -> Ref<Keys> {
        let keys = self.0.keys.get().as_ptr().map_addr(|address| address & !LAYER);
        // SAFETY: keys are not at the address 0.
        Ref(unsafe { NonNull::new_unchecked(keys) }.cast())
    }

    #[inline(always)]
    fn as_layer(&self) -> Option<&Layer> {
        // SAFETY: what has this bit begins so; the pointer is that of the whole allocation.
        self.is_layer().then(|| unsafe { self.0.0.cast::<Layer>().as_ref() })
    }

    /// How many attributes there are.
    #[inline]
    pub fn len(self) -> usize {
        self.as_layer().map_or_else(|| self.keys().names.len(), |layer| layer.length)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Where it was written.
    pub fn place(self) -> PlaceId {
        if self.is_layer() { PlaceId::NONE } else { self.keys().set_place }
    }

    /// A number that no other set has.
    pub fn address(self) -> usize {
        self.0.address()
    }

    #[inline(always)]
    fn link(self) -> Link {
        self.as_layer().map_or(Link::Here, |layer| Link::of_word(layer.link.get()))
    }

    /// The values of this layer.
    #[inline(always)]
    fn own(&self) -> &[Cell<Value>] {
        let count = self.keys().names.len();
        let values = match self.link() {
            // SAFETY: the values follow the head; the pointer is that of the whole allocation.
            Link::Here => unsafe { self.0.0.add(1).cast::<Cell<Value>>() },
            // SAFETY: likewise, and the head of such a one is a layer's.
            Link::Below(_) => unsafe { self.0.0.cast::<Layer>().add(1).cast() },
            Link::Moved(values) => values,
        };
        // SAFETY: there are as many values as keys, here or where they were moved to.
        unsafe { std::slice::from_raw_parts(values.as_ptr(), count) }
    }

    /// The attribute of this name.
    #[inline]
    pub fn get(&self, name: Symbol) -> Option<Attribute> {
        let mut set = *self;
        loop {
            let keys = set.keys();
            if let Some(index) = keys.find(name) {
                let value = set.own()[index].get();
                return Some(Attribute { name, place: keys.place(index), value });
            }
            match set.link() {
                Link::Below(below) => set = below,
                _ => return None,
            }
        }
    }

    /// The value of this name, with a guess where it is, which is put right.
    #[inline(always)]
    pub fn get_cached(&self, name: Symbol, guess: &Guess) -> Option<(Value, Place)> {
        let mut set = *self;
        loop {
            let keys = set.keys();
            if let Some(index) = guess.get(keys) {
                return Some((set.own()[index as usize].get(), Place(keys, index)));
            }
            if let Some(index) = keys.find(name) {
                guess.set(keys, index);
                return Some((set.own()[index].get(), Place(keys, index as u32)));
            }
            match set.link() {
                Link::Below(below) => set = below,
                _ => return None,
            }
        }
    }

    /// Names and values in order of the names; layers become one for that.
    #[inline]
    pub fn parts(&self) -> (Ref<Keys>, &[Cell<Value>]) {
        if let Link::Below(_) = self.link() {
            self.flatten();
        }
        (self.keys(), self.own())
    }

    /// All attributes in order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Attribute> {
        let (keys, values) = self.parts();
        values.iter().enumerate().map(move |(index, value)| Attribute {
            name: keys.names[index],
            place: keys.place(index),
            value: value.get(),
        })
    }

    /// All attributes in order of the bytes of their names, which come with them.
    pub fn in_order(&self, symbols: &Symbols) -> impl ExactSizeIterator<Item = (Bytes, Attribute)> {
        let (keys, values) = self.parts();
        let order = keys.in_order(symbols);
        (0..order.len()).map(move |number| {
            let index = order[number] as usize;
            let name = keys.names[index];
            (symbols.bytes(name), Attribute { name, place: keys.place(index), value: values[index].get() })
        })
    }

    #[cold]
    fn flatten(&self) {
        let mut layers = vec![*self];
        while let Some(Link::Below(below)) = layers.last().map(|set| set.link()) {
            layers.push(below);
        }
        // From the bottom, so that each attribute is moved as often as there are layers above it at most.
        let mut all: Vec<Attribute> = Vec::new();
        for layer in layers.iter().rev() {
            all = merged(&all, &layer.attributes().collect::<Vec<_>>());
        }
        let flat = Self::from_sorted(&all, PlaceId::NONE);
        debug_assert_eq!(flat.len(), self.len());
        let Some(layer) = self.as_layer() else { return };
        // SAFETY: the values follow the head of the new set, which is no layer.
        let values = unsafe { flat.0.0.add(1).cast::<Cell<Value>>() };
        told(self.address(), flat.into());
        layer.head.keys.set(flat.0.keys.get().map_addr(|address| address | LAYER));
        layer.link.set(Link::Moved(values).to_word());
    }

    /// The attributes of this layer.
    fn attributes(&self) -> impl Iterator<Item = Attribute> {
        let keys = self.keys();
        self.own().iter().enumerate().map(move |(index, value)| Attribute {
            name: keys.names[index],
            place: keys.place(index),
            value: value.get(),
        })
    }

    /// The attributes of both; those on the right win.
    ///
    /// A large set is not copied for a few more attributes: they become a layer above it. Layers are merged with those above
    /// them that are not much smaller, so there are never more than the logarithm of the number of attributes, and each
    /// attribute is copied as often at most.
    pub fn update(left: Self, right: Self) -> Self {
        if left.is_empty() {
            return right;
        }
        if right.is_empty() {
            return left;
        }
        let is_large = |large: Self, small: Self| small.len().saturating_mul(2) < large.len();
        let (mut upper, mut below): (Vec<Attribute>, _) = if is_large(left, right) {
            let (keys, values) = right.parts();
            if 2 * values.len() < left.top() {
                return Self::layer_over(keys, left, |index| values[index].get());
            }
            (right.iter().collect(), left)
        } else if is_large(right, left) {
            // Those that do not count are left out, so that it does not matter which layer is above.
            let upper: Vec<_> = left.iter().filter(|attribute| right.get(attribute.name).is_none()).collect();
            if upper.len() == left.len() && 2 * upper.len() < right.top() {
                let (keys, values) = left.parts();
                return Self::layer_over(keys, right, |index| values[index].get());
            }
            (upper, right)
        } else {
            return Self::both(left, right);
        };
        if upper.is_empty() {
            return below;
        }
        while below.top() <= 2 * upper.len() {
            upper = merged(&below.attributes().collect::<Vec<_>>(), &upper);
            match below.link() {
                Link::Below(next) => below = next,
                _ => return Self::from_sorted(&upper, PlaceId::NONE),
            }
        }
        Self::layer_over(keys_of(&upper, PlaceId::NONE), below, |index| upper[index].value)
    }

    /// The attributes of two sets of similar size.
    fn both(left: Self, right: Self) -> Self {
        let (older, old) = left.parts();
        let (newer, new) = right.parts();
        let pair = (older.address(), newer.address());
        let are_common = older.is_common.get() && newer.is_common.get();
        if are_common && let Some(keys) = MERGED.with(|merged| merged.borrow().get(&pair).copied()) {
            let (mut at, mut other) = (0, 0);
            return Self::new(keys, |index| {
                let name = Some(&keys.names[index]);
                let (is_old, is_new) = (older.names.get(at) == name, newer.names.get(other) == name);
                let value = if is_new { new[other].get() } else { old[at].get() };
                at += usize::from(is_old);
                other += usize::from(is_new);
                value
            });
        }
        // Names in order, with where they are: on the right, or else on the left.
        let mut room = [(0u32, false); 32];
        let mut more = Vec::new();
        let most = old.len() + new.len();
        let order = if most <= room.len() {
            &mut room[..]
        } else {
            more.resize(most, (0, false));
            &mut more[..]
        };
        let (mut at, mut other, mut count) = (0, 0, 0);
        while at < old.len() || other < new.len() {
            let (lower, upper) = (older.names.get(at), newer.names.get(other));
            order[count] = match (lower, upper) {
                (Some(lower), Some(upper)) if lower < upper => (at as u32, false),
                (Some(_), None) => (at as u32, false),
                _ => (other as u32, true),
            };
            at += usize::from(lower.is_some() && (!order[count].1 || lower == upper));
            other += usize::from(order[count].1);
            count += 1;
        }
        let order = &order[..count];
        let keys_of = |is_new: bool| if is_new { newer } else { older };
        let value = |index: usize| {
            let (index, is_new) = order[index];
            if is_new { new[index as usize].get() } else { old[index as usize].get() }
        };
        // Nothing new but values.
        let is_same = |(index, is_new): &(u32, bool)| {
            !is_new
                || older
                    .find(newer.names[*index as usize])
                    .is_some_and(|old| older.place(old) == newer.place(*index as usize))
        };
        if count == old.len() && order.iter().all(is_same) {
            return Self::new(Keys::unwritten(older), value);
        }
        if count == new.len() {
            return Self::new(Keys::unwritten(newer), value);
        }
        let names = order.iter().map(|(index, is_new)| keys_of(*is_new).names[*index as usize]);
        let places = (older.places.is_some() || newer.places.is_some())
            .then(|| order.iter().map(|(index, is_new)| keys_of(*is_new).place(*index as usize)));
        let keys = Keys::of(names, places, PlaceId::NONE);
        if are_common {
            keys.is_common.set(true);
            MERGED.with(|merged| merged.borrow_mut().insert(pair, keys));
        }
        Self::new(keys, value)
    }

    fn layer_over(keys: Ref<Keys>, below: Self, value: impl FnMut(usize) -> Value) -> Self {
        let more = keys.names.iter().filter(|name| below.get(**name).is_none()).count();
        Self::layer(keys, below, below.len() + more, value)
    }

    /// How many attributes the uppermost layer has.
    fn top(self) -> usize {
        self.keys().names.len()
    }
}

/// Writes values behind a head.
///
/// # Safety
///
/// There is room for so many, and nobody knows the set before all of it is there.
#[inline(always)]
unsafe fn fill(values: NonNull<Cell<Value>>, count: usize, value: impl FnMut(usize) -> Value) {
    let mut value = value;
    for index in 0..count {
        // SAFETY: the caller says so.
        unsafe { values.add(index).write(Cell::new(value(index))) };
    }
}

/// Where a name was found last: the address of some names, and its number among them in the lowest 16 bits.
#[derive(Default)]
pub struct Guess(Cell<u64>);

const GUESS_SHIFT: u32 = 16;

impl Guess {
    #[inline(always)]
    fn get(&self, keys: Ref<Keys>) -> Option<u32> {
        let guess = self.0.get();
        (guess >> GUESS_SHIFT == keys.names.address() as u64).then_some((guess & ((1 << GUESS_SHIFT) - 1)) as u32)
    }

    #[inline]
    fn set(&self, keys: Ref<Keys>, index: usize) {
        let address = keys.names.address() as u64;
        if index >> GUESS_SHIFT == 0 && address.leading_zeros() >= GUESS_SHIFT {
            self.0.set(address << GUESS_SHIFT | index as u64);
        }
    }
}

/// Where an attribute was defined; found when it is asked for, which is seldom.
#[derive(Clone, Copy)]
pub struct Place(Ref<Keys>, u32);

impl Place {
    /// The place.
    #[inline]
    pub fn get(self) -> PlaceId {
        self.0.place(self.1 as usize)
    }
}

fn keys_of(attributes: &[Attribute], place: PlaceId) -> Ref<Keys> {
    let names = attributes.iter().map(|attribute| attribute.name);
    let has_places = attributes.iter().any(|attribute| attribute.place.is_some());
    let places = has_places.then(|| attributes.iter().map(|attribute| attribute.place));
    Keys::of(names, places, place)
}

/// Both in order; of two with one name the upper one counts.
fn merged(lower: &[Attribute], upper: &[Attribute]) -> Vec<Attribute> {
    let mut all = Vec::with_capacity(lower.len() + upper.len());
    let mut older = lower.iter().peekable();
    for attribute in upper {
        while let Some(old) = older.next_if(|old| old.name < attribute.name) {
            all.push(*old);
        }
        older.next_if(|old| old.name == attribute.name);
        all.push(*attribute);
    }
    all.extend(older);
    all
}
