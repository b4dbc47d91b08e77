//! The route automaton of the kernel against the router of user space: the same route for a canonical target, and a
//! word that it cannot say for any other.

use std::io::Write as _;

use proptest::prelude::*;
use sensor::capture::offline::Offline;
use sensor::capture::tables::Tables;
use sensor::collect::routes::{Readings, Router};
use sensor::collect::target::Target;
use sensor::config::model::{Config, Method, Route, Segment};
use sensor::observation::{RouteClass, ServiceId};
use sensor::slow::Limits;
use sensor_ebpf::wire::{NO_ROUTE, ROUTE_NOT_CANONICAL};

use super::rig::{Conversation, From, KEY};

fn base() -> Config {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(b"[[service]]\nname = \"s\"\nlisten = [8080]\n[service.credentials]\nauthorization = true\n")
        .unwrap();
    sensor::config::load(file.path()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn route(method: &str, template: &str) -> Route {
    let segments = template.split('/').skip(1).map(|text| match text.strip_prefix('{') {
        Some(name) => Segment::Parameter(name.trim_end_matches('}').to_owned()),
        None => Segment::Literal(text.to_owned()),
    });
    Route {
        name: template.to_owned(),
        methods: vec![Method::new(method)],
        segments: segments.collect(),
        template: template.to_owned(),
        class: RouteClass::Other,
        authenticates_with: Vec::new(),
        outcomes: Vec::new(),
        account: Vec::new(),
        object: None,
        issuance: None,
    }
}

fn kernel_route(config: &Config, method: &str, target: &str) -> u16 {
    let engine = Offline::new(Tables::new(config, KEY).unwrap(), false, 16, 16, Limits::default());
    let mut conversation = Conversation::over(engine);
    conversation.data(From::Client, format!("{method} {target} HTTP/1.1\r\n\r\n").as_bytes());
    let output = conversation.output();
    assert_eq!(output.heads.len(), 1, "{target}");
    output.heads[0].route
}

fn router_route(config: &Config, method: &str, target: &str) -> u16 {
    let mut readings = Readings::default();
    let target = Target::new(target.as_bytes());
    let taken = Router::new(config).take(ServiceId(0), method.as_bytes(), &target, &mut readings);
    taken.map_or(NO_ROUTE, |taken| taken.route.0)
}

const WORDS: &[&str] =
    &["a", "b", "users", "addresses", "a-segment-of-more-than-sixteen-bytes", "12345678", "123456789"];

fn template() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        3 => proptest::sample::select(WORDS).prop_map(str::to_owned),
        2 => Just("{x}".to_owned()),
    ];
    proptest::collection::vec(segment, 0..4).prop_map(|segments| match segments.len() {
        0 => "/".to_owned(),
        _ => format!("/{}", segments.join("/")),
    })
}

fn path() -> impl Strategy<Value = String> {
    let segment =
        prop_oneof![5 => proptest::sample::select(WORDS).prop_map(str::to_owned), 1 => "[a-z0-9_~=,:@-]{1,20}"];
    let tail = prop_oneof![4 => Just(""), 1 => Just("/"), 1 => Just("?x=/y/..;%41")];
    (proptest::collection::vec(segment, 0..4), tail).prop_map(|(segments, tail)| {
        format!("/{}{}", segments.join("/"), if segments.is_empty() && tail == "/" { "" } else { tail })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn canonical_targets(
        templates in proptest::collection::btree_set((proptest::sample::select(&["GET", "POST"][..]), template()), 1..8),
        paths in proptest::collection::vec(path(), 1..8),
    ) {
        let mut config = base_once();
        config.services[0].routes = templates.iter().map(|(method, template)| route(method, template)).collect();
        for path in paths {
            for method in ["GET", "POST", "PUT"] {
                let want = router_route(&config, method, &path);
                prop_assert_eq!(kernel_route(&config, method, &path), want, "{} {} among {:?}", method, path, templates);
            }
        }
    }

    #[test]
    fn other_targets(
        before in "(/[a-z]{1,9}){0,3}", after in "(/[a-z]{1,9}){0,3}",
        odd in proptest::sample::select(&["/%61", "//a", "/./a", "/../a", "/a;b", "/a\\b", "/.a", "/a%", "/a;", "/a#"][..]),
    ) {
        let mut config = base_once();
        config.services[0].routes = vec![route("GET", "/a"), route("GET", "/{x}"), route("GET", "/{x}/{y}")];
        for target in [format!("{before}{odd}{after}"), format!("http://h{before}/a"), format!("h{before}:443"), "*".to_owned()] {
            prop_assert_eq!(kernel_route(&config, "GET", &target), ROUTE_NOT_CANONICAL, "{}", target);
        }
    }
}

fn base_once() -> Config {
    static BASE: std::sync::OnceLock<Config> = std::sync::OnceLock::new();
    BASE.get_or_init(base).clone()
}
