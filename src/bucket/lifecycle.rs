//! Rules of a bucket that remove or move what is in it, behind pgBackRest's back.

use super::xml::Element;

/// The classes from which nothing can be read at once.
const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// The rules that do something to current objects in `folder` (`pg/`), each in words.
///
/// Rules about older versions, delete markers and uploads that were given up do no harm.
pub(super) fn harmful(answer: &Element, folder: &str) -> Vec<String> {
    let rules = answer.all("Rule");
    let active = rules.filter(|rule| rule.text_of("Status") == Some("Enabled"));
    active
        .filter(|rule| concerns(rule, folder))
        .flat_map(harm)
        .collect()
}

/// Whether the rule is about objects in `folder`. pgBackRest gives its objects no tags.
fn concerns(rule: &Element, folder: &str) -> bool {
    let filter = rule.child("Filter");
    let both = filter.and_then(|it| it.child("And"));
    let parts = || [Some(rule), filter, both].into_iter().flatten();
    if parts().any(|it| it.child("Tag").is_some()) {
        return false;
    }
    let prefix = parts().find_map(|it| it.text_of("Prefix"));
    let prefix = prefix.unwrap_or_default();
    folder.starts_with(prefix) || prefix.starts_with(folder)
}

fn harm(rule: &Element) -> Vec<String> {
    let name = match rule.text_of("ID") {
        Some(id) if !id.is_empty() => format!("the rule `{id}`"),
        _ => "a rule without a name".to_owned(),
    };
    let mut found = Vec::new();
    if let Some(when) = rule.child("Expiration").and_then(when) {
        found.push(format!("{name} removes objects {when}"));
    }
    for transition in rule.all("Transition") {
        let class = transition.text_of("StorageClass").unwrap_or_default();
        if let Some(when) = when(transition).filter(|_| ARCHIVES.contains(&class)) {
            found.push(format!(
                "{name} moves objects to {class} {when}, where they cannot be read at once"
            ));
        }
    }
    found
}

fn when(action: &Element) -> Option<String> {
    match (action.text_of("Days"), action.text_of("Date")) {
        (Some("1"), _) => Some("after 1 day".into()),
        (Some(days), _) => Some(format!("after {days} days")),
        (None, Some(date)) => Some(format!("at {date}")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_backups_away_is_harmful() {
        const DAYS: &str = "<Expiration><Days>30</Days></Expiration>";
        const ON: &str = "<Status>Enabled</Status>";
        for (rule, harm) in [
            (
                format!("<ID>old</ID><Prefix></Prefix>{ON}{DAYS}"),
                "the rule `old` removes objects after 30 days",
            ),
            (
                format!("<Filter/>{ON}{DAYS}"),
                "a rule without a name removes objects after 30 days",
            ),
            (
                format!("<Filter><Prefix>pg/</Prefix></Filter>{ON}{DAYS}"),
                "a rule without a name removes objects after 30 days",
            ),
            (
                format!("<Filter><Prefix>pg/archive</Prefix></Filter>{ON}{DAYS}"),
                "a rule without a name removes objects after 30 days",
            ),
            (
                format!(
                    "<Filter><And><Prefix>p</Prefix><ObjectSizeGreaterThan>1</ObjectSizeGreaterThan></And></Filter>{ON}{DAYS}"
                ),
                "a rule without a name removes objects after 30 days",
            ),
            (
                format!("<ID>a</ID>{ON}<Expiration><Date>2030-01-01</Date></Expiration>"),
                "the rule `a` removes objects at 2030-01-01",
            ),
            (
                format!(
                    "<ID>a</ID>{ON}<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>"
                ),
                "the rule `a` moves objects to GLACIER after 1 day, where they cannot be read at once",
            ),
            // Of another cluster, whose name begins with the same letters.
            (
                format!("<Filter><Prefix>pg2/</Prefix></Filter>{ON}{DAYS}"),
                "",
            ),
            (
                format!("<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>{ON}{DAYS}"),
                "",
            ),
            (
                format!("<Filter><And><Prefix/><Tag/></And></Filter>{ON}{DAYS}"),
                "",
            ),
            (format!("<Status>Disabled</Status>{DAYS}"), ""),
            (
                format!(
                    "{ON}<NoncurrentVersionExpiration><NoncurrentDays>30</NoncurrentDays></NoncurrentVersionExpiration>"
                ),
                "",
            ),
            (
                format!(
                    "{ON}<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
                ),
                "",
            ),
            (
                format!(
                    "{ON}<Transition><Days>1</Days><StorageClass>STANDARD_IA</StorageClass></Transition>"
                ),
                "",
            ),
        ] {
            let text =
                format!("<LifecycleConfiguration><Rule>{rule}</Rule></LifecycleConfiguration>");
            let found = harmful(&Element::parse(&text).unwrap(), "pg/");
            assert_eq!(found.join("; "), harm, "{rule}");
        }
    }
}
