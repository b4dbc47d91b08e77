//! Credentials in every place and odd form: the fingerprint is that of the canonical credential, and of a JWT never a
//! byte of the signature leaves.

use proptest::prelude::*;
use sensor_ebpf::wire::{anomaly, credential_flag, place, scheme};

use super::rig::{Conversation, From, WHOLE, credential_of, fingerprint, request};

fn check(line: &str, place: u8, canonical: &[u8]) {
    let found = credential_of(line);
    if canonical.is_empty() {
        assert_eq!(found, None, "{line:?}");
        return;
    }
    let found = found.unwrap_or_else(|| panic!("{line:?} has no credential"));
    assert_eq!(found.fingerprint, fingerprint(canonical), "{line:?}: {} bytes hashed", found.len);
    assert_eq!(found.len as usize, canonical.len(), "{line:?}");
    assert_eq!(found.place, place, "{line:?}");
}

#[test]
fn authorization() {
    for (line, canonical) in [
        ("Authorization: Bearer abc", "abc"),
        ("authorization:bEARER abc", "abc"),
        ("AUTHORIZATION: \t Bearer \t  abc \t ", "abc"),
        ("Authorization: Bearer \"abc\"", "abc"),
        ("Authorization: Bearer \" abc \"", "abc "),
        ("Authorization: Bearer \"abc", "abc"),
        ("Authorization: Bearer abc\"", "abc"),
        ("Authorization: Bearer a\"b\"c", "a\"b\"c"),
        ("Authorization: Bearer a\" b", "a\" b"),
        ("Authorization: Bearer a%41", "a%41"),
        ("Authorization: Bearer a;b,c", "a;b,c"),
        ("Authorization: Bearer a   b", "a b"),
        ("Authorization: Bearer", ""),
        ("Authorization: bearer \t", ""),
        ("Authorization: BEARER \"\"", ""),
        ("Authorization: Bearer\r\n abc", "abc"),
        ("Authorization:\r\n Bearer abc", "abc"),
        ("Authorization:\r\n Bearer\r\n\t\r\n  abc", "abc"),
        ("Authorization: Bearer abc\r\n ", "abc"),
        ("Authorization: Bearer abc\r\n def", "abc def"),
        ("Authorization:", ""),
        ("Authorization: ", ""),
        ("Authorization: abc", "abc"),
        ("Authorization: \"abc\"", "abc"),
        ("Authorization: abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghijklmnopqrstuvwxyz0123456789"),
        ("Authorization: abcdefghijklmnop", "abcdefghijklmnop"),
        ("Authorization: abcdefghijklmnop qr", "abcdefghijklmnop qr"),
        ("Authorization: abcdefghijklmno qr", "qr"),
        ("X-Authorization: abc", ""),
        ("Authorizations: abc", ""),
        ("Authorization2: abc", ""),
    ] {
        check(line, place::AUTHORIZATION, canonical.as_bytes());
    }
}

#[test]
fn schemes() {
    for (word, id) in [
        ("bEaReR", scheme::BEARER),
        ("BASIC", scheme::BASIC),
        ("digest", scheme::DIGEST),
        ("NTLM", scheme::NTLM),
        ("Negotiate", scheme::NEGOTIATE),
        ("negotiatE", scheme::NEGOTIATE),
        ("negotiatx", scheme::OTHER),
        ("Token", scheme::TOKEN),
        ("JWT", scheme::JWT),
        ("dpop", scheme::DPOP),
        ("bearers", scheme::OTHER),
        ("AWS4-HMAC-SHA25", scheme::OTHER),
    ] {
        let found = credential_of(&format!("Authorization: {word}  t0ken")).unwrap();
        assert_eq!((found.scheme, found.fingerprint), (id, fingerprint(b"t0ken")), "{word}");
    }
    assert_eq!(credential_of("Authorization: a.b.c").unwrap().scheme, scheme::BARE);
}

#[test]
fn cookies() {
    for (line, canonical) in [
        ("Cookie: SESSION=abc", "abc"),
        ("cookie:SESSION=abc", "abc"),
        ("Cookie: a=b; SESSION=abc; c=d", "abc"),
        ("Cookie: a=b;SESSION=abc;c=d", "abc"),
        ("Cookie: a;  SESSION=abc ;c=d", "abc"),
        ("Cookie: a=SESSION=no; SESSION=abc", "abc"),
        ("Cookie: SESSION=\"abc\"; c=d", "abc"),
        ("Cookie: SESSION=\"abc", "abc"),
        ("Cookie: SESSION=a%62c", "abc"),
        ("Cookie: SESSION=a%", "a%"),
        ("Cookie: SESSION=a%6", "a%6"),
        ("Cookie: SESSION=a%6;", "a%6"),
        ("Cookie: SESSION=a%%62", "a%b"),
        ("Cookie: SESSION=a%6%62", "a%6b"),
        ("Cookie: SESSION=a%zz%6z", "a%zz%6z"),
        ("Cookie: SESSION=a%3bb", "a;b"),
        ("Cookie: SESSION=a+b&c#d", "a+b&c#d"),
        ("Cookie: SESSION=a=b==", "a=b=="),
        ("Cookie: SESSION=", ""),
        ("Cookie: SESSION=; x=y", ""),
        ("Cookie: SESSION=\"\"; x=y", ""),
        ("Cookie: SESSION; x=y", ""),
        ("Cookie: session=abc", ""),
        ("Cookie: SESSION2=abc", ""),
        ("Cookie: XSESSION=abc", ""),
        ("Cookie: __Host-a-rather-long-cookie-name=abc", "abc"),
        ("Cookie: __Host-a-rather-long-cookie-name2=abc", ""),
        ("Cookie: a=b;\r\n SESSION=abc", "abc"),
        ("Cookie: a=b\r\n ; SESSION=abc", "abc"),
        ("Cookie: a=b; \r\n\tSESSION=abc", "abc"),
        ("Cookie:\r\n SESSION=abc", "abc"),
        ("Cookie: SESSION=abc\r\n ; a=b", "abc"),
    ] {
        check(line, place::COOKIE, canonical.as_bytes());
    }
}

#[test]
fn header_and_query() {
    check("x-API-key: abc \t", place::HEADER, b"abc");
    for words in ["Bearer abc", "bEARER  \"abc\"", "Token abc", "Basic\tabc", "JWT abc", "DPoP abc", "Bearer\r\n abc"] {
        check(&format!("X-Api-Key: {words}"), place::HEADER, b"abc");
    }
    check("X-Api-Key: Digest abc", place::HEADER, b"Digest abc");
    check("X-Api-Key: Bearerabc", place::HEADER, b"Bearerabc");
    check("X-Api-Key: a-rather-long-first-word abc", place::HEADER, b"a-rather-long-first-word abc");
    check("X-Api-Key: \"a%41\"", place::HEADER, b"a%41");
    check("X-Api-Key:", place::HEADER, b"");
    check("X-Api-Key2: abc", place::HEADER, b"");
    check("X-Api-Ke: abc", place::HEADER, b"");
    for (target, canonical, line) in [
        ("/?access_token=abc", "abc", "/?access_token="),
        ("/a/b?x=1&access_token=abc&y=2", "abc", "/a/b?x=1&access_token=&y=2"),
        ("/?t=a%62c#f", "abc", "/?t="),
        ("/?t=a%", "a%", "/?t="),
        ("/?t=a+b;c", "a+b;c", "/?t="),
        ("/?t=\"abc\"", "abc", "/?t="),
        ("/?t=", "", "/?t="),
        ("/?t", "", "/?t"),
        ("/?T=abc", "", "/?T=abc"),
        ("/?a=?t=abc", "", "/?a=?t=abc"),
    ] {
        let output = request(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes());
        let [head] = output.heads.as_slice() else { panic!("{target}") };
        assert_eq!(head.line(), format!("GET {line} HTTP/1.1"));
        let hashes: Vec<_> = head.credentials.iter().map(|one| one.fingerprint).collect();
        let want: Vec<_> =
            Some(fingerprint(canonical.as_bytes())).filter(|_| !canonical.is_empty()).into_iter().collect();
        assert_eq!(hashes, want, "{target}");
        for one in &head.credentials {
            assert_eq!(one.place, place::QUERY);
            let (before, after) = head.line().split_at(usize::from(one.cut_at));
            assert!(before.ends_with('=') && !after.starts_with('='), "{target}: cut at {}", one.cut_at);
        }
    }
}

#[test]
fn response_places() {
    for (line, place, canonical) in [
        ("Set-Cookie: SESSION=abc", place::SET_COOKIE, "abc"),
        ("set-cookie:SESSION=\"a%62c\" ; Path=/; HttpOnly", place::SET_COOKIE, "abc"),
        ("Set-Cookie: SESSION=abc;Path=/\r\n ;SESSION=x", place::SET_COOKIE, "abc"),
        ("Set-Cookie: SESSION=; Max-Age=0", place::SET_COOKIE, ""),
        ("Set-Cookie: other=1; SESSION=abc", place::SET_COOKIE, ""),
        ("X-New-Token: abc", place::RESPONSE_HEADER, "abc"),
        ("X-New-Token: bearer abc", place::RESPONSE_HEADER, "abc"),
        ("Set-Cookie: SESSION=; a=b; SESSION=x", place::SET_COOKIE, ""),
        ("Set-Cookie: SESSION=abc; SESSION=x;Max-Age=0", place::SET_COOKIE, "abc"),
        ("X-Api-Key: abc", place::HEADER, ""),
        ("Authorization: abc", place::AUTHORIZATION, ""),
        ("Cookie: SESSION=abc", place::COOKIE, ""),
    ] {
        let mut conversation = Conversation::open();
        conversation.data(From::Client, b"GET / HTTP/1.1\r\n\r\n");
        conversation.data(From::Server, format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n").as_bytes());
        let output = conversation.output();
        let found: Vec<_> = output.heads[1].credentials.iter().map(|one| (one.place, one.fingerprint)).collect();
        let want = Some((place, fingerprint(canonical.as_bytes()))).filter(|_| !canonical.is_empty());
        assert_eq!(found, want.into_iter().collect::<Vec<_>>(), "{line:?}");
    }
}

/// However a `Set-Cookie` is cut into segments: what its attributes say of its end.
#[test]
fn attributes_that_end_a_cookie() {
    const DELETED: u16 = credential_flag::DELETED;
    const LASTS: u16 = credential_flag::LASTS;
    const EXPIRES: u16 = credential_flag::EXPIRES;
    for (attributes, flags) in [
        ("", 0),
        (";", 0),
        ("; Path=/; Secure; HttpOnly", 0),
        ("; Max-Age=0", DELETED),
        (";max-AGE=000;Path=/", DELETED),
        ("; Path=/; Max-Age= -1 ; Secure", DELETED),
        ("; Max-Age=3600", LASTS),
        ("; Max-Age=0; Max-Age=10", LASTS),
        ("; Max-Age=10; Max-Age=0", DELETED),
        ("; Max-Age=0; Max-Age=soon", DELETED),
        ("; Max-Age=; Max-Age", 0),
        ("; Max-Ages=0; XMax-Age=0; Path=Max-Age=0", 0),
        ("; Secure Max-Age=0", 0),
        ("\r\n ; Max-Age=0", DELETED),
        ("; Expires=Thu, 01 Jan 1970 00:00:00 GMT", EXPIRES),
        ("; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=5", EXPIRES | LASTS),
        ("; Expires=; Secure", 0),
        ("; Expires=a date that is much too long to be one, 1970; Max-Age=0", DELETED),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\nSet-Cookie: SESSION=a.b.c{attributes}\r\nSet-Cookie: SESSION=d\r\n\r\n");
        for cut in [1, 2, 3, 7, text.len()] {
            let mut conversation = Conversation::open();
            conversation.data(From::Client, b"GET / HTTP/1.1\r\n\r\n");
            for piece in text.as_bytes().chunks(cut) {
                conversation.data(From::Server, piece);
            }
            let output = conversation.output();
            let [first, second] = output.heads[1].credentials.as_slice() else { panic!("{attributes}") };
            assert_eq!(first.fingerprint, fingerprint(b"a.b.c"), "{attributes} by {cut}");
            assert_eq!(first.flags & (DELETED | LASTS | EXPIRES), flags, "{attributes} by {cut}");
            assert_eq!(second.flags, 0, "attributes stay with their cookie: {attributes} by {cut}");
            if flags & EXPIRES != 0 {
                assert_eq!(first.claims, None, "a date is no claim");
            }
        }
    }
    // A cookie that is not reported has no attributes that could fall to another.
    let mut conversation = Conversation::open();
    conversation.data(From::Client, b"GET / HTTP/1.1\r\n\r\n");
    let many = (0..9).map(|n| format!("Set-Cookie: SESSION=s{n}{}\r\n", if n == 8 { "; Max-Age=0" } else { "" }));
    let head = format!("HTTP/1.1 200 OK\r\nSet-Cookie: SESSION=;Max-Age=0\r\n{}\r\n", many.collect::<String>());
    conversation.data(From::Server, head.as_bytes());
    let output = conversation.output();
    assert_eq!(output.heads[1].credentials.len(), 8);
    assert!(output.heads[1].credentials.iter().all(|one| one.flags == 0));
}

#[test]
fn repeating_a_credential_takes_no_room() {
    let found = |lines: &str| {
        let output = request(format!("GET /?t=q&t=q HTTP/1.1\r\n{lines}\r\n").as_bytes());
        let head = &output.heads[0];
        assert_eq!(head.line(), "GET /?t=&t= HTTP/1.1", "the value is cut out all the same");
        (head.credentials.len(), head.anomalies & anomaly::MORE_CREDENTIALS != 0)
    };
    let cookies = |value: &str| format!("Cookie: {}\r\n", format!("SESSION={value}; ").repeat(20));
    assert_eq!(found(&cookies("own")), (2, false));
    // Twenty of the attacker's own, written in any way, do not hide the forged one.
    let words = ["Bearer ", "Token ", "JWT ", "DPoP ", "Other ", ""];
    let own = words.map(|word| format!("Authorization: {word}own\r\n")).concat();
    let hidden = format!("{}{}{own}Authorization: Bearer forged\r\n", cookies("own"), cookies("%6fwn"));
    assert_eq!(found(&hidden), (4, false));
    // Values that say nothing count once, however many they are; what could be a token beside them is kept.
    let digests = (0..20)
        .map(|n| format!("Authorization: Digest nonce=\"{n}\", uri=\"/a.b.c\"\r\n"))
        .collect::<Vec<_>>()
        .concat();
    let ntlm = (0..20).map(|n| format!("Authorization: NTLM TlRM{n}\r\n")).collect::<Vec<_>>().concat();
    assert_eq!(
        found(&format!("{digests}{ntlm}Authorization: Digest a.b.c\r\nAuthorization: Bearer forged\r\n")),
        (4, false)
    );
    // A scheme that is judged otherwise does not stand in for another.
    assert_eq!(
        found("Authorization: NTLM same\r\nAuthorization: Basic same\r\nAuthorization: Bearer same\r\n"),
        (4, false)
    );
    let distinct = (0..9).map(|n| format!("Cookie: SESSION={n}\r\n")).collect::<Vec<_>>().concat();
    assert_eq!(found(&distinct), (8, true));
}

#[test]
fn shape_of_a_jwt() {
    const WHOLE_FLAGS: u16 = WHOLE;
    for (value, flags, claims) in [
        ("a.b.c", WHOLE_FLAGS, Some("a.b")),
        (
            "aaaaaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbb.c",
            WHOLE_FLAGS,
            Some("aaaaaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbb"),
        ),
        ("aaaaaaaaaaa.bbbbbbbbbbbbbbbbb.cccccccccccccccccccc", WHOLE_FLAGS, Some("aaaaaaaaaaa.bbbbbbbbbbbbbbbbb")),
        ("a.b.", credential_flag::EMPTY_SIGNATURE, None),
        ("a.b", 0, None),
        ("a.b.c.d", 0, None),
        ("a.b.c.d.e", 0, None),
        ("..", 0, None),
        (".b.c", 0, None),
        (".bb.c", 0, None),
        ("a..c", 0, None),
        ("aa..c", 0, None),
        ("aaaaaaaaaaaaa..c", 0, None),
        ("\"a.b.c\"", WHOLE_FLAGS, Some("a.b")),
        ("\" a.b.c\"", WHOLE_FLAGS, Some("a.b")),
        ("a b.c.d", credential_flag::THREE_PARTS | credential_flag::CLAIMS_CUT | credential_flag::INNER_SPACE, None),
        ("a.b.c d", credential_flag::THREE_PARTS | credential_flag::CLAIMS_CUT | credential_flag::INNER_SPACE, None),
    ] {
        for line in [
            format!("Authorization: Bearer {value}"),
            format!("X-Api-Key: {value}"),
            format!("Cookie: SESSION={value}"),
        ] {
            let found = credential_of(&line).unwrap();
            assert_eq!(found.flags, flags, "{line}");
            assert_eq!(found.claims.as_deref(), claims.map(str::as_bytes), "{line}");
        }
    }
    let bare = credential_of("Authorization: a.b.c").unwrap();
    assert_eq!((bare.flags, bare.claims.as_deref()), (WHOLE, Some(b"a.b".as_slice())));
}

#[test]
fn claims_of_one_credential_never_stand_at_another() {
    let many = (0..8).map(|n| format!("t=a{n}.b{n}.c&")).collect::<Vec<_>>().concat();
    let output = request(format!("GET /?{many}t=evil.claims.sig HTTP/1.1\r\n\r\n").as_bytes());
    let head = &output.heads[0];
    assert_eq!(head.anomalies & anomaly::MORE_CREDENTIALS, anomaly::MORE_CREDENTIALS);
    assert_eq!(head.credentials.len(), 8);
    assert!(head.credentials.iter().all(|one| one.claims.as_deref() != Some(b"evil.claims")), "{head:?}");
}

const CANARY: &str = "CANARYCANARY";

/// The bytes of every record that comes out.
fn raw_records(first: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut conversation = Conversation::open();
    let mut sent = 0;
    for cut in cuts.iter().map(|cut| cut % first.len()).chain([first.len()]) {
        if cut > sent {
            conversation.data(From::Client, &first[sent..cut]);
            sent = cut;
        }
    }
    let mut all = Vec::new();
    conversation.engine.drain(|bytes| all.extend_from_slice(bytes));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    /// (Header and payload are of small letters, so that they cannot spell a piece of the canary.)
    /// Wherever a credential stands and however its bytes are cut, no byte of a signature or an opaque value is in a
    /// record.
    #[test]
    fn canary(
        header in "[a-z0-9_-]{0,60}", payload in "[a-z0-9_-]{0,2000}", tail in "[A-Za-z0-9_.-]{0,40}",
        form in 0usize..9, repeat in 1usize..11, mut cuts in proptest::collection::vec(0usize..3000, 0..8),
    ) {
        let token = format!("{header}.{payload}.{CANARY}{tail}");
        let line = match form {
            0 => format!("Authorization: Bearer {token}\r\n"),
            1 => format!("Authorization: {token}\r\n"),
            2 => format!("Authorization: Bearer \" {token}\"\r\n"),
            3 => format!("X-Api-Key: {token}\r\n \r\n"),
            4 => format!("Cookie: SESSION={token}; a=b\r\n"),
            5 => format!("Cookie: a=b; SESSION=\"{token}\"\r\n"),
            6 => format!("Authorization: Bearer\r\n {token}\r\n"),
            7 => format!("X-Api-Key: {CANARY}{header}\r\n"),
            _ => String::new(),
        };
        let target = if form == 8 { format!("/?x=1&t={token}&access_token={token}") } else { "/".to_owned() };
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{}\r\n", line.repeat(repeat));
        cuts.sort_unstable();
        let records = raw_records(bytes.as_bytes(), &cuts);
        prop_assert!(!records.is_empty());
        prop_assert!(!records.windows(4).any(|window| CANARY.as_bytes().windows(4).any(|part| part == window)));
    }

    /// Any value in any place, against the canonical form worked out over the whole string.
    #[test]
    fn any_value(value in "[ -~]{0,40}|[a%\"; \t.0-9]{0,24}", cuts in proptest::collection::vec(1usize..60, 0..6), where_ in 0usize..4) {
        let (text, encoded) = match where_ {
            0 => (format!("Authorization: Bearer {value}\r\n"), false),
            1 => (format!("X-Api-Key: {value}\r\n"), false),
            2 => (format!("Cookie: SESSION={value}\r\n"), true),
            _ => (format!("GET /?t={} HTTP/1.1\r\n", value.replace([' ', '\t'], "")), true),
        };
        let (bytes, canonical) = if where_ == 3 {
            let value = value.replace([' ', '\t'], "");
            let value = value.split(['&', '#']).next().unwrap().to_owned();
            (format!("{text}\r\n"), canonical(&value, encoded))
        } else {
            let value = if encoded { value.split(';').next().unwrap() } else { &value };
            (format!("GET / HTTP/1.1\r\n{text}\r\n"), canonical(value, encoded))
        };
        let mut conversation = Conversation::open();
        let mut rest = bytes.as_bytes();
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            if !now.is_empty() { conversation.data(From::Client, now); }
            rest = later;
        }
        if !rest.is_empty() { conversation.data(From::Client, rest); }
        let output = conversation.output();
        let first = output.heads[0].credentials.iter().find(|one| one.index != 0 || one.place != place::QUERY || where_ == 3);
        prop_assert_eq!(first.map(|one| one.fingerprint), canonical.map(|text| fingerprint(&text)), "{:?}", bytes);
    }
}

/// The canonical form, the plain way: outer whitespace, opening and closing quote off, runs of whitespace one space,
/// then the escapes.
fn canonical(value: &str, encoded: bool) -> Option<Vec<u8>> {
    let value = value.trim_matches([' ', '\t']).trim_start_matches(['"', ' ', '\t']);
    let value = value.strip_suffix('"').unwrap_or(value);
    let mut text = String::new();
    for c in value.chars() {
        let c = if c == '\t' { ' ' } else { c };
        if c != ' ' || !text.ends_with(' ') {
            text.push(c);
        }
    }
    let bytes = text.into_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) if encoded => {
                out.push(u8::try_from(high * 16 + low).unwrap());
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Some(out).filter(|out| !out.is_empty())
}
