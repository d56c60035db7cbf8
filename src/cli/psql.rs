//! `pgherd psql`.

use std::{
    fs::{File, Permissions},
    io::Write as _,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use tokio::process::Command;

use super::{
    Global,
    connect::{Endings, not_running, wait},
};
use crate::{
    cluster::{SUPERUSER, TlsStage},
    engine::{
        authority,
        context::{Base, Site},
    },
    error::{Error, Result},
    event::Events,
    inventory::{HostName, Role},
    relay::{Encryption, Relay, Target},
    remote::Remote,
};

/// What a person's own environment could say against the connection that psql is given here.
const OTHERS: [&str; 9] = [
    "PGHOSTADDR",
    "PGPASSWORD",
    "PGSERVICE",
    "PGSSLMODE",
    "PGSSLNEGOTIATION",
    "PGREQUIRESSL",
    "PGGSSENCMODE",
    "PGCHANNELBINDING",
    "PGREQUIREPEER",
];

/// `pgherd psql`; returns psql's exit code.
///
/// It goes through the HAProxy host's SSH connection, so that it works wherever `up` does, and with
/// TLS on the cluster's certificate is verified in full.
pub(super) async fn run(global: &Global, read: bool, args: &[String]) -> Result<u8> {
    let mut endings = Endings::listen()?;
    let base = Base::there(global).await?;
    authority::lapsed(&base)?.map_or(Ok(()), Err)?;
    let door = base
        .inventory
        .with_role(Role::Haproxy)
        .next()
        .cloned()
        .ok_or_else(|| Error::failed("the inventory has no HAProxy"))?;
    let site = tokio::select! {
        site = open(&base, &door) => site?,
        signal = endings.next() => return Ok(signal),
    };
    let code = talk(&site, door, read, args, &mut endings).await;
    site.close().await;
    site.remote.remove_sockets();
    code
}

async fn open<'a>(base: &'a Base, door: &HostName) -> Result<Site<'a>> {
    let outlook = base.outlook().await?;
    let machine = outlook
        .running
        .iter()
        .find(|machine| machine.host == *door)
        .ok_or_else(|| not_running(base, door))?;
    let (events, _quiet) = Events::channel();
    let site = base.connect(std::slice::from_ref(machine), &events).await?;
    site.remote.connect(door).await?;
    Ok(site)
}

async fn talk(
    site: &Site<'_>,
    door: HostName,
    read: bool,
    args: &[String],
    endings: &mut Endings,
) -> Result<u8> {
    let workspace = &site.base.workspace;
    let haproxy = &site.base.inventory.haproxy;
    let port = if read {
        haproxy.read_port
    } else {
        haproxy.write_port
    };
    let encryption = match (workspace.tls()?, &site.tls) {
        (TlsStage::Off, _) | (_, None) => Encryption::None,
        (TlsStage::Required, Some(tls)) => Encryption::Verified(tls.clone()),
        (TlsStage::Used | TlsStage::Offered, Some(tls)) => Encryption::IfOffered(tls.clone()),
    };
    let target = Target {
        remote: site.remote.clone() as Arc<dyn Remote>,
        host: door,
        port,
        encryption,
    };
    let relay = Relay::start(workspace.control_dir()?, target)?;
    let passwords = PasswordFile::new(relay.host(), port, workspace.secrets()?.superuser.expose())?;
    let mut psql = Command::new("psql");
    for name in OTHERS {
        psql.env_remove(name);
    }
    psql.env("PGHOST", relay.host())
        .env("PGPORT", port.to_string())
        .env("PGUSER", SUPERUSER)
        .env("PGDATABASE", "postgres")
        .env("PGPASSFILE", passwords.path())
        .args(args);
    wait(psql, "psql", "postgresql-client", endings).await
}

/// A file in the form of `.pgpass` that has no name on any disk, and ends with this process.
struct PasswordFile(File);

impl PasswordFile {
    /// The superuser's `password`, for the socket in `folder` and for no other place.
    fn new(folder: &Path, port: u16, password: &str) -> Result<Self> {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        let line = format!(
            "{}:{port}:*:{SUPERUSER}:{}\n",
            escaped(&folder.display().to_string()),
            escaped(password)
        );
        // In memory where there is such a place.
        let mut file = tempfile::tempfile_in("/dev/shm")
            .or_else(|_| tempfile::tempfile())
            .map_err(|error| Error::failed("cannot make a temporary file").because(error))?;
        file.set_permissions(Permissions::from_mode(0o600))
            .and_then(|()| file.write_all(line.as_bytes()))
            .map_err(|error| Error::failed("cannot write a temporary file").because(error))?;
        Ok(Self(file))
    }

    /// Where this user's other processes find it while this one lives: libpq takes regular files only,
    /// and opens this one anew for each connection.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_password_file_is_what_libpq_takes_and_has_no_name() {
        let file = PasswordFile::new(Path::new("/tmp/a:b"), 5000, r"pass:\word").unwrap();
        let path = file.path();
        // As for every reconnect.
        for _ in 0..2 {
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                "/tmp/a\\:b:5000:*:postgres:pass\\:\\\\word\n"
            );
        }
        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.permissions().mode() & 0o077, 0);
        let named = fs::read_link(&path).unwrap();
        assert!(!named.exists(), "{}", named.display());
        drop(file);
        assert!(!fs::exists(&path).unwrap_or(false) || fs::read_link(&path).unwrap() != named);
    }
}
