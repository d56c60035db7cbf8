//! The host that becomes a prepared image, and one that is made from it.

use super::world::{ONE, World};
use crate::{
    inventory::HostName,
    plan::{self, Action, Change, Plan},
};

fn names(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.name).collect()
}

#[test]
fn an_image_gets_packages_and_the_venv_and_no_file_that_tells_of_a_cluster() {
    let world = World::bare(ONE);
    let plan = plan::image(&world.cluster, &world.files, &world.found).unwrap();
    assert_eq!(
        names(&plan),
        [
            "prepare",
            "install-python",
            "install-packages",
            "install-patroni"
        ]
    );
    let files: Vec<&str> = plan.steps[0]
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::File { path, .. } => Some(path.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(
        files,
        [
            "/etc/apt/apt.conf.d/90pgherd",
            "/etc/needrestart/conf.d/pgherd.conf",
            "/etc/postgresql-common/createcluster.d/pgherd.conf",
            "/etc/pgherd/patroni-requirements.txt",
        ]
    );
}

#[test]
fn what_was_put_there_for_the_packages_goes_again() {
    let world = World::bare(ONE);
    let clean = plan::clean_for_image(&world.cluster, &world.files, &world.found);
    assert_eq!(names(&clean), ["clean-for-image"]);
    let Action::Run(script) = &clean.steps[0].action else {
        unreachable!()
    };
    for gone in [
        "/etc/apt/apt.conf.d/90pgherd",
        "rm -rf /etc/pgherd /var/lib/pgherd",
        "UNITS='patroni etcd haproxy",
        ": >/etc/machine-id",
        "/etc/ssh/ssh_host_*",
    ] {
        assert!(script.contains(gone), "{gone}");
    }
    // A folder that also holds files of others is no folder of pgherd's.
    for stays in [" /etc ", "'/etc ", " /etc/apt "] {
        assert!(!script.contains(stays), "{stays}");
    }
}

#[test]
fn a_host_of_a_prepared_image_installs_nothing() {
    let mut world = World::bare(ONE);
    let name = HostName::new("all");
    let node = &world.cluster.nodes[&name];
    let facts = world.found.facts.get_mut(&name).unwrap();
    plan::prepare_facts(&world.cluster, node, &world.files[&name], facts);
    let steps = names(&world.plan()).join(" ");
    assert!(steps.starts_with("prepare configure-"), "{steps}");
    assert!(!steps.contains("install"), "{steps}");
}
