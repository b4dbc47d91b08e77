//! Every kind of mistake, with the line and column that it is told at.

use super::{SERVICE, errors, values::write_key};
use crate::config::load;

pub(super) const ROUTE: &str = "[[service.route]]\nclass = \"account_read\"\nmethods = \"GET\"\npath = \"/m/{id}\"\n";
const LOGIN: &str =
    "[[service.route]]\nclass = \"login\"\nmethods = \"POST\"\npath = \"/login\"\nissues = \"json:/t\"\n";
pub(super) const ISSUER: &str = "[[service.issuer]]\nname = \"i\"\nkind = \"jwt\"\nmax_lifetime = \"1h\"\n";

/// `text` has exactly one error and it begins with `start`.
#[track_caller]
fn one(text: &str, start: &str) {
    let errors = errors(text);
    assert!(errors.len() == 1 && errors[0].starts_with(start), "want {start}\ngot {errors:#?}\nin\n{text}");
    assert!(errors[0].ends_with('.') && !errors[0].ends_with(".."), "{}", errors[0]);
}

/// `line` after a service (its line is 4) has exactly one error.
#[track_caller]
pub(super) fn in_service(line: &str, start: &str) {
    one(&format!("{SERVICE}{line}\n"), start);
}

/// `line` after an account read (its line is 8).
#[track_caller]
pub(super) fn in_route(line: &str, start: &str) {
    one(&format!("{SERVICE}{ROUTE}{line}\n"), start);
}

/// `line` after a login (its line is 9).
#[track_caller]
pub(super) fn in_login(line: &str, start: &str) {
    one(&format!("{SERVICE}{LOGIN}{line}\n"), start);
}

/// `line` after an issuer (its line is 8).
#[track_caller]
pub(super) fn in_issuer(line: &str, start: &str) {
    one(&format!("{SERVICE}{ISSUER}{line}\n"), start);
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once() {
    let text = "\
interfaecs = [\"eth0\"]
shards = \"one\"
[bounds]
flows = 5
poll_interval = \"10\"
event_ring_bytes = 100_000
[[service]]
name = \"s\"
listen = [80, \"nowhere\", 80]
[[service.route]]
class = \"acount_read\"
methods = [\"get\"]
path = \"members\"
account = \"path:x\"
[[service.issuer]]
name = \"i\"
kind = \"jwt\"
places = [\"cookie:SID\"]
max_lifetime = 3600
";
    let starts = [
        "1:1: unknown key `interfaecs` at the top level. Did you mean `interfaces`.",
        "2:10: `shards` is a string, not a whole number.",
        "4:9: `bounds.flows` is out of range. Write a whole number from 16 to 16777216.",
        "5:17: `bounds.poll_interval` is `10`, which is not a duration.",
        "6:20: `bounds.event_ring_bytes` is 100000 bytes, and a ring's size must be a power of two. Write 65536 or 131072.",
        "9:15: `nowhere` is not an address with a port.",
        "9:26: *:80 is already listened on by a service. Remove one of the two; the other stands in line 9.",
        "11:9: unknown class `acount_read`. Did you mean `account_read`.",
        "12:12: `get` is not a method. Did you mean `GET`.",
        "13:8: the path template `members` does not begin with `/`.",
        "18:11: the cookie `SID` is not declared. Add it to `cookies` in `service.credentials`.",
        "19:16: `service.issuer.max_lifetime` is a whole number, not a string.",
    ];
    let errors = errors(text);
    assert_eq!(errors.len(), starts.len(), "{errors:#?}");
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(start), "{error}\n{start}");
    }
}

#[test]
fn broken_syntax_is_one_diagnostic() {
    one("a = 1\nb = = 2\n[x\n", "2:5: this is not valid TOML: ");
    one("rules = []\nrules = []\n", "2:1: this is not valid TOML: duplicate key");
    one("x = \"open", "1:");
    one("shards = 1\n[findings]\noutput = stdout\n", "3:10: this is not valid TOML: ");
}

#[test]
fn files_that_are_no_text_or_not_there() {
    let report = crate::config::check(std::path::Path::new("f.toml"), b"rules = []\n# \xff\n");
    assert_eq!(report.errors[0].to_string(), "f.toml:2:3: the file is not UTF-8 text. Save it as UTF-8.");
    let folder = tempfile::tempdir().unwrap();
    let errors = load(&folder.path().join("absent.toml")).unwrap_err();
    assert!(errors[0].to_string().contains("absent.toml:1:1: the configuration cannot be read (No such file"));
    let large = folder.path().join("large.toml");
    std::fs::write(&large, vec![b'\n'; usize::try_from(crate::config::FILE_MAX).unwrap() + 1]).unwrap();
    assert!(load(&large).unwrap_err()[0].to_string().contains("the configuration is larger than"));
}

#[test]
fn wrong_types() {
    one("interfaces = 5", "1:14: `interfaces` is a whole number, not a string.");
    one("[[service]]\nname = [1]\nlisten = 1\n", "2:8: `service.name` is an array, not a string.");
    one("service = 1", "1:11: `service` is a whole number, not an array.");
    one("service = [1]", "1:12: `service` is a whole number, not a table.");
    one("bounds = 1", "1:10: `bounds` is a whole number, not a table.");
    in_service(
        "[service.credentials]\nauthorization = \"yes\"",
        "5:17: `service.credentials.authorization` is a string, not a boolean.",
    );
    one("[bounds]\nflows = 1.5", "2:9: `bounds.flows` is a number with a fraction, not a whole number.");
    one("[bounds]\ntee_bytes = true", "2:13: `bounds.tee_bytes` is a boolean, not a string.");
    one("[metrics]\nlisten = 2026-01-01", "2:10: `metrics.listen` is a date or time, not a string.");
}

#[test]
fn unknown_keys_with_and_without_a_suggestion() {
    one("[bounds]\nflow = 100", "2:1: unknown key `flow` in `bounds`. Did you mean `flows`.");
    one("[sinks]\nkafka = 1", "2:1: unknown key `kafka` in `sinks`. Write one of `alertmanager`, `webhook`, `syslog`.");
    in_service("Listen = 1", "4:1: unknown key `Listen` in `service`. Did you mean `listen`.");
    in_route("acccount = 1", "8:1: unknown key `acccount` in `service.route`. Did you mean `account`.");
    in_login(
        "success = { stauts = 200 }",
        "9:13: unknown key `stauts` in `service.route.success`. Did you mean `status`.",
    );
    in_login(
        "success = { json = { pointer = \"/a\", value = 1, x = 1 } }",
        "9:49: unknown key `x` in `service.route.success.json`.",
    );
    in_route(
        "outcomes = [{ outcome = \"read\", code = 200 }]",
        "8:33: unknown key `code` in `service.route.outcomes`.",
    );
    in_issuer("lifetime = 1", "8:1: unknown key `lifetime` in `service.issuer`. Did you mean `max_lifetime`.");
    in_issuer("kids = [{ kid = \"a\", until = 1 }]", "8:22: unknown key `until` in `service.issuer.kids`.");
    one("\"a\\u001b[2J\" = 1", "1:1: unknown key `a\\u{1b}[2J` at the top level.");
}

#[test]
fn missing_keys() {
    let missing = |text: &str, keys: &[&str]| {
        let errors = errors(text);
        assert_eq!(errors.len(), keys.len(), "{errors:#?}");
        for (error, key) in errors.iter().zip(keys) {
            assert!(error.contains(&format!("{key}` is missing. Write ")), "{error}");
        }
    };
    missing("[[service]]\n", &["1:1: `service.name", "1:1: `service.listen"]);
    let routes = ["4:1: `service.route.class", "4:1: `service.route.methods", "4:1: `service.route.path"];
    missing(&format!("{SERVICE}[[service.route]]\n"), &routes);
    let issuers = ["4:1: `service.issuer.name", "4:1: `service.issuer.kind", "4:1: `service.issuer.max_lifetime"];
    missing(&format!("{SERVICE}[[service.issuer]]\n"), &issuers);
    in_issuer(
        "observed = \"all\"\nconfirmed = { sight = 1.0, by = \"k\" }",
        "9:13: `service.issuer.confirmed.on` is missing.",
    );
    in_route("outcomes = [{ status = 200 }]", "8:13: `service.route.outcomes.outcome` is missing.");
    in_login("success = { json = { pointer = \"/a\" } }", "9:20: `service.route.success.json.value` is missing.");
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    one("shards = 2", "1:10: `shards` above 1 is not implemented yet: more than one pair of rings");
    one("[evidence]\nfolder = \"x\"", "1:2: `evidence` is not implemented yet: ");
    one("[ledger]\nstore = \"valkey\"", "2:9: `ledger.store = \"valkey\"` is not implemented yet: ");
    for key in ["import", "peers"] {
        one(&format!("[ledger]\n{key} = 1"), &format!("2:1: `ledger.{key}` is not implemented yet: "));
    }
    for key in ["alertmanager", "webhook", "syslog"] {
        one(&format!("[sinks]\n{key} = 1"), &format!("2:1: `sinks.{key}` is not implemented yet: "));
    }
    for key in ["tls", "http2", "fold_path_case"] {
        let column = key.len() + 4;
        in_service(&format!("{key} = true"), &format!("4:{column}: `service.{key} = true` is not implemented yet: "));
    }
    for key in ["json", "graphql_errors"] {
        let want = format!("8:33: `service.route.outcomes.{key}` is not implemented yet: ");
        in_route(&format!("outcomes = [{{ outcome = \"read\", {key} = 1 }}]"), &want);
    }
}

#[test]
fn durations_sizes_and_counts() {
    for bad in ["10", "1w", "-5s", "", "1.5h", "99999999999999999999d"] {
        one(
            &format!("[bounds]\npoll_interval = \"{bad}\""),
            &format!("2:17: `bounds.poll_interval` is `{bad}`, which is not a duration."),
        );
    }
    one(
        "[bounds]\npoll_interval = \"2s\"",
        "2:17: `bounds.poll_interval` is out of range. Write a duration from 1ms to 1s.",
    );
    one("[bounds]\ntee_bytes = \"5 MB\"", "2:13: `bounds.tee_bytes` is `5 MB`, which is not a size.");
    one("[bounds]\ntee_bytes = \"1GiB\"", "2:13: `bounds.tee_bytes` is out of range.");
    one("[bounds]\ntee_bytes = -1", "2:13: `bounds.tee_bytes` is out of range.");
    one("[estimate.doubt]\nconflict = 0", "2:12: `estimate.doubt.conflict` is not a share.");
    one("[estimate]\nwalks = 1", "2:9: `estimate.walks` is out of range.");
    one("[bounds]\nflows = -1", "2:9: `bounds.flows` is out of range.");
    one("[bounds]\nflows = 9223372036854775807", "2:9: `bounds.flows` is out of range.");
    for key in ["event_ring_bytes", "byte_ring_bytes"] {
        let column = key.len() + 4;
        let want = format!(
            "2:{column}: `bounds.{key}` is 3145728 bytes, and a ring's size must be a power of two. Write 2097152 or 4194304."
        );
        one(&format!("[bounds]\n{key} = \"3MiB\""), &want);
    }
    one("[ledger]\nclock_leeway = \"2h\"", "2:16: `ledger.clock_leeway` is out of range.");
    one("[ledger]\nstore = \"sqlite\"", "2:9: unknown ledger store `sqlite`.");
    one("[ledger]\nstore = \"./ledger\"", "2:9: a ledger that outlives the process needs keys that do, too.");
    one("[ledger]\nsync_interval = \"2s\"", "2:17: `ledger.sync_interval` is out of range.");
    in_issuer(
        "renew_grace = \"1y\"\nrenews = []",
        "8:15: `service.issuer.renew_grace` is `1y`, which is not a duration.",
    );
}

#[test]
fn addresses_networks_and_names_of_the_whole_file() {
    one("trusted_proxies = [\"10.0.0.0/33\"]", "1:20: `10.0.0.0/33` is not a network.");
    one(
        "trusted_proxies = [\"10.0.0.1/8\"]",
        "1:20: `10.0.0.1/8` has address bits beyond its prefix. Write \"10.0.0.0/8\"",
    );
    one("trusted_proxies = [\"10.0.0.1\", \"10.0.0.1\"]", "1:32: `trusted_proxies` names the same thing twice.");
    one(
        "client_header = \"x-forwarded\"",
        "1:17: `x-forwarded` is not a header that names clients. Did you mean `forwarded`.",
    );
    one("[metrics]\nlisten = \"localhost\"", "2:10: `localhost` is not an address with a port.");
    one("interfaces = [\"eth0/1\"]", "1:15: `eth0/1` is not an interface name.");
    one("interfaces = [\"a-name-of-16-byt\"]", "1:15: `a-name-of-16-byt` is not an interface name.");
    one("rules = [\"/no/such/folder\"]", "1:10: the rules `/no/such/folder` cannot be read (No such file");
    one("[findings]\noutput = \"/no/such/folder/f\"", "2:10: the folder of `/no/such/folder/f` does not exist.");
    one("[findings]\noutput = \"/\"", "2:10: `findings.output` is not a file.");
}

#[test]
fn services() {
    for bad in ["0", "65536", "-1", "[0]", "true"] {
        let column = if bad == "[0]" { 11 } else { 10 };
        one(
            &format!("[[service]]\nname = \"s\"\nlisten = {bad}"),
            &format!("3:{column}: `service.listen` is neither a port"),
        );
    }
    for bad in ["*:0", "80", "host:80", "192.0.2.7", "2001:db8::7:80", "*:65536"] {
        one(
            &format!("[[service]]\nname = \"s\"\nlisten = [\"{bad}\"]"),
            &format!("3:11: `{bad}` is not an address with a port."),
        );
    }
    one("[[service]]\nname = \"s\"\nlisten = []", "3:1: `listen` is empty.");
    let again = "[[service]]\nname = \"t\"\nlisten = [81, \"0.0.0.0:80\"]";
    in_service(
        again,
        "6:15: *:80 is already listened on by a service. Remove one of the two; the other stands in line 3.",
    );
    in_service(
        "[[service]]\nname = \"s\"\nlisten = 81",
        "5:8: two services are named `s`. Write another `name`; line 2 has this one.",
    );
    one("[[service]]\nname = \" \"\nlisten = 1", "2:8: `service.name` is not usable as a name.");
    let many: Vec<String> = (1..=65).map(|n| format!("[[service]]\nname = \"s{n}\"\nlisten = {n}\n")).collect();
    one(&many.concat(), "193:1: more than 64 `service` tables.");
}

#[test]
fn credential_places() {
    let places = |line: &str, start: &str| in_service(&format!("[service.credentials]\n{line}"), start);
    places(
        "cookies = [\"a\", \"b\", \"c\", \"d\", \"e\"]",
        "5:1: `service.credentials.cookies` has 5 names, and a service can have 4.",
    );
    places(
        "headers = [\"a\", \"b\", \"c\"]",
        "5:1: `service.credentials.headers` has 3 names, and a service can have 2.",
    );
    places("query = [\"a\", \"b\", \"c\"]", "5:1: `service.credentials.query` has 3 names, and a service can have 2.");
    let long = "n".repeat(33);
    places(&format!("cookies = [\"{long}\"]"), &format!("5:12: the cookie name `{long}` is longer than 32 bytes."));
    places(&format!("headers = [\"{long}\"]"), &format!("5:12: the header name `{long}` is longer than 32 bytes."));
    places(
        &format!("query = [\"{long}\"]"),
        &format!("5:10: the query parameter name `{long}` is longer than 32 bytes."),
    );
    places("cookies = [\"\"]", "5:12: the name of the cookie is empty.");
    places("cookies = [\"a=b\"]", "5:12: `a=b` is not a cookie name.");
    places("headers = [\"X Token\"]", "5:12: `X Token` is not a header name.");
    places(
        "headers = [\"Authorization\"]",
        "5:12: the header `Authorization` cannot be named as a credential's place. Write `authorization = true`",
    );
    places("headers = [\"Cookie\"]", "5:12: the header `Cookie` cannot be named as a credential's place.");
    places(
        "headers = [\"X-Forwarded-For\"]",
        "5:12: the header `X-Forwarded-For` cannot be named as a credential's place.",
    );
    places("query = [\"a&b\"]", "5:10: `a&b` is not a query parameter name.");
    places("cookies = [\"a\", \"a\"]", "5:17: `service.credentials.cookies` names the same thing twice.");
    places(
        "cookies = [{ nmae = \"a\", name = \"a\" }]",
        "5:14: unknown key `nmae` in `service.credentials.cookies`. Did you mean `name`.",
    );
}

#[test]
fn references_to_what_is_not_declared() {
    let with = |line: &str, start: &str| {
        one(
            &format!("{SERVICE}[service.credentials]\nauthorization = false\ncookies = [\"SESSION\"]\n{ROUTE}{line}\n"),
            start,
        );
    };
    with(
        "authenticates_with = \"cookie:SESION\"",
        "11:22: the cookie `SESION` is not declared. Did you mean `SESSION`; else add it to `cookies`",
    );
    with(
        "authenticates_with = \"header:X\"",
        "11:22: the header `x` is not declared. Add it to `headers` in `service.credentials`.",
    );
    with("authenticates_with = \"query:q\"", "11:22: the query parameter `q` is not declared.");
    with(
        "authenticates_with = \"authorization\"",
        "11:22: `authorization` is not among the credential places of this service.",
    );
    with("authenticates_with = \"cookies\"", "11:22: `cookies` is not a credential place.");
    in_login("success = { sets_cookie = \"SID\" }", "9:27: the cookie `SID` is not declared.");
    in_login("binds = [\"cookie:SID\"]", "9:10: the cookie `SID` is not declared.");
    in_issuer("renews = [\"SID\"]", "8:11: the cookie `SID` is not declared.");
    let renews = "[service.credentials]\ncookies = [\"A\", \"B\"]\n[[service.issuer]]\nname=\"i\"\nkind=\"opaque\"\nmax_lifetime=\"1h\"\nplaces=\"cookie:A\"\nrenews=\"B\"";
    in_service(renews, "11:8: `service.issuer.renews` names a cookie that is not among this issuer's `places`.");
}

#[test]
fn key_files() {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |text: &str| {
        let path = folder.path().join("f.toml");
        std::fs::write(&path, text).unwrap();
        let errors = load(&path).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors[0].to_string()
    };
    let secret = "0123456789abcdef0123456789abcdef";
    write_key(&folder.path().join("open"), secret, 0o640);
    write_key(&folder.path().join("short"), &secret[..31], 0o600);
    write_key(&folder.path().join("long"), &format!("{secret}00"), 0o600);
    write_key(&folder.path().join("odd"), &secret.replace('f', "g"), 0o600);
    write_key(&folder.path().join("good"), &format!("{secret}\n"), 0o600);
    for (file, what) in [
        ("absent", "cannot be read (No such file"),
        (".", "is not a regular file"),
        ("open", "can be read by others (mode 640). Run `chmod 600` on it."),
        ("short", "does not hold exactly 32 hexadecimal digits"),
        ("long", "does not hold exactly 32 hexadecimal digits"),
        ("odd", "does not hold exactly 32 hexadecimal digits"),
    ] {
        let error = in_folder(&format!("[keys]\naccount = \"{file}\"\n"));
        assert!(error.contains(":2:11: the key file ") && error.contains(what), "{error}");
        assert!(!error.contains("0123456789"), "a key is printed: {error}");
    }
    let error = in_folder("[keys]\nfingerprint = \"good\"\naccount = \"good\"\n");
    assert!(error.contains(":3:1: `keys.fingerprint` and `keys.account` hold the same key"), "{error}");
}

#[test]
fn the_register_of_keys() {
    in_issuer(
        r#"kids = [{ kid = "a", created = 2025-02-01, retired = 2025-01-01 }]"#,
        "8:44: the key is retired before it was created. Correct one of the two dates.",
    );
    in_issuer(r#"kids = [{ owner = "x" }]"#, "8:9: `service.issuer.kids.kid` is missing.");
    in_issuer(r#"kids = [{ kid = "a", made = 2025-02-01 }]"#, "8:22: unknown key `made` in `service.issuer.kids`.");
    in_issuer(
        r#"kids = [{ kid = "a", owner_left = "soon" }]"#,
        "8:35: `service.issuer.kids.owner_left` is not a date.",
    );
    in_issuer(
        "kids = [\"alpha\"]\ncombinations = [{ kid = \"alhpa\", aud = \"x\" }]",
        "9:19: the key `alhpa` is not among this issuer's `kids`. Did you mean `alpha`.",
    );
    in_issuer("combinations = [{}]", "8:17: a combination that states nothing fits every token.");
    in_issuer("combinations = [\"a\"]", "8:17: `service.issuer.combinations` is a string, not a table.");
    in_issuer(
        "iss = \"one\"\ncombinations = [{ iss = \"two\" }]",
        "9:19: this issuer's tokens say `iss` `one`, so the combination never fits.",
    );
    in_issuer("combinations = [{ scope = \" \" }]", "8:27: `service.issuer.combinations.scope` is empty.");
    in_issuer(
        "combinations = [{ aud = [7] }]",
        "8:26: `service.issuer.combinations.aud` is a whole number, not a string.",
    );
    in_issuer("subject = \"sub\"", "8:11: `sub` does not say which claim names the subject. Write \"claim:NAME\"");
    in_issuer("expires = 1", "8:11: `service.issuer.expires` is a whole number, not a boolean.");
    in_issuer("expiry_grace = \"1 year\"", "8:16: `service.issuer.expiry_grace` is `1 year`, which is not a duration.");
    in_issuer("preexisting = -1", "8:15: `service.issuer.preexisting` is out of range.");
    in_issuer(
        "observed = \"all\"\nconfirmed = { sight = 1.0, by = \"k\", on = 2026-01-31, preexisting = \"many\" }",
        "9:69: `service.issuer.confirmed.preexisting` is a string, not a whole number.",
    );
    let opaque = "[[service.issuer]]\nname = \"i\"\nkind = \"opaque\"\nmax_lifetime = \"1h\"\n";
    for key in ["combinations = [{ aud = \"x\" }]", "expires = true", "expiry_grace = \"1s\"", "subject = \"claim:x\""]
    {
        in_service(&format!("{opaque}{key}"), "8:1: `");
    }
}

#[test]
fn objects_and_tried_accounts() {
    in_route("object = \"path:x\"", "8:10: the path template has no parameter `x`.");
    in_route("object = \"claim:sub\"", "8:10: `service.route.object` does not name an object of the target.");
    in_route("tries = \"json:/u\"", "8:1: `tries` has no meaning on a route of class `account_read`.");
    in_login(
        "tries = \"user\"",
        "9:9: `user` is not a place in a request body. Write \"json:/pointer\" or \"form:NAME\".",
    );
    in_login("tries = \"json:user\"", "9:9: `user` is not a JSON pointer.");
    in_login("tries = [\"form:u\", \"form:u\"]", "9:20: `service.route.tries` names the same thing twice.");
}

#[test]
fn decoys() {
    in_service("canaries = [\"1\", \" \"]", "4:18: `service.canaries` names no account.");
    in_service("canaries = [1]", "4:13: `service.canaries` is a whole number, not a string.");
    let folder = tempfile::tempdir().unwrap();
    let write = |mode| {
        write_key(&folder.path().join("decoys"), "# ours\n\n 1000017 \ndecoy-canary\n", mode);
        let path = folder.path().join("f.toml");
        std::fs::write(&path, format!("{SERVICE}canaries = [\"7\"]\ncanaries_file = \"decoys\"\n")).unwrap();
        load(&path)
    };
    let config = write(0o600).unwrap();
    assert_eq!(config.services[0].canaries.0, ["7", "1000017", "decoy-canary"]);
    assert!(!format!("{config:?}").contains("decoy-canary"), "who is a decoy is told");
    let errors = write(0o640).unwrap_err();
    assert!(errors[0].to_string().contains(":5:17: the file "), "{}", errors[0]);
    assert!(
        errors[0].to_string().contains("can be read by others (mode 640). Run `chmod 600` on it."),
        "{}",
        errors[0]
    );
    std::fs::remove_file(folder.path().join("decoys")).unwrap();
    let errors = load(&folder.path().join("f.toml")).unwrap_err();
    assert!(errors[0].to_string().contains("cannot be read (No such file"), "{}", errors[0]);
}

#[test]
fn cookies_in_pieces() {
    let cookies = |list: &str| format!("[service.credentials]\ncookies = {list}");
    in_service(
        &cookies("[{ name = \"S\", chunks = [\".0\", \".1\", \".2\", \".3\"] }]"),
        "5:1: `service.credentials.cookies` has 5 names, and a service can have 4.",
    );
    in_service(
        &cookies("[{ name = \"S\", chunks = true }]"),
        "5:35: `service.credentials.cookies.chunks` is a boolean",
    );
    in_service(&cookies("[{ name = \"S\", chunks = \"\" }]"), "5:35: a piece with the name of the whole cookie.");
    in_service(&cookies("[{ name = \"S\", chunks = \"; x\" }]"), "5:35: `S; x` is not a cookie name.");
    in_service(
        &cookies("[{ name = \"S\", chunks = [\".0\", \".0\"] }]"),
        "5:42: `service.credentials.cookies.chunks` names the same thing twice.",
    );
}
