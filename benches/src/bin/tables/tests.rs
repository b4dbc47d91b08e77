//! Fixed lines and what is made of them.

use std::fs;
use std::path::Path;

use super::*;
use crate::line::Kept;

const DETECTED: &str = r#"{"scenario":"theft","seed":1,"observations":1234567,"days":2.0,"findings":[{"rule":"Early","level":"medium","opened":1744502500.0,"accounts":1,"attack_share":0.0},{"rule":"Bulk","level":"high","opened":1744588812.1,"accounts":10,"attack_share":1.0},{"rule":"Early","level":"medium","opened":1744588900.0,"accounts":5,"attack_share":0.79}],"detected_by":"Bulk","seconds_to_detect":12.1,"accounts_exposed_at_detection":10,"attack_requests_at_detection":31,"false_findings_by_level":{"critical":0,"high":0,"medium":2,"low":0,"informational":0},"false_findings_per_day":1.0,"peak_rss_mib":99.5,"observations_per_second":700000.0,"baselines":[{"scenario":"theft","baseline":"limit","observations":1234567,"days":2.0,"attack_requests":500,"accounts_exposed":400,"findings":9,"detected_by":"limit","seconds_to_detect":60.0,"accounts_exposed_at_detection":1200,"attack_requests_at_detection":1300,"false_findings":8,"false_findings_per_day":4.0,"forgotten":0},{"scenario":"theft","baseline":"signature","observations":1234567,"days":2.0,"attack_requests":500,"accounts_exposed":400,"findings":0,"detected_by":null,"seconds_to_detect":null,"accounts_exposed_at_detection":null,"attack_requests_at_detection":null,"false_findings":0,"false_findings_per_day":0.0,"forgotten":0}]}"#;
const MISSED: &str = r#"{"scenario":"quietly","seed":1,"observations":1000,"days":2.0,"findings":[{"rule":"Drift","level":"medium","opened":1744588812.0,"accounts":3,"attack_share":0.9}],"detected_by":null,"seconds_to_detect":null,"accounts_exposed_at_detection":null,"attack_requests_at_detection":null,"false_findings_by_level":{"critical":0,"high":0,"medium":0,"low":0,"informational":0},"false_findings_per_day":0.0,"peak_rss_mib":99.5,"observations_per_second":700000.0}"#;

/// Members alone for fourteen days, with so many findings of level low.
fn alone(found: u64) -> Line {
    let mut line = Line::read(MISSED).unwrap();
    line.days = 14.0;
    line.findings = (0..found)
        .map(|at| line::Opened {
            rule: "Drift".to_owned(),
            level: "low".to_owned(),
            opened: 1_744_600_000.0 + at as f64,
            accounts: 0,
            attack_share: 0.0,
        })
        .collect();
    line.false_findings_by_level.low = found;
    line
}

fn scenarios() -> Vec<jobs::Scenario> {
    let attack = "\nmembers = 500\n[attack]\nkind = \"forged_tokens\"\n";
    let files = [
        ("theft", format!("# Somebody steals\n# 1.5 tokens a second. Nothing else happens.\n{attack}")),
        ("quietly", format!("# Nobody hears it.\n{attack}")),
        ("idle", format!("# It never ran.\n{attack}")),
        ("members-14-days", "# Members alone.\nmembers = 400\n".to_owned()),
    ];
    files
        .iter()
        .map(|(name, text)| jobs::Scenario::read(&Path::new(name).with_extension("toml"), text).unwrap())
        .collect()
}

fn results() -> Results {
    let (theft, missed) = (Line::read(DETECTED).unwrap(), Line::read(MISSED).unwrap());
    let mut results: Results = [("scenario/theft", theft.clone()), ("scenario/quietly", missed.clone())]
        .into_iter()
        .map(|(name, line)| (name.to_owned(), (1_000_000, line)))
        .collect();
    for (seed, found) in [0, 0, 6, 2].into_iter().enumerate() {
        results.insert(format!("quiet/members-14-days/{}", seed + 1), (400, alone(found)));
    }
    results.insert(jobs::curve_name(1.9, 300, "1e-6"), (400_000, theft));
    results.insert(jobs::curve_name(0.0019, 300, "1e-6"), (400_000, missed));
    results
}

#[test]
fn the_tables_of_fixed_lines() {
    let made = render::tables(&scenarios(), &results()).unwrap();
    for row in [
        "| `theft` | Somebody steals 1.5 tokens a second. | 1,000,000, 2 | Bulk | 10 | 31 | 12.1 s | 2 medium | 1,234,567 |",
        "| `quietly` | Nobody hears it. | 1,000,000, 2 | **not detected**; told at level medium: Drift | – | – | – | none | \
         1,000 |",
        "| `idle` | It never ran. | – | not run | – | – | – | – | – |",
        "- `theft`: Early (medium, 2)\n",
        // 0, 0, 2 and 6 in fourteen days.
        "| `members-14-days` | Members alone. | 400, 14 | 4 | 0 / 0 | 0 / 0 | 0 / 0 | 0.5 / 3 | 0 / 0 |",
        "- `members-14-days`: Drift (low, 8 in 2 seeds)\n",
        "| 1.9 | not run | 10 in 12.1 s | not run |",
        "| 0.0019 | not run | **not detected** | not run |",
        "| **authsensor** | 1 | 0 / 0 | – |\n| limit | 1 | 4 / 4 | – |\n| signature | 0 | 0 / 0 | – |",
        "| `theft` | 10 | 1,200 | – |",
    ] {
        assert!(made.contains(row), "{row}\n{made}");
    }
    assert_eq!(made, render::tables(&scenarios(), &results()).unwrap());
}

#[test]
fn figures_for_people() {
    assert_eq!([0, 999, 1000, 1_234_567].map(render::whole), ["0", "999", "1,000", "1,234,567"]);
    assert_eq!([0.0, 0.5, 1.234, 70.0, 12_345.6].map(render::plain), ["0", "0.5", "1.23", "70", "12,346"]);
    assert_eq!([5.31, 432.0, 10_800.0].map(render::time), ["5.3 s", "7.2 min", "3.0 h"]);
    assert_eq!(render::middle(&mut [3.0, 1.0, 2.0]), (2.0, 3.0));
    assert_eq!(render::middle(&mut []), (0.0, 0.0));
}

#[test]
fn lines_of_another_shape_are_refused() {
    let more = DETECTED.replacen("\"seed\":1", "\"seed\":1,\"mood\":\"fine\"", 1);
    let error = Line::read(&more).unwrap_err().to_string();
    assert!(error.contains("unknown field `mood`") && error.contains("build both"), "{error}");
    let less = MISSED.replacen("\"observations\":1000,", "", 1);
    assert!(Line::read(&less).unwrap_err().to_string().contains("missing field `observations`"));
    assert!(Line::read(DETECTED.trim_end_matches('}')).is_err());
    // The attack of the scenario file is not the one that was simulated.
    let mut scenarios = scenarios();
    scenarios[0].began = Some(0.0);
    let mut results = results();
    results.get_mut("scenario/theft").unwrap().1.findings[0].attack_share = 1.0;
    let error = render::tables(&scenarios, &results).unwrap_err().to_string();
    assert!(error.starts_with("theft: ") && error.contains("[0, 0, 1, 0, 0]"), "{error}");
}

#[test]
fn a_document_without_the_place_is_refused() {
    let document = format!("before\n{}old{}\nafter", render::BEGIN, render::END);
    let text = render::placed(&document, "new").unwrap();
    assert_eq!(text, format!("before\n{}new{}\nafter", render::BEGIN, render::END));
    assert!(render::placed("before", "new").is_err());
}

#[test]
fn jobs_and_their_names() {
    let sizes = Sizes { members: 450, quiet_members: 300, curve_members: 200, seeds: 4, twin_seeds: 2 };
    let all = jobs::jobs(&scenarios(), &sizes, 7);
    assert_eq!(all.len(), 3 + 4 + 36);
    let job = |name: &str| all.iter().find(|job| job.name == name).unwrap();
    let (theft, first, second) =
        (job("scenario/theft"), job("quiet/members-14-days/1"), job("quiet/members-14-days/2"));
    assert_eq!((theft.inputs.members, theft.inputs.baselines), (450, true));
    assert_eq!((first.inputs.members, first.inputs.seed, first.inputs.baselines), (300, 1, true));
    assert_eq!((second.inputs.seed, second.inputs.baselines), (2, false));
    for job in &all {
        assert!(job.inputs.is_of(&job.name, &scenarios(), 7), "{}", job.name);
        assert!(!job.inputs.is_of(&job.name, &scenarios(), 8), "{}", job.name);
    }
    let grid = job("curve/1.9/2313/1e-4");
    assert!(grid.inputs.scenario.contains("requests_per_second = 10.26000\n"), "{}", grid.inputs.scenario);
    assert!(
        jobs::fits("curve/*/2313/1e-*", &grid.name) && jobs::fits("*", "") && !jobs::fits("curve/*/300/*", &grid.name)
    );
    assert!(!jobs::fits("scenario/via", "scenario/via-echo") && jobs::fits("scenario/via*", "scenario/via-echo"));
}

#[test]
fn results_are_found_again_and_only_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { members: 450, quiet_members: 300, curve_members: 200, seeds: 1, twin_seeds: 1 };
    let jobs = jobs::jobs(&scenarios(), &sizes, 7);
    let theft = jobs.iter().find(|job| job.name == "scenario/theft").unwrap();
    assert!(!run::done(folder.path(), theft));
    let kept = Kept { inputs: theft.inputs.clone(), line: Line::read(DETECTED).unwrap() };
    fs::create_dir(folder.path().join("scenario")).unwrap();
    let path = folder.path().join("scenario/theft.json");
    fs::write(&path, serde_json::to_string(&kept).unwrap()).unwrap();
    assert!(run::done(folder.path(), theft));
    let mut larger = theft.clone();
    larger.inputs.members += 1;
    assert!(!run::done(folder.path(), &larger));
    let results = run::results(folder.path()).unwrap();
    assert_eq!(results.keys().collect::<Vec<_>>(), ["scenario/theft"]);
    fs::write(&path, "{}").unwrap();
    assert!(run::results(folder.path()).unwrap_err().to_string().contains("theft.json"));
}

/// What the document says of a scenario is what its file says now.
#[test]
fn the_documents_descriptions_are_those_of_the_scenarios() {
    let document = fs::read_to_string(own("../docs/detection.md")).unwrap();
    let (_, rest) = document.split_once(render::BEGIN).unwrap();
    let (made, _) = rest.split_once(render::END).unwrap();
    for scenario in jobs::scenarios(&own("scenarios")).unwrap() {
        let row = format!("| `{}` | {} |", scenario.name, scenario.what);
        assert!(made.contains(&row), "{row} is not in docs/detection.md: `tables write` it again");
    }
}
