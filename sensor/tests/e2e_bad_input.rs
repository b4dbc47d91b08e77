//! Bad input, given to the built program: each is refused with a paragraph that says what to do, exit code 2, nothing
//! on standard output, and nothing left in the kernel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::capture::{pcap, timed};
use support::program::{Ended, authsensor, ended};
use support::{keys, programs, shop};

const NOBODY: u32 = 65534;

/// A folder with a usable configuration that watches the loopback interface.
struct Folder {
    place: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let folder = Self { place: tempfile::tempdir().unwrap() };
        // Another user looks into it, too.
        fs::set_permissions(folder.place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        folder.write("good.toml", good(0));
        folder
    }
    fn path(&self) -> &Path {
        self.place.path()
    }
    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
    /// Runs `words`, which must be refused; the error's text.
    fn refused(&self, words: &[&str]) -> String {
        let before = programs::ids();
        let text = assert_refused(words, authsensor(self.path(), words));
        programs::assert_no_more_than(&before);
        text
    }
}

/// A usable configuration whose metrics stand on `port` (0: any).
fn good(port: u16) -> String {
    format!("interfaces = [\"lo\"]\nrules = []\nmetrics.listen = \"127.0.0.1:{port}\"\n{}", shop::CONFIG)
}

fn assert_refused(words: &[&str], ended: Ended) -> String {
    let Ended { code, out, err } = ended;
    let shown = words.join(" ");
    assert_eq!(code, Some(2), "{shown}: {err}");
    assert_eq!(out, "", "{shown}: nothing on standard output");
    assert!(!err.contains("panicked") && !err.contains("RUST_BACKTRACE"), "{shown}: {err}");
    assert!(err.trim().len() > 40, "{shown}: a paragraph, not a word: {err}");
    assert!(!err.contains("\n\n"), "{shown}: one paragraph: {err}");
    err
}

/// Each of `parts` stands in `text`.
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn an_unknown_interface() {
    if !support::kernel("an_unknown_interface") {
        return;
    }
    let folder = Folder::new();
    let text = folder.refused(&["run", "--config", "good.toml", "--interface", "no-such-if0"]);
    says(&text, &["no-such-if0", "`ip link`", "lo"]);
    folder.write("other.toml", good(0).replace("[\"lo\"]", "[\"lo\", \"gone0\"]"));
    says(&folder.refused(&["run", "--config", "other.toml"]), &["gone0", "`ip link`"]);
}

#[test]
fn a_taken_metrics_port() {
    if !support::kernel("a_taken_metrics_port") {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = Folder::new();
    folder.write("taken.toml", good(address.port()));
    let text = folder.refused(&["run", "--config", "taken.toml"]);
    says(&text, &[&address.to_string(), "`ss -ltnp`", "[metrics]"]);
}

#[test]
fn a_findings_file_that_cannot_be_written() {
    if !support::kernel("a_findings_file_that_cannot_be_written") {
        return;
    }
    let folder = Folder::new();
    folder.write("deep.toml", format!("{}\n[findings]\noutput = \"no/such/folder/findings.ndjson\"\n", good(0)));
    let text = folder.refused(&["run", "--config", "deep.toml"]);
    says(&text, &["no/such/folder/findings.ndjson", "Make the folder"]);
}

#[test]
fn a_transactions_file_that_cannot_be_written() {
    if !support::kernel("a_transactions_file_that_cannot_be_written") {
        return;
    }
    let folder = Folder::new();
    let text = folder.refused(&["run", "--config", "good.toml", "--transactions", "no/such/folder/all.ndjson"]);
    says(&text, &["no/such/folder/all.ndjson", "--transactions"]);
}

#[test]
fn a_journal_of_something_else() {
    let folder = Folder::new();
    keys::write(folder.path(), &"01".repeat(16), &"02".repeat(16));
    let kept = "ledger.store = \"./kept\"\nkeys = { fingerprint = \"fingerprint.key\", account = \"account.key\" }\n";
    folder.write("kept.toml", kept.to_owned() + &good(0));
    folder.write("none.ndjson", "");
    let made = authsensor(folder.path(), &["ledger", "import", "--config", "kept.toml", "none.ndjson"]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    fs::create_dir_all(folder.path().join("kept/journal")).unwrap();
    folder.write("kept/journal/000000000000.journal", "written by another program, or a later version of this");
    let text = folder.refused(&["run", "--config", "kept.toml"]);
    says(&text, &["000000000000.journal", "Move it away"]);
}

#[test]
fn a_user_without_privileges() {
    if !support::kernel("a_user_without_privileges") {
        return;
    }
    let folder = Folder::new();
    // Where that user can reach it.
    let program = folder.path().join("authsensor");
    fs::copy(env!("CARGO_BIN_EXE_authsensor"), &program).unwrap();
    let as_nobody = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).current_dir(folder.path()).uid(NOBODY).gid(NOBODY);
        let before = programs::ids();
        let text = assert_refused(words, ended(&mut command));
        programs::assert_no_more_than(&before);
        text
    };
    says(&as_nobody(&["run", "--config", "good.toml"]), &["root", "CAP_BPF", "CAP_NET_ADMIN"]);

    let secret = folder.write("secret.toml", good(0));
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let text = as_nobody(&["run", "--config", "secret.toml"]);
    says(&text, &["secret.toml", "cannot be read", "Permission denied", "--config"]);
}

#[test]
fn a_configuration_that_is_not_there_or_no_file() {
    let folder = Folder::new();
    for command in ["run", "check"] {
        let text = folder.refused(&[command, "--config", "gone.toml"]);
        says(&text, &["gone.toml", "No such file", "--config"]);
        says(&folder.refused(&[command, "--config", "."]), &["cannot be read", "--config"]);
    }
}

#[test]
fn broken_toml() {
    let folder = Folder::new();
    folder.write("broken.toml", "rules = []\n[[service]\nname = \"shop\"\n");
    for command in ["run", "check"] {
        let text = folder.refused(&[command, "--config", "broken.toml"]);
        says(&text, &["broken.toml:2:", "not valid TOML", "Correct the syntax"]);
    }
    folder.write("latin.toml", b"rules = []\n# caf\xe9\n");
    says(&folder.refused(&["check", "--config", "latin.toml"]), &["latin.toml:2:6:", "UTF-8"]);
}

#[test]
fn an_unknown_key_of_the_configuration() {
    let folder = Folder::new();
    folder.write("typo.toml", good(0).replace("cookies =", "cokies ="));
    for command in ["run", "check"] {
        let text = folder.refused(&[command, "--config", "typo.toml"]);
        says(&text, &["typo.toml:", "unknown key `cokies`", "Did you mean `cookies`"]);
    }
}

/// The shipped rules, changed.
fn rules(change: impl Fn(String) -> String) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/detection/bulk_account_reads_unissued.yml");
    change(fs::read_to_string(path).unwrap())
}

#[test]
fn an_unknown_field_of_a_rule() {
    let folder = Folder::new();
    folder.write("rule.yml", rules(|text| text.replace("field: account", "field: acount")));
    let places = rules(|text| text).matches("field: account").count();
    folder.write("good-rules.toml", good(0).replace("rules = []", "rules = [\"rule.yml\"]"));
    for command in ["run", "check"] {
        let text = folder.refused(&[command, "--config", "good-rules.toml"]);
        says(&text, &["rule.yml:", "`acount`", "Did you mean `account`?"]);
        assert_eq!(text.matches("`acount`").count(), places, "every place: {text}");
    }
    folder.write("missing.toml", good(0).replace("rules = []", "rules = [\"nowhere.yml\"]"));
    says(&folder.refused(&["check", "--config", "missing.toml"]), &["nowhere.yml", "cannot be read"]);
}

#[test]
fn several_mistakes_at_once() {
    let folder = Folder::new();
    let text = "shards = 2\ninterfaecs = []\n[metrics]\nlisten = 9464\n[[service]]\nname = \"s\"\n[evidence]\n";
    folder.write("many.toml", text);
    for command in ["run", "check"] {
        let text = folder.refused(&[command, "--config", "many.toml"]);
        let places = ["many.toml:1:", "many.toml:2:", "many.toml:4:", "many.toml:5:", "many.toml:7:"];
        says(&text, &places);
        says(&text, &["Did you mean `interfaces`", "`service.listen` is missing", "evidence"]);
    }
}

/// A capture with one exchange.
fn capture() -> Vec<u8> {
    let mut peers = shop::client(1000);
    let mut segments = peers.open();
    segments.extend([peers.request(&shop::read("1", "t")), peers.response(&shop::answer(9))]);
    pcap(&timed(1_790_000_000, &segments))
}

#[test]
fn capture_files_that_are_none() {
    let folder = Folder::new();
    let replay = |file: &str| folder.refused(&["replay", "--config", "good.toml", file]);
    says(&replay("gone.pcap"), &["gone.pcap", "No such file", "check the path"]);
    folder.write("text.pcap", "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    says(&replay("text.pcap"), &["text.pcap", "not a capture file", "pcapng"]);
    folder.write("empty.pcap", "");
    says(&replay("empty.pcap"), &["empty.pcap"]);
    let whole = capture();
    folder.write("cut.pcap", &whole[..whole.len() - 5]);
    let text = replay("cut.pcap");
    says(&text, &["cut.pcap", "truncated", "all 4 packets before it were read", "Copy the file again"]);
    // The same file, whole, is taken; and nothing but --all-tcp goes without a configuration.
    folder.write("whole.pcap", &whole);
    assert_eq!(authsensor(folder.path(), &["replay", "--config", "good.toml", "whole.pcap"]).code, Some(0));
    says(&folder.refused(&["replay", "whole.pcap"]), &["--config", "--all-tcp"]);
    says(&folder.refused(&["routes", "--config", "good.toml", "text.pcap"]), &["not a capture file"]);
}
