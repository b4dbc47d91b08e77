//! `authsensor routes`: which routes were observed, what answered on them, and which no template covers.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;

use super::replay::{Player, Replay, open};
use super::start::CliError;
use crate::collect::routes::RouteStats;
use crate::config::model::Config;
use crate::finding::sink::NdjsonSink;
use crate::observation::Outcome;

/// Rows kept.
pub const ROWS_MAX: usize = 10_000;

/// Runs the command over capture files.
pub fn run(config: PathBuf, files: Vec<PathBuf>) -> Result<(), CliError> {
    let replay = Replay { config: Some(config), files, ..Replay::default() };
    let start = open(&replay)?;
    let nowhere = NdjsonSink::to(Box::new(io::sink()) as Box<dyn io::Write + Send>, "nowhere");
    let mut player = Player::new(&start, false, nowhere)?;
    player.setup = Some(Box::new(|pipeline| pipeline.observe_routes(ROWS_MAX)));
    let outcome = player.play(&replay.files);
    let table = player.pipeline().and_then(|pipeline| pipeline.routes()).map(|routes| table(&start.config, routes));
    let text = match table {
        Some(text) => text,
        None if outcome.is_ok() => "no packets\n".to_owned(),
        // What is wrong with the file is said instead.
        None => String::new(),
    };
    // A reader that went away (`| head`) is no mistake.
    let _ = io::stdout().write_all(text.as_bytes());
    outcome
}

/// The table that people read.
pub fn table(config: &Config, routes: &RouteStats) -> String {
    let mut text = String::from("service\tmethod\tpath\tclass\troute\trequests\toutcomes\tstatuses\n");
    for row in routes.rows() {
        let service = config.services.get(usize::from(row.service.0));
        let route = row.route.and_then(|route| service?.routes.get(usize::from(route.0)));
        let outcomes: Vec<String> = Outcome::ALL
            .iter()
            .zip(row.outcomes)
            .filter(|(_, count)| *count > 0)
            .map(|(outcome, count)| format!("{outcome} {count}"))
            .collect();
        let mut statuses: Vec<String> =
            row.statuses.iter().map(|(status, count)| format!("{status}×{count}")).collect();
        if row.other_statuses > 0 {
            statuses.push(format!("others×{}", row.other_statuses));
        }
        let _ = writeln!(
            text,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            service.map_or("none", |service| &service.name),
            row.method.escape_debug(),
            row.path.escape_debug(),
            row.class,
            route.map_or("none declared", |route| &route.name),
            row.total(),
            outcomes.join(", "),
            statuses.join(" "),
        );
    }
    if routes.overflow() > 0 {
        let _ = writeln!(text, "and {} requests on routes beyond the first {ROWS_MAX}", routes.overflow());
    }
    text
}
