//! Alertmanager, which tells people of alerts.
//!
//! No inventory gives a host this role: it follows from the role `monitoring`.

use super::{
    Data, Effect, Number, Role, Service, Visibility,
    file::{Entry, certificate, config, key, template},
    port::Port,
    service::{Checker, Follows, Package, When, unit},
};
use crate::contract::ALERTMANAGER_PORT;

pub(crate) mod health;

/// The folder of its certificates.
const TLS: &str = "/etc/pgherd/tls/alertmanager";
const CONFIG: &str = "/etc/pgherd/monitoring/alertmanager.yml";

pub(super) const SERVICE: Service = Service {
    title: "Alertmanager",
    follows: Some(Follows {
        role: Some(Role::Monitoring),
        when: When::Monitoring,
        key: "a host with the role `monitoring`",
    }),
    rank: 7,
    packages: &[Package::serving("prometheus-alertmanager").when(When::Monitoring)],
    files: &[
        certificate(
            "/etc/pgherd/tls/alertmanager/server.crt",
            template!("etc/pgherd/tls/server.crt"),
            Effect::Nothing,
        ),
        key(
            "/etc/pgherd/tls/alertmanager/server.key",
            template!("etc/pgherd/tls/server.key"),
            Effect::Nothing,
            "prometheus",
        ),
        config(
            "/etc/pgherd/monitoring/alertmanager-web.yml",
            template!("etc/pgherd/monitoring/alertmanager-web.yml"),
            Effect::Restart,
        ),
        config(
            "/etc/systemd/system/prometheus-alertmanager.service.d/pgherd.conf",
            template!("etc/systemd/system/prometheus-alertmanager.service.d/pgherd.conf"),
            Effect::Restart,
        ),
        Entry {
            owner: "prometheus",
            group: "prometheus",
            mode: 0o600,
            visibility: Visibility::Masked,
            ..config(
                CONFIG,
                template!("etc/pgherd/monitoring/alertmanager.yml"),
                Effect::Reload,
            )
        },
    ],
    checkers: &[Checker {
        path: CONFIG,
        command: "amtool check-config $CANDIDATE >/dev/null",
        when: When::Always,
    }],
    folders: &[
        TLS,
        "/etc/pgherd/monitoring",
        "/etc/systemd/system/prometheus-alertmanager.service.d",
    ],
    tls: Some(TLS),
    data: Data::Folder {
        path: "/var/lib/pgherd-alertmanager",
        owner: "prometheus",
        mode: 0o750,
    },
    ports: &[Port::new(Number::Fixed(ALERTMANAGER_PORT), "Alertmanager")],
    watches: true,
    taken_off: "no run would update it, and it would go on telling people of alerts",
    ..Service::new("alertmanager", unit!("prometheus-alertmanager"), CONFIG)
};
