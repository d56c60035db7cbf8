//! The keys of the inventory, and the nearest one to a mistyped key.

use std::sync::LazyLock;

use serde_json::Value;

use super::{ProviderKind, json};

/// A section of the inventory, from `schema`.
pub(super) struct Section {
    /// A path such as `postgresql.users.<name>`; empty for the top level.
    pub(super) path: String,
    pub(super) keys: Vec<Key>,
}

pub(super) struct Key {
    pub(super) name: String,
    /// The kinds of provider that accept it.
    pub(super) kinds: Vec<ProviderKind>,
}

/// The top level's path.
pub(super) const TOP: &str = "";
pub(super) const PROVIDER: &str = "provider";
pub(super) const HOST: &str = "hosts.<name>";

/// All sections with keys of their own.
pub(super) static SECTIONS: LazyLock<Vec<Section>> = LazyLock::new(|| {
    let mut sections = Vec::new();
    collect(TOP, &json::keys(), &mut sections);
    sections
});

fn collect(path: &str, schema: &Value, sections: &mut Vec<Section>) {
    let below = |name: &str| match path {
        TOP => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    if let Some(each) = schema
        .get("additionalProperties")
        .filter(|it| it.is_object())
    {
        collect(&below("<name>"), each, sections);
    }
    // The names of PostgreSQL's parameters are PostgreSQL's, not keys of this contract.
    let own = schema.get("patternProperties").is_none();
    let keys = schema.get("properties").filter(|_| own);
    let Some(keys) = keys.and_then(Value::as_object) else {
        return;
    };
    sections.push(Section {
        path: path.to_owned(),
        keys: keys
            .iter()
            .map(|(name, key)| Key {
                name: name.clone(),
                kinds: json::kinds(key),
            })
            .collect(),
    });
    for (name, key) in keys {
        collect(&below(name), key, sections);
    }
}

/// The keys of a section that a kind of provider accepts.
pub(super) fn of_kind(path: &str, kind: ProviderKind) -> Vec<&'static str> {
    let section = SECTIONS.iter().filter(|section| section.path == path);
    section
        .flat_map(|section| &section.keys)
        .filter(|key| key.kinds.contains(&kind))
        .map(|key| key.name.as_str())
        .collect()
}

/// The sections that have `key`.
pub(super) fn sections_with(key: &str) -> impl Iterator<Item = &'static str> {
    SECTIONS
        .iter()
        .filter(move |section| section.path != TOP && section.keys.iter().any(|it| it.name == key))
        .map(|section| section.path.as_str())
}

/// Words that users know from elsewhere, and that are not near any key by spelling.
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

/// The candidate that `word` was probably meant to be, if one is similar.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    // One typing mistake in a short word, more in a long one. With more differences, it would be guessing.
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
        assert_eq!(of("port"), ["ssh", "postgresql", "pgbouncer"]);
        assert_eq!(of("cluster"), Vec::<&str>::new());
    }

    #[test]
    fn a_kind_has_its_own_keys() {
        let of = |kind| of_kind(PROVIDER, kind);
        assert_eq!(of(ProviderKind::Docker), ["kind", "image", "subnet"]);
        assert_eq!(of(ProviderKind::Existing), ["kind"]);
        assert_eq!(of_kind(HOST, ProviderKind::Existing), ["roles", "address"]);
        assert!(of_kind(HOST, ProviderKind::Aws).contains(&"zone"));
    }

    /// Serde's view of a section and the schema's are the same.
    #[test]
    fn the_sections_are_those_that_are_read() {
        let of = |path: &str| {
            let found = SECTIONS.iter().find(|section| section.path == path);
            let found = found.unwrap_or_else(|| panic!("no section `{path}`"));
            found
                .keys
                .iter()
                .map(|key| key.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(TOP).len(), 15);
        assert_eq!(of("postgresql.users.<name>"), ["roles"]);
        assert_eq!(of("postgresql.databases.<name>"), ["owner"]);
        assert_eq!(of("tls"), ["enabled"]);
        assert_eq!(SECTIONS.len(), 17);
    }
}
