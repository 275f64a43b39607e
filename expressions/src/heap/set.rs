//! Attribute sets: names that many sets share, and each set's own values. The result of `//` may be a layer over another set.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use super::{Bytes, Ref, Slice, Value, allocate, place};
use crate::fast_hash::FastMap;
use crate::places::PlaceId;
use crate::symbols::{Symbol, Symbols};
use crate::value::Attribute;

/// The names of a set in order of their symbols, and where each was defined. Sets that are made by one piece of code share it.
pub struct Keys {
    /// The names.
    pub names: Slice<Symbol>,
    /// Where they were defined; none for nowhere, all of them.
    pub places: Option<Slice<PlaceId>>,
    /// The numbers of the names in order of their bytes, once somebody asked.
    pub sorted: Cell<Option<Ref<Slice<u32>>>>,
    /// A piece of code makes sets with them, so that they are met again and again.
    is_common: Cell<bool>,
}

/// An attribute set.
#[derive(Clone, Copy, PartialEq)]
pub struct Set(pub(super) Ref<Head>);

/// What a set begins with; values in the number of `keys` follow, unless they were moved.
#[repr(C)]
pub struct Head {
    keys: Cell<Ref<Keys>>,
    /// A [`Link`] in one word.
    link: Cell<*const u8>,
    place: PlaceId,
    /// How many attributes there are, with the layers below.
    length: u32,
}

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
    #[inline(always)]
    fn to_word(self) -> *const u8 {
        match self {
            Self::Here => std::ptr::null(),
            Self::Moved(values) => values.as_ptr().cast::<u8>().cast_const().map_addr(|address| address | MOVED),
            Self::Below(set) => set.0.0.as_ptr().cast(),
        }
    }

    #[inline(always)]
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
    /// The common names of two sets with common names, by the addresses of theirs.
    static MERGED: RefCell<FastMap<(usize, usize), Ref<Keys>>> = RefCell::default();
}

/// Up to so many names are searched from front to back.
const FEW: usize = 8;

impl Keys {
    /// Names in order of their symbols, none of them twice.
    pub fn new(names: Slice<Symbol>, places: Option<Slice<PlaceId>>) -> Ref<Self> {
        debug_assert!(names.is_sorted_by(|left, right| left < right));
        debug_assert!(places.is_none_or(|places| places.len() == names.len()));
        place(Self { names, places, sorted: Cell::new(None), is_common: Cell::new(false) })
    }

    /// Says that a piece of code makes sets with them.
    pub fn common(names: Slice<Symbol>, places: Option<Slice<PlaceId>>) -> Ref<Self> {
        let keys = Self::new(names, places);
        keys.is_common.set(true);
        keys
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
        if let Some(sorted) = self.sorted.get() {
            return *sorted;
        }
        let mut named: Vec<_> = (0u32..).zip(self.names.iter().map(|name| symbols.bytes(*name))).collect();
        named.sort_unstable_by_key(|left| left.1);
        let sorted = Slice::new(named.into_iter().map(|(number, _)| number));
        self.sorted.set(Some(place(sorted)));
        sorted
    }

    /// Where one was defined.
    #[inline]
    pub fn place(&self, index: usize) -> PlaceId {
        self.places.map_or(PlaceId::NONE, |places| places[index])
    }
}

impl Set {
    /// A set; `length` counts the attributes of `below`, too.
    #[inline]
    fn build(keys: Ref<Keys>, place: PlaceId, link: Link, length: usize, value: impl FnMut(usize) -> Value) -> Self {
        let count = keys.names.len();
        let memory = allocate(size_of::<Head>() + 8 * count).cast::<Head>();
        let length = u32::try_from(length).expect("fewer attributes than memory has bytes");
        let mut value = value;
        // SAFETY: the memory is large enough, and nobody knows the set before all of it is there.
        unsafe {
            memory.write(Head { keys: Cell::new(keys), link: Cell::new(link.to_word()), place, length });
            let values = memory.add(1).cast::<Cell<Value>>();
            for index in 0..count {
                values.add(index).write(Cell::new(value(index)));
            }
        }
        Self(Ref(memory))
    }

    /// A set of these names with values by their number.
    #[inline]
    pub fn new(keys: Ref<Keys>, place: PlaceId, value: impl FnMut(usize) -> Value) -> Self {
        Self::build(keys, place, Link::Here, keys.names.len(), value)
    }

    /// A set of attributes that are in order of their symbols, none of them twice.
    pub fn from_sorted(attributes: &[Attribute], place: PlaceId) -> Self {
        Self::new(keys_of(attributes), place, |index| attributes[index].value)
    }

    /// How many attributes there are.
    #[inline]
    pub fn len(self) -> usize {
        self.0.length as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Where it was written.
    pub fn place(self) -> PlaceId {
        self.0.place
    }

    /// A number that no other set has.
    pub fn address(self) -> usize {
        self.0.address()
    }

    #[inline(always)]
    fn link(self) -> Link {
        Link::of_word(self.0.link.get())
    }

    /// The values of this layer.
    #[inline(always)]
    fn own(&self) -> &[Cell<Value>] {
        let count = self.0.keys.get().names.len();
        let values = match self.link() {
            Link::Moved(values) => values,
            // SAFETY: the values follow the head; the pointer is that of the whole allocation.
            _ => unsafe { self.0.0.add(1).cast::<Cell<Value>>() },
        };
        // SAFETY: there are as many values as keys, here or where they were moved to.
        unsafe { std::slice::from_raw_parts(values.as_ptr(), count) }
    }

    /// The attribute of this name.
    #[inline]
    pub fn get(&self, name: Symbol) -> Option<Attribute> {
        let mut set = *self;
        loop {
            let keys = set.0.keys.get();
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
    pub fn get_cached(&self, name: Symbol, guess: &Cell<(usize, u32)>) -> Option<(Value, Place)> {
        let mut set = *self;
        loop {
            let keys = set.0.keys.get();
            let (address, index) = guess.get();
            if address == keys.address() {
                return Some((set.own()[index as usize].get(), Place(keys, index)));
            }
            if let Some(index) = keys.find(name) {
                guess.set((keys.address(), index as u32));
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
        (self.0.keys.get(), self.own())
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
            all = merged(&all, &layer.layer().collect::<Vec<_>>());
        }
        let flat = Self::from_sorted(&all, PlaceId::NONE);
        debug_assert_eq!(flat.len(), self.len());
        // SAFETY: the values follow the head of the new set.
        let values = unsafe { flat.0.0.add(1).cast::<Cell<Value>>() };
        self.0.keys.set(flat.0.keys.get());
        self.0.link.set(Link::Moved(values).to_word());
    }

    /// The attributes of this layer.
    fn layer(&self) -> impl Iterator<Item = Attribute> {
        let keys = self.0.keys.get();
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
            upper = merged(&below.layer().collect::<Vec<_>>(), &upper);
            match below.link() {
                Link::Below(next) => below = next,
                _ => return Self::from_sorted(&upper, PlaceId::NONE),
            }
        }
        Self::layer_over(keys_of(&upper), below, |index| upper[index].value)
    }

    /// The attributes of two sets of similar size.
    fn both(left: Self, right: Self) -> Self {
        let (older, old) = left.parts();
        let (newer, new) = right.parts();
        let pair = (older.address(), newer.address());
        let are_common = older.is_common.get() && newer.is_common.get();
        if are_common && let Some(keys) = MERGED.with(|merged| merged.borrow().get(&pair).copied()) {
            let (mut at, mut other) = (0, 0);
            return Self::new(keys, PlaceId::NONE, |index| {
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
            return Self::new(older, PlaceId::NONE, value);
        }
        if count == new.len() {
            return Self::new(newer, PlaceId::NONE, value);
        }
        let names = order.iter().map(|(index, is_new)| keys_of(*is_new).names[*index as usize]);
        let names = Slice::of(count, names);
        let places = (older.places.is_some() || newer.places.is_some())
            .then(|| Slice::of(count, order.iter().map(|(index, is_new)| keys_of(*is_new).place(*index as usize))));
        let keys = Keys::new(names, places);
        if are_common {
            keys.is_common.set(true);
            MERGED.with(|merged| merged.borrow_mut().insert(pair, keys));
        }
        Self::new(keys, PlaceId::NONE, value)
    }

    fn layer_over(keys: Ref<Keys>, below: Self, value: impl FnMut(usize) -> Value) -> Self {
        let more = keys.names.iter().filter(|name| below.get(**name).is_none()).count();
        Self::build(keys, PlaceId::NONE, Link::Below(below), below.len() + more, value)
    }

    /// How many attributes the uppermost layer has.
    fn top(self) -> usize {
        self.0.keys.get().names.len()
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

fn keys_of(attributes: &[Attribute]) -> Ref<Keys> {
    let count = attributes.len();
    let names = Slice::of(count, attributes.iter().map(|attribute| attribute.name));
    let has_places = attributes.iter().any(|attribute| attribute.place.is_some());
    let places = has_places.then(|| Slice::of(count, attributes.iter().map(|attribute| attribute.place)));
    Keys::new(names, places)
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
