//! Tests of the whole reader: what a file must say to be accepted, and what each mistake is told as.

mod mistakes;
mod never_panics;
mod route_mistakes;
mod schema;
mod values;

use std::path::Path;

use super::{Report, check};

/// A service that is complete, to which tests add.
const SERVICE: &str = "[[service]]\nname = \"s\"\nlisten = 80\n";

/// Checks `text` as the file `f.toml`.
fn report(text: &str) -> Report {
    check(Path::new("f.toml"), text.as_bytes())
}

/// The errors as `LINE:COLUMN: message. fix.`
fn errors(text: &str) -> Vec<String> {
    shown(&report(text).errors)
}

fn warnings(text: &str) -> Vec<String> {
    let report = report(text);
    assert_eq!(shown(&report.errors), Vec::<String>::new());
    shown(&report.warnings)
}

fn shown(diagnostics: &[super::Diagnostic]) -> Vec<String> {
    let text = |diagnostic: &super::Diagnostic| diagnostic.to_string();
    diagnostics.iter().map(text).map(|text| text.strip_prefix("f.toml:").unwrap().to_owned()).collect()
}

/// The configuration that `text` gives.
fn config(text: &str) -> super::model::Config {
    let report = report(text);
    assert_eq!(shown(&report.errors), Vec::<String>::new());
    report.config.unwrap()
}

fn shown_all(diagnostics: &[super::Diagnostic]) -> String {
    diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
