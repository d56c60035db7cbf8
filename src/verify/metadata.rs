//! Checks that only root can talk to EC2's metadata service, which shows the user data with the host's first
//! key. Where pgBackRest has an instance profile in place of an access key, postgres can too.

use std::collections::BTreeMap;

use super::{Check, Settles};
use crate::{
    cluster::Cluster,
    facts::{Facts, METADATA_GUARD, MetadataException, MetadataGuard},
    inventory::HostName,
    services::When,
};

const NAME: &str = "metadata";

/// `None` for hosts that pgherd did not launch on EC2.
pub(super) fn check(cluster: &Cluster, facts: &BTreeMap<HostName, Facts>) -> Option<Check> {
    if !cluster.wants(When::Ec2) {
        return None;
    }
    let wrong = facts.iter().filter_map(|(host, facts)| {
        let what = match facts.metadata_guard {
            MetadataGuard::Absent => {
                "every user can ask for its user data, which contain its first key"
            }
            MetadataGuard::Fragile => {
                "the rule that guards its user data is gone when networkd restarts"
            }
            MetadataGuard::Holds if !is_exception_right(cluster, host, facts) => {
                match cluster.inventory.profile_of(host) {
                    Some(_) => "pgBackRest cannot ask for the credentials of its instance profile",
                    None => "a user other than root can ask for its user data",
                }
            }
            MetadataGuard::Holds if !facts.unit(METADATA_GUARD).is_enabled() => {
                "the unit that guards its user data does not start at boot"
            }
            MetadataGuard::Holds => return None,
        };
        Some(format!("{host}: {what}"))
    });
    let wrong: Vec<String> = wrong.collect();
    let wrong = match wrong.is_empty() {
        true => wrong,
        false => vec![format!("{}; `up` repairs it", wrong.join("; "))],
    };
    let mut right = "only root can ask for a host's user data".to_owned();
    let mut exceptions = facts.keys();
    if let Some(host) = exceptions.find(|it| cluster.inventory.profile_of(it).is_some()) {
        right.push_str(&format!(
            "; on {host} postgres can too, for pgBackRest's credentials"
        ));
    }
    Some(Check::of(NAME, wrong, right).settles(Settles::Never))
}

fn is_exception_right(cluster: &Cluster, host: &HostName, facts: &Facts) -> bool {
    let wanted = match cluster.inventory.profile_of(host) {
        Some(_) => MetadataException::Postgres,
        None => MetadataException::Nobody,
    };
    facts.metadata_exception == wanted
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        facts::UnitFact,
        inventory::Inventory,
        plan::tests::world::{ONE, World},
    };

    #[test]
    fn only_what_holds_after_a_restart_and_a_boot_passes() {
        let mut cluster = World::settled(ONE).cluster;
        let of = |guard, enabled: &str| {
            let mut facts = Facts {
                metadata_guard: guard,
                ..Facts::default()
            };
            let unit = UnitFact {
                enabled: enabled.into(),
                ..UnitFact::default()
            };
            facts.units.insert(METADATA_GUARD.into(), unit);
            BTreeMap::from([(HostName::new("node1"), facts)])
        };
        let holds = of(MetadataGuard::Holds, "enabled");
        assert_eq!(check(&cluster, &holds), None, "not on EC2");
        let text = "cluster: pg\nprovider: { kind: aws, region: eu-central-1 }\nhosts:\n  \
                    a: { roles: [postgres, etcd, haproxy] }\n";
        let inventory = Inventory::parse(Path::new("pgherd.yaml"), text).unwrap();
        cluster.inventory.provider = inventory.provider;
        assert!(check(&cluster, &holds).unwrap().passed);
        for (facts, said) in [
            (of(MetadataGuard::Absent, "enabled"), "every user"),
            (of(MetadataGuard::Fragile, "enabled"), "networkd"),
            (of(MetadataGuard::Holds, "disabled"), "at boot"),
        ] {
            let check = check(&cluster, &facts).unwrap();
            assert!(!check.passed && check.detail.contains(said), "{check:?}");
        }
    }

    #[test]
    fn postgres_is_let_through_where_pgbackrest_has_a_profile_and_nowhere_else() {
        let mut cluster = World::settled(ONE).cluster;
        let text = "cluster: pg\nprovider: { kind: aws, region: eu-central-1 }\n\
                    backup: { s3: { bucket: backups, region: eu-central-1, profile: backups } }\nhosts:\n  \
                    all: { roles: [postgres, etcd, haproxy] }\n  keeper: { roles: [backup] }\n";
        cluster.inventory = Inventory::parse(Path::new("pgherd.yaml"), text).unwrap();
        let of = |host: &str, exception| {
            let mut facts = Facts {
                metadata_guard: MetadataGuard::Holds,
                metadata_exception: exception,
                ..Facts::default()
            };
            let unit = UnitFact {
                enabled: "enabled".into(),
                ..UnitFact::default()
            };
            facts.units.insert(METADATA_GUARD.into(), unit);
            (HostName::new(host), facts)
        };
        for (all, keeper, wrong) in [
            (MetadataException::Nobody, MetadataException::Postgres, ""),
            (
                MetadataException::Nobody,
                MetadataException::Nobody,
                "keeper: pgBackRest cannot ask",
            ),
            (
                MetadataException::Nobody,
                MetadataException::Other,
                "keeper: pgBackRest cannot ask",
            ),
            (
                MetadataException::Postgres,
                MetadataException::Postgres,
                "all: a user other than root",
            ),
        ] {
            let facts = BTreeMap::from([of("all", all), of("keeper", keeper)]);
            let check = check(&cluster, &facts).unwrap();
            assert_eq!(check.passed, wrong.is_empty(), "{check:?}");
            let said = if wrong.is_empty() {
                "on keeper postgres can too"
            } else {
                wrong
            };
            assert!(check.detail.contains(said), "{check:?}");
        }
    }
}
