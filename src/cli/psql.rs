//! `pgherd psql`.

use std::{
    collections::BTreeMap,
    fs::{File, Permissions},
    io::Write as _,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::Path,
};

use tokio::process::Command;

use super::{
    Global,
    connect::{Endings, wait},
    console::Console,
};
use crate::{
    engine::psql::{self, Entrance, Way},
    error::{Code, Error, Result},
    report::Terminal,
    secret::Secret,
};

/// Variables of the user's environment that would change the connection which psql is given here.
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
pub(super) async fn run(
    global: &Global,
    entrance: &Entrance,
    args: &[String],
    terminal: &Terminal,
) -> Result<u8> {
    let mut endings = Endings::listen()?;
    let context = global.existing(&Console::new(terminal, false)).await?;
    let door = tokio::select! {
        door = psql::open(&context, entrance) => door?,
        signal = endings.next() => return Ok(signal),
    };
    door.lead(entrance, async |way| talk(way, args, &mut endings).await)
        .await
}

async fn talk(way: &Way, args: &[String], endings: &mut Endings) -> Result<u8> {
    let passwords = PasswordFile::new(way)?;
    let mut psql = Command::new("psql");
    for name in OTHERS {
        psql.env_remove(name);
    }
    psql.env("PGHOST", way.host())
        .env("PGPORT", way.port.to_string())
        .env("PGUSER", &way.user)
        .env("PGDATABASE", &way.database)
        .env("PGPASSFILE", passwords.path())
        .args(args);
    wait(psql, "psql", "postgresql-client", endings).await
}

/// A password file like `.pgpass`. It has no name on any disk, and is gone when this process ends.
struct PasswordFile(File);

impl PasswordFile {
    /// Holds passwords for the way's socket only.
    fn new(way: &Way) -> Result<Self> {
        Self::with(way.host(), way.port, &way.passwords)
    }

    fn with(folder: &Path, port: u16, passwords: &BTreeMap<String, Secret>) -> Result<Self> {
        let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        let folder = escaped(&folder.display().to_string());
        let line = |(user, password): (&String, &Secret)| {
            let (user, password) = (escaped(user), escaped(password.expose()));
            format!("{folder}:{port}:*:{user}:{password}\n")
        };
        let lines: String = passwords.iter().map(line).collect();
        // Kept in memory if the system allows it.
        let mut file = tempfile::tempfile_in("/dev/shm")
            .or_else(|_| tempfile::tempfile())
            .map_err(|error| {
                Error::new(Code::LocalFileFailed, "cannot make a temporary file").because(error)
            })?;
        file.set_permissions(Permissions::from_mode(0o600))
            .and_then(|()| file.write_all(lines.as_bytes()))
            .map_err(|error| {
                Error::new(Code::LocalFileFailed, "cannot write a temporary file").because(error)
            })?;
        Ok(Self(file))
    }

    /// The path by which psql can open the file while this process lives. libpq accepts only regular files, and
    /// opens the file anew for each connection.
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
        let passwords = [("postgres", r"pass:\word"), ("shop", "s")];
        let passwords = passwords.map(|(user, it)| (user.to_owned(), Secret::new(it)));
        let passwords = BTreeMap::from(passwords);
        let file = PasswordFile::with(Path::new("/tmp/a:b"), 5000, &passwords).unwrap();
        let path = file.path();
        // As for every reconnect.
        for _ in 0..2 {
            assert_eq!(
                fs::read_to_string(&path).unwrap(),
                "/tmp/a\\:b:5000:*:postgres:pass\\:\\\\word\n/tmp/a\\:b:5000:*:shop:s\n"
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
