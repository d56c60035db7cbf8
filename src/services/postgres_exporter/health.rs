//! Whether it runs. What it shows, the door to the metrics says.

use crate::{inventory::Role, services::health::Health};

pub(crate) const HEALTH: &dyn Health = &Exporter;

struct Exporter;

impl Health for Exporter {
    fn role(&self) -> Role {
        Role::PostgresExporter
    }
}
