//! Where the suites are, and what stands between their cases and the parser.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sensor::capture::offline::Offline;
use sensor::slow::Limits;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::{RouteConfig, RouteState, method, route_flag};
use serde_json::Value;

use super::rig::{Conversation, count, tables};

/// The cases of a suite, one JSON object a line; `None` (which is said) where there is none.
pub fn cases(file: &str) -> Option<Vec<Value>> {
    let folder = std::env::var_os("AUTHSENSOR_CORPORA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora"), PathBuf::from);
    let path = folder.join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: no {file} in {}", folder.display());
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

pub fn bytes(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.as_str().unwrap()).unwrap()
}

/// A connection to a service all of whose bodies are teed, so that their bytes can be counted.
pub fn teeing() -> Conversation {
    let mut tables = tables();
    tables.services[0].route_root = 1;
    tables.states.push(RouteState { wildcard: 1, accept: [0; method::COUNT], reserved: 0 });
    let flags = route_flag::TEE_REQUEST | route_flag::TEE_RESPONSE;
    tables.routes.insert(0, RouteConfig { flags, ..RouteConfig::default() });
    Conversation::over(Offline::new(tables, false, 16, 64, Limits::default()))
}

/// How often something was said to be odd, or a half lost its place. (Most cases do without `Host`.)
pub fn odd(conversation: &Conversation) -> u64 {
    [
        Counter::AnomalyFold,
        Counter::AnomalyManyAuthorizations,
        Counter::AnomalyBadLength,
        Counter::AnomalyLengthAndCoding,
        Counter::AnomalyOddCoding,
        Counter::AnomalyOddHeader,
        Counter::AnomalyOddChunk,
        Counter::AnomalyOddLine,
        Counter::AnomalyBadLine,
        Counter::Desynchronised,
    ]
    .iter()
    .map(|one| count(&conversation.engine, *one))
    .sum()
}
