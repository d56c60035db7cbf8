//! PgBouncer on the front doors: clients share connections to PostgreSQL, which it opens through HAProxy.
//!
//! No inventory gives a host this role: it follows from the section `pgbouncer`.

use std::time::Duration;

use super::{
    Caller, Effect, Number, Role, Service, Setting, Visibility, Wait,
    file::{Entry, certificate, config, key, template},
    port::Port,
    service::{Follows, Package, When, unit},
};
use crate::contract::POOLER_USERS;

mod client;
pub(crate) mod health;
mod hold;
pub(crate) mod lookup;

pub(crate) use hold::{AT_MOST, Hold, hold};

/// The folder of its certificates.
const TLS: &str = "/etc/pgherd/tls/pgbouncer";
/// This file distinguishes the cluster's PgBouncer from another one.
const DROP_IN: &str = "/etc/systemd/system/pgbouncer.service.d/pgherd.conf";
const CONFIG: &str = "/etc/pgbouncer/pgbouncer.ini";
/// Runs commands of its console.
const CONSOLE: &str = "/etc/pgherd/pooler/console";

pub(super) const SERVICE: Service = Service {
    title: "PgBouncer",
    follows: Some(Follows {
        role: Some(Role::Haproxy),
        when: When::Pooling,
        key: "pgbouncer",
    }),
    rank: 3,
    packages: &[Package::serving("pgbouncer").when(When::Pooling)],
    files: &[
        Entry {
            mode: 0o755,
            ..config(
                "/etc/pgherd/pooler/features",
                template!("etc/pgherd/pooler/features"),
                Effect::Reload,
            )
        },
        Entry {
            mode: 0o755,
            ..config(
                CONSOLE,
                template!("etc/pgherd/pooler/console"),
                Effect::Nothing,
            )
        },
        config(
            DROP_IN,
            template!("etc/systemd/system/pgbouncer.service.d/pgherd.conf"),
            Effect::Nothing,
        ),
        certificate(
            "/etc/pgherd/tls/pgbouncer/ca.crt",
            template!("etc/pgherd/tls/ca.crt"),
            Effect::Reload,
        ),
        certificate(
            "/etc/pgherd/tls/pgbouncer/server.crt",
            template!("etc/pgherd/tls/server.crt"),
            Effect::Reload,
        ),
        key(
            "/etc/pgherd/tls/pgbouncer/server.key",
            template!("etc/pgherd/tls/server.key"),
            Effect::Reload,
            "postgres",
        ),
        Entry {
            visibility: Visibility::Masked,
            ..private(POOLER_USERS, template!("etc/pgbouncer/userlist.txt"))
        },
        private(
            "/etc/pgbouncer/hba.conf",
            template!("etc/pgbouncer/hba.conf"),
        ),
        private(CONFIG, template!("etc/pgbouncer/pgbouncer.ini")),
    ],
    mark: Some(DROP_IN),
    folders: &[
        TLS,
        "/etc/pgbouncer",
        "/etc/pgherd/pooler",
        "/etc/systemd/system/pgbouncer.service.d",
    ],
    tls: Some(TLS),
    // The options of its command line, for those who start it without systemd.
    reads: &["/etc/default/pgbouncer"],
    idle_by_default: true,
    ports: &[Port {
        from: &[Caller::Clients],
        ..Port::new(
            Number::Set(Setting::Pgbouncer),
            "PgBouncer (`pgbouncer.port`)",
        )
    }],
    connects: true,
    faces_clients: true,
    taken_off: "clients may still use it, and no run would update it",
    wait: Some(Wait {
        step: "await-pgbouncer",
        why: "clients find a pool there",
        limit: Duration::from_secs(30),
    }),
    ..Service::new("pgbouncer", unit!("pgbouncer"), CONFIG)
};

/// A file that only PgBouncer's own user may read.
const fn private(path: &'static str, template: super::file::Embedded) -> Entry {
    Entry {
        group: "postgres",
        mode: 0o640,
        ..config(path, template, Effect::Reload)
    }
}
