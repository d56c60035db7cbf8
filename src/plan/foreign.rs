//! Finds things that others made on a host in places that pgherd needs.
//!
//! Files from a package are nobody's work, and are replaced: a copy is kept, and `down` restores it. The same
//! is true for a file with the same content as pgherd's. Everything else is named here and stops the run.

use super::{
    belongings::{self, VENV, is_taken},
    packages,
};
use crate::{
    cluster::{Cluster, Node},
    error::{Code, Error},
    facts::{Facts, MANIFEST_VERSION, OwnCluster, Thing},
    inventory::Role,
    quantity::count,
    render::{self, File},
    services::{self, Service},
};

const LEFT: &str = "it was not touched";

/// Everything that is not pgherd's; `named` are units that another finding names already.
pub(super) fn findings(
    cluster: &Cluster,
    node: &Node,
    facts: &Facts,
    files: &[File],
    named: &[&str],
) -> Vec<Error> {
    let mut findings = Vec::new();
    let manifest = facts.belongings.manifest.as_ref();
    if let Some(manifest) = manifest.filter(|it| it.version > MANIFEST_VERSION) {
        findings.push(
            Error::new(
                Code::HostOfNewerPgherd,
                "a newer version of pgherd has worked on this host",
            )
            .cause(format!(
                "/var/lib/pgherd/manifest has version {}, and this pgherd knows {MANIFEST_VERSION}",
                manifest.version
            ))
            .left(LEFT)
            .hint("use the newer pgherd"),
        );
    }
    // If it had its mark, it would have been reported already.
    if manifest.is_some_and(|it| it.cluster != cluster.secrets.cluster_id) {
        findings.push(
            Error::new(Code::HostOfAnotherCluster, "this host still has the manifest of another cluster")
                .cause("/var/lib/pgherd/manifest is there, with another cluster's id")
                .left(LEFT)
                .hint("if that cluster is gone, run `pgherd -i FILE down` with its inventory, or use another host"),
        );
    }
    findings.extend(foreign_files(cluster, node, facts, files));
    findings.extend(venv(cluster, node, facts));
    findings.extend(folders(cluster, node, facts));
    for role in &node.roles {
        if !is_taken(cluster, facts, *role) {
            findings.extend(of_unit(facts, *role, named));
        }
    }
    let mut databases = node.roles.iter().filter(|role| role.keeps_database());
    if databases.any(|role| !is_taken(cluster, facts, *role)) {
        let port = cluster.inventory.postgresql.port;
        let others = facts.belongings.clusters.iter();
        findings.extend(others.filter_map(|other| own_cluster(other, port)));
    }
    findings.extend(held(cluster, node, facts));
    findings
}

fn foreign_files(cluster: &Cluster, node: &Node, facts: &Facts, files: &[File]) -> Option<Error> {
    let mut foreign = Vec::new();
    for path in render::paths(&node.roles) {
        if !belongings::is_own(cluster, facts, path)
            && let Some(thing) = thing_at(facts, path)
            && !can_be_taken(facts, files, path, thing)
        {
            foreign.push(described(facts, path, thing));
        }
    }
    let strange = node
        .roles
        .iter()
        .filter(|role| !is_taken(cluster, facts, **role));
    for path in strange.flat_map(|role| beside(role.service())) {
        let is_default = facts.belongings.defaults.contains(path);
        if let Some(thing) = thing_at(facts, path)
            && !(thing == Thing::File && is_default)
        {
            foreign.push(described(facts, path, thing));
        }
    }
    let error = match foreign.as_slice() {
        [] => return None,
        [one] => Error::new(
            Code::ForeignSoftware,
            format!("{one} exists, and pgherd did not make it"),
        ),
        several => several.iter().fold(
            Error::new(
                Code::ForeignSoftware,
                format!(
                    "{} that pgherd would write exist, and pgherd did not make them",
                    count(several.len(), "file")
                ),
            ),
            |error, one| error.cause(one.clone()),
        ),
    };
    Some(
        error
            .left("nothing was changed")
            .hint("if nobody needs it, move it away; otherwise use another host"),
    )
}

/// Files beside a service's own that would interfere with it.
fn beside(service: &'static Service) -> impl Iterator<Item = &'static str> {
    service.writes.iter().chain(service.reads).copied()
}

fn thing_at(facts: &Facts, path: &str) -> Option<Thing> {
    let there = facts.belongings.there.get(path).copied();
    there.or_else(|| facts.files.contains_key(path).then_some(Thing::File))
}

fn can_be_taken(facts: &Facts, files: &[File], path: &str, thing: Thing) -> bool {
    let says_nothing_else = || {
        let here = facts.files.get(path);
        let mine = files.iter().find(|file| file.path == path);
        here.zip(mine).is_some_and(|(here, mine)| {
            let mut lines = statements(&here.content);
            lines.all(|line| statements(&mine.content).any(|own| own == line))
        })
    };
    thing == Thing::File && (facts.belongings.defaults.contains(path) || says_nothing_else())
}

/// The lines that are neither blank nor a comment.
fn statements(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("//"))
}

/// A path, with what is known about it.
fn described(facts: &Facts, path: &str, thing: Thing) -> String {
    let mut notes = Vec::new();
    match thing {
        Thing::File => {}
        Thing::Link => notes.push("a link".to_owned()),
        Thing::Folder => notes.push("a folder".to_owned()),
        Thing::Special => notes.push("not a file".to_owned()),
    }
    for service in services::all() {
        if service.config == path {
            notes.extend(state(facts, service.unit.name));
        }
    }
    if notes.is_empty() {
        path.to_owned()
    } else {
        format!("{path} ({})", notes.join(", "))
    }
}

/// What a unit does now, if it does anything.
fn state(facts: &Facts, unit: &str) -> Option<String> {
    let fact = facts.unit(unit);
    if !matches!(fact.active.as_str(), "" | "inactive") {
        Some(format!("{unit}.service is {}", fact.active))
    } else if matches!(fact.enabled.as_str(), "enabled" | "enabled-runtime") {
        Some(format!("{unit}.service is enabled"))
    } else {
        None
    }
}

fn venv(cluster: &Cluster, node: &Node, facts: &Facts) -> Vec<Error> {
    let holds = &facts.belongings.holds;
    // Without a manifest, an unfinished venv of pgherd looks like anybody else's.
    let unknown = belongings::is_ours(cluster, facts) && facts.belongings.manifest.is_none();
    if !belongings::takes_venv(cluster, node) || belongings::owns_venv(cluster, facts) || unknown {
        return Vec::new();
    }
    let foreign = |what: &str, path: &str| {
        holds.contains_key(what).then(|| {
            Error::new(
                Code::ForeignSoftware,
                format!("{path} exists, and pgherd did not make it"),
            )
            .cause("pgherd would install Patroni there")
            .left(LEFT)
            .hint("move it away, or use the distribution's Patroni: patroni: { source: distro }")
        })
    };
    let mut findings = Vec::new();
    if facts.patroni_stamp.is_none() {
        findings.extend(foreign("patroni", VENV));
    }
    findings.extend(foreign("patroni-old", "/opt/patroni.old"));
    findings
}

/// Folders that hold data. [`preconditions`](super::preconditions) checks that of a database.
fn folders(cluster: &Cluster, node: &Node, facts: &Facts) -> Vec<Error> {
    let holds = &facts.belongings.holds;
    let data_dir = &cluster.inventory.postgresql.data_dir;
    let mut findings = Vec::new();
    let foreign = |path: &str| {
        Error::new(
            Code::ForeignSoftware,
            format!("{path} exists, and pgherd did not make it"),
        )
        .left(LEFT)
    };
    if node.roles.iter().any(|role| role.keeps_database()) {
        let own = facts.data_marker.as_ref() == Some(&cluster.secrets.cluster_id);
        let data = holds.get("data");
        if data.is_some_and(|data| matches!(data.thing, Thing::File | Thing::Special)) {
            let error = Error::new(Code::ForeignSoftware, format!("{data_dir} is not a folder"));
            findings.push(error.left(LEFT).hint("set postgresql.data_dir to another"));
        }
        if !own && holds.contains_key("failed") {
            findings.push(
                foreign(&format!("{data_dir}.failed"))
                    .cause("Patroni moves a database there if its start fails")
                    .hint("move it away, or set postgresql.data_dir to another"),
            );
        }
    }
    let mut stores = node.roles.iter().filter(|role| role.keeps_store());
    if stores.any(|role| !is_taken(cluster, facts, *role)) && holds.contains_key("etcd") {
        findings.push(
            foreign(&belongings::etcd_data(cluster))
                .cause("this cluster's etcd would keep its data there, and it may be from an earlier cluster")
                .hint("if nobody needs it, move it away"),
        );
    }
    findings
}

fn of_unit(facts: &Facts, role: Role, named: &[&str]) -> Vec<Error> {
    let name = role.unit();
    let mut findings = Vec::new();
    let fact = facts.unit(name);
    if fact.enabled.starts_with("masked") {
        findings.push(
            Error::new(Code::ForeignSoftware, format!("{name}.service is masked"))
                .cause("somebody has masked it, so that it cannot start")
                .left(LEFT)
                .hint(format!("if it may start: systemctl unmask {name}")),
        );
    }
    let service = role.service();
    let by_default = facts.belongings.defaults.contains(service.config);
    let idle = service.idle_by_default && by_default;
    let told = named.contains(&format!("{name}.service").as_str())
        || thing_at(facts, service.config).is_some() && !by_default;
    if !matches!(fact.active.as_str(), "" | "inactive" | "failed") && !idle && !told {
        findings.push(
            Error::new(
                Code::ForeignSoftware,
                format!(
                    "{name}.service is {}, and pgherd did not start it",
                    fact.active
                ),
            )
            .left(LEFT)
            .hint(format!(
                "if nobody needs it: systemctl disable --now {name}"
            )),
        );
    }
    let own = render::paths(&[role]);
    let files = facts.belongings.unit_files.get(name);
    for path in files.map_or(&[][..], Vec::as_slice) {
        let of_this_unit = path.ends_with(&format!("/{name}.service"))
            || path.contains(&format!("/{name}.service.d/"));
        if path.starts_with("/etc/") && of_this_unit && !own.contains(&path.as_str()) {
            findings.push(
                Error::new(
                    Code::ForeignSoftware,
                    format!("{path} exists, and pgherd did not make it"),
                )
                .cause(format!("it changes how {name}.service runs"))
                .left(LEFT)
                .hint("if nobody needs it, move it away; otherwise use another host"),
            );
        }
    }
    findings
}

/// A cluster of the distribution's tools may stay, unless it runs, or would start on the same port.
fn own_cluster(other: &OwnCluster, port: u16) -> Option<Error> {
    let OwnCluster { version, name, .. } = other;
    let what = if other.runs {
        format!("another PostgreSQL runs here: the cluster {version}/{name}")
    } else if other.start == "auto" && other.port == Some(port) {
        format!("the cluster {version}/{name} would start on port {port} at the next boot")
    } else {
        return None;
    };
    Some(
        Error::new(Code::ForeignSoftware, what)
            .cause("it was made with pg_createcluster, or by its package")
            .left(LEFT)
            .hint(format!(
                "if nobody needs it: systemctl disable --now postgresql@{version}-{name}, and 'manual' in /etc/postgresql/{version}/{name}/start.conf"
            )),
    )
}

fn held(cluster: &Cluster, node: &Node, facts: &Facts) -> Option<Error> {
    let is_held = |package: &String| facts.belongings.held.get(package) == Some(&false);
    let held: Vec<String> = packages::wanted(cluster, node)
        .into_iter()
        .filter(is_held)
        .collect();
    (!held.is_empty()).then(|| {
        Error::new(
            Code::PackagesHeld,
            format!(
                "packages are held back and not installed: {}",
                held.join(", ")
            ),
        )
        .left("nothing was changed")
        .hint(format!(
            "if they may be installed: apt-mark unhold {}",
            held.join(" ")
        ))
    })
}
