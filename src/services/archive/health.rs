//! Whether pgBackRest runs on the hosts of the databases. What it archives, PostgreSQL's own health says.

use crate::{inventory::Role, services::health::Health};

pub(crate) const HEALTH: &dyn Health = &Archives;

struct Archives;

impl Health for Archives {
    fn role(&self) -> Role {
        Role::Archive
    }
}
