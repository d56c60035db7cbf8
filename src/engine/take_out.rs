//! `restore --table`: a table as it was, into a file, without a change of the cluster.

use std::{io::Write, path::Path, process::Stdio};

use tempfile::NamedTempFile;
use tokio::{io::AsyncReadExt, process::Command};
use tokio_util::sync::CancellationToken;

use super::{
    backup,
    connected::Connected,
    context::Context,
    reach::Reach,
    run::Run,
    taken::{Leftovers, Taken},
};
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    moment::Moment,
    plan::{
        self,
        restore::{TAKEN, Wanted},
    },
    services::postgres::patroni,
};

/// What is taken out, and of when.
#[derive(Debug, Clone)]
pub(crate) struct Wish<'a> {
    pub database: &'a str,
    /// As `pg_dump --table` takes it.
    pub table: &'a str,
    pub to: &'a Moment,
    pub set: Option<&'a str>,
    pub timeline: Option<u32>,
    /// The place of the backup: `disk` or `bucket`.
    pub from: Option<&'a str>,
    /// The file, which must not exist yet.
    pub out: &'a Path,
}

/// Writes the table to the file; returns its size in bytes, and the host on which it was restored.
pub(crate) async fn run(
    context: &Context,
    wish: &Wish<'_>,
    cancel: &CancellationToken,
) -> Result<(u64, HostName)> {
    backup::keeper(context)?;
    let file = place(wish.out)?;
    let taken = Taken::by(context, "restore", Leftovers::Offer, cancel).await?;
    let hosts = context.host_status().await?;
    let running = hosts.some(context)?;
    let work = async |run: &Run<'_>| {
        let work = async |connected: &Connected<'_>| take_out(run, connected, wish).await;
        let host = context.on(running, &run.events, work).await?;
        Ok((fetch(context, &host, file).await?, host))
    };
    let (file, host) = taken.run(work).await?;
    let size = file.as_file().metadata().map_or(0, |it| it.len());
    file.persist_noclobber(wish.out)
        .map_err(|error| unwritable(wish.out).because(error.error))?;
    Ok((size, host))
}

fn unwritable(path: &Path) -> Error {
    Error::new(
        Code::OutputUnwritable,
        format!("{} cannot be written", path.display()),
    )
}

/// An unfinished file beside the one that will be: there, only its owner may read it.
fn place(out: &Path) -> Result<NamedTempFile> {
    if out.exists() {
        return Err(unwritable(out).cause("it exists already"));
    }
    let folder = out.parent().filter(|it| !it.as_os_str().is_empty());
    NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
        .map_err(|error| unwritable(out).because(error))
}

async fn take_out(run: &Run<'_>, connected: &Connected<'_>, wish: &Wish<'_>) -> Result<HostName> {
    let cluster = connected.look().await?.cluster;
    let host = backup::place(connected, &cluster).await?;
    let from = backup::named(&cluster.inventory, wish.from)?;
    let ground = super::restore::look(connected, &cluster, &host, wish.to).await?;
    let source = super::restore::source(&ground, wish.to, (wish.set, from))?;
    let wanted = Wanted {
        to: wish.to,
        set: wish.set,
        timeline: wish.timeline,
        places: &ground.places_for(source, from),
    };
    let survey = patroni::survey(&connected.http, &cluster).await;
    let leader = patroni::leader_of(&survey);
    let what = (wish.database, wish.table);
    let plan = plan::restore::take_out(&cluster, &host, &wanted, what, leader);
    connected.announce(&plan);
    connected.carry_out(plan, &cluster, run.cancel).await?;
    Ok(host)
}

/// Copies the dump from the host, and removes it there.
async fn fetch(
    context: &Context,
    host: &HostName,
    mut file: NamedTempFile,
) -> Result<NamedTempFile> {
    let reach = Reach::of(context, host.as_str()).await?;
    let lost = |what: String| {
        Error::new(
            Code::SshConnectionLost,
            "the dump could not be copied from the host",
        )
        .on(host)
        .cause(what)
        .hint("run the same command again")
    };
    let line = format!("cat {TAKEN}/dump && rm -rf {TAKEN}");
    let as_root = format!(
        "if [ \"$(id -u)\" = 0 ]; then exec /bin/sh -c '{line}'; else exec sudo -n /bin/sh -c '{line}'; fi"
    );
    let mut ssh = Command::new("ssh");
    ssh.arg("-F")
        .arg(&reach.config)
        .arg(host.as_str())
        .arg("--")
        .arg(as_root);
    ssh.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = ssh.spawn().map_err(|error| lost(error.to_string()))?;
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(lost("ssh has no output".into()));
    };
    let copy = async {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match stdout.read(&mut buffer).await? {
                0 => return file.flush(),
                count => file.write_all(&buffer[..count])?,
            }
        }
    };
    let mut said = String::new();
    let (copied, _) = tokio::join!(copy, stderr.read_to_string(&mut said));
    copied.map_err(|error| lost(error.to_string()))?;
    let status = child
        .wait()
        .await
        .map_err(|error| lost(error.to_string()))?;
    match status.success() {
        true => Ok(file),
        false => Err(lost(said.trim().to_owned())),
    }
}
