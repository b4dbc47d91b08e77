//! Bounds of the data plane and of the ledger: every one with a default and a range.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::model::{Bounds, Keys, Ledger, LedgerStore};
use super::reader::{Context, Section};
use super::scalar::{self, duration_or};
use crate::diagnostic::quoted;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
/// Most entries that any table may be given.
pub(super) const ENTRIES_MAX: u64 = 1 << 24;
/// Each opened finding is compared with all of them.
const OPEN_FINDINGS: RangeInclusive<u64> = 16..=65_536;
/// Ring sizes: the least that holds several of the largest records, and the most that kernels accept readily.
const RING_BYTES: RangeInclusive<u64> = 64 << 10..=1 << 30;

/// The `[bounds]` table.
pub(super) fn bounds(root: &mut Section, cx: &mut Context) -> Bounds {
    let mut table = root.table(cx, "bounds", "a [bounds] table");
    let bounds = Bounds {
        flows: count32(&mut table, cx, "flows", 262_144),
        split_heads: count32(&mut table, cx, "split_heads", 4096),
        event_ring_bytes: ring(&mut table, cx, "event_ring_bytes", 16 << 20),
        byte_ring_bytes: ring(&mut table, cx, "byte_ring_bytes", 4 << 20),
        poll_interval: duration_or(&mut table, cx, "poll_interval", 10 * MILLISECOND, MILLISECOND..=SECOND),
        pending_requests: count(&mut table, cx, "pending_requests", 65_536, 1..=ENTRIES_MAX),
        unanswered_after: duration_or(&mut table, cx, "unanswered_after", 30 * SECOND, SECOND..=HOUR),
        tee_bytes: bytes(&mut table, cx, "tee_bytes", 64 << 10, 1 << 10..=16 << 20),
        tee_bodies: count(&mut table, cx, "tee_bodies", 4096, 1..=ENTRIES_MAX),
        head_bytes: {
            let most = bytes(&mut table, cx, "head_bytes", 64 << 10, 1 << 10..=256 << 10);
            u32::try_from(most).unwrap_or(u32::MAX)
        },
        slow_path_bytes: bytes(&mut table, cx, "slow_path_bytes", 64 << 20, 1 << 20..=16 << 30),
        slow_half_bytes: bytes(&mut table, cx, "slow_half_bytes", 1 << 20, 64 << 10..=64 << 20),
        slow_flows: count(&mut table, cx, "slow_flows", 16_384, 16..=ENTRIES_MAX),
        hole_timeout: duration_or(&mut table, cx, "hole_timeout", 5 * SECOND, 100 * MILLISECOND..=HOUR),
        fragments: count(&mut table, cx, "fragments", 1024, 1..=ENTRIES_MAX),
        decoded_bytes: bytes(&mut table, cx, "decoded_bytes", 256 << 10, 1 << 10..=16 << 20),
        kids: count(&mut table, cx, "kids", 4096, 1..=ENTRIES_MAX),
        claims_cache: count(&mut table, cx, "claims_cache", 65_536, 1..=ENTRIES_MAX),
        rule_groups: count(&mut table, cx, "rule_groups", 65_536, 1..=ENTRIES_MAX),
        quiet_groups: count(&mut table, cx, "quiet_groups", 262_144, 1..=ENTRIES_MAX),
        group_values: count(&mut table, cx, "group_values", 65_536, 1..=ENTRIES_MAX),
        journal_bytes: bytes(&mut table, cx, "journal_bytes", 1 << 30, 1 << 20..=1 << 40) as u64,
        open_findings: count(&mut table, cx, "open_findings", 4096, OPEN_FINDINGS),
    };
    table.finish(cx);
    bounds
}

/// The `[ledger]` table.
pub(super) fn ledger(root: &mut Section, keys: &Keys, cx: &mut Context) -> Ledger {
    let mut table = root.table(cx, "ledger", "a [ledger] table");
    let store = store(&mut table, keys, cx);
    table.refuse(cx, "import", "issuances from a file");
    table.refuse(cx, "peers", "issuances that other sensors saw");
    let ledger = Ledger {
        store,
        sync_interval: duration_or(&mut table, cx, "sync_interval", SECOND / 2, 100 * MILLISECOND..=SECOND),
        max_issuances: count(&mut table, cx, "max_issuances", 60_000_000, 1..=500_000_000),
        max_accounts: count(&mut table, cx, "max_accounts", 262_144, 1..=1_000_000_000),
        clock_leeway: duration_or(&mut table, cx, "clock_leeway", 120 * SECOND, Duration::ZERO..=HOUR),
        max_seen: count(&mut table, cx, "max_seen", 1_000_000, 1..=1_000_000_000),
    };
    table.finish(cx);
    ledger
}

/// Where issuances are kept. A folder is told from a word by its slash.
fn store(table: &mut Section, keys: &Keys, cx: &mut Context) -> LedgerStore {
    const EXAMPLE: &str =
        "\"memory\", or the path of a folder with a slash in it, such as \"/var/lib/authsensor/ledger\"";
    let Some(text) = table.get(cx, "store").and_then(|item| item.text(cx, EXAMPLE)) else { return LedgerStore::Memory };
    match text.value {
        "memory" => {}
        "valkey" => {
            let fix = format!("Write {EXAMPLE}");
            cx.not_implemented(text.at, "`ledger.store = \"valkey\"`", "a ledger that several sensors share", fix);
        }
        path if path.contains('/') => {
            let path = cx.folder().join(path);
            if path.exists() && !path.is_dir() {
                let message = format!("the ledger's folder {} is not a folder", quoted(&path.to_string_lossy()));
                cx.error(text.at, message, format!("Write {EXAMPLE}"));
            }
            if keys.fingerprint.is_none() || keys.account.is_none() {
                let message = "a ledger that outlives the process needs keys that do, too";
                cx.error(text.at, message, "Name the files `keys.fingerprint` and `keys.account`");
            }
            return LedgerStore::Folder(path);
        }
        other => {
            let message = format!("unknown ledger store {}", quoted(other));
            cx.error(text.at, message, format!("Write {EXAMPLE}"));
        }
    }
    LedgerStore::Memory
}

pub(super) fn count(
    section: &mut Section,
    cx: &mut Context,
    key: &'static str,
    default: usize,
    range: RangeInclusive<u64>,
) -> usize {
    let value = section.get(cx, key).and_then(|item| item.integer(cx, range));
    value.and_then(|value| usize::try_from(value).ok()).unwrap_or(default)
}

fn count32(section: &mut Section, cx: &mut Context, key: &'static str, default: u32) -> u32 {
    let value = section.get(cx, key).and_then(|item| item.integer(cx, 16..=ENTRIES_MAX));
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default)
}

fn bytes(
    section: &mut Section,
    cx: &mut Context,
    key: &'static str,
    default: usize,
    range: RangeInclusive<u64>,
) -> usize {
    let value = section.get(cx, key).and_then(|item| scalar::size(&item, cx, range));
    value.and_then(|value| usize::try_from(value).ok()).unwrap_or(default)
}

fn ring(section: &mut Section, cx: &mut Context, key: &'static str, default: u32) -> u32 {
    let Some(item) = section.get(cx, key) else { return default };
    let Some(bytes) = scalar::size(&item, cx, RING_BYTES) else { return default };
    if !bytes.is_power_of_two() {
        let next = bytes.next_power_of_two();
        let message = format!("{} is {bytes} bytes, and a ring's size must be a power of two", item.name());
        cx.error(item.at, message, format!("Write {} or {next}", next / 2));
    }
    u32::try_from(bytes).unwrap_or(default)
}
