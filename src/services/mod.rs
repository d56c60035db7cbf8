//! What runs on the hosts, a folder a service.

pub mod etcd;
pub mod haproxy;
pub mod postgres;
