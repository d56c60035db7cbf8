//! keepalived, which keeps `haproxy.vip` on one of the front doors.
//!
//! No inventory gives a host this role: it follows from `haproxy.vip`.

use std::time::Duration;

use super::{
    Effect, Role, Service, Visibility, Wait,
    file::{Entry, command, config, template},
    service::{Checker, Follows, Package, When, unit},
};
use crate::contract::KEEPALIVED_CONFIG as CONFIG;

mod client;
pub(crate) mod health;

pub(crate) use client::{ASK, holder};

/// This file distinguishes the cluster's keepalived from another one.
const DROP_IN: &str = "/etc/systemd/system/keepalived.service.d/pgherd.conf";

pub(super) const SERVICE: Service = Service {
    title: "keepalived",
    follows: Some(Follows {
        role: Some(Role::Haproxy),
        when: When::Vip,
        key: "haproxy.vip",
    }),
    rank: 3,
    packages: &[Package::serving("keepalived").when(When::Vip)],
    files: &[
        // Only root may write it, because keepalived runs it as root.
        command("/etc/pgherd/vip", template!("etc/pgherd/vip")),
        config(
            DROP_IN,
            template!("etc/systemd/system/keepalived.service.d/pgherd.conf"),
            Effect::Nothing,
        ),
        Entry {
            mode: 0o600,
            visibility: Visibility::Masked,
            ..config(
                CONFIG,
                template!("etc/keepalived/keepalived.conf"),
                Effect::Reload,
            )
        },
    ],
    mark: Some(DROP_IN),
    checkers: &[Checker {
        path: CONFIG,
        // If all is well, it ends itself by SIGTERM, for which a shell reports 143.
        command: "{ /etc/pgherd/vip interface && { keepalived -t -f $CANDIDATE || [ $? = 143 ]; }; }",
        when: When::Always,
    }],
    folders: &["/etc/systemd/system/keepalived.service.d"],
    // The options of its command line.
    reads: &["/etc/default/keepalived"],
    taken_off: "clients may still use haproxy.vip, and no run would update the service that holds it",
    wait: Some(Wait {
        step: "await-keepalived",
        why: "clients find the cluster at the address that it holds",
        limit: Duration::from_secs(30),
    }),
    ..Service::new("keepalived", unit!("keepalived"), CONFIG)
};
