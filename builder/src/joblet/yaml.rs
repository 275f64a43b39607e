//! A YAML document as nodes that know where they stand.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::Finding;

/// One node.
#[derive(Debug, Clone)]
pub struct Node {
    /// In bytes.
    pub start: usize,
    /// In bytes.
    pub end: usize,
    /// The line it starts on, from 1.
    pub line: usize,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A text; plain ones may be numbers or nothing.
    Scalar {
        /// Its text.
        text: String,
        /// Written without quotes.
        plain: bool,
    },
    /// `- a`
    List(Vec<Node>),
    /// `a: b`, in the order written.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// Whether nothing is said: `key:`, `key: ~`, `key: null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What people call it.
    pub fn word(&self) -> &'static str {
        match &self.kind {
            _ if self.is_null() => "nothing",
            Kind::Scalar { .. } => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
}

/// More nodes than any description has; aliases could make any number.
const MOST: usize = 100_000;
/// Deeper than any description.
const DEEPEST: usize = 32;

/// Reads the one document of a text.
pub fn parse(text: &str) -> Result<Node, Finding> {
    let lines: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut reader = Reader { text, lines, parser: Parser::new_from_str(text), anchors: BTreeMap::new(), count: 0 };
    reader.document()
}

struct Reader<'a> {
    text: &'a str,
    /// Where each line starts.
    lines: Vec<usize>,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: BTreeMap<usize, Node>,
    count: usize,
}

impl<'a> Reader<'a> {
    /// The byte at a line (from 1) and column (from 0, in characters).
    fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let rest = &self.text[start..];
        start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
    }

    fn finding(&self, message: impl Into<String>, line: usize, column: usize) -> Finding {
        let start = self.offset(line, column).min(self.text.len());
        Finding { message: message.into(), start, end: start, hint: None, warning: false }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Finding> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let marker = *error.marker();
                Err(self.finding(format!("not YAML: {}", error.info()), marker.line(), marker.col()))
            }
            None => Err(self.finding("not YAML: it ends too early", usize::MAX, 0)),
        }
    }

    fn document(&mut self) -> Result<Node, Finding> {
        let mut found = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => {
                    return found.ok_or_else(|| self.finding("the file says nothing", 1, 0));
                }
                _ if found.is_some() => {
                    return Err(self.finding("a second document follows", span.start.line(), span.start.col()));
                }
                event => found = Some(self.node(event, span, 0)?),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Finding> {
        let (start, end) = (span.start, span.end);
        self.count += 1;
        if self.count > MOST || depth > DEEPEST {
            return Err(self.finding("this is too large for a description", start.line(), start.col()));
        }
        let mut node = Node {
            start: self.offset(start.line(), start.col()),
            end: self.offset(end.line(), end.col()),
            line: start.line(),
            kind: Kind::List(Vec::new()),
        };
        let anchor = match event {
            Event::Scalar(text, style, anchor, _) => {
                node.kind = Kind::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                anchor
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
                node.kind = Kind::List(items);
                anchor
            }
            Event::MappingStart(anchor, _) => {
                let mut entries = Vec::new();
                loop {
                    let key = match self.next()? {
                        (Event::MappingEnd, _) => break,
                        (event, span) => self.node(event, span, depth + 1)?,
                    };
                    let (event, span) = self.next()?;
                    entries.push((key, self.node(event, span, depth + 1)?));
                }
                node.kind = Kind::Map(entries);
                anchor
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let known = known.ok_or_else(|| self.finding("this names nothing", start.line(), start.col()))?;
                self.count += size(&known);
                node.kind = known.kind;
                0
            }
            _ => return Err(self.finding("not YAML", start.line(), start.col())),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }
}

fn size(node: &Node) -> usize {
    match &node.kind {
        Kind::Scalar { .. } => 1,
        Kind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|(key, value)| size(key) + size(value)).sum::<usize>(),
    }
}
