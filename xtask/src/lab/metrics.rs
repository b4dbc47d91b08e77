//! Reading the sensor's metrics: a small GET and the Prometheus text format, as much of it as the lab needs.

use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::error::{Doing, LabError, Result};
use super::http::read_response;
use super::world::Namespace;

/// Where the sensor's metrics are, inside the gateway's namespace.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// As served.
    pub text: String,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Fetches `/metrics` from inside a namespace.
    pub fn fetch(namespace: &Namespace) -> Result<Self> {
        let text = namespace.inside(|| {
            let mut stream =
                TcpStream::connect_timeout(&ADDRESS, Duration::from_secs(2)).doing("reaching the metrics")?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).doing("setting a time-out")?;
            let request = format!("GET /metrics HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).doing("asking for the metrics")?;
            let answer = read_response(&mut BufReader::new(stream), false)?;
            match answer.status() {
                Some(200) => String::from_utf8(answer.body).map_err(|_| LabError::Http("metrics not UTF-8".into())),
                _ => Err(LabError::Http(format!("metrics: {}", answer.line))),
            }
        })?;
        Ok(Self::parse(text))
    }

    fn parse(text: String) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect();
        Self { text, samples }
    }

    /// Sum of all samples of a family whose labels have these values. None: the family is not there.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.samples.iter().any(|sample| sample.name == name).then(|| {
            let fits = |sample: &&Sample| {
                sample.name == name
                    && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
            };
            self.samples.iter().filter(fits).map(|sample| sample.value).sum()
        })
    }

    /// The same as a count.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let sum = self.sum(name, labels)?;
        // Counters of the lab are far below 2^53, where every whole number is exact.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a whole number ≥ 0")]
        (sum >= 0.0 && sum.fract() == 0.0).then_some(sum as u64)
    }

    /// Lines of families, without those that are zero.
    pub fn lines(&self, families: &[&str]) -> Vec<&str> {
        let wanted = |line: &&str| {
            sample(line).is_some_and(|sample| sample.value != 0.0 && families.contains(&sample.name.as_str()))
        };
        self.text.lines().filter(wanted).collect()
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.trim().rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = series.split_once('{') else {
        return Some(Sample { name: series.to_owned(), labels: BTreeMap::new(), value });
    };
    Some(Sample { name: name.to_owned(), labels: labels(rest.strip_suffix('}')?)?, value })
}

/// `a="x",b="y"` with `\\`, `\"` and `\n` in the values.
fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    let mut rest = text.trim_end_matches(',');
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (end, '"') => break end,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, character) => value.push(character),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = after.get(end + 1..)?.trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_labels() {
        let text = "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"q\\\"}, \"} 3\na{x=\"2\",y=\"\"} 4\na_bucket{le=\"+Inf\"} 9\nb 1.5e3\nc NaN\n";
        let metrics = Metrics::parse(text.to_owned());
        assert_eq!(metrics.count("a", &[]), Some(7));
        assert_eq!(metrics.count("a", &[("x", "1"), ("y", "q\"}, ")]), Some(3));
        assert_eq!(metrics.count("a", &[("x", "3")]), Some(0));
        assert_eq!(metrics.count("b", &[]), Some(1500));
        assert_eq!(metrics.count("missing", &[]), None);
        assert_eq!(metrics.count("c", &[]), None);
        assert_eq!(metrics.lines(&["b", "a_bucket"]), ["a_bucket{le=\"+Inf\"} 9", "b 1.5e3"]);
    }
}
