//! Ports of this machine that a test may publish.

use std::{
    fs,
    net::TcpListener,
    process,
    sync::atomic::{AtomicU16, Ordering},
};

const FIRST: u16 = 20_000;

/// `N` ports in a row that nobody has.
///
/// They lie below those that the kernel gives to outgoing connections, since one of these may come
/// at any moment, and are not given twice to tests of one process. Processes begin at different
/// ones.
pub(crate) fn free<const N: u16>() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let rows = (outgoing_begin() - FIRST) / N;
    let own = u16::try_from(process::id() % u32::from(rows)).expect("less than a port");
    (0..rows)
        .map(|_| FIRST + (own + TAKEN.fetch_add(1, Ordering::Relaxed)) % rows * N)
        .find(|first| (*first..first + N).all(is_free))
        .expect("free ports of this machine")
}

/// The first port that the kernel gives to outgoing connections.
fn outgoing_begin() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        // Where they begin below, there is no better place.
        .filter(|first| *first > FIRST + 1000)
        .unwrap_or(32_768)
}

fn is_free(port: u16) -> bool {
    ["127.0.0.1", "0.0.0.0"]
        .iter()
        .all(|address| TcpListener::bind((*address, port)).is_ok())
}
