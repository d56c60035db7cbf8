//! How much of the account's quota of vCPUs an instance uses.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{Instance, Tenancy};

/// How many vCPUs of the standard quota a running instance uses, as far as EC2 reports it.
pub(super) fn counted(instance: &Instance) -> i32 {
    match counts(instance) {
        true => vcpus(instance, &BTreeMap::new()),
        false => 0,
    }
}

/// Spot instances have a quota of their own, and those of dedicated hosts have none.
pub(super) fn counts(instance: &Instance) -> bool {
    let on_own_host = instance.placement().and_then(|it| it.tenancy()) == Some(&Tenancy::Host);
    let kind = instance.instance_type().map_or("", |it| it.as_str());
    instance.instance_lifecycle().is_none() && !on_own_host && is_standard(kind)
}

pub(super) fn vcpus(instance: &Instance, kinds: &BTreeMap<&str, i32>) -> i32 {
    let options = instance.cpu_options();
    let counted = options.and_then(|it| Some(it.core_count()? * it.threads_per_core()?));
    let kind = instance.instance_type().map_or("", |it| it.as_str());
    counted.or(kinds.get(kind).copied()).unwrap_or_default()
}

/// Whether a type belongs to the families of the standard quota.
pub(super) fn is_standard(instance_type: &str) -> bool {
    let family = instance_type
        .split(|c: char| !c.is_ascii_lowercase())
        .next();
    matches!(
        family,
        Some("a" | "c" | "d" | "h" | "i" | "im" | "is" | "m" | "r" | "t" | "z")
    )
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{CpuOptions, InstanceLifecycleType, InstanceType, Placement};

    use super::*;

    #[test]
    fn families_of_other_quotas_are_not_counted() {
        for kind in [
            "t2.medium",
            "t3.medium",
            "c7i-flex.large",
            "m6g.large",
            "im4gn.large",
        ] {
            assert!(is_standard(kind), "{kind}");
        }
        for kind in [
            "g5.xlarge",
            "mac2.metal",
            "inf2.xlarge",
            "hpc7g.4xlarge",
            "u7i-12tb.224xlarge",
            "x2gd.large",
        ] {
            assert!(!is_standard(kind), "{kind}");
        }
    }

    #[test]
    fn an_instance_counts_with_the_vcpus_that_it_was_given() {
        let one = || Instance::builder().instance_type(InstanceType::from("m5.large"));
        let options = |cores| {
            CpuOptions::builder()
                .core_count(cores)
                .threads_per_core(2)
                .build()
        };
        let kinds = BTreeMap::from([("m5.large", 2)]);
        assert_eq!(vcpus(&one().build(), &kinds), 2);
        assert_eq!(vcpus(&one().cpu_options(options(4)).build(), &kinds), 8);
        assert_eq!(vcpus(&one().build(), &BTreeMap::new()), 0);
        assert!(counts(&one().build()));
        assert!(!counts(
            &one()
                .instance_lifecycle(InstanceLifecycleType::Spot)
                .build()
        ));
        let host = Placement::builder().tenancy(Tenancy::Host).build();
        assert!(!counts(&one().placement(host).build()));
    }
}
