//! llhttp's own tests: what it accepts must be seen here, and what is an error there must be odd here.

use sensor::collect::target::RequestLine;
use sensor_ebpf::wire::{capture, direction};
use serde_json::Value;

use super::rig::{From, Output, Seen};
use super::{agreement, suite};

/// Not an error of the message: the connection leaves HTTP, or should have been closed.
const PAUSED: [u64; 2] = [21, 22];

#[test]
fn agrees_with_llhttp() {
    let Some(cases) = suite::cases("llhttp/cases.jsonl") else { return };
    let cases: Vec<_> = cases.iter().filter(|case| case["kind"] == "http").collect();
    assert!(cases.len() > 100);
    let differences: Vec<(String, String)> =
        cases.iter().filter_map(|case| Some((case["id"].as_str()?.to_owned(), differs(case).err()?))).collect();
    agreement::check("llhttp", &differences);
}

fn differs(case: &Value) -> Result<(), String> {
    let from = if case["type"].as_str().unwrap().starts_with("request") { From::Client } else { From::Server };
    let messages = case["messages"].as_array().unwrap();
    let events: Vec<&str> = case["log"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let heads = events.iter().filter(|event| event.contains("headers complete")).count();
    let mut conversation = suite::teeing();
    if from == From::Server {
        // llhttp is told that it reads the answer to a HEAD; we read it.
        let word = if events.iter().any(|event| event.contains("skip body")) { "HEAD" } else { "GET" };
        for _ in messages {
            conversation.data(From::Client, format!("{word} / HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        }
        conversation.output();
    }
    let asked = suite::odd(&conversation);
    conversation.data(from, &input(case, &events, heads < messages.len()));
    let output = conversation.output();
    let odd = suite::odd(&conversation) - asked;
    let seen: Vec<&Seen> = output.heads.iter().filter(|head| head.request == (from == From::Client)).collect();
    // Interim responses leave no record.
    let interim = |message: &Value| message["status"].as_u64().is_some_and(|code| code / 100 == 1 && code != 101);
    let wanted: Vec<&Value> = messages.iter().take(heads).filter(|message| !interim(message)).collect();
    if seen.len() < wanted.len() {
        return Err(format!("{} heads of {}", seen.len(), wanted.len()));
    }
    for (message, head) in wanted.iter().zip(&seen) {
        same(message, head, &output)?;
    }
    let error = &case["error"];
    let code = error["code"].as_u64();
    if code.is_some_and(|code| !PAUSED.contains(&code)) && odd == 0 {
        return Err(format!("error {}, nothing odd here", error["reason"]));
    }
    Ok(())
}

/// The case's bytes. Some end without the line end that the events behind them need; and where a head is an error, the
/// rest of it is made up: what is odd about a head is said when it is complete.
fn input(case: &Value, events: &[&str], cut: bool) -> Vec<u8> {
    let mut input = suite::bytes(&case["input_b64"]);
    let offset = |event: &&str| event.strip_prefix("off=")?.split(' ').next()?.parse::<usize>().ok();
    let end = events.iter().filter_map(offset).max().unwrap_or(0);
    let fails = case["error"]["code"].as_u64().is_some_and(|code| !PAUSED.contains(&code));
    if end > input.len() || (fails && end == input.len()) {
        input.extend(b"\r\n");
    }
    if cut && !case["error"].is_null() {
        input.extend(b"\r\n\r\n");
    }
    input
}

fn same(message: &Value, head: &Seen, output: &Output) -> Result<(), String> {
    if head.request {
        let line = head.captures[capture::LINE].as_deref().unwrap();
        let line = RequestLine::new(line, false);
        let target = message["url"].as_str().unwrap_or_default().split('#').next().unwrap().as_bytes();
        if message["method"].as_str().map(str::as_bytes) != Some(line.method) || line.target != target {
            return Err(format!(
                "{:?} {:?}",
                String::from_utf8_lossy(line.method),
                String::from_utf8_lossy(line.target)
            ));
        }
    } else if message["status"].as_u64() != Some(u64::from(head.status)) {
        return Err(format!("status {}", head.status));
    }
    let version = match message["version"].as_str() {
        Some("1.1") => 0x11,
        Some("1.0") => 0x10,
        Some("0.9") | None => 0x09,
        _ => 0,
    };
    // That of another protocol, or an explicit 0.9, is none that is known.
    if version != head.version && !(version == 0x09 && head.version == 0) {
        return Err(format!("version {:x}", head.version));
    }
    let stated = |name: &str| {
        let mut headers = message["headers"].as_array().into_iter().flatten();
        headers.rfind(|one| one[0].as_str().is_some_and(|key| key.trim().eq_ignore_ascii_case(name)))
    };
    if let Some(host) = stated("host").filter(|_| head.request) {
        let ours = head.captures[capture::HOST].as_deref().unwrap_or_default();
        if host[1].as_str().unwrap_or_default().trim().as_bytes() != ours {
            return Err(format!("host {:?}", String::from_utf8_lossy(ours)));
        }
    }
    let way = if head.request { direction::REQUEST } else { direction::RESPONSE };
    let body = output.teed.get(&(way, head.txn)).map_or(0, Vec::len);
    if message["complete"] == true && message["body_len"].as_u64() != Some(body as u64) {
        return Err(format!("{body} body bytes of {}", message["body_len"]));
    }
    Ok(())
}
