//! Types that hold secrets do not show them.

use super::world::{FIVE, ONE, World};
use crate::{cluster::TlsStage, plan::Change, secret::Secret};

/// The debug output of `value` has no secret of the cluster.
fn hides(world: &World, value: &impl std::fmt::Debug) {
    let shown = format!("{value:?} {value:#?}");
    let nodes = world.cluster.nodes.values();
    let keys = nodes.filter_map(|node| Some(&node.certificate.as_ref()?.key));
    for secret in world.cluster.secrets.values().into_iter().chain(keys) {
        for line in secret.expose().lines().filter(|it| !it.starts_with("---")) {
            assert!(!shown.contains(line), "{line}");
        }
    }
}

#[test]
fn no_debug_output_holds_a_secret() {
    for hosts in [FIVE, ONE] {
        let bare = World::bare(hosts);
        let mut changed = World::settled(hosts);
        changed.cluster.secrets.rewind = Secret::new("another-rewind-s3cret");
        changed.speaks(TlsStage::Required);
        for host in changed.hosts() {
            let files = changed.facts(host.as_str()).files.values_mut();
            for file in files.filter(|file| file.mode & 0o4 == 0) {
                file.content.push_str("# superuser-s3cret\n");
            }
        }
        for world in [bare, changed] {
            let plan = world.plan();
            let shown = |change: &Change| matches!(change, Change::File { new: Some(_), .. });
            assert!(plan.steps.iter().any(|step| step.changes.iter().any(shown)));
            hides(&world, &plan);
            hides(&world, &world.files);
            hides(&world, &world.found);
            hides(&world, &world.cluster);
        }
    }
}
