//! The smallest service that does something: Python's web server, with a folder of its own.
//!
//! It is part of tests alone. docs/contributing.md walks through these lines.

use super::{
    Caller, Data, Effect, Number, Role, Service,
    file::config,
    port::Port,
    service::{Package, unit},
};

mod tests;

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
        ..Port::new(Number::Fixed(8999), "the exercise")
    }],
    ..Service::new("exercise", unit!("exercise"), UNIT)
};
