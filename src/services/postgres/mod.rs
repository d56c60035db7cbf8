//! PostgreSQL, run by Patroni.

use super::{
    Caller, Data, Effect, Hosts, Number, Role, Service, Setting, Visibility,
    file::{Entry, certificate, command, config, early, key, template},
    port::Port,
    service::{Checker, Package, Source, When, unit},
};
use crate::{
    configs::PatroniConfig,
    contract::{PATRONI_CONFIG, PATRONI_PORT, REQUIREMENTS},
};

pub(crate) mod health;
pub mod patroni;
mod session;
mod survey;

pub use session::{
    APPLICATION, Door, FrontDoor, Login, ONE_AT_A_TIME, Sql, login, login_as, login_with,
    own_schema, refuse_strange,
};
pub use survey::{SharedSurvey, Survey};

/// A drop-in that keeps Patroni from starting while the cluster is restored.
pub(crate) const HELD: &str = "/etc/systemd/system/patroni.service.d/pgherd-restore.conf";

/// The folder of its certificates. Each service has its own folder, because each runs as another user.
const TLS: &str = "/etc/pgherd/tls/postgres";

/// Members, which copy from each other, and HAProxy, which connects clients to them.
const FROM: &[Caller] = &[Caller::Hosts(Role::Postgres), Caller::Hosts(Role::Haproxy)];

pub(super) const SERVICE: Service = Service {
    title: "Patroni and PostgreSQL",
    hosts: Hosts::OneOrMore,
    rank: 1,
    packages: PACKAGES,
    packages_along: &["postgresql-common"],
    source: Some(Source {
        when: When::Pgdg,
        // The PostgreSQL project's own script creates the first, older ones the second.
        files: &[
            "/etc/apt/sources.list.d/pgdg.sources",
            "/etc/apt/sources.list.d/pgdg.list",
        ],
    }),
    files: FILES,
    commands: &[command(
        "/usr/local/bin/psql",
        template!("usr/local/bin/psql"),
    )],
    checkers: &[
        Checker {
            path: PATRONI_CONFIG,
            command: "! timeout 15 /opt/patroni/bin/patroni --validate-config $CANDIDATE 2>&1 | grep -vE 'already in use|is not reachable' | grep .",
            when: When::PatroniFromPypi,
        },
        Checker {
            path: PATRONI_CONFIG,
            command: "! timeout 15 /usr/bin/patroni --validate-config $CANDIDATE 2>&1 | grep -vE 'already in use|is not reachable' | grep .",
            when: When::PatroniFromDistro,
        },
    ],
    folders: &[
        TLS,
        "/etc/pgherd/patroni",
        "/etc/postgresql-common",
        "/etc/postgresql-common/createcluster.d",
        "/etc/systemd/system/patroni.service.d",
    ],
    tls: Some(TLS),
    data: Data::Database,
    // The password for replication; Patroni writes it.
    writes: &["/var/lib/postgresql/.pgpass-patroni", HELD],
    ports: &[
        Port {
            from: FROM,
            ..Port::new(
                Number::Set(Setting::Postgresql),
                "PostgreSQL (`postgresql.port`)",
            )
        },
        Port {
            from: FROM,
            asked: true,
            tells: Some("Patroni"),
            ..Port::new(Number::Fixed(PATRONI_PORT), "Patroni")
        },
    ],
    connects: true,
    faces_clients: true,
    is_member: true,
    taken_off: "a member that is not in the inventory can still become the leader, and HAProxy would have no leader",
    // Patroni is a script: its process has Python's program open.
    runs_its_program: false,
    ports_looked_at: false,
    ..Service::new("postgres", PATRONI, PATRONI_CONFIG)
};

/// The unit that runs PostgreSQL.
pub const PATRONI: super::service::Unit = unit!("patroni");

const PACKAGES: &[Package] = &[
    Package::serving("postgresql-{major}"),
    // For people on the host who want to know the state of etcd.
    Package::of("etcd-client"),
    // Python, and the distribution's wheels of the tools that install and build Python packages.
    Package::of("python3").when(When::PatroniFromPypi),
    Package {
        stands_for_all: true,
        ..Package::of("python3-pip-whl").when(When::PatroniFromPypi)
    },
    Package::of("python3-setuptools-whl").when(When::PatroniFromPypi),
    Package::of("python3-wheel-whl").when(When::PatroniFromPypi),
    Package::serving("patroni").when(When::PatroniFromDistro),
    Package::of("python3-etcd").when(When::PatroniFromDistro),
    Package::of("python3-psycopg2").when(When::PatroniFromDistro),
];

const FILES: &[Entry] = &[
    early(
        "/etc/postgresql-common/createcluster.d/pgherd.conf",
        template!("etc/postgresql-common/createcluster.d/pgherd.conf"),
    ),
    Entry {
        when: When::PatroniFromPypi,
        ..early(REQUIREMENTS, template!("opt/patroni/requirements.txt"))
    },
    // Patroni's reload applies changes of them, its own and PostgreSQL's.
    certificate(
        "/etc/pgherd/tls/postgres/ca.crt",
        template!("etc/pgherd/tls/ca.crt"),
        Effect::Reload,
    ),
    certificate(
        "/etc/pgherd/tls/postgres/server.crt",
        template!("etc/pgherd/tls/server.crt"),
        Effect::Reload,
    ),
    key(
        "/etc/pgherd/tls/postgres/server.key",
        template!("etc/pgherd/tls/server.key"),
        Effect::Reload,
        "postgres",
    ),
    config(
        "/etc/systemd/system/patroni.service",
        template!("etc/systemd/system/patroni.service"),
        Effect::Restart,
    ),
    // Patroni reads these when it starts. They do not concern its PostgreSQL.
    config(
        "/etc/pgherd/patroni/sitecustomize.py",
        template!("etc/pgherd/patroni/sitecustomize.py"),
        Effect::RestartPatroniAlone,
    ),
    config(
        "/etc/systemd/system/patroni.service.d/pgherd.conf",
        template!("etc/systemd/system/patroni.service.d/pgherd.conf"),
        Effect::RestartPatroniAlone,
    ),
    Entry {
        owner: "postgres",
        group: "postgres",
        mode: 0o600,
        visibility: Visibility::Masked,
        on_change: Some(on_change),
        ..config(PATRONI_CONFIG, template!("etc/patroni.yml"), Effect::Reload)
    },
];

/// Patroni's reload ignores changes that would make it another member of another cluster, and changes of the
/// list of etcd's hosts (patroni#2411). None of them concerns its PostgreSQL.
fn on_change(old: &str, new: &str, effect: Effect) -> Effect {
    match PatroniConfig::parse(old).zip(PatroniConfig::parse(new)) {
        // If Patroni's file cannot be read, it is unknown which etcd it uses.
        None => Effect::RestartPatroniAlone,
        Some((old, new)) if !old.is_same_member(&new) => Effect::Restart,
        Some((old, new)) if !old.has_same_dcs(&new) => Effect::RestartPatroniAlone,
        Some(_) => effect,
    }
}
