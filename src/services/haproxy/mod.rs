//! HAProxy, through which clients come to the database.

mod client;

pub use client::{OVER_TLS, READ, Server, WRITE, servers};
