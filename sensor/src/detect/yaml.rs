//! YAML text in, a tree of nodes with line and column out.
//!
//! Built on the parser's events rather than on a loaded document: depth, number of nodes, duplicate keys, anchors and
//! tags are judged while the tree grows, so no input can blow it up, and every mistake has its place. Anchors, aliases
//! and tags are refused: rule files need none of them, and an alias would give a node two places.

use std::path::Path;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::error::{RuleError, quoted};

/// Deepest nesting.
const DEPTH_MAX: usize = 32;
/// Most nodes of one file.
const NODES_MAX: usize = 20_000;

/// Where something stands, from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
}

impl From<Marker> for Place {
    fn from(marker: Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// A node with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub at: Place,
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Any scalar as written; `style` tells `~` from `"~"`.
    Scalar {
        text: String,
        style: ScalarStyle,
    },
    Sequence(Vec<Node>),
    /// In file order, keys unique.
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub at: Place,
    pub text: String,
}

impl Node {
    /// True for an empty, `~` or `null` plain scalar (YAML 1.2 core schema).
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, style: ScalarStyle::Plain }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What kind of node it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}

/// Takes mistakes in one file.
pub(super) struct Mistakes<'f> {
    file: &'f Path,
    pub list: Vec<RuleError>,
}

impl<'f> Mistakes<'f> {
    pub fn new(file: &'f Path) -> Self {
        Self { file, list: Vec::new() }
    }

    pub fn add(&mut self, at: Place, message: impl Into<String>, fix: impl Into<String>) {
        self.list.push(RuleError {
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            message: message.into(),
            fix: fix.into(),
        });
    }
}

/// A collection that is still growing.
enum Open {
    Sequence(Place, Vec<Node>),
    Mapping(Place, Vec<(Key, Node)>, Pending),
}

/// What a growing mapping waits for.
enum Pending {
    Key,
    Value(Key),
    /// The value of a key that was refused.
    Refused,
}

struct Builder<'m, 'f> {
    stack: Vec<Open>,
    documents: Vec<Node>,
    nodes: usize,
    mistakes: &'m mut Mistakes<'f>,
}

/// The documents of `text`; empty ones are left out. Mistakes go to `mistakes`; after a syntax error, or past a bound,
/// the rest of the file is not looked at and nothing is returned.
pub(super) fn documents(text: &str, mistakes: &mut Mistakes<'_>) -> Vec<Node> {
    let mut builder = Builder { stack: Vec::new(), documents: Vec::new(), nodes: 0, mistakes };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let keep_going = match event {
            Ok((event, span)) => builder.take(event, span.start.into()),
            Err(error) => {
                let message = format!("not YAML: {}", error.info());
                builder.mistakes.add((*error.marker()).into(), message, "Correct the syntax (YAML 1.2)");
                false
            }
        };
        if !keep_going {
            return Vec::new();
        }
    }
    builder.documents
}

impl Builder<'_, '_> {
    /// False: stop here.
    fn take(&mut self, event: Event<'_>, at: Place) -> bool {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
            Event::Alias(_) => {
                self.mistakes.add(at, "aliases are not supported in rule files", "Write the value out");
                self.put(Node { at, value: Value::Scalar { text: String::new(), style: ScalarStyle::Plain } });
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.decorated(at, anchor, tag.is_some());
                self.put(Node { at, value: Value::Scalar { text: text.into_owned(), style } });
            }
            Event::SequenceStart(anchor, tag) => {
                self.decorated(at, anchor, tag.is_some());
                self.stack.push(Open::Sequence(at, Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.decorated(at, anchor, tag.is_some());
                self.stack.push(Open::Mapping(at, Vec::new(), Pending::Key));
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::Sequence(at, items)) => self.put(Node { at, value: Value::Sequence(items) }),
                Some(Open::Mapping(at, entries, _)) => self.put(Node { at, value: Value::Mapping(entries) }),
                None => {}
            },
        }
        self.within_bounds(at)
    }

    fn decorated(&mut self, at: Place, anchor: usize, tagged: bool) {
        if anchor > 0 {
            self.mistakes.add(at, "anchors are not supported in rule files", "Remove the `&name`");
        }
        if tagged {
            self.mistakes.add(at, "tags are not supported in rule files", "Remove the `!tag`");
        }
    }

    fn within_bounds(&mut self, at: Place) -> bool {
        self.nodes += 1;
        if self.stack.len() > DEPTH_MAX {
            self.mistakes.add(at, format!("nested deeper than {DEPTH_MAX} levels"), "Flatten the rule");
            return false;
        }
        if self.nodes > NODES_MAX {
            self.mistakes.add(at, format!("more than {NODES_MAX} nodes in one file"), "Split the file");
            return false;
        }
        true
    }

    fn put(&mut self, node: Node) {
        match self.stack.last_mut() {
            None if node.is_null() => {}
            None => self.documents.push(node),
            Some(Open::Sequence(_, items)) => items.push(node),
            Some(Open::Mapping(_, entries, pending)) => match std::mem::replace(pending, Pending::Key) {
                Pending::Value(key) => entries.push((key, node)),
                Pending::Refused => {}
                Pending::Key => *pending = key(node, entries, self.mistakes),
            },
        }
    }
}

fn key(node: Node, entries: &[(Key, Node)], mistakes: &mut Mistakes<'_>) -> Pending {
    let at = node.at;
    let Value::Scalar { text, .. } = node.value else {
        mistakes.add(at, "a key must be a single word", "Write `key: value`");
        return Pending::Refused;
    };
    if let Some((first, _)) = entries.iter().find(|(key, _)| key.text == text) {
        let message = format!("{} stands here a second time; first on line {}", quoted(&text), first.at.line);
        mistakes.add(at, message, "Keep one of the two");
        return Pending::Refused;
    }
    Pending::Value(Key { at, text })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn load(text: &str) -> (Vec<Node>, Vec<(usize, usize, String)>) {
        let mut mistakes = Mistakes::new(Path::new("x.yml"));
        let documents = documents(text, &mut mistakes);
        (documents, mistakes.list.into_iter().map(|error| (error.line, error.column, error.message)).collect())
    }

    #[test]
    fn nodes_know_their_places() {
        let (documents, mistakes) = load("a: 1\n---\nb:\n  - x\n  - yé: z\n---\n");
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert_eq!(documents.len(), 2);
        let Value::Mapping(entries) = &documents[1].value else { panic!() };
        assert_eq!((entries[0].0.at.line, entries[0].0.at.column), (3, 1));
        let Value::Sequence(items) = &entries[0].1.value else { panic!() };
        let Value::Mapping(inner) = &items[1].value else { panic!() };
        assert_eq!((inner[0].1.at.line, inner[0].1.at.column), (5, 9));
    }

    #[test]
    fn what_is_refused_has_a_place() {
        assert_eq!(load("a: 1\nb: 2\na: 3\n").1, [(3, 1, "`a` stands here a second time; first on line 1".to_owned())]);
        assert_eq!(load("a: &x 1\nb: *x\n").1.len(), 2);
        assert_eq!(load("a: !!int 1\n").1[0].2, "tags are not supported in rule files");
        assert_eq!(load("? [a]\n: 1\n").1[0].2, "a key must be a single word");
        let (documents, mistakes) = load("a: [1, 2\nb: 3\n");
        assert!(documents.is_empty());
        assert!(mistakes[0].2.starts_with("not YAML"), "{mistakes:?}");
    }

    #[test]
    fn depth_and_number_are_bounded() {
        for deep in ["- ".repeat(100_000), "[".repeat(100_000), "{a: ".repeat(100_000)] {
            let (documents, mistakes) = load(&deep);
            assert!(documents.is_empty());
            assert_eq!(mistakes.len(), 1);
        }
        assert!(load(&"- a\n".repeat(NODES_MAX + 1)).1[0].2.starts_with("more than"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{}:,\\-?&*!|>'\"%@`#a-c \n\t~0-9é]{0,200}") {
            load(&text);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            load(&String::from_utf8_lossy(&bytes));
        }
    }
}
