//! What a clone would be, and whether it is possible.

use std::collections::BTreeMap;

use super::{Wish, on_clone};
use crate::{
    cluster::Cluster,
    engine::{
        backup,
        connected::Connected,
        context::Context,
        restore::{
            outlook::{self, fits},
            under_way,
        },
    },
    error::{Code, Error, Result},
    event::Events,
    facts::Os,
    given,
    inventory::{HostName, PgVersion, Place, Role},
    machine::Machine,
    moment::Moment,
    plan::{
        lost::{self, Keeps},
        restore::Statements,
    },
    remote::quote,
    services::{
        archive::ground::{Ground, Source},
        backup::ask,
    },
    workspace::{Renewal, Sql},
};

/// What would be made. Shown before the question.
#[derive(Debug, Clone)]
pub(crate) struct Outlook {
    pub from: String,
    pub into: String,
    pub to: Moment,
    /// The member that is restored, and those that copy it.
    pub host: HostName,
    pub replicas: Vec<HostName>,
    pub source: Source,
    /// Of two places of backups, that of this one first, then others from which WAL comes too.
    pub places: Vec<Place>,
    /// The hosts that are made first.
    pub made: Vec<HostName>,
    pub run: Vec<Sql>,
    /// The clone has a repository of its own.
    pub archives: bool,
    /// What becomes of the bucket for its backups.
    pub bucket: Option<String>,
}

/// The error with the source's inventory in its commands.
fn of_source(source: &Context, error: Error) -> Error {
    let path = source.inventory.path.display().to_string();
    error.with_options(&format!("-i {}", quote(&path)))
}

/// Refuses a clone that would be the source itself, or would share something with it.
pub(super) fn are_apart(source: &Context, target: &Context) -> Result<()> {
    let refused = |what: String| {
        Err(Error::new(Code::InvalidArguments, what)
            .left("nothing was changed")
            .hint(
                "give the clone an inventory of its own: another name (`cluster`), and other hosts",
            ))
    };
    let (one, other) = (&source.inventory, &target.inventory);
    if one.cluster == other.cluster {
        return refused(format!(
            "{} and {} are of the same cluster, {}",
            one.path.display(),
            other.path.display(),
            one.cluster
        ));
    }
    let addresses = |it: &Context| -> Vec<_> {
        let hosts = it.inventory.hosts.values();
        match it.provider.owns_hosts() {
            true => Vec::new(),
            false => hosts.filter_map(|host| host.address).collect(),
        }
    };
    let theirs = addresses(source);
    if let Some(shared) = addresses(target).into_iter().find(|it| theirs.contains(it)) {
        return refused(format!(
            "{} and {} share the host at {shared}",
            one.cluster, other.cluster
        ));
    }
    let id = source.workspace.cluster_id()?;
    if id.is_some() && id == target.workspace.cluster_id()? {
        return refused(format!(
            "the workspaces of {} and {} are of the same cluster: one is a copy of the other",
            one.cluster, other.cluster
        ));
    }
    Ok(())
}

/// The source's host with the repository.
pub(super) async fn keeper(source: &Context) -> Result<Machine> {
    let found = async {
        let host = backup::keeper(source)?.clone();
        let hosts = source.host_status().await?;
        let mut running = hosts.running.into_iter();
        running.find(|it| it.host == host).ok_or_else(|| {
            Error::new(
                Code::HostNotRunning,
                "the host with the repository does not run",
            )
            .on(&host)
            .hint("start it: pgherd up")
        })
    };
    found.await.map_err(|error| of_source(source, error))
}

/// The source as its inventory says. No certificate is made for that.
fn source_cluster(origin: &Connected<'_>) -> Result<Cluster> {
    let source = origin.context;
    let tls = source.workspace.tls()?;
    source.cluster(&origin.machines, tls, Renewal::Never, |_| {
        Os::ubuntu_24_04()
    })
}

/// The moment, and the backup that it is restored from.
pub(super) async fn backup_for(
    origin: &Connected<'_>,
    to: &Moment,
    (set, from): (Option<&str>, Option<Place>),
) -> Result<(Ground, Source)> {
    let found = async {
        let cluster = source_cluster(origin)?;
        let keeper = backup::keeper(origin.context)?;
        let remote = origin.remote.as_ref();
        let mut repositories = ask(&cluster, remote).await.transpose()?.unwrap_or_default();
        repositories.retain(|it| from.is_none_or(|from| from == it.place));
        let whys = repositories.iter().map(backup::Repository::unreadable);
        // One of two places is enough.
        let whys: Option<Vec<String>> = whys.collect();
        if let Some(why) = whys.and_then(|it| it.into_iter().next()) {
            return Err(Error::new(Code::ServiceRefused, why)
                .on(keeper)
                .hint("see what is wrong with it: pgherd backups"));
        }
        let ground = outlook::look(origin, &cluster, keeper, to).await?;
        let source = outlook::source(&ground, to, (set, from))?.clone();
        let spans = repositories.iter().filter_map(backup::Repository::span);
        let last = spans.map(|span| span.1).max();
        if let (Some(at), Some(last)) = (to.time(), last)
            && at.as_second() > last
        {
            let newest = jiff::Timestamp::from_second(last).map_or(Moment::Latest, Moment::Time);
            return Err(Error::new(
                Code::NotPossibleNow,
                format!("the newest WAL in the repository came at {newest}, before {to}"),
            )
            .left("nothing was changed")
            .hint("choose an earlier moment, or `--to latest`"));
        }
        Ok((ground, source))
    };
    found
        .await
        .map_err(|error| of_source(origin.context, error))
}

pub(super) async fn outlook(
    origin: &Connected<'_>,
    target: &Context,
    wish: &Wish,
) -> Result<Outlook> {
    let source = origin.context;
    let to = wish.to.clone().ok_or_else(|| {
        let command = under_way::clones(&source.inventory.path, &target.inventory.path);
        Error::new(Code::InvalidArguments, "no moment is named")
            .left("nothing was changed")
            .hint(format!("the newest state: {command} --to latest"))
    })?;
    statements(&wish.run)?;
    let place = backup::named(&source.inventory, wish.from.as_deref())?;
    let (ground, backup) = backup_for(origin, &to, (wish.set.as_deref(), place)).await?;
    let host = outlook::host(target, &BTreeMap::new(), wish.host.as_deref())?;
    if let PgVersion::Major(major) = target.inventory.postgresql.version {
        is_of_version(Some(major), &host, &backup)?;
    }
    let hosts = target.host_status().await?;
    if !hosts.stopped.is_empty() {
        return Err(Error::new(
            Code::NotPossibleNow,
            format!(
                "hosts of {} are stopped, and may have a database",
                target.inventory.cluster
            ),
        )
        .left("nothing was changed")
        .hint(format!("start them: {}", on_clone(target, "up")))
        .hint(format!("or remove them: {}", on_clone(target, "down"))));
    }
    if !hosts.running.is_empty() {
        let (events, _quiet) = Events::channel();
        let work = async |connected: &Connected<'_>| is_empty(connected, &host, &backup).await;
        target.on(&hosts.running, &events, work).await?;
    }
    let members = target.inventory.with_role(Role::Postgres);
    target.bucket_is_fit().await?;
    Ok(Outlook {
        from: source.inventory.cluster.clone(),
        into: target.inventory.cluster.clone(),
        to,
        replicas: members.filter(|it| **it != host).cloned().collect(),
        host,
        places: ground.places_for(&backup, place),
        source: backup,
        made: hosts.missing,
        run: wish.run.clone(),
        archives: target.inventory.with_role(Role::Backup).next().is_some(),
        bucket: target.bucket_change(),
    })
}

/// Refuses a clone that has a database already, or backups of one.
async fn is_empty(connected: &Connected<'_>, host: &HostName, backup: &Source) -> Result<()> {
    let target = connected.context;
    let observed = connected.look().await?.whole()?;
    let cluster = &observed.cluster;
    let refused = |what: String| {
        Error::new(Code::NotPossibleNow, what)
            .left("nothing was changed")
            .hint(format!(
                "if nobody needs it: {}",
                on_clone(target, "down --with-backups")
            ))
    };
    if !lost::may_be(cluster, &observed.found.facts) {
        return Err(refused(format!(
            "the cluster {} has a database already",
            cluster.name()
        )));
    }
    match &observed.found.repository {
        Some(Keeps::Backups(all)) if !all.is_empty() => {
            return Err(refused(format!(
                "the repository of {} has backups of another database",
                cluster.name()
            )));
        }
        Some(Keeps::Unknown(why)) => {
            let what = format!("the repository of {} may have backups", cluster.name());
            return Err(refused(what).cause(why.clone()));
        }
        _ => {}
    }
    is_of_version(major(cluster, host), host, backup)
}

pub(super) fn major(cluster: &Cluster, host: &HostName) -> Option<u16> {
    cluster.nodes.get(host).and_then(|node| node.postgresql)
}

/// Refuses a clone of another major version.
pub(super) fn is_of_version(version: Option<u16>, host: &HostName, backup: &Source) -> Result<()> {
    let ground = Ground {
        version: version.map(|it| it.to_string()),
        ..Ground::default()
    };
    fits(&ground, backup, None).map_err(|error| error.on(host))
}

/// The files of SQL, as they are now.
pub(super) fn statements(files: &[Sql]) -> Result<Vec<Statements>> {
    files.iter().map(read).collect()
}

fn read(sql: &Sql) -> Result<Statements> {
    let shown = sql.file.display();
    let unusable = |what: String| Error::new(Code::FileUnusable, what).left("nothing was changed");
    let text = given::read_text(&sql.file)
        .map_err(|error| unusable(format!("cannot read {shown}")).because(error))?;
    if text.contains('\0') {
        return Err(unusable(format!("{shown} is no text")));
    }
    let leaves = |line: &str| {
        let word = line.split_whitespace().next();
        matches!(word, Some("\\c" | "\\connect"))
    };
    if let Some(number) = text.lines().position(leaves) {
        return Err(unusable(format!(
            "{shown}:{}: it connects to another database, and the file runs in one transaction",
            number + 1
        ))
        .hint(
            "give each database a file of its own: --run shop:shop.sql --run postgres:roles.sql",
        ));
    }
    let name = sql.file.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    Ok(Statements {
        database: sql.database.clone(),
        name: name
            .trim_start_matches(['-', '.'])
            .chars()
            .map(plain)
            .collect(),
        text,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn told(name: &str, text: &str) -> Result<Statements> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        read(&Sql {
            database: "shop".into(),
            file,
        })
    }

    #[test]
    fn a_file_of_sql_stays_in_its_database() {
        let it = told("my file.sql", "update customers set name = '\\connect';\n").unwrap();
        assert_eq!(it.name, "my_file.sql");
        for line in ["\\c postgres", "  \\connect other"] {
            let error = told("all.sql", &format!("select 1;\n{line}\n")).unwrap_err();
            assert!(
                error.what().contains("all.sql:2: it connects to another"),
                "{error}"
            );
        }
        assert!(
            told("zero.sql", "select '\0'")
                .unwrap_err()
                .what()
                .contains("is no text")
        );
        let gone = Sql {
            database: "shop".into(),
            file: "/nowhere/it.sql".into(),
        };
        assert!(read(&gone).unwrap_err().what().contains("cannot read"));
    }

    #[test]
    fn commands_name_both_inventories() {
        let said = under_way::clones(Path::new("prod.yaml"), Path::new("my staging.yaml"));
        assert_eq!(said, "pgherd -i prod.yaml restore --into 'my staging.yaml'");
    }
}
