//! Reading HTTP/1.1 messages (RFC 9112), as much as the lab's own clients and origin need of it.
//!
//! Not the sensor's parser, on purpose: the lab must not share its mistakes.

use std::io::{BufRead, Read};

use super::error::{Doing, LabError, Result};

/// Longest line and most lines of a head; the lab's own traffic stays far below.
const LINE_MAX: u64 = 16 * 1024;
const LINES_MAX: usize = 100;
const BODY_MAX: u64 = 4 * 1024 * 1024;

/// A message: first line, header fields in order, body with the transfer coding removed.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Request or status line.
    pub line: String,
    /// Names in lower case, values without outer whitespace.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Message {
    /// First value of a field, by its lower-case name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The status code of a status line.
    pub fn status(&self) -> Option<u16> {
        self.line.split(' ').nth(1)?.parse().ok()
    }

    /// A value of the `Cookie` field.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let pairs = self.field("cookie")?.split(';');
        pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// Reads a request; `None` at the end of the connection.
pub fn read_request(from: &mut impl BufRead) -> Result<Option<Message>> {
    let Some(mut message) = read_head(from)? else { return Ok(None) };
    message.body = read_body(from, &message, false)?;
    Ok(Some(message))
}

/// Reads the response to a request (1xx responses are passed over); `head` says that the request was a HEAD.
pub fn read_response(from: &mut impl BufRead, head: bool) -> Result<Message> {
    loop {
        let Some(mut message) = read_head(from)? else {
            return Err(LabError::Http("the connection ended before the response".into()));
        };
        match message.status() {
            None => return Err(LabError::Http(format!("status line {:?}", message.line))),
            Some(100..=199) => {}
            Some(204 | 304) => return Ok(message),
            Some(_) if head => return Ok(message),
            Some(_) => {
                message.body = read_body(from, &message, true)?;
                return Ok(message);
            }
        }
    }
}

fn read_head(from: &mut impl BufRead) -> Result<Option<Message>> {
    let line = read_line(from)?;
    if line.is_empty() {
        return Ok(None);
    }
    let mut message = Message { line, ..Message::default() };
    loop {
        let line = read_line(from)?;
        if line.is_empty() {
            return Ok(Some(message));
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(LabError::Http("a header line without colon".into()));
        };
        if message.fields.len() == LINES_MAX {
            return Err(LabError::Http("too many header lines".into()));
        }
        message.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.by_ref().take(LINE_MAX).read_line(&mut line).doing("reading a line")?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

fn read_body(from: &mut impl BufRead, message: &Message, until_close: bool) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    if message.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        while read_chunk(from, &mut body)? {}
    } else if let Some(length) = message.field("content-length") {
        let length: u64 = length.parse().map_err(|_| LabError::Http("a bad content-length".into()))?;
        read_exactly(from, length, &mut body)?;
    } else if until_close {
        from.by_ref().take(BODY_MAX).read_to_end(&mut body).doing("reading a body")?;
    }
    Ok(body)
}

fn read_chunk(from: &mut impl BufRead, body: &mut Vec<u8>) -> Result<bool> {
    let size = u64::from_str_radix(&read_line(from)?, 16).map_err(|_| LabError::Http("a bad chunk size".into()))?;
    read_exactly(from, size, body)?;
    if !read_line(from)?.is_empty() {
        return Err(LabError::Http("a chunk longer than its size".into()));
    }
    Ok(size > 0)
}

fn read_exactly(from: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> Result<()> {
    if length > BODY_MAX {
        return Err(LabError::Http("a body beyond the lab's bound".into()));
    }
    let got = from.by_ref().take(length).read_to_end(body).doing("reading a body")?;
    if u64::try_from(got).is_ok_and(|got| got == length) {
        return Ok(());
    }
    Err(LabError::Http("a body cut short".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_of_every_framing() {
        let wire = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n\
            HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\
            HTTP/1.1 500 Oops\r\n\r\nrest";
        let mut from = wire.as_bytes();
        let mut next = |head| read_response(&mut from, head).unwrap();
        assert_eq!(next(false).body, b"abc");
        assert_eq!(next(false).body, b"abc");
        assert_eq!(next(false).status(), Some(204));
        assert_eq!(next(true).body, b"");
        assert_eq!(next(false).body, b"rest");
        assert!(read_response(&mut b"".as_slice(), false).is_err());
        assert!(read_response(&mut b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab".as_slice(), false).is_err());
    }

    #[test]
    fn requests_and_cookies() {
        let wire = b"POST /x HTTP/1.1\r\nCookie: a=1; SESSION=s; b=\r\ncontent-length: 2\r\n\r\nhi";
        let message = read_request(&mut wire.as_slice()).unwrap().unwrap();
        assert_eq!((message.cookie("SESSION"), message.cookie("c")), (Some("s"), None));
        assert_eq!(message.body, b"hi");
        assert!(read_request(&mut b"".as_slice()).unwrap().is_none());
    }
}
