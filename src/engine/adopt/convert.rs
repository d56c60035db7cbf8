//! Patroni's config as it is until the first `up`: what somebody wrote, with etcd's API of version 3, pgherd's namespace, and a
//! REST interface that pgherd reaches from the host itself.

use crate::{configs::PatroniConfig, contract::PATRONI_PORT, secret::Content};

/// The namespace of pgherd's clusters in etcd.
pub(super) const NAMESPACE: &str = "/db/";

/// The config with these changes, and nothing else changed; `None` if its layout does not allow that.
pub(super) fn converted(text: &str) -> Option<Content> {
    let before = PatroniConfig::parse(text)?;
    let listen = format!("0.0.0.0:{PATRONI_PORT}");
    let mut lines: Vec<String> = Vec::new();
    let mut section = "";
    let has_namespace = !before.value(&["namespace"]).is_null();
    for line in text.lines() {
        let top = !line.starts_with([' ', '\t', '#', '-']) && line.contains(':');
        if top {
            section = line.split(':').next().unwrap_or_default().trim();
        }
        let key = line.trim_start();
        let indent = &line[..line.len() - key.len()];
        lines.push(match (section, top) {
            ("etcd", true) => line.replacen("etcd", "etcd3", 1),
            ("namespace", true) => format!("namespace: {NAMESPACE}"),
            ("restapi", false) if key.starts_with("listen:") => {
                format!("{indent}listen: \"{listen}\"")
            }
            _ => line.to_owned(),
        });
        if section == "scope" && top && !has_namespace {
            lines.push(format!("namespace: {NAMESPACE}"));
        }
    }
    let new = format!("{}\n", lines.join("\n"));
    let after = PatroniConfig::parse(&new)?;
    let changed = ["etcd", "etcd3", "namespace", "restapi"];
    let etcd = match before.value(&["etcd3"]).is_null() {
        true => before.value(&["etcd"]),
        false => before.value(&["etcd3"]),
    };
    let same_rest = before.keys(&["restapi"]).iter().all(|key| {
        *key == "listen" || before.value(&["restapi", *key]) == after.value(&["restapi", *key])
    });
    let right = before.is_same_but(&after, &changed)
        && !etcd.is_null()
        && after.value(&["etcd3"]) == etcd
        && after.value(&["etcd"]).is_null()
        && after.value(&["namespace"]) == NAMESPACE
        && after.value(&["restapi", "listen"]) == listen.as_str()
        && same_rest;
    right.then(|| new.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUTORIAL: &str = "scope: postgres\nnamespace: /service/\nname: node1\nrestapi:\n  listen: 192.0.2.1:8008\n  \
        connect_address: 192.0.2.1:8008\netcd:\n  host: 192.0.2.4:2379\npostgresql:\n   listen: 192.0.2.1:5432\n";

    #[test]
    fn only_the_way_to_etcd_and_the_interface_change() {
        let new = converted(TUTORIAL).unwrap();
        assert_eq!(
            new.as_str(),
            TUTORIAL
                .replace("/service/", "/db/")
                .replace("etcd:", "etcd3:")
                .replacen("listen: 192.0.2.1:8008", "listen: \"0.0.0.0:8008\"", 1)
        );
        assert_eq!(converted(&new).unwrap(), new, "it can be done again");
        let none = converted(&TUTORIAL.replace("namespace: /service/\n", "")).unwrap();
        assert!(
            none.contains("scope: postgres\nnamespace: /db/\n"),
            "{}",
            none.as_str()
        );
    }

    #[test]
    fn a_layout_that_cannot_be_edited_line_by_line_is_left_alone() {
        for text in [
            TUTORIAL.replace("etcd:\n  host: 192.0.2.4:2379", "consul:\n  host: a"),
            TUTORIAL.replace(
                "restapi:\n  listen: 192.0.2.1:8008\n  connect_address: 192.0.2.1:8008",
                "restapi: {listen: '192.0.2.1:8008'}",
            ),
            "a: [\n".to_owned(),
        ] {
            assert!(converted(&text).is_none(), "{text}");
        }
    }
}
