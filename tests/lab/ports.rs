//! Ports of this machine that a test may publish.

use std::{
    fs,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    process,
    sync::Mutex,
};

const FIRST: u16 = 20_000;

/// `N` consecutive ports that nothing uses, and that no other test gets until this process ends.
///
/// They are below those that the kernel gives to outgoing connections, because such a connection may come at
/// any moment. Each process begins at a different one.
pub(crate) fn free<const N: u16>() -> u16 {
    let rows = (outgoing_begin() - FIRST) / N;
    let own = u16::try_from(process::id() % u32::from(rows)).expect("less than a port");
    (0..rows)
        .map(|next| FIRST + (own + next) % rows * N)
        .find(|first| (*first..first + N).all(is_free) && is_claimed(*first, N))
        .expect("free ports of this machine")
}

/// Reserves ports for this process: a test publishes its own only seconds after it has chosen them, and tests
/// run in parallel. Unlike a file, the reservation ends with the process, however it ends.
fn is_claimed(first: u16, count: u16) -> bool {
    static CLAIMS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let claims: Option<Vec<UnixListener>> = (first..first + count)
        .map(|port| {
            let name = format!("pgherd-lab-port-{port}");
            let name = SocketAddr::from_abstract_name(name).expect("a short name");
            UnixListener::bind_addr(&name).ok()
        })
        .collect();
    let Some(claims) = claims else {
        return false;
    };
    CLAIMS.lock().expect("no test panics here").extend(claims);
    true
}

/// The first port that the kernel gives to outgoing connections.
fn outgoing_begin() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        // If they begin lower, there is no better place.
        .filter(|first| *first > FIRST + 1000)
        .unwrap_or(32_768)
}

fn is_free(port: u16) -> bool {
    ["127.0.0.1", "0.0.0.0"]
        .iter()
        .all(|address| TcpListener::bind((*address, port)).is_ok())
}
