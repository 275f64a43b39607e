//! Names as small numbers: two names are equal when their numbers are.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// A name. Its order is the order of first appearance, which is not the order of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(u32);

/// All names that were met.
pub struct Symbols {
    tables: RefCell<Tables>,
}

#[derive(Default)]
struct Tables {
    names: Vec<Rc<[u8]>>,
    numbers: HashMap<Rc<[u8]>, Symbol>,
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
        let symbols = Self { tables: RefCell::default() };
        for name in WELL_KNOWN {
            symbols.intern(name.as_bytes());
        }
        symbols
    }
}

impl Symbols {
    /// The number of a name.
    pub fn intern(&self, name: &[u8]) -> Symbol {
        let mut tables = self.tables.borrow_mut();
        if let Some(symbol) = tables.numbers.get(name) {
            return *symbol;
        }
        let symbol = Symbol(u32::try_from(tables.names.len()).expect("fewer names than memory has bytes"));
        let name: Rc<[u8]> = name.into();
        tables.names.push(Rc::clone(&name));
        tables.numbers.insert(name, symbol);
        symbol
    }

    /// The number of a name that was met before.
    pub fn find(&self, name: &[u8]) -> Option<Symbol> {
        self.tables.borrow().numbers.get(name).copied()
    }

    /// The bytes of a name.
    pub fn bytes(&self, symbol: Symbol) -> Rc<[u8]> {
        Rc::clone(&self.tables.borrow().names[symbol.0 as usize])
    }

    /// The name for people.
    pub fn text(&self, symbol: Symbol) -> String {
        String::from_utf8_lossy(&self.bytes(symbol)).into_owned()
    }
}
