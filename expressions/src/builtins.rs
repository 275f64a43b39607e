//! What the language brings along.

mod contexts;
mod control;
mod derivations;
mod fetch;
mod files;
mod hashes;
mod json;
mod lists;
mod numbers;
mod sets;
mod strings;
mod toml;
mod types;
pub mod xml;

pub use derivations::derivation_path;
pub use json::to_json;

use crate::compile::Globals;
use crate::eval::Evaluator;
use crate::failure::Result;
use crate::places::PlaceId;
use crate::value::{Attribute, Value};

/// A function of ours.
pub struct Builtin {
    /// Its name in `builtins`.
    pub name: &'static str,
    /// How many arguments it wants.
    pub arity: usize,
    /// Which arguments are looked at first and in any case, as bits: they need not be put off.
    pub strict: u8,
    /// Whether a failure says that it came up in this builtin.
    pub traced: bool,
    /// What it does.
    pub run: Run,
}

/// What a builtin does with as many arguments as it wants, called at some place.
pub type Run = fn(&Evaluator, &[Value], PlaceId) -> Result<Value>;

const fn builtin(name: &'static str, arity: usize, run: Run) -> Builtin {
    Builtin { name, arity, strict: strict_arguments(name), traced: true, run }
}

/// Arguments that are looked at whatever the others are, before anything else happens.
const STRICT: &[(&str, u8)] = &[
    ("all", 0b10),
    ("any", 0b10),
    ("attrNames", 0b1),
    ("attrValues", 0b1),
    ("catAttrs", 0b11),
    ("concatLists", 0b1),
    ("concatMap", 0b10),
    ("concatStringsSep", 0b11),
    ("derivationStrict", 0b1),
    ("elem", 0b10),
    ("elemAt", 0b11),
    ("filter", 0b10),
    ("foldl'", 0b100),
    ("functionArgs", 0b1),
    ("genericClosure", 0b1),
    ("getAttr", 0b11),
    ("groupBy", 0b10),
    ("hasAttr", 0b11),
    ("head", 0b1),
    ("intersectAttrs", 0b11),
    ("isAttrs", 0b1),
    ("isBool", 0b1),
    ("isFunction", 0b1),
    ("isInt", 0b1),
    ("isList", 0b1),
    ("isNull", 0b1),
    ("isPath", 0b1),
    ("isString", 0b1),
    ("length", 0b1),
    ("listToAttrs", 0b1),
    ("map", 0b10),
    ("mapAttrs", 0b10),
    ("partition", 0b10),
    ("removeAttrs", 0b11),
    ("replaceStrings", 0b11),
    ("seq", 0b1),
    ("sort", 0b10),
    ("stringLength", 0b1),
    ("substring", 0b100),
    ("tail", 0b1),
    ("toString", 0b1),
    ("typeOf", 0b1),
    ("zipAttrsWith", 0b10),
];

const fn strict_arguments(name: &str) -> u8 {
    let mut number = 0;
    while number < STRICT.len() {
        let (other, strict) = STRICT[number];
        if is_same(name.as_bytes(), other.as_bytes()) {
            return strict;
        }
        number += 1;
    }
    0
}

const fn is_same(left: &[u8], right: &[u8]) -> bool {
    let mut index = 0;
    while index < left.len() && index < right.len() && left[index] == right[index] {
        index += 1;
    }
    index == left.len() && index == right.len()
}

/// Values that arguments of builtins are at: Nix does not say where either, but where the call is.
const NOWHERE: PlaceId = PlaceId::NONE;

/// Those that are visible by their own name; all are by `__name`.
const BARE: &[&str] = &[
    "abort",
    "baseNameOf",
    "break",
    "derivation",
    "derivationStrict",
    "dirOf",
    "fetchGit",
    "fetchMercurial",
    "fetchTarball",
    "fetchTree",
    "fromTOML",
    "import",
    "isNull",
    "map",
    "placeholder",
    "removeAttrs",
    "scopedImport",
    "throw",
    "toString",
];

/// The version of Nix whose language this is.
pub const NIX_VERSION: &str = "2.34.8";

/// All functions.
fn tables() -> impl Iterator<Item = &'static Builtin> {
    [
        contexts::BUILTINS,
        control::BUILTINS,
        derivations::BUILTINS,
        fetch::BUILTINS,
        files::BUILTINS,
        hashes::BUILTINS,
        json::BUILTINS,
        lists::BUILTINS,
        numbers::BUILTINS,
        sets::BUILTINS,
        strings::BUILTINS,
        toml::BUILTINS,
        types::BUILTINS,
        xml::BUILTINS,
    ]
    .into_iter()
    .flatten()
}

/// Names that are visible everywhere.
pub fn globals(evaluator: &Evaluator) -> Globals {
    let mut globals = Globals::default();
    let mut builtins = Vec::new();
    let symbol = |name: &str| evaluator.symbols.intern(name.as_bytes());
    let mut both = |name: &'static str, value: Value| {
        builtins.push(Attribute::new(symbol(name), value));
        globals.insert(symbol(&format!("__{name}")), value);
        if BARE.contains(&name) {
            globals.insert(symbol(name), value);
        }
    };
    for builtin in tables().filter(|builtin| fetch::is_on(builtin.name, &evaluator.settings)) {
        both(builtin.name, Value::builtin(builtin));
    }
    both("langVersion", Value::integer(6));
    both("nixVersion", Value::string(NIX_VERSION));
    both("storeDir", Value::string(store::derivation::STORE_DIRECTORY));
    both("nixPath", files::search_path(evaluator));
    if let Some(system) = &evaluator.system {
        both("currentSystem", Value::string(system.as_str()));
    }
    if evaluator.sources.time.is_some() {
        // Asked for when it is used, as no evaluation that used it may be remembered.
        let time = |evaluator: &Evaluator| Ok(evaluator.sources.now().map_or(Value::NULL, Value::integer));
        both("currentTime", evaluator.native(std::rc::Rc::new(time)));
    }
    let derivation = |evaluator: &Evaluator| evaluator.internal("«nix-internal»/derivation-internal.nix", DERIVATION);
    both("derivation", evaluator.native(std::rc::Rc::new(derivation)));
    for (name, value) in [("true", Value::TRUE), ("false", Value::FALSE), ("null", Value::NULL)] {
        builtins.push(Attribute::new(symbol(name), value));
        globals.insert(symbol(name), value);
    }
    // `builtins.builtins` is `builtins`: a thunk that finds the set among the global names.
    let name = symbol("builtins");
    let itself = move |evaluator: &Evaluator| Ok(evaluator.globals.get(&name).copied().unwrap_or(Value::NULL));
    builtins.push(Attribute::new(name, evaluator.native(std::rc::Rc::new(itself))));
    globals.insert(name, Value::set(builtins));
    globals
}

/// `derivation`: the attributes it was given, for each output with that output's path; nothing is named before it is asked for.
const DERIVATION: &str = include_str!("builtins/derivation.nix");
