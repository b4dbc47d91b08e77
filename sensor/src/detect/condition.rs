//! The `condition` of a detection: text in, an expression over the detection's selections out.
//!
//! Grammar (Sigma 2, the part that is implemented; keywords in any letter case):
//!
//! ```text
//! or   = and { "or" and }
//! and  = not { "and" not }
//! not  = "not" not | "(" or ")" | ("1" | "all") "of" ("them" | PREFIX"*" | NAME) | NAME
//! ```

use saphyr_parser::ScalarStyle;

use super::error::{advice, quoted};
use super::predicate::{all, any};
use super::yaml::{Mistakes, Node, Place, Value};

/// Deepest nesting of parentheses and `not`.
const DEPTH_MAX: usize = 32;

/// A condition over selections, which are named by their index in the detection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expr {
    Selection(usize),
    Not(Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
}

impl Expr {
    /// Whether it holds, given which selections do.
    pub fn holds(&self, selection: &impl Fn(usize) -> bool) -> bool {
        match self {
            Self::Selection(index) => selection(*index),
            Self::Not(inner) => !inner.holds(selection),
            Self::All(parts) => parts.iter().all(|part| part.holds(selection)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(selection)),
        }
    }

    /// What it comes to when some selections are not known to hold or not (`None`).
    pub fn decided(&self, selection: &impl Fn(usize) -> Option<bool>) -> Option<bool> {
        match self {
            Self::Selection(index) => selection(*index),
            Self::Not(inner) => inner.decided(selection).map(|holds| !holds),
            Self::All(parts) => all(parts.iter().map(|part| part.decided(selection))),
            Self::Any(parts) => any(parts.iter().map(|part| part.decided(selection))),
        }
    }

    /// True when the selection of that index takes part.
    pub fn mentions(&self, index: usize) -> bool {
        match self {
            Self::Selection(own) => *own == index,
            Self::Not(inner) => inner.mentions(index),
            Self::All(parts) | Self::Any(parts) => parts.iter().any(|part| part.mentions(index)),
        }
    }
}

/// What is wrong with a condition, at a character offset.
struct Wrong {
    offset: usize,
    message: String,
    fix: String,
}

/// The condition in `node` over the selections called `names`.
pub(super) fn parse(node: &Node, names: &[&str], mistakes: &mut Mistakes<'_>) -> Option<Expr> {
    let Value::Scalar { text, style } = &node.value else {
        let message = format!("`condition` is {}; lists of conditions are not implemented yet", node.kind());
        mistakes.add(node.at, message, "Write one condition, joined with `or`");
        return None;
    };
    let mut parser = Parser { tokens: tokens(text), next: 0, end: text.chars().count(), names, depth: 0 };
    let parsed = parser.any().and_then(|expr| match parser.peek() {
        None => Ok(expr),
        Some(token) => Err(token.unexpected()),
    });
    match parsed {
        Ok(expr) => Some(expr),
        Err(wrong) => {
            mistakes.add(place(node.at, text, *style, wrong.offset), wrong.message, wrong.fix);
            None
        }
    }
}

/// Where the character at `offset` of a scalar stands; of one that runs over lines, where the scalar starts.
fn place(at: Place, text: &str, style: ScalarStyle, offset: usize) -> Place {
    let quote = match style {
        ScalarStyle::Plain => 0,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => 1,
        ScalarStyle::Literal | ScalarStyle::Folded => return at,
    };
    if text.contains('\n') { at } else { Place { line: at.line, column: at.column + quote + offset } }
}

#[derive(Clone, Copy)]
struct Token<'t> {
    text: &'t str,
    offset: usize,
}

impl Token<'_> {
    fn is(self, keyword: &str) -> bool {
        self.text.eq_ignore_ascii_case(keyword)
    }

    fn unexpected(self) -> Wrong {
        let (message, fix) = match self.text {
            "|" => ("aggregations in a condition are not implemented yet", "Use a `correlation` document"),
            _ => ("did not expect this here", "Join selections with `and`, `or`, `not`, `1 of`, `all of`"),
        };
        Wrong { offset: self.offset, message: format!("{}: {message}", quoted(self.text)), fix: fix.to_owned() }
    }
}

/// Words and the single characters `(`, `)`, `|`, with their offsets in characters.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut start: Option<(usize, usize)> = None;
    let characters = text.char_indices().map(|(byte, character)| (byte, Some(character)));
    for (offset, (byte, character)) in characters.chain([(text.len(), None)]).enumerate() {
        let alone = matches!(character, Some('(' | ')' | '|'));
        let ends = alone || character.is_none_or(char::is_whitespace);
        match (ends, start) {
            (true, Some((from, offset))) => {
                tokens.extend(text.get(from..byte).map(|text| Token { text, offset }));
                start = None;
            }
            (false, None) => start = Some((byte, offset)),
            _ => {}
        }
        if alone {
            tokens.extend(text.get(byte..=byte).map(|text| Token { text, offset }));
        }
    }
    tokens
}

struct Parser<'t> {
    tokens: Vec<Token<'t>>,
    next: usize,
    end: usize,
    names: &'t [&'t str],
    depth: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<Token<'t>> {
        self.tokens.get(self.next).copied()
    }

    fn accept(&mut self, keyword: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is(keyword));
        self.next += usize::from(found);
        found
    }

    fn token(&mut self, wanted: &str) -> Result<Token<'t>, Wrong> {
        let token = self.peek().ok_or_else(|| Wrong {
            offset: self.end,
            message: format!("the condition ends where {wanted} should stand"),
            fix: "Write, for example, `condition: selection`".to_owned(),
        })?;
        self.next += 1;
        Ok(token)
    }

    fn any(&mut self) -> Result<Expr, Wrong> {
        let mut parts = vec![self.all()?];
        while self.accept("or") {
            parts.push(self.all()?);
        }
        Ok(single(parts, Expr::Any))
    }

    fn all(&mut self) -> Result<Expr, Wrong> {
        let mut parts = vec![self.not()?];
        while self.accept("and") {
            parts.push(self.not()?);
        }
        Ok(single(parts, Expr::All))
    }

    fn not(&mut self) -> Result<Expr, Wrong> {
        let token = self.token("a selection")?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(Wrong { offset: token.offset, message, fix: "Simplify the condition".to_owned() });
        }
        let expr = if token.is("not") {
            Expr::Not(Box::new(self.not()?))
        } else if token.text == "(" {
            let inner = self.any()?;
            let close = self.token("`)`")?;
            if close.text != ")" {
                return Err(close.unexpected());
            }
            inner
        } else if self.peek().is_some_and(|next| next.is("of")) {
            self.next += 1;
            self.quantified(token)?
        } else {
            self.named(token)?
        };
        self.depth -= 1;
        Ok(expr)
    }

    /// `1 of …`, `all of …`; the count is `quantity`.
    fn quantified(&mut self, quantity: Token<'t>) -> Result<Expr, Wrong> {
        let join = match quantity.text {
            "1" => Expr::Any,
            text if text.eq_ignore_ascii_case("all") => Expr::All,
            text => {
                let message = format!("{} of is not implemented yet", quoted(text));
                return Err(Wrong { offset: quantity.offset, message, fix: "Write `1 of` or `all of`".to_owned() });
            }
        };
        let pattern = self.token("`them` or a pattern")?;
        let parts: Vec<Expr> = (0..)
            .zip(self.names)
            .filter(|(_, name)| {
                if pattern.is("them") {
                    return !name.starts_with('_');
                }
                match pattern.text.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => **name == pattern.text,
                }
            })
            .map(|(index, _)| Expr::Selection(index))
            .collect();
        if parts.is_empty() {
            let message = format!("no selection is called like {}", quoted(pattern.text));
            return Err(Wrong { offset: pattern.offset, message, fix: advice(pattern.text, self.names) });
        }
        Ok(single(parts, join))
    }

    fn named(&self, token: Token<'t>) -> Result<Expr, Wrong> {
        if matches!(token.text, ")" | "|") || ["and", "or", "of"].iter().any(|keyword| token.is(keyword)) {
            return Err(token.unexpected());
        }
        self.names.iter().position(|name| *name == token.text).map(Expr::Selection).ok_or_else(|| Wrong {
            offset: token.offset,
            message: format!("no selection is called {}", quoted(token.text)),
            fix: advice(token.text, self.names),
        })
    }
}

fn single(mut parts: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            parts.extend(last);
            join(parts)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    const NAMES: &[&str] = &["a", "b", "sel_x", "sel_y", "_hidden"];

    fn parse_text(text: &str) -> Result<Expr, (usize, String)> {
        let value = Value::Scalar { text: text.to_owned(), style: ScalarStyle::Plain };
        let mut mistakes = Mistakes::new(Path::new("x.yml"));
        let expr = parse(&Node { at: Place { line: 3, column: 10 }, value }, NAMES, &mut mistakes);
        match mistakes.list.pop() {
            None => Ok(expr.unwrap()),
            Some(error) => Err((error.column, error.message)),
        }
    }

    fn holds(text: &str, true_ones: &[usize]) -> bool {
        parse_text(text).unwrap().holds(&|index| true_ones.contains(&index))
    }

    #[test]
    fn precedence_and_quantifiers() {
        assert!(holds("a or b and not a", &[0]), "and binds tighter than or");
        assert!(!holds("(a or b) and not a", &[0]));
        assert!(holds("not a and not b", &[]));
        assert!(holds("1 of sel_*", &[3]) && !holds("1 of sel_*", &[0, 1, 4]));
        assert!(holds("all of sel_*", &[2, 3]) && !holds("all of sel_*", &[2]));
        assert!(holds("ALL OF them", &[0, 1, 2, 3]), "names with an underscore are not among them");
        assert!(holds("not (1 of them)", &[4]));
    }

    #[test]
    fn mistakes_point_at_the_word() {
        for (text, column, message) in [
            ("a and c", 16, "no selection is called `c`"),
            ("a b", 12, "`b`: did not expect this here"),
            ("(a or b", 17, "the condition ends where `)` should stand"),
            ("2 of them", 10, "`2` of is not implemented yet"),
            ("a | count() > 5", 12, "`|`: aggregations in a condition are not implemented yet"),
            ("1 of foo*", 15, "no selection is called like `foo*`"),
            ("", 10, "the condition ends where a selection should stand"),
            ("and", 10, "`and`: did not expect this here"),
        ] {
            assert_eq!(parse_text(text), Err((column, message.to_owned())), "{text}");
        }
        assert!(parse_text(&"(".repeat(10_000)).is_err());
        assert!(parse_text(&"not ".repeat(10_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([ab()|*1é ]|not |or |and |of |them|all ){0,40}") {
            let _ = parse_text(&text);
        }
    }
}
