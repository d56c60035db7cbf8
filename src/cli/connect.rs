//! `pgherd ssh`, `pgherd psql` and `pgherd logs`: verbs that get a person there.

use std::{
    ffi::OsString,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::ExitStatus,
};

use tokio::process::Command;

use super::{
    Global,
    site::{self, Base},
};
use crate::{
    cluster::{SUPERUSER, TlsStage},
    error::{Error, Result},
    event::Events,
    inventory::{HostName, Inventory, Role},
    remote::{self, quote},
};

/// What `ssh` itself ends with when it did not get there; a command there may end with it too.
const SSH_FAILED: u8 = 255;

/// `pgherd ssh`; returns the remote command's exit code.
pub(super) async fn ssh(global: &Global, host: &str, command: &[String]) -> Result<u8> {
    let base = Base::there(global)?;
    let host = known(&base.inventory, host)?;
    let config = reach(&base, &host).await?;
    let mut ssh = client(&config);
    ssh.arg(host.as_str());
    match command {
        [] => {}
        // One word is a line for the host's shell, as with ssh itself.
        [line] => {
            ssh.arg("--").arg(line);
        }
        words => {
            let line: Vec<String> = words.iter().map(|word| quote(word)).collect();
            ssh.arg("--").arg(line.join(" "));
        }
    }
    there(ssh, &config, &host).await
}

/// `pgherd logs`; runs until the reader has seen enough.
pub(super) async fn logs(
    global: &Global,
    host: &str,
    unit: Option<&str>,
    follow: bool,
    lines: u32,
) -> Result<u8> {
    let base = Base::there(global)?;
    let host = known(&base.inventory, host)?;
    let config = reach(&base, &host).await?;
    let units: Vec<&str> = match unit {
        Some("postgres" | "postgresql") => vec!["patroni"],
        Some(unit) => vec![unit],
        None => base.inventory.hosts[&host]
            .roles
            .iter()
            .map(|role| match role {
                Role::Postgres => "patroni",
                Role::Etcd => "etcd",
                Role::Haproxy => "haproxy",
            })
            .collect(),
    };
    let mut journal = format!("journalctl --no-pager -n {lines}");
    for unit in units {
        journal.push_str(&format!(" -u {}", quote(unit)));
    }
    if follow {
        journal.push_str(" -f");
    }
    // In a shell that is known: the login's own may be another.
    let as_root =
        format!("if [ \"$(id -u)\" = 0 ]; then exec {journal}; else exec sudo -n {journal}; fi");
    let as_root = format!("/bin/sh -c {}", quote(&as_root));
    let mut ssh = client(&config);
    if follow {
        // With a terminal on the other side, journalctl ends when we do.
        ssh.arg("-tt");
    }
    ssh.arg(host.as_str()).arg("--").arg(as_root);
    there(ssh, &config, &host).await
}

/// `pgherd psql`; returns psql's exit code.
///
/// It goes through the HAProxy host's SSH connection, so that it works wherever `up` does, and with
/// TLS on it verifies the cluster's certificate in full.
pub(super) async fn psql(global: &Global, read: bool, args: &[String]) -> Result<u8> {
    let base = Base::there(global)?;
    let outlook = base.outlook().await?;
    let door = base
        .inventory
        .with_role(Role::Haproxy)
        .next()
        .cloned()
        .ok_or_else(|| Error::failed("the inventory has no HAProxy"))?;
    let machine = outlook
        .running
        .iter()
        .find(|machine| machine.host == door)
        .ok_or_else(|| not_running(&base, &door))?;
    let (events, _quiet) = Events::channel();
    let site = base.connect(std::slice::from_ref(machine), &events).await?;
    let haproxy = &base.inventory.haproxy;
    let port = if read {
        haproxy.read_port
    } else {
        haproxy.write_port
    };
    let local = free_port()?;
    let code = async {
        site.remote.forward(&door, local, port).await?;
        let secrets = base.workspace.secrets()?;
        let passwords = password_file(secrets.superuser.expose())?;
        let mut psql = Command::new("psql");
        psql.env("PGHOST", door.as_str())
            .env("PGHOSTADDR", Ipv4Addr::LOCALHOST.to_string())
            .env("PGPORT", local.to_string())
            .env("PGUSER", SUPERUSER)
            .env("PGDATABASE", "postgres")
            .env("PGPASSFILE", passwords.path())
            .env_remove("PGPASSWORD")
            .env_remove("PGSERVICE")
            .args(args);
        let mode = match base.workspace.tls()? {
            TlsStage::Required => "verify-full",
            TlsStage::Used | TlsStage::Offered => "prefer",
            TlsStage::Off => "disable",
        };
        psql.env("PGSSLMODE", mode);
        if mode == "verify-full" {
            psql.env("PGSSLROOTCERT", base.workspace.ca_path());
        }
        wait(psql, "psql", "postgresql-client").await
    }
    .await;
    site.remote.close().await;
    code
}

/// The host of that name, or an error with the nearest one.
fn known(inventory: &Inventory, name: &str) -> Result<HostName> {
    if let Some((host, _)) = inventory
        .hosts
        .iter()
        .find(|(host, _)| host.as_str() == name)
    {
        return Ok(host.clone());
    }
    let hosts: Vec<&str> = inventory.hosts.keys().map(HostName::as_str).collect();
    Err(Error::input(format!("no host is called {name}"))
        .hint(format!("the inventory's hosts: {}", hosts.join(", "))))
}

fn not_running(base: &Base, host: &HostName) -> Error {
    Error::failed("the host does not run")
        .on(host)
        .hint(format!(
            "make or start it: {}",
            site::typed(&base.inventory.path, "up")
        ))
}

/// Finds the hosts afresh and writes `ssh_config`, since addresses may have changed.
async fn reach(base: &Base, host: &HostName) -> Result<std::path::PathBuf> {
    let outlook = base.outlook().await?;
    if !outlook.running.iter().any(|machine| machine.host == *host) {
        return Err(not_running(base, host));
    }
    base.workspace.pin_host_keys(&outlook.running)?;
    base.workspace.write_ssh_config(&outlook.running)
}

fn client(config: &Path) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(config);
    ssh
}

/// Waits for `ssh`; where it was another host that answered, the error says who, as everywhere.
async fn there(ssh: Command, config: &Path, host: &HostName) -> Result<u8> {
    let code = wait(ssh, "ssh", "openssh-client").await?;
    if code == SSH_FAILED
        && let Some(named) = remote::stranger(config, host).await
    {
        return Err(named);
    }
    Ok(code)
}

/// Waits for a program that has the terminal; Ctrl-C is for it, not for us.
async fn wait(mut program: Command, name: &str, package: &str) -> Result<u8> {
    let mut child = program.spawn().map_err(|error| {
        Error::failed(format!("cannot run {name}"))
            .because(error)
            .hint(format!("install it: package {package}"))
    })?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    status
        .map(code)
        .map_err(|error| Error::failed(format!("{name} was lost")).because(error))
}

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// A port of this machine that nobody listens on.
fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Error::failed("no local port is free").because(error))
}

/// A private file in the form of `.pgpass`, gone when dropped.
fn password_file(password: &str) -> Result<tempfile::NamedTempFile> {
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    let mut file = tempfile::NamedTempFile::new()
        .map_err(|error| Error::failed("cannot make a temporary file").because(error))?;
    let line = OsString::from(format!("*:*:*:{SUPERUSER}:{escaped}\n"));
    file.write_all(line.as_encoded_bytes())
        .map_err(|error| Error::failed("cannot write a temporary file").because(error))?;
    Ok(file)
}
