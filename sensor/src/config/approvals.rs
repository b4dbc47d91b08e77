//! What operators approved with `authsensor issuer approve`: a file beside the configuration.
//!
//! It is a file of its own so that the tool never edits the configuration, and so that a change of it is one that shows
//! who confirmed which figure, and when. A `confirmed` table in the configuration counts more.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::model::Confirmation;
use super::reader::{Context, Section};
use super::{issuer, names};
use crate::diagnostic::{Diagnostic, quoted};

/// Where approvals stand unless the configuration says otherwise, from its folder.
const DEFAULT: &str = "approvals.toml";
/// Largest file, bytes.
const FILE_MAX: u64 = 1 << 20;
/// What the file begins with.
const HEAD: &str = "# Written by `authsensor issuer approve`; read with the configuration beside it. Keep it under the same change\n\
                    # control: each entry lets unknown credentials of one issuer be called `unissued`.\n";

/// One approved issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    /// Name of the service.
    pub service: String,
    /// Name of the issuer.
    pub issuer: String,
    /// What was confirmed.
    pub confirmed: Confirmation,
}

/// The approvals that a configuration is read with.
#[derive(Debug, Default)]
pub(super) struct Approvals {
    list: Vec<(Approval, bool)>,
    file: PathBuf,
}

impl Approvals {
    /// Reads the file that `root` names, or the default one if it is there.
    pub(super) fn read(root: &mut Section, cx: &mut Context) -> Self {
        let stated = root.get(cx, "approvals").and_then(|item| item.text(cx, "the path of a file"));
        let file = cx.folder().join(stated.map_or(DEFAULT, |stated| stated.value));
        match text(&file) {
            Ok(text) => {
                let (list, mut mistakes) = parse(&file, &text);
                cx.errors.append(&mut mistakes);
                Self { list: list.into_iter().map(|approval| (approval, false)).collect(), file }
            }
            // The first approval makes it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self { list: Vec::new(), file },
            Err(error) => {
                let message = format!("the approvals {} cannot be read ({error})", quoted(&file.to_string_lossy()));
                cx.error(
                    stated.map_or(0, |stated| stated.at),
                    message,
                    "Write a path that can be read, or remove the file",
                );
                Self { list: Vec::new(), file }
            }
        }
    }

    /// Where they stand.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// What was approved of an issuer; the latest entry counts.
    pub(super) fn take(&mut self, service: &str, issuer: &str) -> Option<Confirmation> {
        let mut found = None;
        for (approval, used) in &mut self.list {
            if approval.service == service && approval.issuer == issuer {
                *used = true;
                found = Some(approval.confirmed.clone());
            }
        }
        found
    }

    /// Notes entries that name nothing.
    pub(super) fn finish(&self, cx: &mut Context) {
        for (approval, _) in self.list.iter().filter(|(_, used)| !used) {
            let (issuer, service) = (quoted(&approval.issuer), quoted(&approval.service));
            let message =
                format!("{} approves the issuer {issuer} of {service}, which is not declared", shown(&self.file));
            cx.warn(0, message, "Remove the entry, or correct its names");
        }
    }
}

fn shown(file: &Path) -> String {
    quoted(&file.to_string_lossy())
}

fn text(file: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(io::Error::other(format!("it is longer than {FILE_MAX} bytes")));
    }
    Ok(text)
}

/// The entries of `text`, and its mistakes.
fn parse(file: &Path, text: &str) -> (Vec<Approval>, Vec<Diagnostic>) {
    let mut cx = Context::new(file, text);
    let mut list = Vec::new();
    match DeTable::parse(text) {
        Ok(tree) => {
            let mut root = Section::root(tree.get_ref());
            let example = "[[approval]] tables";
            let items = root.get(&mut cx, "approval").map(|item| item.list(&mut cx, example)).unwrap_or_default();
            for item in &items {
                list.extend(item.section(&mut cx, example).and_then(|table| approval(table, &mut cx)));
            }
            root.finish(&mut cx);
        }
        Err(error) => {
            let message = format!("this is not valid TOML: {}", error.message().replace(['\n', '\r'], " "));
            cx.error(error.span().map_or(0, |span| span.start), message, "Correct the syntax here");
        }
    }
    (list, cx.errors)
}

fn approval(mut table: Section, cx: &mut Context) -> Option<Approval> {
    let mut label = |key| table.need(cx, key, "its name in the configuration").and_then(|item| names::label(&item, cx));
    let (service, issuer) = (label("service"), label("issuer"));
    let confirmed = issuer::confirmed(&mut table, cx).map(|one| Confirmation { approved: true, ..one });
    table.finish(cx);
    Some(Approval { service: service?.value, issuer: issuer?.value, confirmed: confirmed? })
}

/// Adds `approval` to the file of approvals at `file`, in place of an earlier one of the same issuer. The file changes as
/// a whole or not at all.
pub fn approve(file: &Path, approval: &Approval) -> Result<(), ApproveError> {
    let written = |source| ApproveError::Write { file: file.to_owned(), source };
    let before = match text(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(written(error)),
    };
    let (mut list, mistakes) = parse(file, &before);
    if let Some(mistake) = mistakes.into_iter().next() {
        return Err(ApproveError::Mistake(mistake));
    }
    list.retain(|known| known.service != approval.service || known.issuer != approval.issuer);
    list.push(approval.clone());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = folder.join(name);
    std::fs::write(&fresh, to_toml(&list)).and_then(|()| std::fs::rename(&fresh, file)).map_err(written)
}

/// Why an approval was not written.
#[derive(Debug, thiserror::Error)]
pub enum ApproveError {
    /// The file has a mistake.
    #[error("{0}")]
    Mistake(Diagnostic),
    /// It cannot be read or written.
    #[error("the approvals {} cannot be written ({source}); the folder must be writable for who approves", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn to_toml(list: &[Approval]) -> String {
    let mut text = HEAD.to_owned();
    for Approval { service, issuer, confirmed } in list {
        // A JSON string is a basic string of TOML.
        let name = |name: &str| serde_json::Value::from(name).to_string();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n[[approval]]\nservice = {}\nissuer = {}", name(service), name(issuer));
        let _ = writeln!(text, "sight = {:?}\nby = {}\non = {}", confirmed.sight, name(&confirmed.by), confirmed.on);
        if let Some(preexisting) = confirmed.preexisting {
            let _ = writeln!(text, "preexisting = {preexisting}");
        }
    }
    text
}
