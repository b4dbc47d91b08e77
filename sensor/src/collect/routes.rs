//! Which route a request takes, decided over the captured request line.
//!
//! The routes of a service are compiled to a tree of segments, literal before parameter. Three readings of a target are
//! tried: normalised, raw, and normalised with letter case ignored. Of the routes found the most sensitive class wins,
//! so that no spelling of a target hides an account read.

use super::target::{Path, Target, percent_decode};
use crate::config::model::{Config, Method, Segment, Service};
use crate::observation::{RouteClass, RouteId, ServiceId};

pub use super::route_stats::{RouteRow, RouteStats};

/// The routes of every service.
#[derive(Debug)]
pub struct Router {
    services: Vec<ServiceRoutes>,
}

/// The two readings of one target. Reused from request to request.
#[derive(Debug, Default)]
pub struct Readings {
    raw: Path,
    normalised: Path,
}

/// A route that a target takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The route.
    pub route: RouteId,
    /// Its class.
    pub class: RouteClass,
    /// True when only the raw reading matched: its segments are those of the raw path.
    pub raw: bool,
}

impl Readings {
    /// Forgets the last target.
    pub(super) fn clear(&mut self) {
        self.raw.set_raw(&[]);
        self.normalised.set_raw(&[]);
    }

    /// The segments of the reading that `taken` matched.
    pub fn path(&self, taken: Taken) -> &Path {
        if taken.raw { &self.raw } else { &self.normalised }
    }
}

impl Router {
    /// Compiles the routes of `config`.
    pub fn new(config: &Config) -> Self {
        Self { services: config.services.iter().map(ServiceRoutes::new).collect() }
    }

    /// The route of `service` that `method` and `target` take; fills `readings` with the target's path.
    pub fn take(
        &self,
        service: ServiceId,
        method: &[u8],
        target: &Target<'_>,
        readings: &mut Readings,
    ) -> Option<Taken> {
        readings.normalised.set_normalised(target.path);
        readings.raw.set_raw(target.path);
        let routes = self.services.get(usize::from(service.0))?;
        if target.path.is_empty() {
            return None;
        }
        let mut best = None;
        better(&mut best, routes.normalised.find(&readings.normalised, method, false), false);
        if sensitivity(best) < sensitivity_of(RouteClass::AccountRead) && !readings.raw.same(&readings.normalised) {
            better(&mut best, routes.raw.find(&readings.raw, method, false), true);
        }
        if sensitivity(best) < sensitivity_of(RouteClass::AccountRead) {
            better(&mut best, routes.normalised.find(&readings.normalised, method, true), false);
        }
        best
    }
}

fn better(best: &mut Option<Taken>, found: Option<(RouteId, RouteClass)>, raw: bool) {
    let found = found.map(|(route, class)| Taken { route, class, raw });
    if sensitivity(found) > sensitivity(*best) {
        *best = found;
    }
}

fn sensitivity(taken: Option<Taken>) -> u8 {
    taken.map_or(0, |taken| sensitivity_of(taken.class))
}

/// Which of two classes wins where readings of a request disagree.
pub(super) fn sensitivity_of(class: RouteClass) -> u8 {
    match class {
        RouteClass::Other => 1,
        RouteClass::Login | RouteClass::Refresh | RouteClass::Logout => 2,
        RouteClass::AccountRead => 3,
    }
}

#[derive(Debug)]
struct ServiceRoutes {
    raw: Tree,
    normalised: Tree,
}

impl ServiceRoutes {
    fn new(service: &Service) -> Self {
        let mut routes = Self { raw: Tree::default(), normalised: Tree::default() };
        for (index, route) in service.routes.iter().enumerate() {
            let Ok(index) = u16::try_from(index) else { break };
            let target = End { methods: route.methods.clone(), route: RouteId(index), class: route.class };
            let empty = Segment::Literal(String::new());
            routes.raw.insert(
                // "/" itself has no segments in either form.
                route.segments.iter().filter(|segment| route.segments.len() > 1 || **segment != empty),
                false,
                target.clone(),
            );
            routes.normalised.insert(route.segments.iter().filter(|segment| **segment != empty), true, target);
        }
        routes
    }
}

/// A tree of segments. A search visits each node at most once, so its cost is bounded by the configuration.
#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Sorted by segment.
    literals: Vec<(Vec<u8>, usize)>,
    parameter: Option<usize>,
    ends: Vec<End>,
}

#[derive(Clone, Debug)]
struct End {
    methods: Vec<Method>,
    route: RouteId,
    class: RouteClass,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Tree {
    fn insert<'a>(&mut self, segments: impl Iterator<Item = &'a Segment>, decode: bool, end: End) {
        let mut at = 0;
        for segment in segments {
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { return };
            at = match segment {
                Segment::Parameter(_) => *node.parameter.get_or_insert(next),
                Segment::Literal(text) => {
                    let mut literal = Vec::new();
                    if decode {
                        percent_decode(text.as_bytes(), false, &mut literal);
                    } else {
                        literal.extend_from_slice(text.as_bytes());
                    }
                    match node.literals.binary_search_by(|(known, _)| known.cmp(&literal)) {
                        Ok(found) => node.literals.get(found).map_or(next, |(_, child)| *child),
                        Err(place) => {
                            node.literals.insert(place, (literal, next));
                            next
                        }
                    }
                }
            };
            if at == next {
                self.nodes.push(Node::default());
            }
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.ends.push(end);
        }
    }

    fn find(&self, path: &Path, method: &[u8], fold: bool) -> Option<(RouteId, RouteClass)> {
        self.search(0, path, 0, method, fold)
    }

    /// Depth is bounded by the longest template.
    fn search(&self, at: usize, path: &Path, depth: usize, method: &[u8], fold: bool) -> Option<(RouteId, RouteClass)> {
        let node = self.nodes.get(at)?;
        let Some(segment) = path.get(depth) else {
            return node.ends.iter().find(|end| end.allows(method)).map(|end| (end.route, end.class));
        };
        let deeper = |child: usize| self.search(child, path, depth + 1, method, fold);
        let literal = if fold {
            node.literals
                .iter()
                .filter(|(text, _)| text.eq_ignore_ascii_case(segment))
                .find_map(|(_, child)| deeper(*child))
        } else {
            let found = node.literals.binary_search_by(|(text, _)| text.as_slice().cmp(segment)).ok();
            found.and_then(|found| node.literals.get(found)).and_then(|(_, child)| deeper(*child))
        };
        literal.or_else(|| node.parameter.filter(|_| !segment.is_empty()).and_then(deeper))
    }
}

impl End {
    fn allows(&self, method: &[u8]) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|one| one.text.as_bytes() == method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::testing;

    fn taken(target: &str) -> Option<(String, Vec<String>)> {
        let config = testing::config();
        let router = Router::new(&config);
        let mut readings = Readings::default();
        let taken = router.take(ServiceId(0), b"GET", &Target::new(target.as_bytes()), &mut readings)?;
        let route = &config.services[0].routes[usize::from(taken.route.0)];
        let path = readings.path(taken).iter().map(|segment| String::from_utf8_lossy(segment).into_owned()).collect();
        Some((route.template.clone(), path))
    }

    #[test]
    fn spellings_of_an_account_read() {
        for target in [
            "/users/1/addresses",
            "/%75sers/1/addresses",
            "//users/1//addresses",
            "/users/./1/addresses",
            "/x/../users/1/addresses",
            "/users/1;v=2/addresses;x",
            "/users%2f1/addresses",
            "/users/1/addresses/",
            "/Users/1/ADDRESSES",
            "http://shop.example/users/1/addresses?page=2",
            "\\users\\1/addresses",
        ] {
            let (template, path) = taken(target).unwrap_or_else(|| panic!("{target} takes no route"));
            assert_eq!(template, "/users/{id}/addresses", "{target}");
            assert_eq!(path[1], "1", "{target}");
        }
    }

    #[test]
    fn raw_reading_is_kept_when_only_it_matches() {
        assert_eq!(taken("/users/a%2Fb/addresses").unwrap().1[1], "a%2Fb");
    }

    #[test]
    fn literal_before_parameter_with_way_back() {
        // `/users/me` is a route of its own, but `/users/me/addresses` is still an account read.
        assert_eq!(taken("/users/me").unwrap().0, "/users/me");
        assert_eq!(taken("/users/me/addresses").unwrap().0, "/users/{id}/addresses");
        assert_eq!(taken("/users/7").unwrap().0, "/users/{id}");
        assert_eq!(taken("/users//"), None);
        assert_eq!(taken("/nothing"), None);
        assert_eq!(taken("*"), None);
    }

    #[test]
    fn method_must_fit() {
        let config = testing::config();
        let mut readings = Readings::default();
        let target = Target::new(b"/users/1/addresses");
        assert_eq!(Router::new(&config).take(ServiceId(0), b"get", &target, &mut readings), None);
        assert_eq!(Router::new(&config).take(ServiceId(9), b"GET", &target, &mut readings), None);
    }
}
