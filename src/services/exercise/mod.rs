//! The smallest service that does something: Python's web server, with a folder of its own.
//!
//! It is part of tests alone. docs/contributing.md walks through these lines.

use std::time::Duration;

use super::{
    Caller, Data, Effect, Number, Role, Service, Wait,
    file::config,
    port::Port,
    service::{Package, unit},
};

pub(crate) mod health;
mod tests;

const PORT: u16 = 8999;
const UNIT: &str = "/etc/systemd/system/exercise.service";

pub(super) const SERVICE: Service = Service {
    title: "the exercise",
    packages: &[Package::of("python3")],
    files: &[config(
        UNIT,
        (
            "etc/systemd/system/exercise.service",
            include_str!("exercise.service"),
        ),
        Effect::Restart,
    )],
    data: Data::Folder {
        path: "/var/lib/exercise",
        owner: "root",
        mode: 0o755,
    },
    ports: &[Port {
        from: &[Caller::Hosts(Role::Postgres), Caller::Operators],
        ..Port::new(Number::Fixed(PORT), "the exercise")
    }],
    wait: Some(Wait {
        step: "await-exercise",
        why: "the exercise is ready when it answers",
        limit: Duration::from_secs(30),
    }),
    ..Service::new("exercise", unit!("exercise"), UNIT)
};
