//! Whether Alertmanager runs. That Prometheus reaches it, Prometheus' own health says.

use crate::{inventory::Role, services::health::Health};

pub(crate) const HEALTH: &dyn Health = &Manager;

struct Manager;

impl Health for Manager {
    fn role(&self) -> Role {
        Role::Alertmanager
    }
}
