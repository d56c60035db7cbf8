//! pgherd deploys, verifies and removes highly available PostgreSQL clusters.
//!
//! The tree is the data flow: an `inventory` names the hosts, a `provider` creates or finds them, `cluster`
//! joins both, `render` makes the files, `facts` says what is on the hosts, `plan` compares, `execute` walks
//! the plan over `remote`, `verify` checks the result, and `report` shows it.

pub mod bucket;
pub mod cli;
pub mod cluster;
pub mod configs;
pub mod contract;
pub mod drill;
pub(crate) mod engine;
pub mod error;
pub mod event;
pub mod execute;
pub mod facts;
pub mod given;
pub mod history;
pub mod holder;
pub mod host;
pub mod http;
pub mod inventory;
pub(crate) mod journal;
pub(crate) mod liberal;
pub mod machine;
pub mod mask;
pub(crate) mod moment;
pub mod plan;
pub(crate) mod poll;
pub mod prepared;
pub mod provider;
pub(crate) mod proxy;
pub mod quantity;
pub mod relay;
pub mod remote;
pub mod render;
pub mod report;
pub mod scenario;
pub mod scram;
pub mod seal;
pub mod secret;
pub mod services;
pub(crate) mod shell;
pub(crate) mod shown_key;
pub mod sql;
pub mod switchover;
pub mod tuning;
pub mod verify;
pub mod workspace;
