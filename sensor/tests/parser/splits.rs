//! However a byte stream is cut into segments, the same records come out.

use proptest::prelude::*;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::{credential_flag, direction, kind, place};

use super::rig::{Conversation, From, Output, count};

const JWT: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0.eyJzdWIiOiI0MiIsImlzcyI6Imh0dHBzOi8vaXNzdWVyLmV4YW1wbGUifQ.c2lnbmF0dXJlLWNhbmFyeS0wMTIzNDU2Nzg5";

/// What the two ends say, in turn.
fn conversation() -> Vec<(From, Vec<u8>)> {
    use From::{Client, Server};
    let turns: Vec<(From, String)> = vec![
        (
            Client,
            format!(
                "\r\nGET /users/1/addresses?page=2&access_token={JWT}&x=1#f HTTP/1.1\r\nHost: shop.example  \r\n\
                 User-Agent: a browser with a name of more than sixty-four bytes (compatible; 1.0; test)\r\n\
                 Authorization:   bEaReR \t {JWT} \r\nCookie: a=b; SESSION=\"abc%2fd%e%zz\" ; c=d\r\n\
                 X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\nX-Api-Key: {JWT}\r\n\r\n"
            ),
        ),
        (Server, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\nContent-Type: text/plain\r\n\r\nhello world".to_owned()),
        (
            Client,
            format!(
                "POST /login HTTP/1.1\nHost: shop.example\nAuthorization: {JWT}\nTransfer-Encoding: gzip, Chunked\n\
                 Expect: 100-continue\n\n4;ext=1\r\nabcd\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: 1\r\n\r\n"
            ),
        ),
        (
            Server,
            format!(
                "HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 302 Found\r\nLocation: /home\r\nSet-Cookie: other=1\r\n\
                 Set-Cookie: SESSION={JWT}; Path=/; HttpOnly\r\nX-New-Token: opaque\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\n\r\n"
            ),
        ),
        (
            Client,
            "HEAD /a HTTP/1.1\r\nHost: h\r\nAuthorization: Basic dXNlcjpwYXNz\r\n\r\n\
             DELETE /b HTTP/1.0\r\nHost: h\r\nAuthorization: Bearer one\r\n two\r\nCookie: x=y;\r\n\tSESSION=folded\r\n\r\n\
             OPTIONS * HTTP/1.1\r\nHost:\r\n h\r\nAuthorization:\r\n Bearer tok\r\nCookie:SESSION=;SESSION=1\r\n\r\n\
             PUT http://h/c?t=%41%4g HTTP/1.1 \r\nContent-Length: 3\r\n\r\nabcGET /d e HTTP/1.1\r\n\
             Authorization: a-scheme-of-16-b token\r\nNo colon here\r\n\r\n"
                .to_owned(),
        ),
        (
            Server,
            "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\
             HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n\
             HTTP/1.0 404 Not Found\r\n\r\nuntil the end"
                .to_owned(),
        ),
    ];
    turns.into_iter().map(|(from, text)| (from, text.into_bytes())).collect()
}

const SAME: &[Counter] = &[
    Counter::BytesNew,
    Counter::HeadsCompleted,
    Counter::HeadsRequest,
    Counter::RecordsEmitted,
    Counter::Desynchronised,
    Counter::Unsolicited,
    Counter::FlowsDeleted,
    Counter::BytesGap,
];

fn totals(conversation: &Conversation) -> Vec<u64> {
    SAME.iter().map(|counter| count(&conversation.engine, *counter)).collect()
}

/// Where one turn is cut.
fn play(mut cuts: impl FnMut(usize, usize) -> Vec<usize>) -> (Output, Vec<u64>) {
    let mut conversation = Conversation::open();
    for (turn, (from, bytes)) in self::conversation().into_iter().enumerate() {
        let mut sent = 0;
        for cut in cuts(turn, bytes.len()).into_iter().chain([bytes.len()]) {
            if cut > sent {
                conversation.data(from, &bytes[sent..cut]);
                sent = cut;
            }
        }
    }
    finish(conversation)
}

fn finish(mut conversation: Conversation) -> (Output, Vec<u64>) {
    use super::rig::{ACK, FIN};
    conversation.send(From::Server, FIN | ACK, b"");
    conversation.send(From::Client, FIN | ACK, b"");
    (conversation.output(), totals(&conversation))
}

/// Header and payload of a JWT in a query are only taken when it stands in one segment as a whole: the one thing that
/// may depend on how a stream is cut.
fn without_query_claims(mut output: Output) -> Output {
    for found in output.heads.iter_mut().flat_map(|head| &mut head.credentials) {
        if found.place == place::QUERY {
            found.claims = None;
            found.flags &= !(credential_flag::CLAIMS | credential_flag::CLAIMS_CUT);
        }
    }
    output
}

#[test]
fn uncut_is_as_it_should_be() {
    let (output, _) = play(|_, _| Vec::new());
    let lines: Vec<&str> = output.heads.iter().filter(|head| head.request).map(super::rig::Seen::line).collect();
    assert_eq!(
        lines,
        [
            "GET /users/1/addresses?page=2&access_token=&x=1 HTTP/1.1",
            "POST /login HTTP/1.1",
            "HEAD /a HTTP/1.1",
            "DELETE /b HTTP/1.0",
            "OPTIONS * HTTP/1.1",
            "PUT http://h/c?t= HTTP/1.1",
            "GET /d e HTTP/1.1",
        ]
    );
    let statuses: Vec<(u32, u16)> =
        output.heads.iter().filter(|head| !head.request).map(|head| (head.txn, head.status)).collect();
    assert_eq!(statuses, [(0, 200), (1, 302), (2, 200), (3, 204), (4, 304), (5, 200), (6, 404)]);
    let whole = JWT.rsplit_once('.').unwrap().0.as_bytes();
    let with_claims: Vec<usize> = output
        .heads
        .iter()
        .map(|head| head.credentials.iter().filter(|one| one.claims.as_deref() == Some(whole)).count())
        .collect();
    assert_eq!(with_claims, [3, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "{output:#?}");
    // The request line of the fifth is in absolute form: user space decides, and gets the body.
    assert_eq!(output.teed.get(&(direction::RESPONSE, 5)).map(Vec::as_slice), Some(b"abcde".as_slice()));
    assert_eq!(output.ends, [(1, 4, kind::TEE_END, 0, 1), (1, 5, kind::TEE_END, 5, 1)]);
    assert_eq!(output.closes, 0);
}

#[test]
fn cut_anywhere_into_two() {
    let (whole, whole_totals) = play(|_, _| Vec::new());
    let whole = without_query_claims(whole);
    for (turn, (_, bytes)) in conversation().iter().enumerate() {
        for at in 1..bytes.len() {
            let (cut, cut_totals) = play(|this, _| if this == turn { vec![at] } else { Vec::new() });
            assert_eq!(without_query_claims(cut), whole, "turn {turn} cut at {at}");
            assert_eq!(cut_totals, whole_totals, "turn {turn} cut at {at}");
        }
    }
}

#[test]
fn cut_into_single_bytes() {
    let (whole, whole_totals) = play(|_, _| Vec::new());
    let (cut, cut_totals) = play(|_, len| (1..len).collect());
    assert_eq!(without_query_claims(cut), without_query_claims(whole));
    assert_eq!(cut_totals, whole_totals);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn cut_at_random(seeds in proptest::collection::vec(proptest::collection::vec(0.0f64..1.0, 0..12), 6)) {
        let (whole, whole_totals) = play(|_, _| Vec::new());
        let (cut, cut_totals) = play(|turn, len| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a short text")]
            let mut cuts: Vec<usize> = seeds[turn].iter().map(|share| (share * len as f64) as usize).collect();
            cuts.sort_unstable();
            cuts
        });
        prop_assert_eq!(without_query_claims(cut), without_query_claims(whole));
        prop_assert_eq!(cut_totals, whole_totals);
    }

    /// Segments sent again, whole or overlapping what is new, change nothing.
    #[test]
    fn sent_again(lens in proptest::collection::vec(1usize..90, 1..40), backs in proptest::collection::vec(0usize..120, 1..40)) {
        let (whole, whole_totals) = play(|_, _| Vec::new());
        let mut conversation = Conversation::open();
        let mut lens = lens.iter().cycle();
        let mut backs = backs.iter().cycle();
        for (from, bytes) in self::conversation() {
            let mut sent = 0;
            while sent < bytes.len() {
                let back = (*backs.next().unwrap()).min(sent);
                let end = (sent + lens.next().unwrap()).min(bytes.len());
                conversation.overlap(from, u32::try_from(back).unwrap(), &bytes[sent - back..end]);
                if back % 3 == 0 {
                    conversation.overlap(from, u32::try_from(end - sent + back).unwrap(), &bytes[sent - back..end]);
                }
                sent = end;
            }
        }
        let (mut again, again_totals) = finish(conversation);
        // What was sent again says the same.
        for version in std::mem::take(&mut again.versions).iter().filter(|version| version.head_bytes > 0) {
            let same = |head: &&super::rig::Seen| head.request && head.txn == version.txn;
            let first = again.heads.iter().find(same).expect("a version of a request");
            prop_assert_eq!(version.line(), first.line());
            let of = |seen: &super::rig::Seen| seen.credentials.iter().map(|one| one.fingerprint).collect::<Vec<_>>();
            prop_assert_eq!(of(version), of(first));
        }
        prop_assert_eq!(without_query_claims(again), without_query_claims(whole));
        for ((counter, again), whole) in SAME.iter().zip(again_totals).zip(whole_totals) {
            // A flow that the slow path follows to its end stays in the table until its place is needed.
            prop_assert!(again == whole || *counter == Counter::FlowsDeleted, "{:?}: {} {}", counter, again, whole);
        }
    }
}
