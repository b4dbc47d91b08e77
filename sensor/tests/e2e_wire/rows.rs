//! What is compared: requests with their answers, connection by connection, in order.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use serde_json::Value;

/// The client's side of a connection.
pub type Client = (IpAddr, u16);

/// One request with its answer, as far as both sides know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The request line; empty for an answer without a request.
    pub request: String,
    /// The `Host` header; empty without one.
    pub host: String,
    /// `None`: never answered.
    pub status: Option<u16>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.map_or_else(|| "unanswered".to_owned(), |status| status.to_string());
        write!(f, "{:?} host {:?}: {status}", self.request, self.host)
    }
}

/// Rows by connection.
#[derive(Debug, Default)]
pub struct Rows(BTreeMap<Client, Vec<Row>>);

/// Connections that a failure shows.
const SHOWN: usize = 8;

impl Rows {
    pub fn push(&mut self, client: Client, row: Row) {
        self.0.entry(client).or_default().push(row);
    }

    /// Those of the sensor's transactions, one JSON object a line.
    pub fn of_transactions(text: &str) -> Self {
        let mut rows = Self::default();
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let word = |key: &str| value[key].as_str().unwrap_or_default();
            let request = match (value["uri"].as_str(), value["version"].as_str()) {
                (Some(uri), Some(version)) => format!("{} {uri} HTTP/{version}", word("method")),
                _ => String::new(),
            };
            let status = value["status"].as_u64().map(|status| u16::try_from(status).unwrap());
            rows.push(client(&value), Row { request, host: word("host").to_owned(), status });
        }
        rows
    }

    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    pub fn has_status(&self, status: u16) -> bool {
        self.0.values().flatten().any(|row| row.status == Some(status))
    }

    /// Both have the same rows on each connection, in the same order.
    pub fn assert_equal(&self, other: &Self, own: &str, others: &str) {
        assert!(self.0 == other.0, "{}", difference(&self.0, &other.0, own, others));
    }
}

/// The client of a transaction.
pub fn client(transaction: &Value) -> Client {
    let port = u16::try_from(transaction["sport"].as_u64().unwrap()).unwrap();
    (transaction["src"].as_str().unwrap().parse().unwrap(), port)
}

/// What differs, by connection, with the lines around the first difference.
pub fn difference<T: fmt::Display + PartialEq>(
    left: &BTreeMap<Client, Vec<T>>,
    right: &BTreeMap<Client, Vec<T>>,
    left_name: &str,
    right_name: &str,
) -> String {
    let sum = |side: &BTreeMap<Client, Vec<T>>| side.values().map(Vec::len).sum::<usize>();
    let mut text = format!("{left_name} has {} rows, {right_name} {}\n", sum(left), sum(right));
    let mut clients: Vec<&Client> = left.keys().chain(right.keys()).collect();
    clients.sort();
    clients.dedup();
    let different = clients.iter().filter(|client| left.get(client) != right.get(client));
    let _ = writeln!(text, "{} of {} connections differ", different.clone().count(), clients.len());
    let none = Vec::new();
    for client in different.take(SHOWN) {
        let (ours, theirs) = (left.get(client).unwrap_or(&none), right.get(client).unwrap_or(&none));
        let same = ours.iter().zip(theirs).take_while(|(left, right)| left == right).count();
        let _ = writeln!(text, "{}:{}: {same} rows alike, then", client.0, client.1);
        for (name, rows) in [(left_name, ours), (right_name, theirs)] {
            let _ = writeln!(text, "  {name} ({} in all)", rows.len());
            for row in rows.iter().skip(same).take(4) {
                let _ = writeln!(text, "    {row}");
            }
        }
    }
    text
}
