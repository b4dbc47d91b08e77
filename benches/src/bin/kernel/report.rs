//! The figures as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::classes::{ACK, ACK_STREAM, STREAM};
use super::run::Figure;
use super::situ::Situ;

/// Everything that was measured.
pub struct Report<'a> {
    /// By test run; the empty and the bare program come first.
    pub figures: &'a [Figure],
    /// In situ.
    pub situ: &'a [Situ],
    /// Instructions that the verifier looked at, by program.
    pub verified: &'a [(&'static str, u32)],
    /// Statistics were on: all figures are too high.
    pub disturbed: bool,
}

impl Report<'_> {
    fn base(&self, index: usize) -> f64 {
        self.figures.get(index).map_or(f64::NAN, Figure::min)
    }

    /// What moving the sequence number on costs: the same ACK by the bench's entry and by the shipped one.
    pub fn overhead(&self) -> f64 {
        let of = |name: &str| self.figures.iter().find(|figure| figure.class.name == name).map(Figure::min);
        match (of(ACK_STREAM), of(ACK)) {
            (Some(stream), Some(shipped)) => (stream - shipped).max(0.0),
            _ => 0.0,
        }
    }

    /// How often the empty program, and the bare one, fit into a figure's least, the bench's own part taken off.
    fn ratios(&self, figure: &Figure) -> (f64, f64) {
        let own = if figure.class.program == STREAM && figure.class.name != ACK_STREAM { self.overhead() } else { 0.0 };
        let cost = figure.min() - own;
        (cost / self.base(0), cost / self.base(1))
    }

    /// `None` where there is no limit.
    fn ok(&self, figure: &Figure) -> Option<bool> {
        let (empty, bare) = self.ratios(figure);
        figure.class.limit.map(|limit| empty <= limit.empty && limit.bare.is_none_or(|most| bare <= most))
    }

    /// True if no class is over its limit.
    pub fn within_limits(&self) -> bool {
        self.figures.iter().all(|figure| self.ok(figure).unwrap_or(true))
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        if self.disturbed {
            text.push_str("run time statistics are on (another program asked for them): all figures are too high\n\n");
        }
        let _ = writeln!(
            text,
            "{:<40} {:>8} {:>8} {:>8} {:>8}  limit",
            "packet class", "ns min", "median", "x empty", "x bare"
        );
        for figure in self.figures {
            let (empty, bare) = self.ratios(figure);
            let name = figure.class.name;
            let _ = write!(text, "{name:<40} {:>8.1} {:>8.1} {empty:>8.2} {bare:>8.2}", figure.min(), figure.median());
            if let (Some(limit), Some(ok)) = (figure.class.limit, self.ok(figure)) {
                let _ = write!(text, "  {} (x empty {}", if ok { "ok" } else { "OVER" }, limit.empty);
                let _ = limit.bare.map(|bare| write!(text, ", x bare {bare}"));
                text.push(')');
            }
            text.push('\n');
        }
        let _ = writeln!(text, "\nin the ratios {:.1} ns of the bench's own entry are taken off", self.overhead());
        if !self.situ.is_empty() {
            let _ = writeln!(
                text,
                "\n{:<40} {:>8} {:>8} {:>10}",
                "in situ (veth, bpf_stats)", "ingress", "egress", "packets"
            );
        }
        for situ in self.situ {
            let egress = if situ.egress.is_nan() { "-".to_owned() } else { format!("{:.0}", situ.egress) };
            let _ = writeln!(text, "{:<40} {:>8.0} {egress:>8} {:>10}", situ.name, situ.ingress, situ.packets);
        }
        for (program, instructions) in self.verified {
            let _ = write!(text, "\n{program}: {instructions} instructions verified");
        }
        text.push('\n');
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let classes: Vec<Value> = self
            .figures
            .iter()
            .map(|figure| {
                let (empty, bare) = self.ratios(figure);
                json!({
                    "class": figure.class.name, "min_ns": figure.min(), "median_ns": figure.median(),
                    "x_empty": empty, "x_bare": bare,
                    "limit_x_empty": figure.class.limit.map(|limit| limit.empty),
                    "limit_x_bare": figure.class.limit.and_then(|limit| limit.bare),
                    "ok": self.ok(figure),
                })
            })
            .collect();
        let situ: Vec<Value> = self
            .situ
            .iter()
            .map(|situ| {
                json!({
                    "workload": situ.name, "ingress_ns": situ.ingress, "egress_ns": situ.egress,
                    "packets": situ.packets,
                })
            })
            .collect();
        let verified: serde_json::Map<String, Value> =
            self.verified.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
        json!({ "classes": classes, "in_situ": situ, "verified_instructions": verified,
            "bench_entry_ns": self.overhead(), "disturbed": self.disturbed })
    }
}
