//! pgBackRest's repository, in which the cluster's backups and its WAL are kept.

use super::{
    Caller, Data, Effect, Hosts, Number, Role, Service, Visibility,
    file::{Entry, certificate, config, key, template},
    port::Port,
    service::{Checker, Package, When, unit},
};
use crate::contract::{BACKUP_CONFIG, BACKUP_PORT, BACKUPS};

mod client;
pub(crate) mod health;

pub(crate) use client::{Backup, Repository, ask, in_days};

/// The folder of its certificates.
const TLS: &str = "/etc/pgherd/tls/backup";
const FULL: &str = "/etc/systemd/system/pgherd-backup-full.timer";
const DIFFERENTIAL: &str = "/etc/systemd/system/pgherd-backup-diff.timer";
const INCREMENTAL: &str = "/etc/systemd/system/pgherd-backup-incr.timer";
/// systemd says whether it understands a schedule.
const UNDERSTOOD: &str =
    r#"systemd-analyze calendar "$(sed -n 's/^OnCalendar=//p' $CANDIDATE)" >/dev/null"#;

pub(super) const SERVICE: Service = Service {
    title: "pgBackRest's repository",
    hosts: Hosts::AtMostOne,
    rank: 4,
    packages: &[Package::serving("pgbackrest").when(When::Backups)],
    files: &[
        certificate(
            "/etc/pgherd/tls/backup/ca.crt",
            template!("etc/pgherd/tls/ca.crt"),
            Effect::Reload,
        ),
        certificate(
            "/etc/pgherd/tls/backup/server.crt",
            template!("etc/pgherd/tls/server.crt"),
            Effect::Reload,
        ),
        key(
            "/etc/pgherd/tls/backup/server.key",
            template!("etc/pgherd/tls/server.key"),
            Effect::Reload,
            "postgres",
        ),
        Entry {
            mode: 0o755,
            ..config(
                "/etc/pgherd/backup/run",
                template!("etc/pgherd/backup/run"),
                Effect::Nothing,
            )
        },
        config(
            "/etc/systemd/system/pgherd-backup@.service",
            template!("etc/systemd/system/pgherd-backup@.service"),
            Effect::Nothing,
        ),
        // The service starts and stops the timers.
        config(
            FULL,
            template!("etc/systemd/system/pgherd-backup-full.timer"),
            Effect::Restart,
        ),
        config(
            DIFFERENTIAL,
            template!("etc/systemd/system/pgherd-backup-diff.timer"),
            Effect::Restart,
        ),
        config(
            INCREMENTAL,
            template!("etc/systemd/system/pgherd-backup-incr.timer"),
            Effect::Restart,
        ),
        config(
            "/etc/systemd/system/pgherd-backup.service",
            template!("etc/systemd/system/pgherd-backup.service"),
            Effect::Restart,
        ),
        Entry {
            owner: "postgres",
            group: "postgres",
            mode: 0o600,
            visibility: Visibility::Masked,
            ..config(
                BACKUP_CONFIG,
                template!("etc/pgherd/backup/pgbackrest.conf"),
                Effect::Reload,
            )
        },
    ],
    checkers: &[
        Checker {
            path: FULL,
            command: UNDERSTOOD,
            when: When::Always,
        },
        Checker {
            path: DIFFERENTIAL,
            command: UNDERSTOOD,
            when: When::Always,
        },
        Checker {
            path: INCREMENTAL,
            command: UNDERSTOOD,
            when: When::Always,
        },
    ],
    folders: &[TLS, "/etc/pgherd/backup"],
    tls: Some(TLS),
    data: Data::Kept {
        path: BACKUPS,
        owner: "postgres",
        mode: 0o750,
    },
    ports: &[Port {
        from: &[Caller::Hosts(Role::Postgres)],
        ..Port::new(Number::Fixed(BACKUP_PORT), "pgBackRest's repository")
    }],
    connects: true,
    taken_off: "no run would update it, and nothing new would get into its backups",
    ..Service::new("backup", unit!("pgherd-backup"), BACKUP_CONFIG)
};
