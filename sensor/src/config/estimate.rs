//! The `[estimate]` table: what estimators keep, and budgets of doubt.

use super::bounds::{ENTRIES_MAX, count};
use super::model::{Doubt, Estimate};
use super::reader::{Context, Section};

/// The `[estimate]` table.
pub(super) fn estimate(root: &mut Section, cx: &mut Context) -> Estimate {
    let mut table = root.table(cx, "estimate", "an [estimate] table");
    let default = Estimate::default();
    let estimate = Estimate {
        walks: count(&mut table, cx, "walks", default.walks, 64..=ENTRIES_MAX),
        misses: count(&mut table, cx, "misses", default.misses, 64..=ENTRIES_MAX),
        members: count(&mut table, cx, "members", default.members, 64..=1 << 20),
        known_clients: count(&mut table, cx, "known_clients", default.known_clients, 1 << 10..=1 << 33),
        doubt: doubt(&mut table, cx),
    };
    table.finish(cx);
    estimate
}

fn doubt(root: &mut Section, cx: &mut Context) -> Doubt {
    let mut table = root.table(cx, "doubt", "an [estimate.doubt] table");
    let default = Doubt::default();
    let doubt = Doubt {
        preexisting: share(&mut table, cx, "preexisting", default.preexisting),
        unverifiable: share(&mut table, cx, "unverifiable", default.unverifiable),
        ambiguous: share(&mut table, cx, "ambiguous", default.ambiguous),
        conflict: share(&mut table, cx, "conflict", default.conflict),
        malformed: share(&mut table, cx, "malformed", default.malformed),
        least: count(&mut table, cx, "least", 50, 1..=1_000_000_000) as u64,
    };
    table.finish(cx);
    doubt
}

fn share(section: &mut Section, cx: &mut Context, key: &'static str, default: f64) -> f64 {
    let Some(item) = section.get(cx, key) else { return default };
    let share = item.as_number().filter(|share| *share > 0.0 && *share <= 1.0);
    if share.is_none() {
        cx.error(item.at, format!("{} is not a share", item.name()), "Write a number above 0, up to 1, such as 0.02");
    }
    share.unwrap_or(default)
}
