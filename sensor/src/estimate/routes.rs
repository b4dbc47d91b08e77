//! Routes numbered through over all services, so that what estimators keep of a route stands in a plain vector.

use crate::config::model::Config;
use crate::observation::{Observation, RouteClass, RouteId, ServiceId};

/// The numbering, and the names.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    services: Vec<Service>,
    all: Vec<Route>,
}

#[derive(Clone, Debug)]
struct Service {
    name: String,
    /// Number of its first route.
    first: usize,
}

/// One route.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub service: ServiceId,
    pub id: RouteId,
    pub class: RouteClass,
    name: String,
}

impl Routes {
    /// Of `config`.
    pub fn new(config: &Config) -> Self {
        let (mut services, mut all) = (Vec::new(), Vec::new());
        for (id, service) in (0u16..).zip(&config.services) {
            services.push(Service { name: service.name.clone(), first: all.len() });
            all.extend((0u16..).zip(&service.routes).map(|(route, model)| Route {
                service: ServiceId(id),
                id: RouteId(route),
                class: model.class,
                name: model.name.clone(),
            }));
        }
        Self { services, all }
    }

    /// Routes of all services.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Services.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// The number of the route that `o` is of; `None`: it matched none.
    pub fn number(&self, o: &Observation) -> Option<usize> {
        let number = self.services.get(usize::from(o.service.0))?.first + usize::from(o.route?.0);
        (number < self.all.len()).then_some(number)
    }

    /// The route of `number`.
    pub fn get(&self, number: usize) -> Option<&Route> {
        self.all.get(number)
    }

    /// Names of services, in order.
    pub fn service_names(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(|service| service.name.as_str())
    }

    /// Names of service and route, in order.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all.iter().map(|route| {
            let service = self.services.get(usize::from(route.service.0));
            (service.map_or("none", |service| service.name.as_str()), route.name.as_str())
        })
    }
}
