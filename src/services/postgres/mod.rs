//! PostgreSQL, run by Patroni.

pub mod patroni;
mod session;

pub use session::{
    APPLICATION, Door, FrontDoor, Sql, login, login_with, own_schema, refuse_strange,
};
