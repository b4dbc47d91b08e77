//! What a running sensor measured of its issuers: asked of its metrics endpoint, read out of the text format.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long the daemon is waited for.
const WAIT: Duration = Duration::from_secs(10);
/// Longest answer of the daemon that is read, bytes.
const ANSWER_MAX: u64 = 64 << 20;

/// What the running sensor measured of an issuer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measured {
    pub seen: u64,
    pub unseen: u64,
    pub preexisting: u64,
    /// Distinct credentials since the start that may be older than the horizon.
    pub population: u64,
    pub exceeded: u64,
}

impl Measured {
    /// Newly used credentials of which it shows whether their issuance was seen.
    pub fn used(&self) -> u64 {
        self.seen + self.unseen
    }

    /// Share of these whose issuance was seen, 0 to 1; `None` while there are none.
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn share(&self) -> Option<f64> {
        (self.used() > 0).then(|| self.seen as f64 / self.used() as f64)
    }

    /// Room for those that were not used since: half again, and a hundred.
    pub fn horizon_budget(&self) -> u64 {
        self.population.saturating_add(self.population / 2).saturating_add(100)
    }
}

/// By service and issuer.
pub(super) type Figures = BTreeMap<(String, String), Measured>;

/// The figures of the sensor that runs at `address`.
pub(super) fn ask(address: SocketAddr) -> io::Result<Figures> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).map_err(|_| io::Error::other("the answer is not text"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    if head.split(' ').nth(1) != Some("200") || !body.contains("authsensor_build_info") {
        return Err(io::Error::other("this is not a sensor's metrics endpoint"));
    }
    Ok(figures(body))
}

/// The figures of issuers in an exposition.
fn figures(text: &str) -> Figures {
    let mut figures = Figures::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let Some((labels, value)) = rest.rsplit_once("} ") else { continue };
        let Some(value) = value.parse::<f64>().ok().filter(|value| *value >= 0.0) else { continue };
        let labels = labels_of(labels);
        let label = |name: &str| labels.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
        let (Some(service), Some(issuer)) = (label("service"), label("issuer")) else { continue };
        let mut none = 0;
        let measured = figures.entry((service.to_owned(), issuer.to_owned())).or_default();
        let count = match (name, label("class")) {
            ("authsensor_issuer_credentials", Some("seen")) => &mut measured.seen,
            ("authsensor_issuer_credentials", Some("unseen")) => &mut measured.unseen,
            ("authsensor_issuer_credentials", Some("preexisting")) => &mut measured.preexisting,
            ("authsensor_issuer_preexisting", None) => &mut measured.population,
            ("authsensor_issuer_preexisting_exceeded_total", None) => &mut measured.exceeded,
            _ => &mut none,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and not negative")]
        {
            *count = value as u64;
        }
    }
    figures
}

/// `name="value",...` with the escapes of the text format.
fn labels_of(text: &str) -> Vec<(&str, String)> {
    let mut labels = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut characters = after.char_indices();
        let mut end = after.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, escaped)) => value.push(escaped),
                    None => {}
                },
                other => value.push(other),
            }
        }
        labels.push((name.trim_start_matches(','), value));
        rest = after.get(end..).unwrap_or_default();
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sensor_is_believed() {
        let answered = |answer: &'static str| {
            let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 512];
                let read = stream.read(&mut head).unwrap();
                assert!(head[..read].starts_with(b"GET /metrics HTTP/1.0\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            });
            let figures = ask(address);
            server.join().unwrap();
            figures
        };
        let body =
            "authsensor_build_info{version=\"1\"} 1\nauthsensor_issuer_preexisting{issuer=\"i\",service=\"s\"} 7\n";
        let good: &str = Box::leak(format!("HTTP/1.0 200 OK\r\nX: y\r\n\r\n{body}").into_boxed_str());
        assert_eq!(answered(good).unwrap()[&("s".to_owned(), "i".to_owned())].population, 7);
        for bad in ["", "HTTP/1.0 200 OK\r\n\r\nhello", "HTTP/1.0 404 No\r\n\r\nauthsensor_build_info", "220 smtp\r\n"]
        {
            assert!(answered(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn figures_come_from_the_text_format() {
        let text = "# HELP x y\nauthsensor_issuer_credentials{class=\"seen\",issuer=\"a\\\\b\\\"c\",service=\"s}\\n\"} 12\n\
                    authsensor_issuer_credentials{class=\"unseen\",issuer=\"a\\\\b\\\"c\",service=\"s}\\n\"} 3\n\
                    authsensor_issuer_preexisting{issuer=\"a\\\\b\\\"c\",service=\"s}\\n\"} 40\n\
                    authsensor_issuer_preexisting_exceeded_total{issuer=\"a\\\\b\\\"c\",service=\"s}\\n\"} 5\n\
                    authsensor_issuer_sight_ratio{issuer=\"x\",service=\"y\"} NaN\nbroken{ 5\n{} 7\nbroken{a=\"} 8\n";
        let figures = figures(text);
        let want = Measured { seen: 12, unseen: 3, preexisting: 0, population: 40, exceeded: 5 };
        assert_eq!(figures, Figures::from([(("s}\n".to_owned(), "a\\b\"c".to_owned()), want)]));
    }
}
