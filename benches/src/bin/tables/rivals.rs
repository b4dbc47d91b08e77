//! The tables of other detectors, which were shown the same traffic in the same runs.

use std::fmt::Write as _;

use benches::baseline::judge::Row;

use crate::jobs::Scenario;
use crate::line::Line;
use crate::render::{middle, plain, whole};
use crate::{Failed, Results};

/// Appends them.
///
/// # Errors
/// Two runs know different detectors.
pub fn tables(text: &mut String, scenarios: &[Scenario], results: &Results) -> Result<(), Failed> {
    let shown = |name: &str| results.get(name).map(|(_, line)| line).filter(|line| !line.baselines.is_empty());
    let attacks = scenarios.iter().filter(|scenario| scenario.began.is_some());
    let attacks: Vec<(&str, &Line)> =
        attacks.filter_map(|one| Some((&*one.name, shown(&format!("scenario/{}", one.name))?))).collect();
    let quiet = scenarios.iter().filter(|scenario| scenario.began.is_none());
    let quiet: Vec<(&str, &Line)> =
        quiet.filter_map(|one| Some((&*one.name, shown(&format!("quiet/{}/1", one.name))?))).collect();
    text.push_str("### The same traffic, shown to what people use today\n\n");
    let Some((_, first)) = attacks.first().or(quiet.first()) else {
        text.push_str("Not run.\n");
        return Ok(());
    };
    let names: Vec<&str> = first.baselines.iter().map(|row| &*row.baseline).collect();
    for (name, line) in attacks.iter().chain(&quiet) {
        if line.baselines.iter().map(|row| &*row.baseline).ne(names.iter().copied()) {
            return Err(format!("{name}: other detectors than in other results: run it again").into());
        }
    }
    summary(text, &names, &attacks, &quiet)?;
    each(text, &names, &attacks)?;
    Ok(())
}

fn rate(findings: u64, days: f64) -> f64 {
    findings as f64 / days
}

fn summary(
    text: &mut String,
    names: &[&str],
    attacks: &[(&str, &Line)],
    quiet: &[(&str, &Line)],
) -> Result<(), Failed> {
    writeln!(
        text,
        "Of {} attacks so many were detected; reports that were not of the attack, a day, in those runs and in {} of members \
         alone: median / worst. Of the sensor only findings at level high or critical count here, as everything that the \
         others report does.\n\n| detector | attacks detected | false a day, attacks | false a day, members alone |\n\
         |---|---|---|---|",
        attacks.len(),
        quiet.len(),
    )?;
    let mut row = |name: &str, detected: usize, of: &dyn Fn(&Line) -> f64| {
        let both = [attacks, quiet].map(|runs| {
            let (median, worst) = middle(&mut runs.iter().map(|(_, line)| of(line)).collect::<Vec<_>>());
            if runs.is_empty() { "–".to_owned() } else { format!("{} / {}", plain(median), plain(worst)) }
        });
        writeln!(text, "| {name} | {detected} | {} |", both.join(" | "))
    };
    let detected = attacks.iter().filter(|(_, line)| line.detected_by.is_some()).count();
    row("**authsensor**", detected, &|line| {
        let levels = &line.false_findings_by_level;
        rate(levels.critical + levels.high, line.days)
    })?;
    for (at, name) in names.iter().enumerate() {
        let of = |line: &Line| line.baselines.get(at).map_or(0.0, |row| rate(row.false_findings, line.days));
        let hit = |line: &Line| line.baselines.get(at).is_some_and(|row| row.detected_by.is_some());
        row(name, attacks.iter().filter(|(_, line)| hit(line)).count(), &of)?;
    }
    Ok(())
}

fn each(text: &mut String, names: &[&str], attacks: &[(&str, &Line)]) -> Result<(), Failed> {
    if attacks.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nAccounts exposed when each speaks; –: it never does.\n")?;
    writeln!(text, "| scenario | authsensor | {} |", names.join(" | "))?;
    writeln!(text, "|---|---|{}", "---|".repeat(names.len()))?;
    for (name, line) in attacks {
        let own = line.accounts_exposed_at_detection.map_or("–".to_owned(), whole);
        let cell =
            |row: &Row| row.accounts_exposed_at_detection.map_or("–".to_owned(), |exposed| whole(exposed as u64));
        let cells: Vec<String> = line.baselines.iter().map(cell).collect();
        writeln!(text, "| `{name}` | {own} | {} |", cells.join(" | "))?;
    }
    Ok(())
}
