//! The keys of the contract, and the nearest of them to a mistyped one.

/// The top level's own name in [`SECTIONS`].
const TOP: &str = "";

/// Every key by the section it belongs to, as `schema` has them.
pub(super) const SECTIONS: [(&str, &[&str]); 12] = [
    (
        TOP,
        &[
            "cluster",
            "provider",
            "ssh",
            "postgresql",
            "patroni",
            "etcd",
            "haproxy",
            "tls",
            "secrets",
            "ca_bundle",
            "hosts",
        ],
    ),
    (
        "provider",
        &[
            "kind",
            "image",
            "subnet",
            "region",
            "profile",
            "endpoint_url",
            "instance_type",
            "volume_gb",
            "iops",
            "subnet_id",
            "subnet_ids",
            "connect",
            "operator_cidrs",
            "tags",
        ],
    ),
    ("ssh", &["user", "port", "identity_file", "connect_timeout"]),
    (
        "postgresql",
        &[
            "version",
            "source",
            "port",
            "data_dir",
            "allow",
            "parameters",
            "users",
            "databases",
        ],
    ),
    ("postgresql.users.<name>", &["roles"]),
    ("postgresql.databases.<name>", &["owner"]),
    (
        "patroni",
        &[
            "source",
            "ttl",
            "loop_wait",
            "retry_timeout",
            "maximum_lag_on_failover",
            "synchronous",
            "failsafe",
        ],
    ),
    ("etcd", &["api"]),
    (
        "haproxy",
        &[
            "write_port",
            "read_port",
            "stats_port",
            "connections_per_source",
        ],
    ),
    ("tls", &["enabled"]),
    ("secrets", &["file"]),
    (
        "hosts.<name>",
        &[
            "roles",
            "address",
            "zone",
            "instance_type",
            "volume_gb",
            "iops",
        ],
    ),
];

/// What each kind of provider takes beside `kind`.
pub(super) const PROVIDERS: [(&str, &[&str]); 3] = [
    ("docker", &["image", "subnet"]),
    (
        "aws",
        &[
            "region",
            "profile",
            "endpoint_url",
            "instance_type",
            "volume_gb",
            "iops",
            "image",
            "subnet_id",
            "subnet_ids",
            "connect",
            "operator_cidrs",
            "tags",
        ],
    ),
    ("existing", &[]),
];

/// The keys that a kind of provider takes beside `kind`.
pub(super) fn of_provider(kind: &str) -> &'static [&'static str] {
    PROVIDERS
        .iter()
        .find(|(name, _)| *name == kind)
        .map_or(&[], |(_, keys)| keys)
}

/// The sections that have `key`.
pub(super) fn sections_with(key: &str) -> impl Iterator<Item = &'static str> {
    SECTIONS
        .iter()
        .filter(move |(section, keys)| *section != TOP && keys.contains(&key))
        .map(|(section, _)| *section)
}

/// Words that people bring along from elsewhere, and no count of typing mistakes leads from one to
/// the other.
const SYNONYMS: [(&str, &str); 9] = [
    ("addr", "address"),
    ("balancer", "haproxy"),
    ("database", "postgres"),
    ("db", "postgres"),
    ("dcs", "etcd"),
    ("ec2", "aws"),
    ("ip", "address"),
    ("pg", "postgres"),
    ("role", "roles"),
];

/// The candidate that `word` was most likely meant to be, if any is close.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    // One slip in a short word, more in a long one; further away is guessing.
    let tolerance = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let distance = strsim::damerau_levenshtein(&word, candidate);
            let begins =
                word.len() >= 3 && (candidate.starts_with(&word) || word.starts_with(candidate));
            let synonym = SYNONYMS.contains(&(word.as_str(), candidate));
            (distance <= tolerance || begins || synonym).then_some((distance, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [&str; 3] = ["postgres", "etcd", "haproxy"];

    #[test]
    fn a_slip_finds_its_word() {
        for (slip, word) in [
            ("postgre", "postgres"),
            ("postgresql", "postgres"),
            ("Postgres", "postgres"),
            ("postrges", "postgres"),
            ("ectd", "etcd"),
            ("ha-proxy", "haproxy"),
            ("db", "postgres"),
        ] {
            assert_eq!(nearest(slip, ROLES), Some(word), "{slip}");
        }
    }

    #[test]
    fn a_word_far_from_all_finds_none() {
        for word in ["", "x", "redis", "loadbalancer", "日本語"] {
            assert_eq!(nearest(word, ROLES), None, "{word}");
        }
    }

    #[test]
    fn a_key_knows_its_sections() {
        let of = |key| sections_with(key).collect::<Vec<_>>();
        assert_eq!(of("write_port"), ["haproxy"]);
        assert_eq!(of("port"), ["ssh", "postgresql"]);
        assert_eq!(of("cluster"), Vec::<&str>::new());
    }

    #[test]
    fn each_key_of_a_provider_is_one_of_the_section() {
        let (_, all) = SECTIONS[1];
        for (kind, keys) in PROVIDERS {
            assert!(keys.iter().all(|key| all.contains(key)), "{kind}");
        }
    }
}
