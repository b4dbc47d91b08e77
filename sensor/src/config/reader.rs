//! A typed reader over a spanned TOML tree that never stops at the first mistake.
//!
//! Owns the walk: [`Section`] is one table, [`Item`] one value; both carry the byte offset they stand at. Asking a
//! section for a key is what makes the key known, so the list of keys in the code is the list that unknown ones are
//! compared with. Mistakes flow into [`Context`], values flow out.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Lines, quoted};
use crate::suggest;

/// Where mistakes are gathered.
pub(super) struct Context<'t> {
    file: &'t Path,
    lines: Lines<'t>,
    /// What stops the configuration from taking effect.
    pub(super) errors: Vec<Diagnostic>,
    /// What the operator should know all the same.
    pub(super) warnings: Vec<Diagnostic>,
    /// Every key that was asked for, dotted, without array indexes.
    pub(super) known: BTreeSet<String>,
    /// Those among them that are refused as not implemented.
    pub(super) refused: BTreeSet<String>,
}

impl<'t> Context<'t> {
    /// A context for `text`, which was read from `file`.
    pub(super) fn new(file: &'t Path, text: &'t str) -> Self {
        Self {
            file,
            lines: Lines::new(text),
            errors: Vec::new(),
            warnings: Vec::new(),
            known: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }

    /// The folder that relative paths start from.
    pub(super) fn folder(&self) -> &'t Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    /// The line (from 1) of a byte offset.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.position(at).0
    }

    /// Notes a mistake at a byte offset.
    pub(super) fn error(&mut self, at: usize, message: impl Into<String>, fix: impl Into<String>) {
        let diagnostic = self.diagnostic(at, message.into(), fix.into());
        self.errors.push(diagnostic);
    }

    /// Notes something that is allowed but should be known.
    pub(super) fn warn(&mut self, at: usize, message: impl Into<String>, fix: impl Into<String>) {
        let diagnostic = self.diagnostic(at, message.into(), fix.into());
        self.warnings.push(diagnostic);
    }

    /// Notes that a key or value is part of the schema but not of this version.
    pub(super) fn not_implemented(&mut self, at: usize, what: &str, meaning: &str, fix: impl Display) {
        self.error(at, format!("{what} is not implemented yet: {meaning}"), fix.to_string());
    }

    fn diagnostic(&self, at: usize, message: String, fix: String) -> Diagnostic {
        let (line, column) = self.lines.position(at);
        Diagnostic { file: self.file.to_owned(), line, column, message, fix }
    }
}

/// A value and the byte offset that it stands at.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    /// The value.
    pub(super) value: T,
    /// Byte offset.
    pub(super) at: usize,
}

/// One value of the tree.
#[derive(Clone)]
pub(super) struct Item<'t> {
    value: &'t DeValue<'t>,
    /// Byte offset.
    pub(super) at: usize,
    /// Dotted key, without array indexes.
    path: String,
}

impl<'t> Item<'t> {
    /// The key as messages name it.
    pub(super) fn name(&self) -> String {
        format!("`{}`", self.path)
    }

    fn mismatch(&self, cx: &mut Context, wanted: &str, example: &str) {
        let message = format!("{} is {}, not {wanted}", self.name(), kind_of(self.value));
        cx.error(self.at, message, format!("Write {example}"));
    }

    /// A string; `example` completes "Write ...".
    pub(super) fn text(&self, cx: &mut Context, example: &str) -> Option<At<&'t str>> {
        let Some(value) = self.value.as_str() else {
            self.mismatch(cx, "a string", example);
            return None;
        };
        Some(At { value, at: self.at })
    }

    /// The string, if it is one; no complaint otherwise.
    pub(super) fn as_text(&self) -> Option<&'t str> {
        self.value.as_str()
    }

    /// The whole number, if it is one that fits; no complaint otherwise.
    pub(super) fn as_integer(&self) -> Option<i64> {
        let integer = self.value.as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// The number, whole or not, if it is one.
    pub(super) fn as_number(&self) -> Option<f64> {
        match self.value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => integer.as_str().parse().ok().filter(|_| integer.radix() == 10),
            _ => None,
        }
    }

    /// The date or time, if it is one.
    pub(super) fn as_datetime(&self) -> Option<toml::value::Datetime> {
        self.value.as_datetime().copied()
    }

    /// `true` or `false`, if it is one.
    pub(super) fn as_boolean(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// True for a table.
    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, cx: &mut Context) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.mismatch(cx, "a boolean", "`true` or `false`");
        }
        value
    }

    /// A whole number within `range`.
    pub(super) fn integer(&self, cx: &mut Context, range: RangeInclusive<u64>) -> Option<u64> {
        let advice = format!("a whole number from {} to {}", range.start(), range.end());
        if !self.value.is_integer() {
            self.mismatch(cx, "a whole number", &advice);
            return None;
        }
        let value = self.as_integer().and_then(|value| u64::try_from(value).ok()).filter(|v| range.contains(v));
        if value.is_none() {
            cx.error(self.at, format!("{} is out of range", self.name()), format!("Write {advice}"));
        }
        value
    }

    /// The elements of an array.
    pub(super) fn list(&self, cx: &mut Context, example: &str) -> Vec<Item<'t>> {
        let Some(array) = self.value.as_array() else {
            self.mismatch(cx, "an array", example);
            return Vec::new();
        };
        array
            .iter()
            .map(|element| Item { value: element.get_ref(), at: element.span().start, path: self.path.clone() })
            .collect()
    }

    /// The elements of an array, or the one value that stands without brackets.
    pub(super) fn one_or_list(&self) -> Vec<Item<'t>> {
        match self.value.as_array() {
            Some(array) => array
                .iter()
                .map(|element| Item { value: element.get_ref(), at: element.span().start, path: self.path.clone() })
                .collect(),
            None => vec![self.clone()],
        }
    }

    /// A table.
    pub(super) fn section(&self, cx: &mut Context, example: &str) -> Option<Section<'t>> {
        let Some(table) = self.value.as_table() else {
            self.mismatch(cx, "a table", example);
            return None;
        };
        Some(Section { table, at: self.at, path: self.path.clone(), keys: Vec::new() })
    }
}

/// One table of the tree. Every key must be asked for before [`Section::finish`].
pub(super) struct Section<'t> {
    table: &'t DeTable<'t>,
    /// Byte offset of the header or the opening brace.
    pub(super) at: usize,
    path: String,
    keys: Vec<&'static str>,
}

impl<'t> Section<'t> {
    /// The whole document.
    pub(super) fn root(table: &'t DeTable<'t>) -> Self {
        Self { table, at: 0, path: String::new(), keys: Vec::new() }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of `key`, if it is given. Makes the key known.
    pub(super) fn get(&mut self, cx: &mut Context, key: &'static str) -> Option<Item<'t>> {
        self.keys.push(key);
        let path = self.path_of(key);
        cx.known.insert(path.clone());
        let value = self.table.get(key)?;
        Some(Item { value: value.get_ref(), at: value.span().start, path })
    }

    /// The value of a key that must be given; `example` completes "Write ...".
    pub(super) fn need(&mut self, cx: &mut Context, key: &'static str, example: &str) -> Option<Item<'t>> {
        let item = self.get(cx, key);
        if item.is_none() {
            let message = format!("`{}` is missing", self.path_of(key));
            cx.error(self.at, message, format!("Write {example}"));
        }
        item
    }

    /// A sub-table, or an empty one where it is not given, so that its keys are known all the same.
    pub(super) fn table(&mut self, cx: &mut Context, key: &'static str, example: &str) -> Section<'t> {
        static EMPTY: std::sync::LazyLock<DeTable<'static>> = std::sync::LazyLock::new(DeTable::new);
        let at = self.at;
        let path = self.path_of(key);
        self.get(cx, key).and_then(|item| item.section(cx, example)).unwrap_or_else(|| Section {
            table: &EMPTY,
            at,
            path,
            keys: Vec::new(),
        })
    }

    /// A key of the schema that this version refuses; `meaning` says what it would do.
    pub(super) fn refuse(&mut self, cx: &mut Context, key: &'static str, meaning: &str) {
        cx.refused.insert(self.path_of(key));
        if self.get(cx, key).is_some() {
            let at = self.key_at(key);
            cx.not_implemented(at, &format!("`{}`", self.path_of(key)), meaning, "Remove it");
        }
    }

    /// A switch of the schema of which this version knows one position only.
    pub(super) fn refuse_unless(&mut self, cx: &mut Context, key: &'static str, accepted: bool, meaning: &str) {
        cx.refused.insert(self.path_of(key));
        let Some(item) = self.get(cx, key) else { return };
        if item.boolean(cx).is_some_and(|value| value != accepted) {
            let what = format!("`{} = {}`", self.path_of(key), !accepted);
            cx.not_implemented(item.at, &what, meaning, format!("Remove it or write `{accepted}`"));
        }
    }

    /// True when `key` is given. Does not make it known.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Byte offset of a key, or of the table where the key is not given.
    pub(super) fn key_at(&self, key: &str) -> usize {
        self.table.get_key_value(key).map_or(self.at, |(key, _)| key.span().start)
    }

    /// Complains about every key that nobody asked for.
    pub(super) fn finish(self, cx: &mut Context) {
        for key in self.table.keys() {
            let word: &str = key.get_ref().as_ref();
            if self.keys.contains(&word) {
                continue;
            }
            let place = if self.path.is_empty() { "at the top level" } else { &format!("in `{}`", self.path) };
            let message = format!("unknown key {} {place}", quoted(word));
            cx.error(key.span().start, message, suggest::advice(word, &self.keys));
        }
    }
}

fn kind_of(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
