//! pgBackRest on the hosts of the databases: it sends WAL to the repository, and lets the repository copy data.
//!
//! No inventory gives a host this role: it follows from the role `backup` of another host.

use super::{
    Caller, Data, Effect, Number, Role, Service,
    file::{Entry, certificate, config, key, template},
    port::Port,
    service::{Follows, Package, When, unit},
};
use crate::contract::{ARCHIVE_CONFIG, BACKUP_PORT, REHEARSAL};

pub(crate) mod ground;
pub(crate) mod health;
pub(crate) mod rehearsal;

/// The folder of its certificates.
const TLS: &str = "/etc/pgherd/tls/archive";

pub(super) const SERVICE: Service = Service {
    title: "pgBackRest",
    follows: Some(Follows {
        role: Some(Role::Postgres),
        when: When::Backups,
        key: "a host with the role `backup`",
    }),
    rank: 5,
    packages: &[Package::serving("pgbackrest").when(When::Backups)],
    files: &[
        certificate(
            "/etc/pgherd/tls/archive/ca.crt",
            template!("etc/pgherd/tls/ca.crt"),
            Effect::Reload,
        ),
        certificate(
            "/etc/pgherd/tls/archive/server.crt",
            template!("etc/pgherd/tls/server.crt"),
            Effect::Reload,
        ),
        key(
            "/etc/pgherd/tls/archive/server.key",
            template!("etc/pgherd/tls/server.key"),
            Effect::Reload,
            "postgres",
        ),
        Entry {
            mode: 0o755,
            ..config(
                "/etc/pgherd/archive/heartbeat",
                template!("etc/pgherd/archive/heartbeat"),
                Effect::Nothing,
            )
        },
        Entry {
            mode: 0o755,
            ..config(
                rehearsal::PROGRAM,
                template!("etc/pgherd/archive/rehearse"),
                Effect::Nothing,
            )
        },
        config(
            "/etc/systemd/system/pgherd-heartbeat.service",
            template!("etc/systemd/system/pgherd-heartbeat.service"),
            Effect::Nothing,
        ),
        config(
            "/etc/systemd/system/pgherd-heartbeat.timer",
            template!("etc/systemd/system/pgherd-heartbeat.timer"),
            Effect::Restart,
        ),
        config(
            "/etc/systemd/system/pgherd-rehearse.service",
            template!("etc/systemd/system/pgherd-rehearse.service"),
            Effect::Nothing,
        ),
        config(
            "/etc/systemd/system/pgherd-rehearse.timer",
            template!("etc/systemd/system/pgherd-rehearse.timer"),
            Effect::Restart,
        ),
        config(
            "/etc/systemd/system/pgherd-archive.service",
            template!("etc/systemd/system/pgherd-archive.service"),
            Effect::Restart,
        ),
        config(
            ARCHIVE_CONFIG,
            template!("etc/pgherd/archive/pgbackrest.conf"),
            Effect::Reload,
        ),
    ],
    folders: &[TLS, "/etc/pgherd/archive"],
    tls: Some(TLS),
    data: Data::Folder {
        path: REHEARSAL,
        owner: "postgres",
        mode: 0o700,
    },
    ports: &[Port {
        from: &[Caller::Hosts(Role::Backup)],
        ..Port::new(Number::Fixed(BACKUP_PORT), "pgBackRest")
    }],
    connects: true,
    taken_off: "no run would update it",
    ..Service::new("archive", unit!("pgherd-archive"), ARCHIVE_CONFIG)
};
