//! An expression whose names have a meaning: what the evaluator carries out.

use std::rc::Rc;

use crate::ast::Operator;
use crate::places::PlaceId;
use crate::symbols::Symbol;
use crate::value::Value;

/// Something to evaluate.
pub enum Code {
    /// Known already.
    Constant(Value),
    /// A name of the scope this many levels out, in this slot.
    Variable(u32, u32, PlaceId),
    /// A name that only `with` can explain: the sets are this many levels out, innermost first.
    FromWith(Symbol, Box<[(u32, PlaceId)]>, PlaceId),
    /// `__curPos`
    Position(PlaceId),
    /// `a + b` and texts with interpolations.
    Concatenation(Box<ConcatenationCode>),
    /// `set.a.b or fallback`
    Select(Box<SelectCode>),
    /// `set ? a.b`
    Has(Rc<Code>, Box<[NameCode]>),
    /// `{ … }`
    Set(Box<SetCode>),
    /// `[ … ]`
    List(Box<[Rc<Code>]>),
    /// `x: …`
    Lambda(Rc<LambdaCode>),
    /// `f a b`
    Call(Rc<Code>, Box<[Rc<Code>]>, PlaceId),
    /// `let … in …`
    Let(Box<SetCode>, Rc<Code>),
    /// `with …; …`
    With(Rc<Code>, Rc<Code>, PlaceId),
    /// `if … then … else …`
    If(Box<[Rc<Code>; 3]>, PlaceId),
    /// `assert …; …`, with the text of the condition.
    Assert(Rc<Code>, Rc<Code>, PlaceId, Box<str>),
    /// `!a`
    Not(Rc<Code>),
    /// `a && b` and the like.
    Binary(Operator, Rc<Code>, Rc<Code>, PlaceId),
}

/// `a + b` and texts with interpolations.
pub struct ConcatenationCode {
    /// The result is a string.
    pub forced: bool,
    /// What is put together.
    pub parts: Vec<(PlaceId, Rc<Code>)>,
    /// Where.
    pub place: PlaceId,
}

/// `set.a.b or fallback`
pub struct SelectCode {
    /// What is selected from.
    pub from: Rc<Code>,
    /// What is selected.
    pub path: Box<[NameCode]>,
    /// The value otherwise.
    pub fallback: Option<Rc<Code>>,
    /// Where.
    pub place: PlaceId,
}

/// A component of an attribute path.
pub enum NameCode {
    /// Known.
    Static(Symbol),
    /// To be evaluated; with its text.
    Dynamic(Rc<Code>, Box<str>),
}

/// Where an attribute's value is evaluated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// In the set's own scope, if it is recursive.
    Inside,
    /// Around the set.
    Outside,
    /// In the scope of what the set inherits from.
    Sources,
}

/// An attribute of a set.
pub struct EntryCode {
    /// Its name.
    pub name: Symbol,
    /// Where it is defined.
    pub place: PlaceId,
    /// What its value sees.
    pub sees: Where,
    /// Its value.
    pub code: Rc<Code>,
}

/// The attributes of a set or `let`.
pub struct SetCode {
    /// They see one another.
    pub recursive: bool,
    /// In order of their symbols; their numbers are their slots.
    pub entries: Vec<EntryCode>,
    /// Names, values, places.
    pub dynamic: Vec<(Rc<Code>, Rc<Code>, PlaceId)>,
    /// What is inherited from.
    pub sources: Vec<Rc<Code>>,
    /// Which entry is `__overrides`.
    pub overrides: Option<usize>,
    /// Where.
    pub place: PlaceId,
}

/// A function.
pub struct LambdaCode {
    /// What it is called.
    pub name: Option<Symbol>,
    /// The name of the whole argument.
    pub argument: Option<Symbol>,
    /// What attributes it wants.
    pub formals: Option<FormalsCode>,
    /// How many slots its scope has.
    pub slots: usize,
    /// What it gives.
    pub body: Rc<Code>,
    /// Where.
    pub place: PlaceId,
}

/// What attributes a function wants.
pub struct FormalsCode {
    /// In order of their symbols.
    pub list: Vec<FormalCode>,
    /// Others may be there.
    pub ellipsis: bool,
}

/// One of them.
pub struct FormalCode {
    /// Its name.
    pub name: Symbol,
    /// Its value otherwise.
    pub default: Option<Rc<Code>>,
    /// Where.
    pub place: PlaceId,
}

impl FormalsCode {
    /// The same again, with the same defaults.
    pub fn share(&self) -> Self {
        let list = self.list.iter().map(|formal| FormalCode {
            name: formal.name,
            default: formal.default.clone(),
            place: formal.place,
        });
        Self { list: list.collect(), ellipsis: self.ellipsis }
    }

    /// Whether an attribute of this name is wanted.
    pub fn has(&self, name: Symbol) -> bool {
        self.list.binary_search_by_key(&name, |formal| formal.name).is_ok()
    }
}

impl Code {
    /// Where messages about it point; nowhere for what is a mere value, as in Nix.
    pub fn place(&self) -> PlaceId {
        match self {
            Self::Constant(_) | Self::Let(..) => PlaceId::NONE,
            Self::Variable(_, _, place)
            | Self::FromWith(_, _, place)
            | Self::Position(place)
            | Self::Call(_, _, place)
            | Self::If(_, place)
            | Self::Assert(_, _, place, _)
            | Self::With(_, _, place)
            | Self::Binary(_, _, _, place) => *place,
            Self::Concatenation(code) => code.place,
            Self::Select(code) => code.place,
            Self::Set(code) => code.place,
            Self::Lambda(code) => code.place,
            Self::Has(from, _) => from.place(),
            Self::Not(operand) => operand.place(),
            Self::List(items) => items.first().map_or(PlaceId::NONE, |item| item.place()),
        }
    }
}
