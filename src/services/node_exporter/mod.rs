//! The metrics of a host: the kernel's, by `node_exporter`, and what pgherd alone knows there (certificates, timers, etcd's alarms,
//! backups), which a timer writes into a folder that `node_exporter` reads.
//!
//! No inventory gives a host this role: it follows from the section `monitoring`.

use super::{
    Data, Effect, Number, Service,
    file::{Entry, config, template},
    port::Port,
    service::{Package, When, unit},
};
use crate::contract::{METRICS, NODE_EXPORTER_PORT};

pub(crate) mod health;

const DROP_IN: &str = "/etc/systemd/system/prometheus-node-exporter.service.d/pgherd.conf";

pub(super) const SERVICE: Service = Service {
    title: "node_exporter",
    packages: &[Package::serving("prometheus-node-exporter").when(When::Metrics)],
    files: &[
        Entry {
            mode: 0o755,
            ..config(
                "/etc/pgherd/metrics/collect",
                template!("etc/pgherd/metrics/collect"),
                Effect::Nothing,
            )
        },
        config(
            "/etc/systemd/system/pgherd-metrics.service",
            template!("etc/systemd/system/pgherd-metrics.service"),
            Effect::Nothing,
        ),
        // The service starts and stops the timer.
        config(
            "/etc/systemd/system/pgherd-metrics.timer",
            template!("etc/systemd/system/pgherd-metrics.timer"),
            Effect::Restart,
        ),
        config(
            DROP_IN,
            template!("etc/systemd/system/prometheus-node-exporter.service.d/pgherd.conf"),
            Effect::Restart,
        ),
    ],
    folders: &[
        "/etc/pgherd/metrics",
        "/etc/systemd/system/prometheus-node-exporter.service.d",
    ],
    data: Data::Folder {
        path: METRICS,
        owner: "root",
        mode: 0o755,
    },
    ports: &[Port::new(
        Number::Fixed(NODE_EXPORTER_PORT),
        "node_exporter",
    )],
    ..Service::of_metrics("node-exporter", unit!("prometheus-node-exporter"), DROP_IN)
};
