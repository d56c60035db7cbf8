//! What belongs to pgherd on a host, and how it is noted in the manifest before it is taken.

use crate::{
    cluster::{Cluster, Node},
    configs::Mark,
    contract::MARKER,
    facts::{Facts, etcd_dir},
    inventory::{PatroniSource, Role},
    remote::{Script, quote},
    render,
};

const CLAIM: &str = include_str!("claim.sh");

/// The folder of Patroni's venv.
pub(super) const VENV: &str = "/opt/patroni";

/// Files that pgherd wrote before it kept a manifest, with names that only pgherd uses. On a host from that
/// time, these files are pgherd's.
const WITHOUT_MANIFEST: [&str; 16] = [
    MARKER,
    "/etc/pgherd/ca-bundle.crt",
    "/etc/apt/apt.conf.d/90pgherd",
    "/etc/needrestart/conf.d/pgherd.conf",
    "/etc/postgresql-common/createcluster.d/pgherd.conf",
    "/etc/pgherd/patroni-requirements.txt",
    "/etc/pgherd/tls/etcd/ca.crt",
    "/etc/pgherd/tls/etcd/server.crt",
    "/etc/pgherd/tls/etcd/server.key",
    "/etc/systemd/system/etcd.service.d/pgherd.conf",
    "/etc/pgherd/tls/postgres/ca.crt",
    "/etc/pgherd/tls/postgres/server.crt",
    "/etc/pgherd/tls/postgres/server.key",
    "/etc/systemd/system/haproxy.service.d/pgherd.conf",
    "/etc/pgherd/tls/haproxy/ca.crt",
    "/etc/pgherd/tls/haproxy/server.pem",
];

/// Files from that time with names that others use too, and the other files of the same role.
const SHARED_WITHOUT_MANIFEST: [(&str, &str); 4] = [
    (
        "/etc/default/etcd",
        "/etc/systemd/system/etcd.service.d/pgherd.conf",
    ),
    (
        "/etc/systemd/system/patroni.service",
        "/etc/postgresql-common/createcluster.d/pgherd.conf",
    ),
    (
        "/etc/patroni.yml",
        "/etc/postgresql-common/createcluster.d/pgherd.conf",
    ),
    (
        "/etc/haproxy/haproxy.cfg",
        "/etc/systemd/system/haproxy.service.d/pgherd.conf",
    ),
];

/// The first line of every file of pgherd's whose format has comments.
const HEADER: &str = "# Written by pgherd;";

/// The folders that pgherd made at that time, the deepest first.
const FOLDERS_WITHOUT_MANIFEST: [&str; 9] = [
    "/etc/pgherd/tls/etcd",
    "/etc/pgherd/tls/postgres",
    "/etc/pgherd/tls/haproxy",
    "/etc/pgherd/tls",
    "/etc/pgherd",
    "/etc/systemd/system/etcd.service.d",
    "/etc/systemd/system/haproxy.service.d",
    "/etc/postgresql-common/createcluster.d",
    "/etc/needrestart/conf.d",
];

/// Whether the host is this cluster's, by its mark, or by the manifest of a run that was interrupted before it
/// wrote the mark.
pub(crate) fn is_ours(cluster: &Cluster, facts: &Facts) -> bool {
    let id = &cluster.secrets.cluster_id;
    let marker = facts.files.get(MARKER);
    let manifest = facts.belongings.manifest.as_ref();
    marker.is_some_and(|marker| Mark::names(&marker.content, id))
        || marker.is_none() && manifest.is_some_and(|manifest| manifest.cluster == *id)
}

/// Whether the host was taken by a version of pgherd that kept no manifest.
fn lacks_manifest(cluster: &Cluster, facts: &Facts) -> bool {
    is_ours(cluster, facts) && facts.belongings.manifest.is_none()
}

/// Whether the file at `path` is pgherd's, or noted as one that will be.
pub(super) fn is_own(cluster: &Cluster, facts: &Facts, path: &str) -> bool {
    if !is_ours(cluster, facts) {
        return false;
    }
    match &facts.belongings.manifest {
        Some(manifest) => manifest.files.contains(path),
        None => own_without_manifest(facts).any(|own| own == path),
    }
}

/// Whether the role's unit is pgherd's already. Anything that was added to such a unit later was added on
/// purpose, and does not stop a run.
pub(super) fn is_taken(cluster: &Cluster, facts: &Facts, role: Role) -> bool {
    is_own(cluster, facts, role.service().config)
}

/// What is pgherd's on a host that it took before it kept a manifest.
///
/// A file of a role that the host never had is not pgherd's.
fn own_without_manifest(facts: &Facts) -> impl Iterator<Item = &'static str> {
    let there =
        |path: &str| facts.files.contains_key(path) || facts.belongings.there.contains_key(path);
    let shared = SHARED_WITHOUT_MANIFEST
        .iter()
        .filter(move |(path, of_role)| {
            let file = facts.files.get(*path);
            file.is_some_and(|file| file.content.starts_with(HEADER)) || there(of_role)
        });
    WITHOUT_MANIFEST
        .into_iter()
        .chain(shared.map(|(path, _)| *path))
}

/// Whether Patroni's venv is pgherd's: it is noted, or it has the stamp that only pgherd writes.
pub(super) fn owns_venv(cluster: &Cluster, facts: &Facts) -> bool {
    is_ours(cluster, facts)
        && match &facts.belongings.manifest {
            Some(manifest) => manifest.trees.contains(VENV),
            None => facts.patroni_stamp.is_some(),
        }
}

/// Whether pgherd made the folder at `path` as a whole.
pub(super) fn made_tree(facts: &Facts, path: &str) -> bool {
    let manifest = facts.belongings.manifest.as_ref();
    manifest.is_some_and(|manifest| manifest.trees.contains(path))
}

/// The files that are pgherd's on the host, whatever roles it had when they were written.
pub(super) fn own_files<'a>(cluster: &Cluster, facts: &'a Facts) -> Vec<&'a str> {
    if lacks_manifest(cluster, facts) {
        return own_without_manifest(facts).collect();
    }
    let manifest = facts.belongings.manifest.iter();
    manifest
        .flat_map(|manifest| manifest.files.iter().map(String::as_str))
        .collect()
}

/// The folders that pgherd made, the deepest first.
pub(super) fn own_folders<'a>(cluster: &Cluster, facts: &'a Facts) -> Vec<&'a str> {
    if lacks_manifest(cluster, facts) {
        return FOLDERS_WITHOUT_MANIFEST.to_vec();
    }
    let manifest = facts.belongings.manifest.iter();
    let mut folders: Vec<&str> = manifest
        .flat_map(|manifest| manifest.folders.iter().map(String::as_str))
        .collect();
    folders.sort_by_key(|folder| std::cmp::Reverse(folder.len()));
    folders
}

/// What pgherd will take on the host and has not noted yet.
pub(super) fn unclaimed(cluster: &Cluster, node: &Node, facts: &Facts) -> Vec<&'static str> {
    let noted = |path: &&str| {
        let manifest = facts.belongings.manifest.as_ref();
        is_own(cluster, facts, path) || manifest.is_some_and(|it| it.left.contains(*path))
    };
    let paths = render::paths(&node.roles).into_iter();
    let sources = sources(cluster, node).into_iter();
    // A package source can be noted only when there is a manifest, which other changes create.
    let sources = sources.filter(|_| !lacks_manifest(cluster, facts));
    paths.chain(sources).filter(|path| !noted(path)).collect()
}

/// Notes everything that pgherd takes on the host, before any of it is taken.
pub(super) fn claim(script: Script, cluster: &Cluster, node: &Node, facts: &Facts) -> Script {
    let early = lacks_manifest(cluster, facts);
    // What state a unit had before an earlier version of pgherd is unknown.
    let (adopted, units): (Vec<Role>, Vec<Role>) = node
        .roles
        .iter()
        .partition(|role| early && is_taken(cluster, facts, **role));
    let names = |roles: &[Role]| {
        let names: Vec<&str> = roles.iter().map(|role| role.unit()).collect();
        quote(&names.join(" "))
    };
    let data_dir = if node.roles.iter().any(|role| role.keeps_database()) {
        cluster.inventory.postgresql.data_dir.as_str()
    } else {
        ""
    };
    let list = |words: &[&str]| quote(&words.join(" "));
    let (files, folders) = if early {
        (own_files(cluster, facts), own_folders(cluster, facts))
    } else {
        (Vec::new(), Vec::new())
    };
    script
        .line(format!("CLUSTER_ID={}", quote(&cluster.secrets.cluster_id)))
        .line(format!("PATHS={}", list(&render::paths(&node.roles))))
        .line(format!("SOURCES={}", list(&sources(cluster, node))))
        .line(format!("UNITS={}", names(&units)))
        .line(format!("ADOPT_UNITS={}", names(&adopted)))
        .line(format!("DATA_DIR={}", quote(data_dir)))
        .line(format!("ADOPT_FILES={}", list(&files)))
        .line(format!("ADOPT_FOLDERS={}", list(&folders)))
        .line(CLAIM)
}

/// Notes on a host that somebody else has set up that what is there is pgherd's from now on: with a copy of each file that
/// pgherd will replace, and with the note that the data was there before.
pub(crate) fn take_over(cluster: &Cluster, node: &Node) -> Script {
    let script = Script::new().alone("adopt");
    claim(script, cluster, node, &Facts::default()).line(alone_with_manifest(
        "grep -qx adopted /var/lib/pgherd/manifest || {\n\
         \x20 { cat /var/lib/pgherd/manifest; echo adopted; } >/var/lib/pgherd/manifest.new\n\
         \x20 mv -f /var/lib/pgherd/manifest.new /var/lib/pgherd/manifest\n\
         }",
    ))
}

/// Lines that change the manifest, which is there: several steps of a host may do so at once (`claim.sh` does the same).
pub(super) fn alone_with_manifest(lines: &str) -> String {
    format!("exec 8</var/lib/pgherd\nflock 8\n{lines}\nexec 8<&-")
}

/// The package sources that are added to `node`, with the files that may name them.
pub(super) fn sources(cluster: &Cluster, node: &Node) -> Vec<&'static str> {
    let services = node.roles.iter().map(|role| role.service());
    let sources = services.filter_map(|service| service.source.as_ref());
    sources
        .filter(|source| cluster.wants(source.when))
        .flat_map(|source| source.files)
        .copied()
        .collect()
}

/// The lines that note that pgherd makes a folder as a whole, just before it is made. Without a manifest, the
/// folder's stamp shows it.
pub(super) fn note_tree(path: &str) -> String {
    let path = quote(path);
    let note = alone_with_manifest(&format!(
        "grep -qxF \"$(printf 'tree\\t%s' {path})\" $noted || {{\n\
         \x20 {{ cat $noted; printf 'tree\\t%s\\n' {path}; }} >$noted.new\n\
         \x20 mv -f $noted.new $noted\n\
         }}"
    ));
    format!("noted=/var/lib/pgherd/manifest\nif [ -s $noted ]; then\n{note}\nfi")
}

/// Whether Patroni runs from its own venv on the host.
pub(super) fn takes_venv(cluster: &Cluster, node: &Node) -> bool {
    cluster.inventory.patroni.source == PatroniSource::Pypi && node.roles.contains(&Role::Postgres)
}

/// The folder of etcd's data of this cluster.
pub(super) fn etcd_data(cluster: &Cluster) -> String {
    etcd_dir(cluster.name())
}
