//! The profile of the incident of 2025 (docs/detection.md) against all of them.

use super::testing::{address, read};
use super::{Request, all};

/// Seconds between two requests of one address, all 2,313 used evenly: 181.88 million views in 209 days.
const MEAN_S: f64 = 209.0 * 86_400.0 * 2313.0 / 181_880_792.0;

#[test]
fn the_mean_address_of_2025_fires_nothing() {
    assert!((MEAN_S - 229.6).abs() < 0.1, "{MEAN_S}");
    // Three weeks of twenty of its addresses, each request with a token of its own; of the tokens 56.6 % name nobody.
    let requests = (0..158_000u32).map(|n| {
        let missing = n % 1000 < 566;
        let request = read(address(n % 20), 1000.0 + f64::from(n) * MEAN_S / 20.0, n, n);
        if missing { Request { status: 404, returned: false, ..request } } else { request }
    });
    let mut baselines = all(10_000);
    let mut fired = Vec::new();
    for request in requests {
        for baseline in &mut baselines {
            fired.extend(baseline.see(&request).map(|_| baseline.name().to_owned()));
        }
    }
    assert!(fired.is_empty(), "{fired:?}");
}

#[test]
fn everything_that_counts_addresses_fires_when_one_address_hurries() {
    let mut baselines = all(10_000);
    let mut fired = Vec::new();
    for n in 0..2000u32 {
        let request = read(address(1), 1000.0 + f64::from(n) / 20.0, n, n);
        for baseline in &mut baselines {
            fired.extend(baseline.see(&request).map(|_| baseline.name().to_owned()));
        }
    }
    let expected = [
        "nginx limit_req 1 r/s burst 5",
        "Wallarm BOLA 30 in 30 s",
        "CrowdSec http-crawl-non_statics",
        "AWS WAF 100 in 5 min, sensitive paths",
        "AWS WAF 500 in 5 min",
    ];
    assert_eq!(fired, expected);
}

#[test]
fn the_same_requests_give_the_same_reports() {
    let run = || {
        // So few are kept that much is forgotten.
        let mut baselines = all(64);
        let mut fired = Vec::new();
        for n in 0..60_000u32 {
            let who = n.wrapping_mul(2_654_435_761) >> 24;
            let request = read(address(who * who / 300), f64::from(n) / 20.0, who, n % 977);
            fired.extend(baselines.iter_mut().filter_map(|baseline| baseline.see(&request)));
        }
        let forgotten: Vec<u64> = baselines.iter().map(|baseline| baseline.forgotten()).collect();
        (fired, forgotten)
    };
    let first = run();
    assert!(!first.0.is_empty() && first.1.iter().any(|forgotten| *forgotten > 0));
    assert_eq!(first, run());
}
