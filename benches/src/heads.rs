//! Message heads as the benches' clients and servers send them. Sizes are exact, so that figures stay comparable.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Bytes of the request heads that have a stated size.
pub const REQUEST: usize = 824;
/// Bytes of the JWT.
pub const JWT: usize = 400;
/// Bytes of the response head.
pub const RESPONSE: usize = 300;

/// A path that the example configuration classes as an account read.
const TARGET: &str = "/members/48151623/addresses";

/// What browsers and gateways send with every request.
const USUAL: &str = "Host: shop.storefront.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: application/json\r\n\
    Accept-Language: en\r\n\
    Accept-Encoding: gzip, br\r\n\
    X-Forwarded-For: 203.0.113.77\r\n\
    Sec-Fetch-Mode: cors\r\n";

/// A token of [`JWT`] bytes: three parts, base64url, the claims that services usually set.
pub fn jwt() -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"2024-04","typ":"JWT"}"#);
    let claims = URL_SAFE_NO_PAD.encode(
        r#"{"iss":"https://auth.storefront.example","sub":"48151623","aud":"storefront-api","iat":1767225600,"exp":1767268800,"jti":"5f2b6c1e-8d0a-4c57-9b53-0d8f6a7e21c4","scope":"member:read orders:read"}"#,
    );
    let mut token = format!("{header}.{claims}.");
    fill(&mut token, JWT);
    token
}

/// Letters and digits without a pattern, up to `len` bytes.
fn fill(text: &mut String, len: usize) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while text.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.extend(ALPHABET.get((state >> 58) as usize).map(|byte| char::from(*byte)));
    }
}

/// A GET with `lines` and a `Referer` that makes it `len` bytes.
fn get(lines: &str, len: usize) -> Vec<u8> {
    let mut head = format!("GET {TARGET} HTTP/1.1\r\n{USUAL}{lines}Referer: https://shop.storefront.example/");
    fill(&mut head, len.saturating_sub(4));
    head.push_str("\r\n\r\n");
    head.into_bytes()
}

/// [`REQUEST`] bytes with a JWT of [`JWT`] bytes.
pub fn with_jwt() -> Vec<u8> {
    get(&format!("Authorization: Bearer {}\r\n", jwt()), REQUEST)
}

/// [`REQUEST`] bytes without any credential: a trace context of the same size stands in its place.
pub fn without_credential() -> Vec<u8> {
    let mut context = String::new();
    fill(&mut context, JWT);
    get(&format!("X-Trace-Context: {context}\r\n"), REQUEST)
}

/// [`REQUEST`] bytes with a session cookie among others.
pub fn with_session() -> Vec<u8> {
    let mut visitor = "visitor=".to_owned();
    fill(&mut visitor, 330);
    get(&format!("Cookie: theme=dark; SESSION=6f1e0c5b7a9d4e3280b1c2d3e4f5a6b7; {visitor}; lang=en\r\n"), REQUEST)
}

/// An upload whose body goes on for ever.
pub fn upload(body: u64) -> Vec<u8> {
    format!("POST /upload HTTP/1.1\r\nHost: shop.storefront.example\r\nContent-Length: {body}\r\n\r\n").into_bytes()
}

/// A response head of [`RESPONSE`] bytes, for a body of `body` bytes.
pub fn response(body: u64) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n\
         Content-Length: {body}\r\nConnection: keep-alive\r\nCache-Control: no-store\r\nVary: Accept-Encoding\r\nETag: \""
    );
    fill(&mut head, RESPONSE - 5);
    head.push_str("\"\r\n\r\n");
    head.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact() {
        assert_eq!(jwt().len(), JWT);
        assert_eq!(jwt().split('.').map(str::len).filter(|len| *len > 40).count(), 3);
        for head in [with_jwt(), without_credential(), with_session()] {
            assert_eq!(head.len(), REQUEST, "{}", String::from_utf8_lossy(&head));
            assert!(head.ends_with(b"\r\n\r\n"));
        }
        assert_eq!(response(0).len(), RESPONSE);
    }
}
