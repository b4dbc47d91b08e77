//! The configuration as the parser looks it up: ports, listeners, services, route automata.
//!
//! Configuration flows in; out come plain tables that [`super::kernel`] writes into maps and [`super::host`] reads
//! directly, so that both sides classify alike.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use sensor_ebpf::route::segment_hash;
use sensor_ebpf::siphash::Key;
use sensor_ebpf::wire::{
    EdgeKey, ListenKey, NO_ROUTE, Name, ROUTES_MAX, RouteConfig, RouteState, SERVICES_MAX, ServiceConfig, Settings,
    method, route_flag, service_flag,
};

use crate::config::model::{Config, Route, Segment, Service};
use crate::observation::RouteClass;

/// Most states that the automata of all services have together.
pub const STATES_MAX: usize = 65_536;
/// Most edges.
pub const EDGES_MAX: usize = 65_536;
/// Most listeners.
pub const LISTENS_MAX: usize = 1024;

/// Why a configuration does not fit the parser's tables.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// Too many services.
    #[error("{0} services are declared, at most {SERVICES_MAX} can be watched by one sensor")]
    Services(usize),
    /// Too many listen addresses.
    #[error("{0} listen addresses are declared, at most {LISTENS_MAX} can be watched by one sensor")]
    Listens(usize),
    /// The route automata are too large.
    #[error(
        "the routes need more than {STATES_MAX} automaton states; use fewer templates, or fewer literal segments \
             beside a parameter at the same depth"
    )]
    Routes,
}

/// Everything the parser looks up.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Ports on which some service may listen.
    pub ports: Vec<u16>,
    /// Listeners and the index of their service.
    pub listens: HashMap<ListenKey, u16>,
    /// Services by index.
    pub services: Vec<ServiceConfig>,
    /// Edges of the automata.
    pub edges: HashMap<EdgeKey, u32>,
    /// States of the automata; 0 is dead.
    pub states: Vec<RouteState>,
    /// Routes by `service * ROUTES_MAX + route`.
    pub routes: BTreeMap<u32, RouteConfig>,
    /// The fingerprint key.
    pub key: Key,
    /// What holds for all services.
    pub settings: Settings,
}

/// An address as records and keys hold it: IPv4 mapped into IPv6.
pub fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl Tables {
    /// Compiles `config`.
    pub fn new(config: &Config, key: Key) -> Result<Self, TablesError> {
        if config.services.len() > SERVICES_MAX {
            return Err(TablesError::Services(config.services.len()));
        }
        let settings = Settings { head_bytes: config.bounds.head_bytes, tunnels: u32::from(config.tunnels) };
        let mut tables = Self { key, settings, states: vec![RouteState::default()], ..Self::default() };
        for (index, service) in config.services.iter().enumerate() {
            let id = u16::try_from(index).unwrap_or(u16::MAX);
            for listen in &service.listen {
                let address = listen.address.map_or([0; 16], mapped);
                tables.listens.insert(ListenKey { address, port: listen.port, reserved: [0; 6] }, id);
                tables.ports.push(listen.port);
            }
            let root = Automaton { routes: &service.routes, tables: &mut tables, known: HashMap::new() }.compile()?;
            let compiled = service_config(service, root);
            tables.services.push(compiled);
            for (number, route) in service.routes.iter().enumerate().take(ROUTES_MAX) {
                let place = u32::try_from(index * ROUTES_MAX + number).unwrap_or(u32::MAX);
                tables.routes.insert(place, route_config(route));
            }
        }
        tables.ports.sort_unstable();
        tables.ports.dedup();
        if tables.listens.len() > LISTENS_MAX {
            return Err(TablesError::Listens(tables.listens.len()));
        }
        Ok(tables)
    }
}

fn names<const N: usize>(from: &[String], fold_case: bool) -> [Name; N] {
    let mut names = [Name::default(); N];
    for (to, text) in names.iter_mut().zip(from) {
        *to = Name::new(text.as_bytes(), fold_case).unwrap_or_default();
    }
    names
}

fn service_config(service: &Service, route_root: u32) -> ServiceConfig {
    let places = &service.credentials;
    let mut flags = 0;
    for (given, flag) in [
        (places.authorization, service_flag::AUTHORIZATION),
        (!places.cookies.is_empty(), service_flag::COOKIES),
        (!places.headers.is_empty(), service_flag::HEADERS),
        (!places.query.is_empty(), service_flag::QUERY),
        (!places.response_headers.is_empty(), service_flag::RESPONSE_HEADERS),
        (service.proxy_protocol, service_flag::PROXY),
    ] {
        if given {
            flags |= flag;
        }
    }
    ServiceConfig {
        flags,
        route_root,
        cookies: names(&places.cookies, false),
        headers: names(&places.headers, true),
        response_headers: names(&places.response_headers, true),
        query: names(&places.query, false),
    }
}

fn route_config(route: &Route) -> RouteConfig {
    let mut flags = 0;
    if let Some(rule) = &route.issuance {
        if rule.reads_response() {
            flags |= route_flag::TEE_RESPONSE;
        }
        if rule.reads_request() {
            flags |= route_flag::TEE_REQUEST;
        }
    }
    if route.outcomes.iter().any(|rule| rule.min_length.is_some()) {
        flags |= route_flag::WANT_END;
    }
    RouteConfig { class: class_number(route.class), flags, reserved: [0; 6] }
}

fn class_number(class: RouteClass) -> u8 {
    class as u8
}

/// Subset construction over path segments: a literal's successor also has the routes that take any segment there, so
/// that walking it never has to go back.
struct Automaton<'a> {
    routes: &'a [Route],
    tables: &'a mut Tables,
    known: HashMap<(usize, Vec<usize>), u32>,
}

impl Automaton<'_> {
    fn compile(mut self) -> Result<u32, TablesError> {
        let all: Vec<usize> = (0..self.routes.len().min(ROUTES_MAX)).collect();
        self.state(0, &all)
    }

    fn state(&mut self, depth: usize, routes: &[usize]) -> Result<u32, TablesError> {
        if routes.is_empty() {
            return Ok(0);
        }
        if let Some(state) = self.known.get(&(depth, routes.to_vec())) {
            return Ok(*state);
        }
        if self.tables.states.len() >= STATES_MAX || self.tables.edges.len() >= EDGES_MAX {
            return Err(TablesError::Routes);
        }
        let state = u32::try_from(self.tables.states.len()).unwrap_or(0);
        self.tables.states.push(RouteState { wildcard: 0, accept: self.accept(depth, routes), reserved: 0 });
        self.known.insert((depth, routes.to_vec()), state);
        let any: Vec<usize> = routes
            .iter()
            .copied()
            .filter(|route| matches!(self.segment(*route, depth), Some(Segment::Parameter(_))))
            .collect();
        let literals: std::collections::BTreeSet<String> = routes
            .iter()
            .filter_map(|route| match self.segment(*route, depth) {
                Some(Segment::Literal(text)) => Some(text.clone()),
                _ => None,
            })
            .collect();
        for literal in literals {
            let next: Vec<usize> = routes
                .iter()
                .copied()
                .filter(|route| match self.segment(*route, depth) {
                    Some(Segment::Literal(text)) => *text == literal,
                    // A parameter takes no empty segment.
                    Some(Segment::Parameter(_)) => !literal.is_empty(),
                    None => false,
                })
                .collect();
            let next = self.state(depth + 1, &next)?;
            let key = EdgeKey { state, reserved: 0, segment: segment_hash(literal.as_bytes()) };
            self.tables.edges.insert(key, next);
        }
        let wildcard = self.state(depth + 1, &any)?;
        if let Some(entry) = self.tables.states.get_mut(state as usize) {
            entry.wildcard = wildcard;
        }
        Ok(state)
    }

    fn segment(&self, route: usize, depth: usize) -> Option<&Segment> {
        self.routes.get(route)?.segments.get(depth)
    }

    /// The routes that end at this depth, by method; of several the one that has a literal first, from the left, as the
    /// router of user space decides.
    fn accept(&self, depth: usize, routes: &[usize]) -> [u16; method::COUNT] {
        let mut accept = [NO_ROUTE; method::COUNT];
        let mut literals: [Option<Vec<bool>>; method::COUNT] = std::array::from_fn(|_| None);
        for index in routes {
            let Some(route) = self.routes.get(*index).filter(|route| route.segments.len() == depth) else { continue };
            let weight: Vec<bool> = route.segments.iter().map(|one| matches!(one, Segment::Literal(_))).collect();
            for method in &route.methods {
                let id = usize::from(method.id);
                if let (Some(entry), Some(best)) = (accept.get_mut(id), literals.get_mut(id))
                    && best.as_ref().is_none_or(|best| weight > *best)
                {
                    *best = Some(weight.clone());
                    *entry = u16::try_from(*index).unwrap_or(NO_ROUTE);
                }
            }
        }
        accept
    }
}
