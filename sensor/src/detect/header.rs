//! The keys that every rule document has: title, id, level, tags and the like.
//!
//! Owns [`Table`], the checked view of a mapping, and [`Header`].

use super::error::{advice, listed, quoted};
use super::field::Source;
use super::yaml::{Key, Mistakes, Node, Place, Value};
use crate::finding::model::Level;

/// Longest title, in characters: it stands in metrics and in every finding.
const TITLE_MAX: usize = 256;
/// Keys of every document.
const KEYS: &[&str] = &[
    "title",
    "id",
    "name",
    "status",
    "description",
    "license",
    "references",
    "author",
    "date",
    "modified",
    "logsource",
    "detection",
    "correlation",
    "exception",
    "falsepositives",
    "level",
    "tags",
];
/// Keys that Sigma 2 knows and this program does not act upon.
const KEYS_LATER: &[&str] = &["related", "taxonomy", "fields", "scope", "filter", "action"];
const STATUSES: &[&str] = &["stable", "test", "experimental", "deprecated", "unsupported"];

/// A mapping whose keys are looked up by name.
pub(super) struct Table<'n> {
    pub at: Place,
    pub entries: &'n [(Key, Node)],
}

impl<'n> Table<'n> {
    /// `node` as a mapping, else a mistake.
    pub fn new(node: &'n Node, what: &str, mistakes: &mut Mistakes<'_>) -> Option<Self> {
        if let Value::Mapping(entries) = &node.value {
            return Some(Self { at: node.at, entries });
        }
        let message = format!("{what} is {} here", node.kind());
        mistakes.add(node.at, message, "Write a mapping of `key: value` lines");
        None
    }

    /// The entry called `name`.
    pub fn get(&self, name: &str) -> Option<&'n (Key, Node)> {
        self.entries.iter().find(|(key, _)| key.text == name)
    }

    /// Refuses every key but `known`; those in `later` as not implemented.
    pub fn only(&self, known: &[&str], later: &[&str], mistakes: &mut Mistakes<'_>) {
        for (key, _) in self.entries {
            let text = key.text.as_str();
            if later.contains(&text) {
                mistakes.add(key.at, format!("`{text}` is not implemented yet"), "Remove this key");
            } else if !known.contains(&text) {
                mistakes.add(key.at, format!("unknown key {}", quoted(text)), advice(text, known));
            }
        }
    }

    /// The text under `name`; empty, absent or anything but a scalar is a mistake if `required`.
    pub fn text(&self, name: &str, required: bool, mistakes: &mut Mistakes<'_>) -> Option<(&'n str, Place)> {
        let Some((_, node)) = self.get(name) else {
            if required {
                mistakes.add(self.at, format!("`{name}` is missing"), format!("Add a line `{name}: …`"));
            }
            return None;
        };
        match &node.value {
            Value::Scalar { text, .. } if !text.trim().is_empty() && !node.is_null() => Some((text.trim(), node.at)),
            _ => {
                mistakes.add(node.at, format!("`{name}` is {} here", node.kind()), "Write one value");
                None
            }
        }
    }

    /// The list of texts under `name` (a single text is a list of one where `single` allows it).
    pub fn list(&self, name: &str, single: bool, mistakes: &mut Mistakes<'_>) -> Vec<(&'n str, Place)> {
        let Some((_, node)) = self.get(name) else { return Vec::new() };
        let nodes = match &node.value {
            Value::Sequence(items) => items.as_slice(),
            Value::Scalar { .. } if single => std::slice::from_ref(node),
            _ => {
                mistakes.add(node.at, format!("`{name}` is {} here", node.kind()), "Write a list of values");
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for node in nodes {
            match &node.value {
                Value::Scalar { text, .. } if !text.is_empty() => texts.push((text.as_str(), node.at)),
                _ => mistakes.add(node.at, format!("`{name}` holds {} here", node.kind()), "Write one value per item"),
            }
        }
        texts
    }
}

/// What every document says of itself.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub at: Place,
    pub title: String,
    pub id: String,
    pub id_at: Place,
    pub name: Option<(String, Place)>,
    pub description: String,
    /// `modified`, else `date`.
    pub version: Option<String>,
    pub tags: Vec<String>,
    pub level: Option<Level>,
}

impl Header {
    /// Reads and checks the keys of `table` that are not `detection` or `correlation`.
    pub fn read(table: &Table<'_>, mistakes: &mut Mistakes<'_>) -> Self {
        table.only(KEYS, KEYS_LATER, mistakes);
        let title = table.text("title", true, mistakes);
        if let Some((text, at)) = title
            && text.chars().count() > TITLE_MAX
        {
            mistakes.add(at, format!("the title is longer than {TITLE_MAX} characters"), "Shorten it");
        }
        let id = table.text("id", true, mistakes);
        if let Some((text, at)) = id
            && !is_uuid(text)
        {
            let message = format!("{} is not a UUID", quoted(text));
            mistakes.add(
                at,
                message,
                "Write one of the form `01234567-89ab-4cde-8f01-23456789abcd`, made for this rule",
            );
        }
        if let Some((text, at)) = table.text("status", false, mistakes)
            && !STATUSES.contains(&text)
        {
            mistakes.add(at, format!("{} is no status", quoted(text)), advice(text, STATUSES));
        }
        for key in ["author", "license"] {
            table.text(key, false, mistakes);
        }
        for key in ["references", "falsepositives"] {
            table.list(key, false, mistakes);
        }
        Self {
            at: table.at,
            title: title.map_or_else(String::new, |(text, _)| text.to_owned()),
            id: id.map_or_else(String::new, |(text, _)| text.to_ascii_lowercase()),
            id_at: id.map_or(table.at, |(_, at)| at),
            name: table.text("name", false, mistakes).map(|(text, at)| (text.to_owned(), at)),
            description: table.text("description", false, mistakes).map_or_else(String::new, |(text, _)| flowing(text)),
            version: version(table, mistakes),
            tags: tags(table, mistakes),
            level: level(table, mistakes),
        }
    }
}

fn version(table: &Table<'_>, mistakes: &mut Mistakes<'_>) -> Option<String> {
    let [date, modified] = ["date", "modified"].map(|key| {
        let (text, at) = table.text(key, false, mistakes)?;
        if !is_date(text) {
            mistakes.add(at, format!("{} is not a date", quoted(text)), "Write `YYYY-MM-DD`");
        }
        Some(text.to_owned())
    });
    modified.or(date)
}

fn tags(table: &Table<'_>, mistakes: &mut Mistakes<'_>) -> Vec<String> {
    let tags = table.list("tags", false, mistakes);
    for (tag, at) in &tags {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
        let halves = tag.split_once('.').is_some_and(|(space, name)| !space.is_empty() && !name.is_empty());
        if !halves || !tag.bytes().all(plain) {
            let message = format!("{} is not a tag", quoted(tag));
            mistakes.add(*at, message, "Write `namespace.name` in lower case, such as `attack.t1606`");
        }
    }
    tags.into_iter().map(|(tag, _)| tag.to_owned()).collect()
}

fn level(table: &Table<'_>, mistakes: &mut Mistakes<'_>) -> Option<Level> {
    let (text, at) = table.text("level", false, mistakes)?;
    let level = Level::from_label(text);
    if level.is_none() {
        let known: Vec<&str> = Level::ALL.iter().map(|level| level.label()).collect();
        mistakes.add(at, format!("{} is no level", quoted(text)), advice(text, &known));
    }
    level
}

/// A block of text as one line: findings are lines.
fn flowing(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// Days from 1970-01-01 to a date `YYYY-MM-DD` (Hinnant, "chrono-compatible low-level date algorithms").
pub(super) fn days(text: &str) -> Option<u64> {
    if !is_date(text) {
        return None;
    }
    let mut parts = text.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, of_era) = (year / 400, year % 400);
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let number = |index: usize, digits: usize, range: std::ops::RangeInclusive<u16>| {
        parts.get(index).is_some_and(|part| {
            part.len() == digits
                && part.bytes().all(|byte| byte.is_ascii_digit())
                && part.parse().is_ok_and(|number| range.contains(&number))
        })
    };
    parts.len() == 3 && number(0, 4, 1970..=9999) && number(1, 2, 1..=12) && number(2, 2, 1..=31)
}

/// Checks `logsource`: this program has two sources, told apart by `category`.
pub(super) fn logsource(table: &Table<'_>, mistakes: &mut Mistakes<'_>) -> Source {
    let Some((_, node)) = table.get("logsource") else {
        mistakes.add(table.at, "`logsource` is missing", "Add `logsource:` with `product: authsensor` below it");
        return Source::Observation;
    };
    let Some(source) = Table::new(node, "`logsource`", mistakes) else { return Source::Observation };
    source.only(&["product", "category", "definition"], &["service"], mistakes);
    source.text("definition", false, mistakes);
    let mut category = Source::Observation;
    if let Some((text, at)) = source.text("category", false, mistakes) {
        if let Some(known) = Source::ALL.into_iter().find(|source| source.label() == text) {
            category = known;
        } else {
            let known = Source::ALL.map(Source::label);
            mistakes.add(at, format!("{} is no category", quoted(text)), advice(text, &known));
        }
    }
    if let Some((product, at)) = source.text("product", true, mistakes)
        && product != "authsensor"
    {
        let message = format!("{} is a log source that this program does not have", quoted(product));
        mistakes.add(at, message, format!("Write {}", listed(&["authsensor"])));
    }
    category
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_and_dates() {
        assert!(is_uuid("1b4e28ba-2fa1-11d2-883f-0016d3cca427"));
        assert!(!is_uuid("1b4e28ba-2fa1-11d2-883f-0016d3cca42") && !is_uuid("1b4e28ba2fa111d2883f0016d3cca427"));
        assert!(!is_uuid("zb4e28ba-2fa1-11d2-883f-0016d3cca427"));
        assert!(is_date("2026-11-02"));
        for bad in ["2026-13-01", "2026-1-01", "2026/01/01", "2026-01-32", "", "2026-01-01-01", "+026-01-01"] {
            assert!(!is_date(bad), "{bad}");
        }
        assert_eq!((days("1970-01-01"), days("2000-03-01"), days("2026-11-22")), (Some(0), Some(11_017), Some(20_779)));
    }
}
