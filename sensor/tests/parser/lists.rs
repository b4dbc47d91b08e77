//! Lists of forwarding addresses: several lines are one list, and of a long one the end is kept, however it was cut.

use proptest::prelude::*;
use sensor_ebpf::wire::{VALUE_CAPTURE_MAX, anomaly, capture};

use super::rig::{Conversation, From, Seen};

/// The head of a request with these header lines, its bytes cut at `cuts`.
fn head(lines: &str, cuts: &[usize]) -> Seen {
    let bytes = format!("GET / HTTP/1.1\r\n{lines}\r\n").into_bytes();
    let mut conversation = Conversation::open();
    let mut sent = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        if cut > sent && cut <= bytes.len() {
            conversation.data(From::Client, &bytes[sent..cut]);
            sent = cut;
        }
    }
    let mut heads = conversation.output().heads;
    assert_eq!(heads.len(), 1, "{lines}");
    heads.remove(0)
}

fn list(seen: &Seen) -> (String, bool) {
    let value = seen.captures[capture::X_FORWARDED_FOR].clone().unwrap_or_default();
    (String::from_utf8(value).unwrap(), seen.anomalies & anomaly::VALUE_CUT != 0)
}

#[test]
fn lines_are_one_list() {
    for (lines, want) in [
        ("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n", "1.1.1.1,2.2.2.2"),
        (
            "X-Forwarded-For: 1.1.1.1\r\nHost: h\r\nx-forwarded-for: 2.2.2.2 \r\nX-FORWARDED-FOR:3\n",
            "1.1.1.1,2.2.2.2,3",
        ),
        ("X-Forwarded-For: \r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-For:\r\n", "2.2.2.2"),
    ] {
        assert_eq!(list(&head(lines, &[])), (want.to_owned(), false), "{lines}");
        for cut in 1..lines.len() + 16 {
            assert_eq!(list(&head(lines, &[cut])), (want.to_owned(), false), "{lines} cut at {cut}");
        }
    }
    let seen = head("Forwarded: for=1\r\nX-Forwarded-For: 2\r\nHost: h\r\nForwarded: for=3\r\n", &[]);
    assert_eq!(seen.captures[capture::FORWARDED].as_deref(), Some(&b"for=1,for=3"[..]));
    assert_eq!(seen.captures[capture::X_FORWARDED_FOR].as_deref(), Some(&b"2"[..]));
}

#[test]
fn padding_does_not_push_the_end_out() {
    for padding in [200, 255, 256, 257, 300, 511, 512, 513, 900, 5000, 20_000] {
        let value = format!("{}, 198.51.100.7, 10.0.0.9", "6".repeat(padding));
        let lines = format!("Host: h\r\nX-Forwarded-For: {value}\r\nContent-Type: text/plain\r\n");
        let whole = head(&lines, &[]);
        let (kept, cut) = list(&whole);
        assert!(value.ends_with(&kept) && kept.ends_with("6, 198.51.100.7, 10.0.0.9"), "{padding}: {kept}");
        assert_eq!(cut, value.len() + 1 > VALUE_CAPTURE_MAX, "{padding}");
        assert!(kept.len() >= value.len().min(VALUE_CAPTURE_MAX - 1), "{padding}");
        assert_eq!(whole.captures[capture::HOST].as_deref(), Some(&b"h"[..]));
        assert_eq!(whole.captures[capture::CONTENT_TYPE].as_deref(), Some(&b"text/plain"[..]));
        if padding <= 900 {
            let each: Vec<usize> = (1..lines.len() + 18).collect();
            assert_eq!(head(&lines, &each), whole, "{padding} byte by byte");
        }
    }
}

#[test]
fn a_list_without_room_for_its_end_is_not_kept_at_all() {
    let hosts = format!("Host: {}\r\n", "h".repeat(250)).repeat(20);
    let seen = head(&format!("X-Forwarded-For: 6.6.6.6\r\n{hosts}X-Forwarded-For: 198.51.100.7\r\n"), &[]);
    assert_eq!(list(&seen), (String::new(), true));
}

proptest! {
    /// Any lines, with others between them, in any cuts: the same as uncut, and the end of what they say.
    #[test]
    fn any_lines_in_any_cuts(
        lines in proptest::collection::vec(("[0-9a-f., :]{0,400}", any::<bool>()), 1..4),
        cuts in proptest::collection::vec(1usize..1700, 0..12)
    ) {
        let mut text = String::new();
        let mut joined: Vec<&str> = Vec::new();
        for (value, other) in &lines {
            text.extend(["X-Forwarded-For: ", value, "\r\n", if *other { "Host: example\r\n" } else { "" }]);
            joined.extend(Some(value.trim_matches(' ')).filter(|value| !value.is_empty()));
        }
        let mut cuts = cuts;
        cuts.sort_unstable();
        let whole = head(&text, &[]);
        let (kept, cut) = list(&whole);
        let all: String = joined.join(",").replace(' ', "");
        let tail: String = kept.replace(' ', "");
        prop_assert!(all.ends_with(&tail), "{kept} of {all}");
        prop_assert!(cut || tail == all);
        prop_assert_eq!(head(&text, &cuts), whole);
    }
}
