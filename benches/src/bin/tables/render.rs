//! The document's tables from results: the scenarios, members alone, the exposure curves; those of other detectors stand in
//! [`rivals`].

use std::fmt::Write as _;

use crate::jobs::{ADDRESSES, CURVE_DAYS, CURVE_START, LONG, MISS_RATES, RATES, Scenario, curve_name};
use crate::line::{LEVELS, Line};
use crate::{Failed, Results, rivals};

/// Between these stands what is rendered.
pub const BEGIN: &str = "<!-- begin: made by `tables write` -->\n\n";
pub const END: &str = "\n<!-- end -->";
/// Said in the place of a figure of a run that was not made.
const NOT_RUN: &str = "not run";

/// `document` with `made` in its place.
///
/// # Errors
/// It has no such place.
pub fn placed(document: &str, made: &str) -> Result<String, Failed> {
    let parts = document.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.ok_or_else(|| format!("the lines {} and {} do not stand in it", BEGIN.trim(), END.trim()))?;
    Ok(format!("{before}{BEGIN}{made}{END}{after}"))
}

/// All tables.
///
/// # Errors
/// A result contradicts itself.
pub fn tables(scenarios: &[Scenario], results: &Results) -> Result<String, Failed> {
    let mut text = String::new();
    attacks(&mut text, scenarios, results)?;
    quiet(&mut text, scenarios, results)?;
    curves(&mut text, results)?;
    rivals::tables(&mut text, scenarios, results)?;
    Ok(text)
}

/// `1 high, 2 medium`, or `none`.
fn levels(line: &Line) -> String {
    let some = LEVELS.iter().zip(line.false_findings_by_level.each()).filter(|(_, count)| *count > 0);
    let list: Vec<String> = some.map(|(level, count)| format!("{} {level}", whole(count))).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

fn attacks(text: &mut String, scenarios: &[Scenario], results: &Results) -> Result<(), Failed> {
    text.push_str(
        "### Attacks\n\nEach with one seed. *After* is the time from the attack's beginning to the finding; *accounts* and \
         *requests* are what the attack had got, and sent, by then. *False* are findings in all days that are not the \
         attack's.\n\n\
         | scenario | what it shows | members, days | detected by | accounts | requests | after | false | observations |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let mut notes = Vec::new();
    for scenario in scenarios.iter().filter(|scenario| scenario.began.is_some()) {
        write!(text, "| `{}` | {} | ", scenario.name, scenario.what)?;
        let Some((members, line)) = results.get(&format!("scenario/{}", scenario.name)) else {
            writeln!(text, "– | {NOT_RUN} | – | – | – | – | – |")?;
            continue;
        };
        line.check(scenario.began)?;
        let lesser = line.lesser(scenario.began);
        let by = match (&line.detected_by, lesser.first()) {
            (Some(rule), _) => rule.clone(),
            (None, Some((rule, level, _))) => format!("**not detected**; told at level {level}: {rule}"),
            (None, None) => "**not detected**".to_owned(),
        };
        let figure = |figure: Option<u64>| figure.map_or("–".to_owned(), whole);
        writeln!(
            text,
            "{}, {} | {by} | {} | {} | {} | {} | {} |",
            whole(*members),
            plain(line.days),
            figure(line.accounts_exposed_at_detection),
            figure(line.attack_requests_at_detection),
            line.seconds_to_detect.map_or("–".to_owned(), time),
            levels(line),
            whole(line.observations),
        )?;
        let wrong = line.wrong(scenario.began);
        if !wrong.is_empty() {
            let list = wrong.iter().map(|(rule, level, count)| format!("{rule} ({level}, {count})"));
            notes.push(format!("- `{}`: {}", scenario.name, list.collect::<Vec<_>>().join("; ")));
        }
    }
    if !notes.is_empty() {
        writeln!(text, "\nThe false ones (level, how many):\n\n{}", notes.join("\n"))?;
    }
    text.push('\n');
    Ok(())
}

fn quiet(text: &mut String, scenarios: &[Scenario], results: &Results) -> Result<(), Failed> {
    text.push_str(
        "### Members alone\n\nFindings a week, by level: the median of the seeds / the worst seed. A finding in a run of two \
         days is 3.5 a week.\n\n\
         | scenario | what it shows | members, days | seeds | critical | high | medium | low | informational |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let mut notes = Vec::new();
    let mut list: Vec<&Scenario> = scenarios.iter().filter(|scenario| scenario.began.is_none()).collect();
    list.sort_by_key(|scenario| (scenario.name != LONG, &scenario.name));
    for scenario in list {
        write!(text, "| `{}` | {} | ", scenario.name, scenario.what)?;
        let front = format!("quiet/{}/", scenario.name);
        let runs: Vec<&(u64, Line)> =
            results.iter().filter(|(name, _)| name.starts_with(&front)).map(|(_, run)| run).collect();
        let Some((members, first)) = runs.first() else {
            writeln!(text, "– | {NOT_RUN} | – | – | – | – | – |")?;
            continue;
        };
        if runs.iter().any(|(size, line)| size != members || line.days.to_bits() != first.days.to_bits()) {
            return Err(format!("{front}*: the seeds ran with different sizes: run them again").into());
        }
        write!(text, "{}, {} | {} |", whole(*members), plain(first.days), runs.len())?;
        for at in 0..LEVELS.len() {
            let mut week: Vec<f64> = Vec::new();
            for (_, line) in &runs {
                line.check(None)?;
                let count = line.false_findings_by_level.each().get(at).copied().unwrap_or(0);
                week.push(count as f64 * 7.0 / line.days);
            }
            let (median, worst) = middle(&mut week);
            write!(text, " {} / {} |", plain(median), plain(worst))?;
        }
        text.push('\n');
        let mut found: Vec<(&str, &str, usize, usize)> = Vec::new();
        for (rule, level, count) in runs.iter().flat_map(|(_, line)| line.wrong(None)) {
            match found.iter_mut().find(|one| (one.0, one.1) == (rule, level)) {
                Some(one) => (one.2, one.3) = (one.2 + count, one.3 + 1),
                None => found.push((rule, level, count, 1)),
            }
        }
        if !found.is_empty() {
            let list =
                found.iter().map(|(rule, level, count, seeds)| format!("{rule} ({level}, {count} in {seeds} seeds)"));
            notes.push(format!("- `{}`: {}", scenario.name, list.collect::<Vec<_>>().join("; ")));
        }
    }
    if !notes.is_empty() {
        writeln!(text, "\nWhat was found (level, how often):\n\n{}", notes.join("\n"))?;
    }
    text.push('\n');
    Ok(())
}

fn curves(text: &mut String, results: &Results) -> Result<(), Failed> {
    let runs: Vec<&(u64, Line)> =
        results.iter().filter(|(name, _)| name.starts_with("curve/")).map(|(_, run)| run).collect();
    let sizes: std::collections::BTreeSet<u64> = runs.iter().map(|(members, _)| *members).collect();
    if sizes.len() > 1 {
        return Err("curve/*: the runs are of different sizes: run them again".into());
    }
    writeln!(
        text,
        "### Exposure\n\nAccounts exposed when the sensor speaks, and the time that it takes, of forged tokens: one for each \
         member, in order, 5.4 pages of each, as in 2025. {}They run for {} days with {} hours of members alone before the \
         attack; the rules that speak need no longer past. One seed each.",
        sizes.first().map_or(String::new(), |members| format!("{} members. ", whole(*members))),
        plain(CURVE_DAYS),
        plain(CURVE_START * 24.0),
    )?;
    for miss in MISS_RATES {
        writeln!(text, "\nOf issuances the sensor misses {miss} for no known reason:\n")?;
        write!(text, "| new accounts a second |")?;
        ADDRESSES.iter().try_for_each(|addresses| write!(text, " {} addresses |", whole(*addresses)))?;
        writeln!(text, "\n|---|{}", "---|".repeat(ADDRESSES.len()))?;
        for rate in RATES {
            write!(text, "| {rate} |")?;
            for addresses in ADDRESSES {
                match results.get(&curve_name(rate, addresses, miss)) {
                    Some((_, line)) => write!(text, " {} |", exposed(line))?,
                    None => write!(text, " {NOT_RUN} |")?,
                }
            }
            text.push('\n');
        }
    }
    text.push('\n');
    Ok(())
}

/// `5 in 5.3 s`.
fn exposed(line: &Line) -> String {
    let both = line.accounts_exposed_at_detection.zip(line.seconds_to_detect);
    both.map_or("**not detected**".to_owned(), |(accounts, seconds)| {
        format!("{} in {}", whole(accounts), time(seconds))
    })
}

/// Median and worst.
pub fn middle(figures: &mut [f64]) -> (f64, f64) {
    figures.sort_by(f64::total_cmp);
    let half = figures.len() / 2;
    let at = |index: usize| figures.get(index).copied().unwrap_or(0.0);
    let median =
        if figures.len().is_multiple_of(2) { f64::midpoint(at(half.saturating_sub(1)), at(half)) } else { at(half) };
    (median, figures.last().copied().unwrap_or(0.0))
}

/// `1,234,567`.
pub fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// With two decimals at most, and thousands apart.
pub fn plain(number: f64) -> String {
    if number >= 1000.0 {
        return whole(number.round() as u64);
    }
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `5.3 s`, `7.2 min`, `3.1 h`.
pub fn time(seconds: f64) -> String {
    match seconds {
        _ if seconds < 120.0 => format!("{seconds:.1} s"),
        _ if seconds < 7200.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
