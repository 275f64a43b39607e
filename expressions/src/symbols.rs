//! Names as small numbers: two names are equal when their numbers are.

use std::cell::RefCell;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::heap::{self, Bytes, Value};

/// A name. Its order is the order of first appearance, which is not the order of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(u32);

impl Symbol {
    /// Its number, for those who keep it in a place of 31 bits.
    #[inline]
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// The symbol of a number.
    #[inline]
    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// All names that were met.
pub struct Symbols {
    tables: RefCell<Tables>,
    /// No other has it.
    id: u32,
}

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A hash table of our own: names are looked up once for every word of a text, most of them short and known.
struct Tables {
    /// Each with the value that it is, once that was asked for.
    names: Vec<(Bytes, Option<Value>)>,
    /// Hash and number plus one (0: free); as many as a power of two, at most half of them in use.
    slots: Vec<(u32, u32)>,
    /// Not known beforehand, so that nobody makes names that all have one hash.
    seed: u64,
}

impl Default for Tables {
    fn default() -> Self {
        let seed = std::hash::RandomState::new().build_hasher().finish();
        Self { names: Vec::new(), slots: vec![(0, 0); 1 << 10], seed }
    }
}

/// Both halves of a product, which depend on all bits of both factors.
#[inline]
fn mix(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Tables {
    #[inline]
    fn hash(&self, name: &[u8]) -> u32 {
        let mut hash = self.seed ^ name.len() as u64;
        let (words, rest) = name.as_chunks::<8>();
        for word in words {
            hash = mix(hash ^ u64::from_le_bytes(*word), FACTOR);
        }
        let mut last = 0;
        for byte in rest {
            last = last << 8 | u64::from(*byte);
        }
        mix(hash ^ last, FACTOR ^ self.seed) as u32
    }

    /// The number of a name, or the slot where it would be.
    #[inline]
    fn look(&self, name: &[u8], hash: u32) -> Result<Symbol, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let (there, number) = self.slots[slot];
            if number == 0 {
                return Err(slot);
            }
            if there == hash && *self.names[number as usize - 1].0 == *name {
                return Ok(Symbol(number - 1));
            }
            slot = (slot + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let mut slots = vec![(0, 0); 2 * self.slots.len()];
        let mask = slots.len() - 1;
        for (hash, number) in self.slots.iter().filter(|(_, number)| *number != 0) {
            let mut slot = *hash as usize & mask;
            while slots[slot].1 != 0 {
                slot = (slot + 1) & mask;
            }
            slots[slot] = (*hash, *number);
        }
        self.slots = slots;
    }
}

macro_rules! well_known {
    ($($constant:ident = $name:literal,)*) => {
        /// Names that the evaluator itself speaks of.
        #[allow(missing_docs, reason = "each is its own text")]
        pub mod known {
            use super::Symbol;

            #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "only for counting")]
            enum Number { $($constant,)* }

            $(pub const $constant: Symbol = Symbol(Number::$constant as u32);)*
        }

        const WELL_KNOWN: &[&str] = &[$($name,)*];
    };
}

well_known! {
    OR = "or",
    BODY = "body",
    SUB = "__sub",
    MUL = "__mul",
    DIV = "__div",
    LESS_THAN = "__lessThan",
    FIND_FILE = "__findFile",
    NIX_PATH = "__nixPath",
    OVERRIDES = "__overrides",
    FUNCTOR = "__functor",
    TO_STRING = "__toString",
    OUT_PATH = "outPath",
    DRV_PATH = "drvPath",
    OUTPUT_NAME = "outputName",
    TYPE = "type",
    KIND = "_type",
    NAME = "name",
    VALUE = "value",
    PATH = "path",
    PREFIX = "prefix",
    KEY = "key",
    OPERATOR = "operator",
    START_SET = "startSet",
    SUCCESS = "success",
    RIGHT = "right",
    WRONG = "wrong",
    FILE = "file",
    LINE = "line",
    COLUMN = "column",
    VERSION = "version",
    ALL_OUTPUTS = "allOutputs",
    OUTPUTS = "outputs",
    FILTER = "filter",
    RECURSIVE = "recursive",
    SHA256 = "sha256",
    RECURSE_FOR_DERIVATIONS = "recurseForDerivations",
}

impl Default for Symbols {
    fn default() -> Self {
        let symbols = Self { tables: RefCell::default(), id: NEXT.fetch_add(1, Ordering::Relaxed) };
        for name in WELL_KNOWN {
            symbols.intern(name.as_bytes());
        }
        symbols
    }
}

impl Symbols {
    /// A number that no other table of names has.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The number of a name.
    pub fn intern(&self, name: &[u8]) -> Symbol {
        let mut tables = self.tables.borrow_mut();
        let hash = tables.hash(name);
        let slot = match tables.look(name, hash) {
            Ok(symbol) => return symbol,
            Err(slot) => slot,
        };
        let number = u32::try_from(tables.names.len()).expect("fewer names than memory has bytes");
        tables.names.push((heap::permanently(|| heap::bytes(name)), None));
        tables.slots[slot] = (hash, number + 1);
        if tables.names.len() * 2 > tables.slots.len() {
            tables.grow();
        }
        Symbol(number)
    }

    /// The number of a name that was met before.
    pub fn find(&self, name: &[u8]) -> Option<Symbol> {
        let tables = self.tables.borrow();
        tables.look(name, tables.hash(name)).ok()
    }

    /// The bytes of a name.
    pub fn bytes(&self, symbol: Symbol) -> Bytes {
        self.tables.borrow().names[symbol.0 as usize].0
    }

    /// The name as a value, always the same one.
    pub fn value(&self, symbol: Symbol) -> Value {
        let names = &mut self.tables.borrow_mut().names;
        let (bytes, value) = &mut names[symbol.0 as usize];
        *value.get_or_insert_with(|| heap::permanently(|| Value::text(*bytes, heap::ContextId::NONE)))
    }

    /// The name for people.
    pub fn text(&self, symbol: Symbol) -> String {
        String::from_utf8_lossy(&self.bytes(symbol)).into_owned()
    }
}
