//! Checks that a member has the tags of its file. Tags decide which members may lead and serve clients.
//!
//! Patroni has other tags if it was not reloaded after a change of its file.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{configs::PatroniConfig, inventory::HostName, liberal};

/// The tags that Patroni itself uses.
const DECIDING: [&str; 6] = [
    "nofailover",
    "noloadbalance",
    "nosync",
    "nostream",
    "replicatefrom",
    "failover_priority",
];

/// `running` are the tags that the member reports. It leaves out those that are off.
pub(super) fn differences(
    patronis: Option<&PatroniConfig>,
    host: &HostName,
    running: &BTreeMap<String, Value>,
) -> Vec<String> {
    let Some(wanted) = patronis else {
        return Vec::new();
    };
    let said = |value: Option<&Value>| {
        let value = value?;
        let text = liberal::as_text(value).unwrap_or_else(|| value.to_string());
        (!matches!(text.as_str(), "false" | "" | "null")).then_some(text)
    };
    DECIDING
        .into_iter()
        .filter_map(|tag| {
            let (is, should) = (said(running.get(tag)), said(wanted.tag(tag)));
            (is != should).then(|| {
                let is = is.unwrap_or_else(|| "false".into());
                format!(
                    "its Patroni runs with the tag {tag}: {is}, which /etc/patroni.yml does not have; \
                     end it on {host}: sudo systemctl reload patroni"
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tag_that_only_the_process_has_is_told() {
        let host = HostName::new("node2");
        let file = "tags:\n  nofailover: false\n  noloadbalance: true\n  mine: 1\n";
        let told = |tags: Value| {
            let tags = serde_json::from_value(tags).unwrap();
            let file = PatroniConfig::parse(file);
            differences(file.as_ref(), &host, &tags)
        };
        assert!(told(json!({"noloadbalance": true, "other": 2})).is_empty());
        let both = told(json!({"nofailover": true}));
        assert_eq!(both.len(), 2, "{both:?}");
        assert!(both[0].contains("the tag nofailover: true"), "{both:?}");
        assert!(both[1].contains("the tag noloadbalance: false"), "{both:?}");
        let tags = BTreeMap::from([("nofailover".to_owned(), json!(true))]);
        assert!(differences(None, &host, &tags).is_empty());
    }
}
