//! What an expression looks like, before any name in it has a meaning.
//!
//! The tree is already a little smaller than the text: `a - b` is a call of `__sub`, `let { body = x; }` a selection from a
//! recursive set, attribute paths are nested sets. This is how Nix reads the language, and names such as `__sub` can be
//! shadowed there, so it shows.

use std::collections::HashMap;

use crate::symbols::Symbol;

/// A stretch of the text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// From the start of this to the end of that.
    pub fn to(self, end: Self) -> Self {
        Self { start: self.start, end: end.end }
    }
}

/// An expression and the place that messages about it point at (for an operator, the operator alone).
#[derive(Debug, Clone)]
pub struct Expression {
    /// What it is.
    pub kind: Kind,
    /// Where messages point.
    pub span: Span,
}

/// What an expression is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// `1`
    Integer(i64),
    /// `1.5`
    Float(f64),
    /// `"text"` without interpolation, or a URI.
    String(Vec<u8>),
    /// `./path`, made absolute; a slash at the end stays when an interpolation follows.
    Path(Vec<u8>),
    /// `x`
    Variable(Symbol),
    /// `__curPos`
    Position,
    /// `a + b`, or a text with interpolations, which is `forced` to be a string.
    Concatenation {
        /// The result is a string even if the first part is a number or path.
        forced: bool,
        /// What is put together, each with the place of its operand.
        parts: Vec<(Span, Expression)>,
    },
    /// `set.a.b or fallback`
    Select {
        /// What is selected from.
        from: Box<Expression>,
        /// At least one name.
        path: Vec<Name>,
        /// The value if any of it is missing.
        fallback: Option<Box<Expression>>,
    },
    /// `set ? a.b`
    Has {
        /// What is asked.
        from: Box<Expression>,
        /// At least one name.
        path: Vec<Name>,
    },
    /// `{ … }` and `rec { … }`
    Attributes(Box<Attributes>),
    /// `[ … ]`
    List(Vec<Expression>),
    /// `x: body`
    Lambda(Box<Lambda>),
    /// `function a b`
    Call {
        /// What is called.
        function: Box<Expression>,
        /// At least one.
        arguments: Vec<Expression>,
    },
    /// `let … in body`
    Let(Box<Attributes>, Box<Expression>),
    /// `with set; body`
    With(Box<Expression>, Box<Expression>),
    /// `if a then b else c`
    If(Box<[Expression; 3]>),
    /// `assert condition; body`
    Assert(Box<Expression>, Box<Expression>),
    /// `!a`
    Not(Box<Expression>),
    /// `a && b` and the like.
    Binary(Operator, Box<Expression>, Box<Expression>),
}

/// Operators that are not functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `&&`
    And,
    /// `||`
    Or,
    /// `->`
    Implies,
    /// `//`
    Update,
    /// `++`
    ConcatenateLists,
}

impl Operator {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::And => "&&",
            Self::Or => "||",
            Self::Implies => "->",
            Self::Update => "//",
            Self::ConcatenateLists => "++",
        }
    }
}

/// A component of an attribute path.
#[derive(Debug, Clone)]
pub enum Name {
    /// Known from the text.
    Static(Symbol),
    /// `${expression}`
    Dynamic(Expression),
}

/// How an attribute got its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `a = …;`
    Plain,
    /// `inherit a;`
    Inherited,
    /// `inherit (…) a;`, with the number of the expression in parentheses.
    InheritedFrom(usize),
}

/// One attribute.
#[derive(Debug, Clone)]
pub struct Attribute {
    /// Its name.
    pub name: Symbol,
    /// Where it is defined.
    pub span: Span,
    /// How.
    pub origin: Origin,
    /// Its value; for an inherited one, the variable of this name; for one inherited from a set, that set's place only.
    pub value: Expression,
}

/// The attributes of a set or `let`.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    /// They see one another.
    pub recursive: bool,
    /// Those with names known from the text, as they come in it.
    pub entries: Vec<Attribute>,
    /// The others: name, value, place.
    pub dynamic: Vec<(Expression, Expression, Span)>,
    /// What attributes are inherited from.
    pub sources: Vec<Expression>,
    index: HashMap<Symbol, usize>,
}

/// Sets up to this size are searched from front to back, which for so few is faster than hashing.
const SMALL: usize = 12;

impl Attributes {
    /// Which entry has this name.
    pub fn find(&self, name: Symbol) -> Option<usize> {
        if self.entries.len() <= SMALL {
            self.entries.iter().position(|entry| entry.name == name)
        } else {
            self.index.get(&name).copied()
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.dynamic.is_empty() && self.sources.is_empty()
    }

    /// Adds an entry whose name is not there yet.
    pub fn push(&mut self, entry: Attribute) {
        if self.entries.len() == SMALL {
            self.index = self.entries.iter().enumerate().map(|(number, entry)| (entry.name, number)).collect();
        }
        if self.entries.len() >= SMALL {
            self.index.insert(entry.name, self.entries.len());
        }
        self.entries.push(entry);
    }
}

/// A function.
#[derive(Debug, Clone)]
pub struct Lambda {
    /// What it was called where it was defined.
    pub name: Option<Symbol>,
    /// `x:` or the `x` of `x@{ … }:`
    pub argument: Option<(Symbol, Span)>,
    /// `{ … }:`
    pub formals: Option<Formals>,
    /// What it gives.
    pub body: Expression,
}

/// The attributes that a function wants.
#[derive(Debug, Clone)]
pub struct Formals {
    /// In order of their symbols.
    pub list: Vec<Formal>,
    /// Others may be there.
    pub ellipsis: bool,
}

/// One attribute that a function wants.
#[derive(Debug, Clone)]
pub struct Formal {
    /// Its name.
    pub name: Symbol,
    /// Where it is written.
    pub span: Span,
    /// What it is otherwise.
    pub default: Option<Expression>,
}

impl Expression {
    /// Tells functions what they are called.
    pub fn set_name(&mut self, name: Symbol) {
        let mut expression = self;
        while let Kind::Lambda(lambda) = &mut expression.kind {
            lambda.name = Some(name);
            expression = &mut lambda.body;
        }
    }
}
