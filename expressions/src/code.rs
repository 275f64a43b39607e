//! An expression whose names have a meaning: what the evaluator carries out. It lies where values do, two words to a node.

use crate::ast::Operator;
use crate::builtins::Builtin;
use crate::heap::{Bytes, Guess, Keys, Ref, Slice, Value};
use crate::places::PlaceId;
use crate::symbols::Symbol;

/// Something to evaluate.
#[derive(Clone, Copy)]
pub enum Code {
    /// Known already.
    Constant(Value),
    /// A name of the scope this many levels out, in this slot.
    Variable(u16, u32, PlaceId),
    /// A name so many levels out that the number does not fit above.
    FarVariable(Ref<(u32, u32, PlaceId)>),
    /// A name that only `with` can explain.
    FromWith(Ref<FromWithCode>),
    /// `__curPos`
    Position(PlaceId),
    /// Texts with interpolations, and sums of more than two parts.
    Concatenation(Ref<ConcatenationCode>),
    /// `a + b`
    Add(Ref<BinaryCode>),
    /// `set.a.b or fallback`
    Select(Ref<SelectCode>),
    /// `set ? a.b`
    Has(Ref<HasCode>),
    /// `{ … }`
    Set(Ref<SetCode>),
    /// `[ … ]`
    List(Ref<Slice<Code>>),
    /// `x: …`
    Lambda(Ref<LambdaCode>),
    /// `f a b`
    Call(Ref<CallCode>),
    /// A builtin of two arguments, which mostly are integers: `a < b`, `a - b` and the like.
    Arithmetic(Ref<ArithmeticCode>),
    /// `let … in …`
    Let(Ref<LetCode>),
    /// `with …; …`
    With(Ref<WithCode>),
    /// `if … then … else …`
    If(Ref<IfCode>),
    /// `assert …; …`, with the text of the condition.
    Assert(Ref<AssertCode>),
    /// `!a`
    Not(Ref<Code>),
    /// `a && b` and the like.
    Binary(Operator, Ref<BinaryCode>),
    /// Code so deep inside other code that the stack is to be looked at before it is evaluated.
    Deep(Ref<Code>),
}

/// A name that only `with` can explain.
pub struct FromWithCode {
    /// The name.
    pub name: Symbol,
    /// The sets are this many levels out, innermost first.
    pub withs: Slice<(u32, PlaceId)>,
    /// Where.
    pub place: PlaceId,
    /// Where it was found last.
    pub guess: Guess,
}

/// `a + b` and texts with interpolations.
pub struct ConcatenationCode {
    /// The result is a string.
    pub forced: bool,
    /// What is put together.
    pub parts: Slice<(PlaceId, Code)>,
    /// Where.
    pub place: PlaceId,
}

/// What an operator is between.
pub struct BinaryCode {
    /// Before it.
    pub left: Code,
    /// Behind it.
    pub right: Code,
    /// Where.
    pub place: PlaceId,
    /// Where the operands are, for `+`.
    pub operands: (PlaceId, PlaceId),
}

/// `set.a.b or fallback`
pub struct SelectCode {
    /// What is selected from.
    pub from: Code,
    /// What is selected.
    pub name: NameCode,
    /// What few have.
    pub more: Option<Ref<MoreSelectCode>>,
    /// Where.
    pub place: PlaceId,
}

/// `.b or fallback`
pub struct MoreSelectCode {
    /// The names after the first.
    pub path: Slice<NameCode>,
    /// The value otherwise.
    pub fallback: Option<Code>,
}

impl SelectCode {
    /// The names.
    pub fn path(&self) -> impl Iterator<Item = &NameCode> {
        let others = self.more.as_ref().map(|more| more.path.iter());
        std::iter::once(&self.name).chain(others.into_iter().flatten())
    }

    /// The only name, if there is one.
    #[inline]
    pub fn only(&self) -> Option<&NameCode> {
        match &self.more {
            None => Some(&self.name),
            Some(more) => more.path.is_empty().then_some(&self.name),
        }
    }

    /// The value otherwise.
    pub fn fallback(&self) -> Option<&Code> {
        self.more.as_ref()?.fallback.as_ref()
    }
}

/// `set ? a.b`
pub struct HasCode {
    /// The set.
    pub from: Code,
    /// The names.
    pub path: Slice<NameCode>,
}

/// A component of an attribute path.
pub enum NameCode {
    /// Known; with where it was found last.
    Static(Symbol, Guess),
    /// To be evaluated; with its text.
    Dynamic(Ref<(Code, Bytes)>),
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

/// An attribute whose name is worked out.
pub struct DynamicCode {
    /// The name.
    pub name: Code,
    /// The value.
    pub value: Code,
    /// Where.
    pub place: PlaceId,
}

/// The attributes of a set or `let`.
pub struct SetCode {
    /// They see one another.
    pub recursive: bool,
    /// What all values see; none where they see different things, which is then with what few sets have.
    pub sees: Option<Where>,
    /// The names that are known, and where the set is.
    pub keys: Ref<Keys>,
    /// Their values; their numbers are their slots.
    pub entries: Slice<Code>,
    /// What few have.
    pub more: Option<Ref<MoreSetCode>>,
}

/// What few sets have.
#[derive(Default)]
pub struct MoreSetCode {
    /// Names, values, places.
    pub dynamic: Slice<DynamicCode>,
    /// What is inherited from.
    pub sources: Slice<Code>,
    /// Which entry is `__overrides`.
    pub overrides: Option<u32>,
    /// What each value sees.
    pub sees: Slice<Where>,
}

impl SetCode {
    /// What the value of this number sees.
    #[inline(always)]
    pub fn sees(&self, number: usize) -> Where {
        match (self.sees, &self.more) {
            (Some(sees), _) => sees,
            (None, Some(more)) => more.sees[number],
            (None, None) => Where::Inside,
        }
    }

    /// Attributes whose names are worked out.
    #[inline]
    pub fn dynamic(&self) -> Slice<DynamicCode> {
        self.more.as_ref().map_or_else(Slice::default, |more| more.dynamic)
    }

    /// What is inherited from.
    #[inline]
    pub fn sources(&self) -> Slice<Code> {
        self.more.as_ref().map_or_else(Slice::default, |more| more.sources)
    }
}

/// A function.
#[derive(Clone, Copy)]
pub struct LambdaCode {
    /// What it is called.
    pub name: Option<Symbol>,
    /// The name of the whole argument.
    pub argument: Option<Symbol>,
    /// What attributes it wants.
    pub formals: Option<Ref<FormalsCode>>,
    /// How many slots its scope has, those of a `let` that is its body included.
    pub slots: u32,
    /// How many of them come from the function whose body this one is: their scopes are one, and have all of these names.
    pub before: u32,
    /// Which argument is evaluated before anything else, where it is certain: its number, counted from this function's own on
    /// through those that the functions directly inside it want, and how many arguments there must be.
    pub first: Option<(u8, u8)>,
    /// What it gives.
    pub body: Ref<Code>,
    /// Where.
    pub place: PlaceId,
}

/// What attributes a function wants.
pub struct FormalsCode {
    /// In order of their symbols.
    pub list: Slice<FormalCode>,
    /// Others may be there.
    pub ellipsis: bool,
}

/// One of them.
pub struct FormalCode {
    /// Its name.
    pub name: Symbol,
    /// Its value otherwise.
    pub default: Option<Code>,
    /// Where.
    pub place: PlaceId,
    /// Where it was found last.
    pub guess: Guess,
}

/// `f a b`
pub struct CallCode {
    /// The function.
    pub function: Code,
    /// The arguments.
    pub arguments: Slice<Code>,
    /// Where.
    pub place: PlaceId,
}

/// What an arithmetic builtin does with two integers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// `a < b`
    Less,
    /// `a - b`
    Subtract,
    /// `a * b`
    Multiply,
    /// `a / b`
    Divide,
}

/// A builtin of two arguments.
pub struct ArithmeticCode {
    /// What it does with integers.
    pub operation: Arithmetic,
    /// What does all the rest.
    pub builtin: &'static Builtin,
    /// The arguments.
    pub operands: [Code; 2],
    /// Where.
    pub place: PlaceId,
}

/// `let … in …`
pub struct LetCode {
    /// The names.
    pub set: SetCode,
    /// Of what is a function's body: its names are in the function's scope, from this slot on.
    pub from: Option<u32>,
    /// What sees them.
    pub body: Code,
}

/// `with …; …`
pub struct WithCode {
    /// The set.
    pub set: Code,
    /// What sees it.
    pub body: Code,
    /// Where.
    pub place: PlaceId,
}

/// `if … then … else …`
pub struct IfCode {
    /// Decides.
    pub condition: Code,
    /// If so.
    pub yes: Code,
    /// If not.
    pub no: Code,
    /// Where.
    pub place: PlaceId,
}

/// `assert …; …`
pub struct AssertCode {
    /// What must hold.
    pub condition: Code,
    /// Its text.
    pub text: Bytes,
    /// The value then.
    pub body: Code,
    /// Where.
    pub place: PlaceId,
}

impl LambdaCode {
    /// Which of so many arguments are evaluated at once, as bits.
    #[inline]
    pub fn strict(&self, count: usize) -> u8 {
        match self.first {
            Some((number, wanted)) if usize::from(wanted) <= count => 1 << number,
            _ => 0,
        }
    }
}

impl FormalsCode {
    /// Whether an attribute of this name is wanted.
    pub fn has(&self, name: Symbol) -> bool {
        self.list.binary_search_by_key(&name, |formal| formal.name).is_ok()
    }
}

impl Code {
    /// The code, however deep it is.
    pub fn shallow(&self) -> &Self {
        match self {
            Self::Deep(code) => code,
            code => code,
        }
    }

    /// Where messages about it point; nowhere for what is a mere value, as in Nix.
    pub fn place(&self) -> PlaceId {
        match self {
            Self::Constant(_) | Self::Let(_) => PlaceId::NONE,
            Self::Variable(_, _, place) | Self::Position(place) => *place,
            Self::FarVariable(variable) => variable.2,
            Self::FromWith(code) => code.place,
            Self::Call(code) => code.place,
            Self::Arithmetic(code) => code.place,
            Self::If(code) => code.place,
            Self::Assert(code) => code.place,
            Self::With(code) => code.place,
            Self::Add(code) | Self::Binary(_, code) => code.place,
            Self::Concatenation(code) => code.place,
            Self::Select(code) => code.place,
            Self::Set(code) => code.keys.set_place,
            Self::Lambda(code) => code.place,
            Self::Has(code) => code.from.place(),
            Self::Not(operand) => operand.place(),
            Self::Deep(code) => code.place(),
            Self::List(items) => items.first().map_or(PlaceId::NONE, Self::place),
        }
    }
}
