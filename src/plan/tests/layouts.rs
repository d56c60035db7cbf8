//! Templates with the same content in another layout: the plan is the same too.

use std::sync::LazyLock;

use super::world::{FIVE, ONE, SHARED, World, embedded};
use crate::{
    cluster::TlsStage::{self, Off, Offered, Required, Used},
    configs::{Environment, Mark, PatroniConfig},
    facts::Facts,
    inventory::Role,
    render::{ETCD_CONFIG, Effect, PATRONI_CONFIG, Templates},
};

#[path = "../../../tests/laid_out/mod.rs"]
mod laid_out;

static OTHER: LazyLock<Templates> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let names = laid_out::write(dir.path());
    let templates = Templates::with_overrides(dir.path()).unwrap();
    assert!(names.len() > 20, "every template is another one");
    templates
});

/// The plan after a `change` to a cluster at `tls`, with these templates.
fn planned(
    templates: &'static Templates,
    tls: TlsStage,
    hosts: &str,
    change: impl Fn(&mut World),
) -> Vec<String> {
    let mut world = World::settled_with(templates, tls, hosts);
    assert_eq!(world.steps(), [""; 0], "{tls:?}: it is as it should be");
    change(&mut world);
    world.steps()
}

fn alike(tls: TlsStage, hosts: &str, change: impl Fn(&mut World)) -> Vec<String> {
    let steps = planned(embedded(), tls, hosts, &change);
    assert_eq!(planned(&OTHER, tls, hosts, &change), steps, "{tls:?}");
    assert!(!steps.is_empty());
    steps
}

#[test]
fn a_bring_up() {
    for hosts in [FIVE, SHARED, ONE] {
        let steps = World::bare(hosts).steps();
        assert_eq!(World::bare_with(&OTHER, hosts).steps(), steps);
    }
}

#[test]
fn tls_comes_and_goes() {
    for hosts in [FIVE, SHARED, ONE] {
        for (from, to) in [(Off, Offered), (Offered, Used), (Used, Required)] {
            alike(from, hosts, |world| world.speaks(to));
            alike(to, hosts, |world| world.speaks(from));
        }
    }
}

#[test]
fn hosts_move() {
    let moves: [&[(&str, &str)]; 6] = [
        &[("node1", "192.0.2.10")],
        &[("node2", "192.0.2.20")],
        &[("node4", "192.0.2.40")],
        &[("haproxy", "192.0.2.50")],
        &[("node1", "192.0.2.10"), ("node4", "192.0.2.40")],
        &[("node2", "192.0.2.20"), ("node3", "192.0.2.30")],
    ];
    for tls in [Off, Required] {
        for moves in moves {
            let steps = alike(tls, FIVE, |world| world.moves(moves));
            let reconnects = steps.iter().any(|step| step.contains("reconnect-replica"));
            let database = |(host, _): &(&str, &str)| ["node1", "node2", "node3"].contains(host);
            assert_eq!(reconnects, moves.iter().any(database), "{moves:?}");
        }
    }
}

/// The members know the etcd that has not moved, so the leader need not go first.
#[test]
fn one_of_three_etcd_hosts_moves() {
    for host in ["db1", "db2"] {
        alike(Required, SHARED, |world| {
            world.moves(&[(host, "192.0.2.30")]);
        });
    }
}

#[test]
fn a_parameter_changes() {
    let steps = alike(Required, FIVE, |world| {
        world.wants("postgresql: { parameters: { work_mem: 8MB } }", FIVE);
    });
    assert!(steps.iter().any(|it| it.contains("restart-pending")));
}

/// No running service notices a new layout, except by a reload.
#[test]
fn templates_change_their_layout_and_nothing_else() {
    for tls in [Off, Offered, Used, Required] {
        let old = World::settled_at(tls, SHARED);
        let new = World::settled_with(&OTHER, tls, SHARED);
        for (host, files) in &new.files {
            for file in files {
                let old = old.found.facts[host].files.get(&file.path);
                let effect = file.effect_of_change(old.map(|old| old.content.as_str()));
                match file.path.as_str() {
                    PATRONI_CONFIG => assert_eq!(effect, Effect::Reload, "{host}"),
                    ETCD_CONFIG => assert_eq!(effect, Effect::Nothing, "{host}"),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn what_pgherd_reads_again_is_there() {
    for tls in [Off, Offered, Used, Required] {
        for templates in [embedded(), &*OTHER] {
            let world = World::settled_with(templates, tls, SHARED);
            for (host, facts) in &world.found.facts {
                let roles = &world.cluster.nodes[host].roles;
                reads_alike(&world, facts, roles, tls.is_used());
            }
        }
    }
}

fn reads_alike(world: &World, facts: &Facts, roles: &[Role], tls: bool) {
    let text = |path: &str| facts.files[path].content.as_str();
    let mark = Mark::parse(text("/etc/pgherd/cluster")).unwrap();
    let id = world.cluster.secrets.cluster_id.as_str();
    assert_eq!((mark.name, mark.id), (world.cluster.name(), id));
    if roles.contains(&Role::Etcd) {
        let etcd = Environment::parse(text(ETCD_CONFIG));
        assert_eq!(etcd.listens_with_tls(), Some(tls));
    }
    if roles.contains(&Role::Postgres) {
        let patroni = PatroniConfig::parse(text(PATRONI_CONFIG)).unwrap();
        assert_eq!(patroni.asks_with_tls(), Some(tls));
        assert_eq!(patroni.etcd().len(), 3);
        let data_dir = &world.cluster.inventory.postgresql.data_dir;
        assert_eq!(patroni.data_dir(), Some(data_dir.as_str()));
        assert!(patroni.access().unwrap().hba.unwrap().len() > 5);
        assert!(facts.software().contains_key("patroni"), "{roles:?}");
    }
}
