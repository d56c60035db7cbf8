//! The ports on this machine's loopback that lead to HAProxy's host.

use std::{
    collections::HashSet,
    fs, io,
    net::{Ipv4Addr, TcpListener},
};

use bollard::models::{ContainerSummary, PortBinding, PortMap};

use crate::{
    error::{Code, Error, Result},
    inventory::{Haproxy, Pgbouncer},
};

/// Ports are published for this machine only.
pub(super) const PUBLISHED_ON: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A port to publish, with the same number inside and outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) number: u16,
    /// The inventory key that sets it.
    pub(super) key: &'static str,
}

/// Those of HAProxy, and of the pooler if there is one.
pub(super) fn of(haproxy: &Haproxy, pgbouncer: Option<&Pgbouncer>) -> Vec<Port> {
    let mut ports = vec![
        Port {
            number: haproxy.write_port,
            key: "haproxy.write_port",
        },
        Port {
            number: haproxy.read_port,
            key: "haproxy.read_port",
        },
        Port {
            number: haproxy.stats_port,
            key: "haproxy.stats_port",
        },
    ];
    ports.extend(pgbouncer.map(|it| Port {
        number: it.port,
        key: "pgbouncer.port",
    }));
    ports
}

pub(super) fn bindings(ports: &[Port]) -> PortMap {
    ports
        .iter()
        .map(|port| {
            let binding = PortBinding {
                host_ip: Some(PUBLISHED_ON.to_string()),
                host_port: Some(port.number.to_string()),
            };
            (format!("{}/tcp", port.number), Some(vec![binding]))
        })
        .collect()
}

/// The host's side of `bindings`, sorted.
pub(super) fn published(bindings: &PortMap) -> Vec<u16> {
    let mut ports: Vec<u16> = bindings
        .values()
        .flatten()
        .flatten()
        .filter_map(|binding| binding.host_port.as_deref()?.parse().ok())
        .collect();
    ports.sort_unstable();
    ports
}

/// Checks that `ports` can be published; `running` are the engine's running containers.
///
/// Looks at this machine, so it is for an engine on this machine.
pub(super) fn check(ports: &[Port], running: &[ContainerSummary]) -> Result<()> {
    let mut conflicts: Vec<Error> = ports
        .iter()
        .filter(|port| in_use(port.number))
        .map(|port| conflict(*port, running))
        .collect();
    match conflicts.len() {
        0 => Ok(()),
        1 => Err(conflicts.remove(0)),
        _ => Err(Error::several("ports for HAProxy are in use", conflicts)),
    }
}

fn in_use(port: u16) -> bool {
    // A missing permission to bind a low port means nothing: the engine may.
    TcpListener::bind((PUBLISHED_ON, port))
        .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn conflict(port: Port, running: &[ContainerSummary]) -> Error {
    let Port { number, key } = port;
    let holder = container(number, running)
        .map(|name| format!("the container {name} publishes it"))
        .or_else(|| process(number));
    let error = Error::new(
        Code::PortInUse,
        format!("port {number} of this machine is in use"),
    );
    let error = match holder {
        Some(holder) => error.cause(holder),
        None => error,
    };
    error
        .left("nothing was started")
        .hint(format!("stop what uses it, or choose another: {key}"))
}

/// The running container that publishes `port`.
fn container(port: u16, running: &[ContainerSummary]) -> Option<String> {
    let holder = running.iter().find(|container| {
        container
            .ports
            .iter()
            .flatten()
            .any(|published| published.public_port == Some(port))
    })?;
    let name = holder.names.as_ref()?.first()?;
    Some(name.trim_start_matches('/').to_owned())
}

/// The process of this machine that listens on `port`, as far as this user may see it.
fn process(port: u16) -> Option<String> {
    let sockets: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listeners(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Processes of other users are hidden; that is no reason to stop.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let listens = files.flatten().any(|file| {
            fs::read_link(file.path())
                .is_ok_and(|target| target.to_str().is_some_and(|t| sockets.contains(t)))
        });
        if listens {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {pid}) listens on it", command.trim()));
        }
    }
    None
}

/// The inodes of the sockets that listen on `port`, from `/proc/net/tcp` or `/proc/net/tcp6`.
fn listeners(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
            let matches = u16::from_str_radix(local_port, 16).ok()? == port;
            (matches && fields.get(3) == Some(&LISTEN)).then(|| fields.get(9).copied())?
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_its_process_and_key() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        let port = Port {
            number,
            key: "haproxy.write_port",
        };
        let error = check(&[port], &[]).unwrap_err();
        assert!(error.what().contains(&number.to_string()));
        let process = format!("process {}", std::process::id());
        assert!(error.causes()[0].contains(&process), "{error}");
        assert!(error.hints()[0].contains("haproxy.write_port"));
        drop(listener);
        assert!(check(&[port], &[]).is_ok());
    }

    #[test]
    fn listeners_are_told_from_connections() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0100007F:1388 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1
";
        assert_eq!(listeners(table, 5000), ["4711"]);
        assert!(listeners(table, 5001).is_empty());
    }

    #[test]
    fn what_is_bound_is_what_is_published() {
        let ports = of(&Haproxy::default(), None);
        assert_eq!(published(&bindings(&ports)), [5000, 5001, 7000]);
    }
}
