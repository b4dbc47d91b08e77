//! How sure a finding is: tied to how well the sensor saw, not to how loud the rule is.
//!
//! What is known of coverage and doubt flows in, a score with its reasons flows out.

/// What is known of the sight behind a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Coverage {
    /// Share of newly used credentials of the finding's issuer whose issuance was seen, 0–1; `None`: the finding is about
    /// no issuer, or nothing was measured yet.
    pub sight: Option<f64>,
    /// The finding is about an issuer that the ledger has not yet watched for its longest credential lifetime.
    pub warming: bool,
    /// Issuances known to be lost that no credential has been excused for.
    pub gap_left: u64,
}

/// How sure, and why not surer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confidence {
    /// 0 to 100.
    pub score: u8,
    /// What speaks against it, in plain words; empty when nothing does.
    pub reasons: Vec<String>,
}

/// The score when nothing speaks against a finding: a sensor is never certain.
const BEST: u8 = 95;

impl Confidence {
    /// Of a finding over `accounts` things, of whose `requests` so many are `doubtful` (conflicting or ambiguous on the
    /// wire), counted exactly or not.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a score from 0 to 100 made of shares from 0 to 1"
    )]
    pub fn of(coverage: &Coverage, accounts: u64, requests: u64, doubtful: u64, exact: bool) -> Self {
        let mut score = f64::from(BEST);
        let mut reasons = Vec::new();
        if let Some(sight) = coverage.sight.filter(|sight| *sight < 0.999) {
            // What was not seen of members' logins would look like this too.
            score *= sight.clamp(0.0, 1.0);
            reasons.push(format!("the issuances of {:.1} % of newly used credentials were seen", sight * 100.0));
        }
        if coverage.warming {
            score *= 0.8;
            reasons.push("the ledger has not yet watched for the longest credential lifetime".to_owned());
        }
        if coverage.gap_left > 0 {
            let explained = coverage.gap_left as f64 / coverage.gap_left.saturating_add(accounts.max(1)) as f64;
            score *= 1.0 - 0.5 * explained;
            reasons.push(format!(
                "{} issuances are known to be lost and may explain as many credentials",
                coverage.gap_left
            ));
        }
        if doubtful > 0 {
            score *= 1.0 - 0.5 * (doubtful as f64 / requests.max(1) as f64).min(1.0);
            reasons.push(format!("{doubtful} of {requests} requests may have been read otherwise by the server"));
        }
        if !exact {
            score *= 0.98;
            reasons.push("the count is an estimate (standard error 1.6 %)".to_owned());
        }
        Self { score: score.round() as u8, reasons }
    }

    /// OCSF's `confidence_id` and its word.
    pub fn band(&self) -> (u8, &'static str) {
        match self.score {
            0..50 => (1, "Low"),
            50..80 => (2, "Medium"),
            _ => (3, "High"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_lowers_and_says_why() {
        let clear = Confidence::of(&Coverage { sight: Some(0.9999), ..Coverage::default() }, 20, 20, 0, true);
        assert_eq!((clear.score, clear.reasons.len(), clear.band().1), (95, 0, "High"));
        let blind = Confidence::of(&Coverage { sight: Some(0.4), ..Coverage::default() }, 20, 20, 0, true);
        assert_eq!((blind.score, blind.band().1), (38, "Low"));
        let gap = Coverage { gap_left: 1000, ..Coverage::default() };
        assert_eq!(Confidence::of(&gap, 10, 10, 0, true).band().1, "Low");
        assert_eq!(Confidence::of(&gap, 100_000, 100_000, 0, true).band().1, "High", "a gap excuses only so many");
        let shaky = Confidence::of(&Coverage { warming: true, ..Coverage::default() }, 10, 10, 10, false);
        assert_eq!((shaky.reasons.len(), shaky.band().1), (3, "Low"));
    }
}
