//! PostgreSQL's metrics, by `postgres_exporter`: it logs in over the socket, as a role that may only look.
//!
//! No inventory gives a host this role: it follows from the section `monitoring`.

use super::{
    Effect, Number, Role, Service,
    file::{config, template},
    port::Port,
    service::{Follows, Package, When, unit},
};
use crate::contract::POSTGRES_EXPORTER_PORT;

pub(crate) mod health;

const DROP_IN: &str = "/etc/systemd/system/prometheus-postgres-exporter.service.d/pgherd.conf";

pub(super) const SERVICE: Service = Service {
    title: "postgres_exporter",
    follows: Some(Follows {
        role: Some(Role::Postgres),
        when: When::Metrics,
        key: "monitoring",
    }),
    packages: &[Package::serving("prometheus-postgres-exporter").when(When::Metrics)],
    files: &[
        config(
            "/etc/pgherd/metrics/queries.yaml",
            template!("etc/pgherd/metrics/queries.yaml"),
            Effect::Restart,
        ),
        config(
            DROP_IN,
            template!("etc/systemd/system/prometheus-postgres-exporter.service.d/pgherd.conf"),
            Effect::Restart,
        ),
    ],
    folders: &[
        "/etc/pgherd/metrics",
        "/etc/systemd/system/prometheus-postgres-exporter.service.d",
    ],
    ports: &[Port::new(
        Number::Fixed(POSTGRES_EXPORTER_PORT),
        "postgres_exporter",
    )],
    ..Service::of_metrics(
        "postgres-exporter",
        unit!("prometheus-postgres-exporter"),
        DROP_IN,
    )
};
