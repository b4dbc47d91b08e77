//! What stands left of the colon: a field and its modifiers (`kid|startswith|all`).

use super::error::{advice, quoted};
use super::field::{Field, Shape, Source};
use super::yaml::{Key, Mistakes, Place};

/// How a field is compared with its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// Equal to one of them.
    Is,
    Gt,
    Gte,
    Lt,
    Lte,
    Contains,
    Starts,
    Ends,
    Regex,
    Cidr,
    Exists,
}

const OPERATORS: &[(&str, Operator)] = &[
    ("gt", Operator::Gt),
    ("gte", Operator::Gte),
    ("lt", Operator::Lt),
    ("lte", Operator::Lte),
    ("contains", Operator::Contains),
    ("startswith", Operator::Starts),
    ("endswith", Operator::Ends),
    ("re", Operator::Regex),
    ("cidr", Operator::Cidr),
    ("exists", Operator::Exists),
];
/// All modifiers that are known, for advice.
const KNOWN: &[&str] =
    &["gt", "gte", "lt", "lte", "contains", "startswith", "endswith", "re", "cidr", "exists", "all", "neq", "cased"];
/// Modifiers of Sigma 2 that this program does not act upon.
const LATER: &[&str] = &[
    "base64",
    "base64offset",
    "wide",
    "utf16",
    "utf16le",
    "utf16be",
    "windash",
    "expand",
    "fieldref",
    "i",
    "m",
    "s",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "year",
];

/// A field with how its values are meant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub field: Field,
    pub operator: Operator,
    /// All values must match, not one of them.
    pub all: bool,
    /// The line holds when the comparison does not.
    pub neq: bool,
}

impl Operator {
    fn label(self) -> &'static str {
        OPERATORS.iter().find(|(_, operator)| *operator == self).map_or("", |(label, _)| label)
    }

    /// True when fields of that shape can be compared like that.
    fn fits(self, shape: Shape) -> bool {
        match self {
            Self::Is | Self::Exists => true,
            Self::Gt | Self::Gte | Self::Lt | Self::Lte => {
                matches!(shape, Shape::Status | Shape::Number | Shape::Seconds)
            }
            Self::Contains | Self::Starts | Self::Ends | Self::Regex => {
                matches!(shape, Shape::Declared | Shape::Text(_))
            }
            Self::Cidr => shape == Shape::Address,
        }
    }
}

/// The modifiers that fields of that shape take.
fn fitting(shape: Shape) -> Vec<&'static str> {
    let mut known: Vec<&str> =
        OPERATORS.iter().filter(|(_, operator)| operator.fits(shape)).map(|(label, _)| *label).collect();
    if may_all(shape) {
        known.push("all");
    }
    known.push("neq");
    known
}

/// True when a field of that shape can match several values at once.
fn may_all(shape: Shape) -> bool {
    matches!(shape, Shape::Bits | Shape::Declared | Shape::Text(_))
}

/// The field that `text` names, if `source` has it.
pub(super) fn field(text: &str, at: Place, source: Source, mistakes: &mut Mistakes<'_>) -> Option<Field> {
    let field = Field::from_label(text).filter(|field| field.is_of(source));
    if field.is_none() {
        let known: Vec<&str> =
            Field::ALL.iter().filter(|field| field.is_of(source)).map(|field| field.label()).collect();
        let message = format!("{} have no field {}", source.things(), quoted(text));
        mistakes.add(at, message, advice(text, &known));
    }
    field
}

/// Reads a key of a selection.
pub(super) fn read(key: &Key, source: Source, mistakes: &mut Mistakes<'_>) -> Option<Line> {
    let mut words = key.text.split('|');
    let field = field(words.next().unwrap_or_default(), key.at, source, mistakes)?;
    let shape = field.shape();
    let mut line = Line { field, operator: Operator::Is, all: false, neq: false };
    for word in words {
        match word {
            "all" if may_all(shape) => line.all = true,
            "neq" => line.neq = true,
            // Letter case always counts.
            "cased" if matches!(shape, Shape::Declared | Shape::Text(_) | Shape::Words | Shape::Bits) => {}
            _ => {
                let operator = OPERATORS.iter().find(|(label, _)| *label == word).map(|(_, operator)| *operator);
                match operator {
                    Some(operator) if operator.fits(shape) && line.operator == Operator::Is => line.operator = operator,
                    Some(operator) if operator.fits(shape) => {
                        let message =
                            format!("the modifiers `{}` and `{word}` exclude each other", line.operator.label());
                        mistakes.add(key.at, message, "Keep one of the two");
                        return None;
                    }
                    _ => {
                        refuse(word, field, key, mistakes);
                        return None;
                    }
                }
            }
        }
    }
    if line.all && line.operator == Operator::Exists {
        mistakes.add(key.at, "the modifiers `exists` and `all` exclude each other", "Keep one of the two");
        return None;
    }
    Some(line)
}

fn refuse(word: &str, field: Field, key: &Key, mistakes: &mut Mistakes<'_>) {
    let fitting = fitting(field.shape());
    if KNOWN.contains(&word) {
        let message = format!("the modifier `{word}` does not apply to `{}`", field.label());
        mistakes.add(key.at, message, advice(word, &fitting));
    } else if LATER.contains(&word) {
        let message = format!("the modifier {} is not implemented yet", quoted(word));
        mistakes.add(key.at, message, "Name each value in full");
    } else {
        let message = format!("there is no modifier {}", quoted(word));
        mistakes.add(key.at, message, advice(word, &fitting));
    }
}
