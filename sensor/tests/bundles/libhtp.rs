//! libhtp's connection tests: what they assert of each transaction, as far as an observation has it.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sensor::collect::target::RequestLine;
use sensor_ebpf::wire::{anomaly, capture, direction, framing, scheme, version};
use serde_json::Value;

use super::rig::{From, Output, Seen, fingerprint};
use super::{agreement, suite};

#[test]
fn agrees_with_libhtp() {
    let Some(cases) = suite::cases("libhtp/streams.jsonl") else { return };
    assert!(cases.len() > 30);
    let mut differences = Vec::new();
    for case in &cases {
        if let Err(what) = differs(case) {
            differences.push((case["id"].as_str().unwrap().to_owned(), what));
        }
    }
    agreement::check("libhtp", &differences);
}

fn differs(case: &Value) -> Result<(), String> {
    let mut conversation = suite::teeing();
    for chunk in case["chunks"].as_array().unwrap() {
        let from = if chunk["dir"] == "c" { From::Client } else { From::Server };
        match chunk["gap"].as_u64() {
            Some(gap) => conversation.skip(from, u32::try_from(gap).unwrap()),
            None => conversation.data(from, &suite::bytes(&chunk["b64"])),
        }
    }
    let output = conversation.output();
    let transactions: BTreeSet<u32> = output.heads.iter().map(|head| head.txn).collect();
    if case["transactions"].as_u64().is_some_and(|want| want != transactions.len() as u64) {
        return Err(format!("{} transactions of {}", transactions.len(), case["transactions"]));
    }
    for wanted in case["tx"].as_array().unwrap() {
        transaction(wanted, &output).map_err(|what| format!("{}: {what}", wanted["index"]))?;
    }
    Ok(())
}

fn transaction(wanted: &Value, output: &Output) -> Result<(), String> {
    let txn = u32::try_from(wanted["index"].as_u64().unwrap()).unwrap();
    let find = |request| output.heads.iter().find(|head| head.txn == txn && head.request == request);
    let (request, response) = (find(true), find(false));
    if let Some(request) = request {
        asked(wanted, request)?;
    } else if wanted.get("request_method").is_some() {
        return Err("no request".to_owned());
    }
    match (wanted["response_progress"].as_str(), response) {
        (Some("HTP_RESPONSE_COMPLETE"), None) => return Err("no response".to_owned()),
        (Some("HTP_RESPONSE_NOT_STARTED"), Some(_)) => return Err("a response".to_owned()),
        _ => {}
    }
    if let Some(status) = wanted["response_status_number"].as_u64()
        && response.map(|head| u64::from(head.status)) != Some(status)
    {
        return Err(format!("status {:?}", response.map(|head| head.status)));
    }
    // Of a chunked body libhtp counts the chunk lines too.
    if let (Some(len), Some(head)) = (wanted["response_message_len"].as_u64(), response)
        && head.framing != framing::CHUNKED
    {
        let body = output.teed.get(&(direction::RESPONSE, txn)).map_or(0, Vec::len);
        if len != body as u64 {
            return Err(format!("{body} body bytes of {len}"));
        }
    }
    let odd = request.map_or(0, |head| head.anomalies) | response.map_or(0, |head| head.anomalies);
    for flag in wanted["flags"].as_array().into_iter().flatten() {
        let same = match flag.as_str().unwrap() {
            "HTP_HOST_MISSING" => anomaly::ODD_HOST,
            "HTP_REQUEST_INVALID_C_L" => anomaly::BAD_LENGTH,
            "HTP_REQUEST_SMUGGLING" => anomaly::BAD_LENGTH | anomaly::LENGTH_AND_CODING | anomaly::ODD_CODING,
            // Of what is no part of an observation: the form of names, paths and digest parameters.
            _ => continue,
        };
        if odd & same == 0 {
            return Err(format!("{flag} is not said"));
        }
    }
    Ok(())
}

fn asked(wanted: &Value, head: &Seen) -> Result<(), String> {
    let line = RequestLine::new(head.captures[capture::LINE].as_deref().unwrap(), false);
    let target = line.split();
    let text = |key: &str| wanted[key].as_str().map(str::as_bytes);
    let host = target.authority.or(head.captures[capture::HOST].as_deref()).unwrap_or_default();
    let bare = host.rsplit(|byte| *byte == b':').next_back().unwrap_or_default();
    let hostname = host.strip_suffix([b":", bare].concat().as_slice()).unwrap_or(host);
    for (key, ours) in [
        ("request_method", line.method),
        ("request_uri", line.target),
        ("parsed_uri.query", target.query.unwrap_or_default()),
    ] {
        if text(key).is_some_and(|want| want != ours) {
            return Err(format!("{key} {:?}", String::from_utf8_lossy(ours)));
        }
    }
    if text("request_hostname")
        .is_some_and(|want| want != hostname && want != host.split(|b| *b == b':').next().unwrap())
    {
        return Err(format!("host {:?}", String::from_utf8_lossy(host)));
    }
    if let Some(old) = wanted["is_protocol_0_9"].as_u64()
        && (old == 1) != (head.version == version::HTTP_09)
    {
        return Err(format!("version {:x}", head.version));
    }
    let ambiguous = wanted["flags"].as_array().into_iter().flatten().any(|flag| flag == "HTP_HOST_AMBIGUOUS");
    if ambiguous && !target.contradicts(head.captures[capture::HOST].as_deref().unwrap_or_default()) {
        return Err("the hosts are said to be the same".to_owned());
    }
    let Some(kind) = wanted["request_auth_type"].as_str() else { return Ok(()) };
    let want = match kind {
        "HTP_AUTH_BASIC" => scheme::BASIC,
        "HTP_AUTH_DIGEST" => scheme::DIGEST,
        "HTP_AUTH_BEARER" => scheme::BEARER,
        _ => scheme::OTHER,
    };
    let [one] = head.credentials.as_slice() else { return Err(format!("{} credentials", head.credentials.len())) };
    if one.scheme != want {
        return Err(format!("scheme {}", one.scheme));
    }
    if let (Some(user), Some(password)) =
        (wanted["request_auth_username"].as_str(), wanted["request_auth_password"].as_str())
        && one.fingerprint != fingerprint(STANDARD.encode(format!("{user}:{password}")).as_bytes())
    {
        return Err("another credential".to_owned());
    }
    Ok(())
}
