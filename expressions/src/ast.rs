//! What an expression looks like, before any name in it has a meaning.
//!
//! The tree is already a little smaller than the text: `a - b` is a call of `__sub`, `let { body = x; }` a selection from a
//! recursive set, attribute paths are nested sets. This is how Nix reads the language, and names such as `__sub` can be
//! shadowed there, so it shows.
//!
//! A [`Tree`] is a few vectors: expressions are 24 bytes each and name one another by their numbers ([`Node`]), lists of them
//! lie in one vector behind their lengths, texts without escapes are not copied out of the file. Nothing is freed piece by piece.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::error::SourceText;
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

/// The number of an expression in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node(NonZeroU32);

/// A list in a tree: of expressions, of the names of a path, or of the parts of a concatenation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List<T>(u32, std::marker::PhantomData<T>);

/// Some bytes: of the file, or made when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    start: u32,
    length: u32,
}

/// Marks texts that do not lie in the file, which is therefore shorter than this.
const MADE: u32 = 1 << 31;

/// What an expression is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `1`
    Integer(i64),
    /// `1.5`
    Float(f64),
    /// `"text"` without interpolation, or a URI.
    String(Text),
    /// `./path`, made absolute; a slash at the end stays when an interpolation follows.
    Path(Text),
    /// `x`
    Variable(Symbol),
    /// `__curPos`
    Position,
    /// `a + b`, or a text with interpolations, which is `forced` to be a string.
    Concatenation {
        /// The result is a string even if the first part is a number or path.
        forced: bool,
        /// What is put together, each with the place of its operand.
        parts: List<Part>,
    },
    /// `set.a.b or fallback`
    Select {
        /// What is selected from.
        from: Node,
        /// At least one name.
        path: List<Name>,
        /// The value if any of it is missing.
        fallback: Option<Node>,
    },
    /// `set ? a.b`
    Has {
        /// What is asked.
        from: Node,
        /// At least one name.
        path: List<Name>,
    },
    /// `{ … }` and `rec { … }`: see [`Tree::attributes`].
    Attributes(u32),
    /// `[ … ]`
    List(List<Node>),
    /// `x: body`: see [`Tree::lambda`].
    Lambda(u32),
    /// `function a b`
    Call {
        /// What is called.
        function: Node,
        /// At least one.
        arguments: List<Node>,
    },
    /// `let … in body`
    Let(u32, Node),
    /// `with set; body`
    With(Node, Node),
    /// `if a then b else c`
    If(Node, Node, Node),
    /// `assert condition; body`
    Assert(Node, Node),
    /// `!a`
    Not(Node),
    /// `a && b` and the like.
    Binary(Operator, Node, Node),
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Known from the text.
    Static(Symbol),
    /// `${expression}`
    Dynamic(Node),
}

/// Something that is put together with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it is written.
    pub span: Span,
    /// What it is.
    pub node: Node,
}

/// How an attribute got its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `a = …;`
    Plain,
    /// `inherit a;`
    Inherited,
    /// `inherit (…) a;`, with the number of the expression in parentheses.
    InheritedFrom(u32),
}

/// One attribute.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    /// Its name.
    pub name: Symbol,
    /// Where it is defined.
    pub span: Span,
    /// How.
    pub origin: Origin,
    /// Its value; for an inherited one, the variable of this name; for one inherited from a set, that set's place only.
    pub value: Node,
}

/// The attributes of a set or `let`.
#[derive(Debug, Default)]
pub struct Attributes {
    /// They see one another.
    pub recursive: bool,
    /// Those with names known from the text, as they come in it.
    pub entries: Vec<Attribute>,
    /// The others: name, value, place.
    pub dynamic: Vec<(Node, Node, Span)>,
    /// What attributes are inherited from.
    pub sources: Vec<Node>,
}

/// A function.
#[derive(Debug, Clone, Copy)]
pub struct Lambda {
    /// What it was called where it was defined.
    pub name: Option<Symbol>,
    /// `x:` or the `x` of `x@{ … }:`
    pub argument: Option<(Symbol, Span)>,
    /// `{ … }:`
    pub formals: Option<Formals>,
    /// What it gives.
    pub body: Node,
}

/// The attributes that a function wants: see [`Tree::formals`].
#[derive(Debug, Clone, Copy)]
pub struct Formals {
    start: u32,
    count: u32,
    /// Others may be there.
    pub ellipsis: bool,
}

/// One attribute that a function wants.
#[derive(Debug, Clone, Copy)]
pub struct Formal {
    /// Its name.
    pub name: Symbol,
    /// Where it is written.
    pub span: Span,
    /// What it is otherwise.
    pub default: Option<Node>,
}

/// An expression with all that is in it.
#[derive(Debug)]
pub struct Tree {
    /// Whence it was read.
    pub source: Arc<SourceText>,
    /// The whole of it.
    pub root: Node,
    nodes: Vec<(Kind, Span)>,
    /// Lists: each behind its length.
    lists: Vec<u32>,
    sets: Vec<Attributes>,
    lambdas: Vec<Lambda>,
    formals: Vec<Formal>,
    /// Texts that are not in the file as they are meant.
    made: Vec<u8>,
}

/// So many bytes may a text have, lest there be too many nodes or words in lists to be counted: there are at most four for a byte.
pub const LONGEST: usize = 512 << 20;

/// How much of a file is how much of a tree, roughly, so that nothing grows while it is read.
const BYTES_PER_NODE: usize = 10;

impl Tree {
    /// An empty tree for a text, which is no longer than [`LONGEST`].
    pub(crate) fn new(source: Arc<SourceText>) -> Self {
        let size = source.bytes.len();
        let mut nodes = Vec::with_capacity(size / BYTES_PER_NODE + 8);
        // Number 0 is nobody's.
        nodes.push((Kind::Position, Span::default()));
        Self {
            source,
            root: Node(NonZeroU32::MIN),
            nodes,
            lists: Vec::with_capacity(size / BYTES_PER_NODE + 8),
            sets: Vec::new(),
            lambdas: Vec::new(),
            formals: Vec::new(),
            made: Vec::new(),
        }
    }

    /// What an expression is.
    #[inline]
    pub fn kind(&self, node: Node) -> Kind {
        self.nodes[node.0.get() as usize].0
    }

    /// The place that messages about an expression point at (for an operator, the operator alone).
    #[inline]
    pub fn span(&self, node: Node) -> Span {
        self.nodes[node.0.get() as usize].1
    }

    /// How many expressions there are, each numbered below that.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// Some bytes.
    #[inline]
    pub fn text(&self, text: Text) -> &[u8] {
        let length = text.length as usize;
        if text.start >= MADE {
            let start = (text.start - MADE) as usize;
            &self.made[start..start + length]
        } else {
            &self.source.bytes[text.start as usize..][..length]
        }
    }

    #[inline]
    fn list(&self, start: u32) -> &[u32] {
        let start = start as usize;
        &self.lists[start + 1..][..self.lists[start] as usize]
    }

    /// The expressions of a list.
    #[inline]
    pub fn items(&self, list: List<Node>) -> impl DoubleEndedIterator<Item = Node> + ExactSizeIterator + Clone {
        self.list(list.0).iter().map(|number| node(*number))
    }

    /// The names of a path.
    #[inline]
    pub fn names(&self, path: List<Name>) -> impl DoubleEndedIterator<Item = Name> + ExactSizeIterator + Clone {
        self.list(path.0).iter().map(|code| match code & 1 {
            0 => Name::Static(Symbol::from_number(code >> 1)),
            _ => Name::Dynamic(node(code >> 1)),
        })
    }

    /// The parts of a concatenation.
    #[inline]
    pub fn parts(&self, parts: List<Part>) -> impl DoubleEndedIterator<Item = Part> + ExactSizeIterator + Clone {
        self.list(parts.0)
            .chunks_exact(3)
            .map(|part| Part { span: Span { start: part[0], end: part[1] }, node: node(part[2]) })
    }

    /// The attributes of a set or `let`.
    #[inline]
    pub fn attributes(&self, number: u32) -> &Attributes {
        &self.sets[number as usize]
    }

    /// A function.
    #[inline]
    pub fn lambda(&self, number: u32) -> &Lambda {
        &self.lambdas[number as usize]
    }

    /// What a function wants, as it comes in the text.
    #[inline]
    pub fn formals(&self, formals: Formals) -> &[Formal] {
        &self.formals[formals.start as usize..][..formals.count as usize]
    }

    // What follows is for the parser.

    #[inline]
    pub(crate) fn add(&mut self, kind: Kind, span: Span) -> Node {
        let number = self.nodes.len() as u32;
        self.nodes.push((kind, span));
        node(number)
    }

    #[inline]
    pub(crate) fn add_items(&mut self, items: &[Node]) -> List<Node> {
        let start = self.lists.len() as u32;
        self.lists.push(items.len() as u32);
        self.lists.extend(items.iter().map(|item| item.0.get()));
        List(start, std::marker::PhantomData)
    }

    #[inline]
    pub(crate) fn add_names(&mut self, names: &[Name]) -> List<Name> {
        let start = self.lists.len() as u32;
        self.lists.push(names.len() as u32);
        self.lists.extend(names.iter().map(|name| match name {
            Name::Static(symbol) => symbol.number() << 1,
            Name::Dynamic(node) => node.0.get() << 1 | 1,
        }));
        List(start, std::marker::PhantomData)
    }

    #[inline]
    pub(crate) fn add_parts(&mut self, parts: &[Part]) -> List<Part> {
        let start = self.lists.len() as u32;
        self.lists.push(3 * parts.len() as u32);
        self.lists.extend(parts.iter().flat_map(|part| [part.span.start, part.span.end, part.node.0.get()]));
        List(start, std::marker::PhantomData)
    }

    pub(crate) fn add_attributes(&mut self, attributes: Attributes) -> u32 {
        self.sets.push(attributes);
        self.sets.len() as u32 - 1
    }

    pub(crate) fn attributes_mut(&mut self, number: u32) -> &mut Attributes {
        &mut self.sets[number as usize]
    }

    pub(crate) fn add_lambda(&mut self, lambda: Lambda) -> u32 {
        self.lambdas.push(lambda);
        self.lambdas.len() as u32 - 1
    }

    pub(crate) fn add_formals(&mut self, formals: &[Formal], ellipsis: bool) -> Formals {
        let start = self.formals.len() as u32;
        self.formals.extend_from_slice(formals);
        Formals { start, count: formals.len() as u32, ellipsis }
    }

    /// A text that lies in the file.
    #[inline]
    pub(crate) fn slice(&self, span: Span) -> Text {
        Text { start: span.start, length: span.end - span.start }
    }

    /// Where the bytes of a text that does not are put; [`Tree::made`] gives the text from there to the end.
    pub(crate) fn making(&mut self) -> &mut Vec<u8> {
        &mut self.made
    }

    /// A text that was made. All of these together are hardly longer than the file: none if they are too long.
    pub(crate) fn made(&self, start: usize) -> Option<Text> {
        let length = u32::try_from(self.made.len() - start).ok()?;
        let start = u32::try_from(start).ok().filter(|start| *start < MADE)?;
        Some(Text { start: start + MADE, length })
    }

    /// Tells functions what they are called.
    pub(crate) fn set_name(&mut self, mut node: Node, name: Symbol) {
        while let Kind::Lambda(number) = self.kind(node) {
            let lambda = &mut self.lambdas[number as usize];
            lambda.name = Some(name);
            node = lambda.body;
        }
    }
}

#[inline]
fn node(number: u32) -> Node {
    // Only numbers of expressions are stored, and 0 is nobody's; a text below 2 GiB has fewer than 2³¹ of them.
    Node(NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN))
}
