//! The door to the metrics of a host: one port over TLS, behind which everything else that has metrics listens on
//! loopback only.
//!
//! No inventory gives a host this role: it follows from the section `monitoring`. The program is `exporter_exporter`.

use std::time::Duration;

use super::{
    Caller, Effect, Number, Role, Service, Wait,
    file::{certificate, config, key, template},
    port::Port,
    service::{Package, When, unit},
};
use crate::contract::METRICS_PORT;

pub(crate) mod health;
mod jobs;

pub(crate) use jobs::{Job, of as jobs_of, path};

/// The folder of its certificates.
const TLS: &str = "/etc/pgherd/tls/metrics";
const DROP_IN: &str = "/etc/systemd/system/prometheus-exporter-exporter.service.d/pgherd.conf";

pub(super) const SERVICE: Service = Service {
    title: "the door to the metrics",
    packages: &[Package::serving("prometheus-exporter-exporter").when(When::Metrics)],
    files: &[
        certificate(
            "/etc/pgherd/tls/metrics/ca.crt",
            template!("etc/pgherd/tls/ca.crt"),
            Effect::Restart,
        ),
        certificate(
            "/etc/pgherd/tls/metrics/server.crt",
            template!("etc/pgherd/tls/server.crt"),
            Effect::Restart,
        ),
        key(
            "/etc/pgherd/tls/metrics/server.key",
            template!("etc/pgherd/tls/server.key"),
            Effect::Restart,
            "prometheus",
        ),
        config(
            "/etc/pgherd/metrics/modules.yml",
            template!("etc/pgherd/metrics/modules.yml"),
            Effect::Restart,
        ),
        config(
            DROP_IN,
            template!("etc/systemd/system/prometheus-exporter-exporter.service.d/pgherd.conf"),
            Effect::Restart,
        ),
    ],
    folders: &[
        TLS,
        "/etc/pgherd/metrics",
        "/etc/systemd/system/prometheus-exporter-exporter.service.d",
    ],
    tls: Some(TLS),
    ports: &[Port {
        from: &[Caller::Hosts(Role::Monitoring), Caller::Scrapers],
        asked: true,
        ..Port::new(Number::Fixed(METRICS_PORT), "the door to the metrics")
    }],
    taken_off: "no run would update it, and it shows the metrics that are still there",
    wait: Some(Wait {
        step: "await-metrics",
        why: "whoever scrapes it finds it there",
        limit: Duration::from_secs(30),
    }),
    ..Service::of_metrics("metrics", unit!("prometheus-exporter-exporter"), DROP_IN)
};
