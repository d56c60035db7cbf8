//! Prometheus, which reads the metrics of all hosts and judges them by the alerts.

use std::time::Duration;

use super::{
    Data, Effect, Number, Service, Wait,
    file::{certificate, config, key, template},
    port::Port,
    service::{Checker, Package, When, unit},
};
use crate::contract::PROMETHEUS_PORT;

mod client;
pub(crate) mod health;

/// The folder of its certificates.
const TLS: &str = "/etc/pgherd/tls/monitoring";
const CONFIG: &str = "/etc/pgherd/monitoring/prometheus.yml";
const ALERTS: &str = "/etc/pgherd/monitoring/alerts.yml";

/// The alerts as they stand in `alerts/`, for the engine of templates: their braces are Prometheus' own.
const RULES: super::file::Embedded = (
    "etc/pgherd/monitoring/alerts.yml",
    concat!(
        "{% raw %}",
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/alerts/pgherd.yml")),
        "{% endraw %}"
    ),
);

pub(super) const SERVICE: Service = Service {
    title: "Prometheus",
    rank: 7,
    packages: &[Package::serving("prometheus").when(When::Monitoring)],
    files: &[
        certificate(
            "/etc/pgherd/tls/monitoring/ca.crt",
            template!("etc/pgherd/tls/ca.crt"),
            Effect::Restart,
        ),
        certificate(
            "/etc/pgherd/tls/monitoring/server.crt",
            template!("etc/pgherd/tls/server.crt"),
            Effect::Nothing,
        ),
        key(
            "/etc/pgherd/tls/monitoring/server.key",
            template!("etc/pgherd/tls/server.key"),
            Effect::Nothing,
            "prometheus",
        ),
        config(
            "/etc/pgherd/monitoring/web.yml",
            template!("etc/pgherd/monitoring/web.yml"),
            Effect::Restart,
        ),
        // Prometheus sees by itself that they have changed.
        config(
            "/etc/pgherd/monitoring/targets.yml",
            template!("etc/pgherd/monitoring/targets.yml"),
            Effect::Nothing,
        ),
        config(ALERTS, RULES, Effect::Reload),
        config(
            "/etc/systemd/system/prometheus.service.d/pgherd.conf",
            template!("etc/systemd/system/prometheus.service.d/pgherd.conf"),
            Effect::Restart,
        ),
        config(
            CONFIG,
            template!("etc/pgherd/monitoring/prometheus.yml"),
            Effect::Reload,
        ),
    ],
    checkers: &[
        Checker {
            path: ALERTS,
            command: "promtool check rules $CANDIDATE >/dev/null",
            when: When::Always,
        },
        Checker {
            path: CONFIG,
            command: "promtool check config --syntax-only $CANDIDATE >/dev/null",
            when: When::Always,
        },
    ],
    folders: &[
        TLS,
        "/etc/pgherd/monitoring",
        "/etc/systemd/system/prometheus.service.d",
    ],
    tls: Some(TLS),
    data: Data::Folder {
        path: "/var/lib/pgherd-monitoring",
        owner: "prometheus",
        mode: 0o750,
    },
    ports: &[Port {
        asked: true,
        ..Port::new(Number::Fixed(PROMETHEUS_PORT), "Prometheus")
    }],
    watches: true,
    taken_off: "no run would update it, and it would raise alerts about hosts as they once were",
    wait: Some(Wait {
        step: "await-prometheus",
        why: "alerts begin when it reads the metrics",
        limit: Duration::from_secs(60),
    }),
    ..Service::new("monitoring", unit!("prometheus"), CONFIG)
};
