//! What a restore would do, and whether it is possible.

use std::collections::BTreeMap;

use super::Wish;
use crate::{
    cluster::Cluster,
    contract::kept_dir,
    engine::{backup, connected::Connected, context::Context, observe::Observed, switchover},
    error::{Code, Error, Result},
    inventory::{HostName, Place, Role},
    moment::Moment,
    plan,
    quantity::bytes,
    services::{
        archive::ground::{self, Ground, Source},
        backup::ask,
        postgres::patroni::{self, Status},
    },
};

/// KiB that must stay free.
const SPARE: u64 = 1024 * 1024;

/// What a restore would do. Shown before the question.
#[derive(Debug, Clone)]
pub(crate) struct Outlook {
    pub to: Moment,
    pub host: HostName,
    /// The members that are copied from it.
    pub replicas: Vec<HostName>,
    /// The newest backup from before the moment, or the named one.
    pub source: Source,
    /// Of two places of backups, that of this one first, then others from which WAL comes too.
    pub places: Vec<Place>,
    pub ground: Ground,
    /// The folder in which the present data is kept.
    pub kept_dir: Option<String>,
    /// No host has the database: the hosts that are made first.
    pub anew: Option<Vec<HostName>>,
}

/// What a restore would do; an error if it is not possible.
pub(super) async fn outlook(
    connected: &Connected<'_>,
    observed: &Observed,
    wish: &Wish,
) -> Result<Outlook> {
    let context = connected.context;
    let cluster = &observed.cluster;
    let to = named(context, wish)?;
    observed.members_as_declared()?;
    if observed.found.is_paused() {
        return Err(plan::not_while_paused(&context.inventory));
    }
    let survey = patroni::survey(&connected.http, cluster).await;
    let host = host(context, &survey, wish.host.as_deref())?;
    let ground = look(connected, cluster, &host, &to).await?;
    let from = backup::named(&context.inventory, wish.from.as_deref())?;
    let source = source(&ground, &to, (wish.set.as_deref(), from))?.clone();
    let known = observed
        .found
        .dcs
        .as_ref()
        .and_then(|keys| keys.initialize.clone());
    fits(
        &ground,
        &source,
        known.as_deref().filter(|it| !it.is_empty()),
    )
    .map_err(|error| error.on(&host))?;
    let kept_dir = room(context, &host, &ground, &source)?;
    let members = cluster
        .with_role(Role::Postgres)
        .map(|node| node.name.clone());
    Ok(Outlook {
        to,
        replicas: members.filter(|it| *it != host).collect(),
        places: ground.places_for(&source, from),
        source,
        kept_dir,
        host,
        ground,
        anew: None,
    })
}

/// The moment that the user names.
pub(super) fn named(context: &Context, wish: &Wish) -> Result<Moment> {
    wish.to.clone().ok_or_else(|| {
        Error::new(Code::InvalidArguments, "no moment is named")
            .hint(format!(
                "see what can be restored: {}",
                context.command("backups")
            ))
            .hint(format!(
                "then: {}",
                context.command("restore --to '2026-11-26 14:03:07+01'")
            ))
    })
}

/// The folder in which the present data can be kept, if there is room for it beside the restored data. It is an error
/// if there is no room for the restored data alone.
pub(super) fn room(
    context: &Context,
    host: &HostName,
    ground: &Ground,
    source: &Source,
) -> Result<Option<String>> {
    if let Some(kept) = ground.kept {
        let dir = kept_dir(&context.inventory.postgresql.data_dir);
        return Err(Error::new(
            Code::NotPossibleNow,
            format!(
                "an earlier restore has kept the data from before it in {dir} ({})",
                bytes(kept * 1024)
            ),
        )
        .on(host)
        .left("nothing was changed")
        .hint(format!(
            "remove it, if nobody needs it: {}",
            context.command("restore --discard-old")
        )));
    }
    let needed = source.size / 1024 + source.size / 10240 + SPARE;
    let keeps = ground.movable && ground.free > needed;
    if !keeps && ground.here + ground.free < needed {
        return Err(Error::new(
            Code::NotPossibleNow,
            format!(
                "the database of the backup has {}, and only {} are free, with the present data removed",
                bytes(source.size),
                bytes((ground.here + ground.free) * 1024)
            ),
        )
        .on(host)
        .left("nothing was changed")
        .hint("make room on that disk, or restore on another member: --host HOST"));
    }
    Ok(keeps.then(|| kept_dir(&context.inventory.postgresql.data_dir)))
}

/// The member whose data is restored: the named one, the leader, or the first.
pub(super) fn host(
    context: &Context,
    survey: &BTreeMap<HostName, Result<Status>>,
    name: Option<&str>,
) -> Result<HostName> {
    match name {
        Some(name) => switchover::member(context, name),
        None => {
            let first = context.inventory.with_role(Role::Postgres).next();
            let host = patroni::leader_of(survey).or(first).cloned();
            host.ok_or_else(|| Error::new(Code::NotPossibleNow, "the inventory has no database"))
        }
    }
}

/// The backup that is restored: of the named place, or of the first that has one for the moment.
pub(in crate::engine) fn source<'a>(
    ground: &'a Ground,
    to: &Moment,
    (set, from): (Option<&str>, Option<Place>),
) -> Result<&'a Source> {
    if ground.places.len() < 2 {
        return source_of(&ground.sources.iter().collect::<Vec<_>>(), to, set);
    }
    let mut refused: Option<Error> = None;
    let asked = ground.places.iter();
    for (place, unread) in asked.filter(|it| from.is_none_or(|from| it.0 == from)) {
        let there = ground.sources.iter().filter(|it| it.place == *place);
        let found = match unread {
            Some(why) => Err(not_possible(format!("pgBackRest cannot read it: {why}"))),
            None => source_of(&there.collect::<Vec<_>>(), to, set),
        };
        let error = match found {
            Ok(source) => return Ok(source),
            Err(error) => error,
        };
        let what = format!("{}: {}", place.inside(), error.what());
        refused = Some(match refused {
            Some(first) => first.cause(what),
            None => not_possible(what),
        });
    }
    Err(refused.unwrap_or_else(|| not_possible("the repository has no backup".into())))
}

/// Looks at a host as [`ground::look`] does. Of two places, a backup whose files are gone is not taken.
pub(in crate::engine) async fn look(
    connected: &Connected<'_>,
    cluster: &Cluster,
    host: &HostName,
    to: &Moment,
) -> Result<Ground> {
    let remote = connected.remote.as_ref();
    let mut ground = ground::look(cluster, host, to, remote).await?;
    if ground.places.len() > 1
        && let Some(Ok(repositories)) = ask(cluster, remote).await
    {
        let gone = |it: &Source| {
            let mut there = repositories.iter().filter(|that| that.place == it.place);
            there.any(|that| that.backups.iter().any(|b| b.label == it.label && b.gone))
        };
        ground.sources.retain(|it| !gone(it));
    }
    Ok(ground)
}

fn not_possible(what: String) -> Error {
    Error::new(Code::NotPossibleNow, what)
        .left("nothing was changed")
        .hint("see what can be restored: pgherd backups")
}

fn source_of<'a>(sources: &[&'a Source], to: &Moment, set: Option<&str>) -> Result<&'a Source> {
    let refused = not_possible;
    let (Some(&first), Some(&last)) = (sources.first(), sources.last()) else {
        return Err(refused("the repository has no backup".into()));
    };
    let time = |seconds| jiff::Timestamp::from_second(seconds).map_or(Moment::Latest, Moment::Time);
    if let Some(at) = to.time() {
        if at > jiff::Timestamp::now() {
            return Err(refused(format!("{to} is in the future")));
        }
        if at.as_second() <= first.stop {
            return Err(refused(format!(
                "no backup is older than {to}: the first one ended at {}",
                time(first.stop)
            )));
        }
    }
    let source = match (set, to.time()) {
        (Some(label), _) => {
            let named = sources.iter().find(|it| it.label == label);
            *named.ok_or_else(|| refused(format!("the repository has no backup {label}")))?
        }
        (None, Some(at)) => {
            let mut older = sources.iter().filter(|it| it.stop < at.as_second());
            older.next_back().copied().unwrap_or(first)
        }
        (None, None) => last,
    };
    match to.time() {
        Some(at) if at.as_second() <= source.stop => Err(refused(format!(
            "the backup {} ended at {}, after {to}",
            source.label,
            time(source.stop)
        ))),
        _ => Ok(source),
    }
}

/// Refuses a backup of another database, or of another version.
pub(super) fn fits(ground: &Ground, source: &Source, known: Option<&str>) -> Result<()> {
    let refused = |what: String| Error::new(Code::NotPossibleNow, what).left("nothing was changed");
    let here = known.or(ground.system.as_deref());
    if let Some(here) = here.filter(|it| !source.system.is_empty() && **it != source.system) {
        return Err(refused(format!(
            "the backup {} is of another database: its identifier is {}, and that of the cluster is {here}",
            source.label, source.system
        )));
    }
    match &ground.version {
        Some(version) if !source.version.is_empty() && *version != source.version => {
            Err(refused(format!(
                "the backup {} is of PostgreSQL {}, and the cluster has {version}",
                source.label, source.version
            ))
            .hint("choose a younger moment, or restore it into a cluster of that version"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground() -> Ground {
        let source = |label: &str, stop| Source {
            place: Place::Disk,
            label: label.into(),
            stop,
            size: 1 << 30,
            version: "16".into(),
            system: "7".into(),
        };
        Ground {
            version: Some("16".into()),
            system: Some("7".into()),
            sources: vec![source("one", 1000), source("two", 2000)],
            ..Ground::default()
        }
    }

    fn chosen(to: &str, set: Option<&str>) -> String {
        let to = to.parse().unwrap();
        source(&ground(), &to, (set, None))
            .map_or_else(|error| error.what().to_owned(), |it| it.label.clone())
    }

    #[test]
    fn the_backup_is_older_than_the_moment() {
        for (to, set, expected) in [
            ("1970-01-01 00:30:00Z", None, "one"),
            ("1970-01-01 00:40:00Z", None, "two"),
            ("1970-01-01 00:40:00Z", Some("one"), "one"),
            ("latest", None, "two"),
            ("lsn 0/5", Some("one"), "one"),
            (
                "latest",
                Some("three"),
                "the repository has no backup three",
            ),
            (
                "1970-01-01 00:16:40Z",
                None,
                "no backup is older than 1970-01-01 00:16:40+00: the first one ended at 1970-01-01 00:16:40+00",
            ),
            (
                "1970-01-01 00:30:00Z",
                Some("two"),
                "the backup two ended at 1970-01-01 00:33:20+00, after 1970-01-01 00:30:00+00",
            ),
            (
                "2970-01-01 00:30:00Z",
                None,
                "2970-01-01 00:30:00+00 is in the future",
            ),
        ] {
            assert_eq!(chosen(to, set), expected, "{to}");
        }
    }

    #[test]
    fn of_two_places_the_first_is_taken_that_can_serve_the_moment() {
        let mut it = ground();
        it.sources[0].place = Place::Bucket;
        it.sources.reverse();
        it.places = vec![(Place::Disk, None), (Place::Bucket, None)];
        let chosen = |ground: &Ground, to: &str, from| {
            let to: Moment = to.parse().unwrap();
            source(ground, &to, (None, from)).map_or_else(
                |error| error.what().to_owned(),
                |it| format!("{} {}", it.place.as_str(), it.label),
            )
        };
        let (early, late) = ("1970-01-01 00:30:00Z", "1970-01-01 00:40:00Z");
        assert_eq!(chosen(&it, late, None), "disk two");
        assert_eq!(chosen(&it, early, None), "bucket one");
        assert_eq!(chosen(&it, late, Some(Place::Bucket)), "bucket one");
        let said = chosen(&it, early, Some(Place::Disk));
        assert!(
            said.starts_with("on the disk: no backup is older"),
            "{said}"
        );
        it.places[0].1 = Some("cut off".into());
        assert_eq!(chosen(&it, late, None), "bucket one");
        it.places[1].1 = Some("cut off".into());
        let said = chosen(&it, late, None);
        assert_eq!(said, "on the disk: pgBackRest cannot read it: cut off");
    }

    #[test]
    fn a_backup_of_another_database_or_version_is_refused() {
        let told = |ground: &Ground, known| {
            let fits = fits(ground, &ground.sources[0], known);
            fits.map_or_else(|error| error.what().to_owned(), |()| String::new())
        };
        let mut it = ground();
        assert_eq!(told(&it, Some("7")), "");
        assert!(told(&it, Some("8")).contains("is of another database"));
        it.version = Some("17".into());
        assert!(told(&it, None).contains("is of PostgreSQL 16, and the cluster has 17"));
        // On a host that was made anew, there is nothing.
        it.version = None;
        it.system = None;
        assert_eq!(told(&it, None), "");
    }
}
