//! Heads that the grammar forbids and servers take: read as a server would, and said.

use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::{anomaly, capture, place, scheme};

use super::rig::{Conversation, From, Seen, count, fingerprint, request};

const TOKEN: &[u8] = b"opaque-0123456789";

/// The one head of a request with these header lines.
fn with(headers: &str) -> Seen {
    let output = request(format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n").as_bytes());
    let [head] = output.heads.as_slice() else { panic!("{headers:?}") };
    head.clone()
}

fn line(line: &str) -> Option<Seen> {
    request(format!("{line}\r\nHost: h\r\n\r\n").as_bytes()).heads.into_iter().next()
}

#[test]
fn header_lines() {
    let spaces = " ".repeat(100);
    let long = "x".repeat(3000);
    for (headers, found, odd) in [
        ("Authorization: Bearer opaque-0123456789\r\n".to_owned(), true, 0),
        ("aUTHORIZATION:Bearer opaque-0123456789\n".to_owned(), true, 0),
        ("Authorization : Bearer opaque-0123456789\r\n".to_owned(), true, anomaly::ODD_HEADER),
        ("Authorization\t: Bearer opaque-0123456789\r\n".to_owned(), true, anomaly::ODD_HEADER),
        (format!("Authorization{spaces}: Bearer opaque-0123456789\r\n"), true, anomaly::ODD_HEADER),
        ("Authorization\0: Bearer opaque-0123456789\r\n".to_owned(), true, anomaly::ODD_HEADER),
        ("Authoriza tion: Bearer opaque-0123456789\r\n".to_owned(), false, anomaly::ODD_HEADER),
        (": Bearer\r\nAuthorization: Bearer opaque-0123456789\r\n".to_owned(), true, anomaly::ODD_HEADER),
        ("nothing\r\nAuthorization: Bearer opaque-0123456789\r\n".to_owned(), true, anomaly::ODD_HEADER),
        ("nothing\nAuthorization: Bearer opaque-0123456789\n".to_owned(), true, anomaly::ODD_HEADER),
        ("\rX: y\r\nAuthorization: Bearer opaque-0123456789\r\n".to_owned(), true, anomaly::ODD_HEADER),
        (format!("{long}: {long}\r\nAuthorization: Bearer opaque-0123456789\r\n"), true, 0),
        ("X: a\0b\r\nAuthorization: Bearer opaque-0123456789\r\n".to_owned(), true, 0),
        ("Authorization:\r\n Bearer\r\n\topaque-0123456789\r\n".to_owned(), true, anomaly::OBS_FOLD),
        ("Authorization: bEARER \t  opaque-0123456789 \t\r\n".to_owned(), true, 0),
        ("Authorization:\tBearer\topaque-0123456789\r\n".to_owned(), true, 0),
    ] {
        let head = with(&headers);
        assert_eq!(head.anomalies, odd, "{headers:?}");
        let credentials: Vec<_> = head.credentials.iter().map(|one| (one.fingerprint, one.scheme)).collect();
        let want = [(fingerprint(TOKEN), scheme::BEARER)];
        assert_eq!(credentials, if found { &want[..] } else { &[] }, "{headers:?}");
    }
}

#[test]
fn every_credential_is_judged() {
    let head = with(
        "Authorization: Bearer one\r\nauthorization: Basic dHdv\r\nCookie: SESSION=three; SESSION=\"four\"\r\n\
        Cookie: a=b;SESSION=five\r\n",
    );
    assert_eq!(head.anomalies, anomaly::MANY_AUTHORIZATIONS);
    let seen: Vec<_> = head.credentials.iter().map(|one| (one.place, one.fingerprint)).collect();
    let want = [
        (place::AUTHORIZATION, fingerprint(b"one")),
        (place::AUTHORIZATION, fingerprint(b"dHdv")),
        (place::COOKIE, fingerprint(b"three")),
        (place::COOKIE, fingerprint(b"four")),
        (place::COOKIE, fingerprint(b"five")),
    ];
    assert_eq!(seen, want);
}

#[test]
fn folded_values_are_captured_whole() {
    let value = |headers: &str, which: usize| {
        with(headers).captures[which].as_deref().map(|text| String::from_utf8_lossy(text).into_owned())
    };
    let xff = |headers: &str| value(headers, capture::X_FORWARDED_FOR);
    assert_eq!(xff("X-Forwarded-For: 192.0.2.1,\r\n 10.0.0.1\r\n").as_deref(), Some("192.0.2.1, 10.0.0.1"));
    assert_eq!(xff("X-Forwarded-For: a\r\n \t b\r\n\tc\r\nX: y\r\n").as_deref(), Some("a b c"));
    assert_eq!(xff("X-Forwarded-For:\r\n a\r\n").as_deref(), Some("a"));
    assert_eq!(xff("X-Forwarded-For: a\r\n \r\n b\r\n").as_deref(), Some("a b"));
    assert_eq!(xff("X-Forwarded-For: a\r\nX: y\r\n z\r\n").as_deref(), Some("a"));
    let whole = "X-Forwarded-For: 192.0.2.1,\r\n 10.0.0.1\r\nContent-Type: a/b;\r\n c=d\r\n";
    assert_eq!(value(whole, capture::CONTENT_TYPE).as_deref(), Some("a/b; c=d"));
    // Cut anywhere, the same.
    let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{whole}\r\n");
    let uncut = request(text.as_bytes());
    for cut in 1..text.len() {
        let mut conversation = Conversation::open();
        conversation.data(From::Client, &text.as_bytes()[..cut]);
        conversation.data(From::Client, &text.as_bytes()[cut..]);
        assert_eq!(conversation.output(), uncut, "{cut}");
    }
}

#[test]
fn request_lines() {
    for (text, odd) in [
        ("GET /a HTTP/1.1", Some(0)),
        ("GET /a?b#c HTTP/1.1", Some(0)),
        ("OPTIONS * HTTP/1.1", Some(0)),
        ("M-SEARCH * HTTP/1.1", Some(0)),
        ("GET  /a HTTP/1.1", Some(anomaly::ODD_LINE)),
        ("GET /a  HTTP/1.1", Some(anomaly::ODD_LINE)),
        ("GET /a HTTP/1.1 ", Some(anomaly::ODD_LINE)),
        ("GET /a b HTTP/1.1", Some(anomaly::ODD_LINE)),
        ("GET\t/a\tHTTP/1.1", Some(anomaly::ODD_LINE)),
        (" GET /a HTTP/1.1", Some(anomaly::ODD_LINE)),
        ("\tGET /a HTTP/1.1", Some(anomaly::ODD_LINE)),
        ("GET /a\0 HTTP/1.1", Some(anomaly::ODD_LINE)),
        ("GET /a http/1.1", Some(anomaly::ODD_LINE)),
        ("GET /a HTTP/1.2", Some(anomaly::ODD_LINE)),
        ("GET /a HTTP/1.01", Some(anomaly::ODD_LINE)),
        ("GET /a RTSP/1.0 HTTP/1.1", Some(anomaly::ODD_LINE)),
        ("GET HTTP/1.1", Some(anomaly::ODD_LINE)),
        ("GET  HTTP/1.0", Some(anomaly::ODD_LINE)),
        ("GET", None),
        ("PUT /a RTSP/1.0", None),
    ] {
        assert_eq!(line(text).map(|head| head.anomalies), odd, "{text:?}");
    }
}

#[test]
fn hosts() {
    for (headers, odd) in [
        ("Host: h\r\n", 0),
        ("Host:h:80\r\n", 0),
        ("", anomaly::ODD_HOST),
        ("Host:\r\n", anomaly::ODD_HOST),
        ("Host: h\r\nHost: h\r\n", anomaly::ODD_HOST),
        ("Host: h\r\nX: y\r\nhost: i\r\n", anomaly::ODD_HOST),
        ("Host:\r\n h\r\n", anomaly::OBS_FOLD),
        ("Host : h\r\n", anomaly::ODD_HEADER),
    ] {
        let output = request(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes());
        assert_eq!(output.heads[0].anomalies, odd, "{headers:?}");
    }
    assert_eq!(request(b"GET / HTTP/1.0\r\n\r\n").heads[0].anomalies, 0);
}

/// Each class once a message, and for heads that leave no record too.
#[test]
fn anomalies_are_counted() {
    let mut conversation = Conversation::open();
    conversation.data(
        From::Client,
        b"GET  /a  http/1.1\r\nno colon\r\nno colon\r\nX: a\r\n b\r\n c\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    );
    conversation.data(From::Client, b"GET /b HTTP/1.1\r\nHost: h\r\n\r\nPUT /c RTSP/1.0\r\n\r\n");
    assert_eq!(conversation.output().heads.len(), 2);
    for (counter, want) in [
        (Counter::AnomalyOddLine, 1),
        (Counter::AnomalyOddHeader, 1),
        (Counter::AnomalyFold, 1),
        (Counter::AnomalyBadLength, 1),
        (Counter::AnomalyOddHost, 1),
        (Counter::AnomalyBadLine, 1),
        (Counter::AnomalyOddCoding, 0),
        (Counter::AnomalyEarly, 0),
    ] {
        assert_eq!(count(&conversation.engine, counter), want, "{counter:?}");
    }
}

/// Names of query parameters are compared decoded, and `;` separates as `&` does.
#[test]
fn query_credentials_spelt_otherwise() {
    let value = fingerprint(b"secret-0123456789");
    for (target, line) in [
        ("/?%61ccess_token=secret-0123456789", "/?%61ccess_token="),
        ("/?access%5ftoken=secret-0123456789&x=1", "/?access%5ftoken=&x=1"),
        ("/?%61%63%63%65%73%73%5f%74%6f%6b%65%6e=secret-0123456789", "/?%61%63%63%65%73%73%5f%74%6f%6b%65%6e="),
        ("/?a=b;access_token=secret-0123456789", "/?a=b;access_token="),
        ("/?a;t=secret-0123456789", "/?a;t="),
        ("/?%74=secret-0123456789#t=raw", "/?%74="),
    ] {
        let head = line_of(target);
        assert_eq!(head.line(), format!("GET {line} HTTP/1.1"), "{target:?}");
        let found: Vec<_> = head.credentials.iter().map(|one| one.fingerprint).collect();
        assert_eq!(found, [value], "{target:?}");
    }
    // Other names, and escapes that are none.
    for target in ["/?Access_Token=a", "/?%2561ccess_token=a", "/?%6=a", "/?%=a", "/?%zt=a", "/?%7%34=a", "/?t%=a"] {
        let head = line_of(target);
        assert_eq!((head.line(), head.credentials.len()), (format!("GET {target} HTTP/1.1").as_str(), 0));
    }
}

fn line_of(target: &str) -> Seen {
    let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
    let output = request(text.as_bytes());
    let [head] = output.heads.as_slice() else { panic!("{target:?}") };
    for cut in 1..text.len() {
        let mut conversation = Conversation::open();
        conversation.data(From::Client, &text.as_bytes()[..cut]);
        conversation.data(From::Client, &text.as_bytes()[cut..]);
        assert_eq!(conversation.output().heads, output.heads, "{target:?} cut at {cut}");
    }
    head.clone()
}

#[test]
fn fragments_are_not_captured() {
    for (target, want) in [
        ("/a#access_token=RAW", "/a"),
        ("/a?b=c#RAW", "/a?b=c"),
        ("/a?t=#RAW", "/a?t="),
        ("/#RAW?t=RAW", "/"),
        ("http://h/a#RAW", "http://h/a"),
    ] {
        assert_eq!(line_of(target).line(), format!("GET {want} HTTP/1.1"));
    }
}

/// A head as long as may be, with the credential at its very end.
#[test]
fn heads_at_the_border() {
    const BORDER: usize = 64 << 10;
    let end = "\r\nAuthorization: Bearer opaque-0123456789\r\n\r\n";
    let start = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
    let head = |len: usize| format!("{start}{}{end}", "x".repeat(len - start.len() - end.len()));
    for (len, step, seen) in [(BORDER - 100, 1448, true), (BORDER - 100, 100, true), (BORDER + 3000, 1448, false)] {
        let text = head(len);
        let mut conversation = Conversation::open();
        for part in text.as_bytes().chunks(step) {
            conversation.data(From::Client, part);
        }
        let heads = conversation.output().heads;
        assert_eq!(heads.len(), usize::from(seen), "{len}");
        assert_eq!(count(&conversation.engine, Counter::HeadTooLong), u64::from(!seen), "{len}");
        assert!(heads.iter().all(|head| head.credentials[0].fingerprint == fingerprint(TOKEN)));
    }
    // One super-packet, as large as IPv4 has them.
    let text = head(BORDER - 100);
    let heads = request(text.as_bytes()).heads;
    assert_eq!(heads.len(), 1);
    assert_eq!(heads[0].credentials[0].fingerprint, fingerprint(TOKEN));
}
