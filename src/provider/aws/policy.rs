//! Tests of docs/iam-policy*.json against AWS's Service Authorization Reference. The part of it that they need
//! is in tests/data/iam-reference.json, which `scripts/iam-reference` writes.
//!
//! A condition key that a type of resource does not have never matches, and a type that no statement names is
//! denied. Without this test, either would show only in a real account.

use std::collections::BTreeMap;

use serde::Deserialize;

const POLICIES: [(&str, &str); 7] = [
    (
        "iam-policy-bucket.json",
        include_str!("../../../docs/iam-policy-bucket.json"),
    ),
    (
        "iam-policy-bucket-create.json",
        include_str!("../../../docs/iam-policy-bucket-create.json"),
    ),
    (
        "iam-policy-data-volume.json",
        include_str!("../../../docs/iam-policy-data-volume.json"),
    ),
    (
        "iam-policy-load-balancer.json",
        include_str!("../../../docs/iam-policy-load-balancer.json"),
    ),
    (
        "iam-policy.json",
        include_str!("../../../docs/iam-policy.json"),
    ),
    (
        "iam-policy-own-key.json",
        include_str!("../../../docs/iam-policy-own-key.json"),
    ),
    (
        "iam-policy-profile.json",
        include_str!("../../../docs/iam-policy-profile.json"),
    ),
];
const REFERENCE: &str = include_str!("../../../tests/data/iam-reference.json");

/// Types that these calls can name, and pgherd's calls do not.
const NEVER_NAMED: [(&str, &str, &[&str]); 4] = [
    (
        "ec2:ModifyInstanceAttribute",
        "pgherd changes what becomes of a volume, and no groups",
        &["security-group"],
    ),
    (
        "ec2:RunInstances",
        "pgherd launches plain on-demand instances of an image",
        &[
            "capacity-reservation",
            "elastic-gpu",
            "elastic-inference",
            "group",
            "launch-template",
            "license-configuration",
            "placement-group",
            "secondary-subnet",
            "snapshot",
        ],
    ),
    (
        "ec2:StartInstances",
        "Ubuntu's images have no licence to be counted",
        &["license-configuration"],
    ),
    (
        "ec2:AuthorizeSecurityGroupIngress",
        "a rule is a resource of the call only where it gets tags",
        &["security-group-rule"],
    ),
];

#[derive(Deserialize)]
struct Policy {
    #[serde(rename = "Statement")]
    statements: Vec<Statement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Statement {
    sid: String,
    action: Vec<String>,
    resource: serde_json::Value,
    #[serde(default)]
    condition: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct Call {
    /// Condition keys of the call itself, for every type of resource.
    keys: Vec<String>,
    types: BTreeMap<String, Type>,
}

#[derive(Deserialize)]
struct Type {
    required: bool,
    keys: Vec<String>,
}

impl Statement {
    fn resources(&self) -> Vec<&str> {
        match &self.resource {
            serde_json::Value::Array(all) => all.iter().filter_map(|it| it.as_str()).collect(),
            one => one.as_str().into_iter().collect(),
        }
    }

    /// For example, `instance` for `arn:*:ec2:*:*:instance/*`.
    fn types(&self) -> Vec<&str> {
        self.resources()
            .into_iter()
            .filter(|arn| *arn != "*")
            .map(|arn| {
                let parts: Vec<&str> = arn.splitn(6, ':').collect();
                match (parts[2], parts[5].split('/').next()) {
                    ("servicequotas", _) => "quota",
                    ("s3", _) if parts[5].contains('/') => "object",
                    ("s3", _) => "bucket",
                    ("elasticloadbalancing", Some("loadbalancer")) => "loadbalancer/net/",
                    ("elasticloadbalancing", Some("listener")) => "listener/net",
                    (_, kind) => kind.unwrap_or_default(),
                }
            })
            .collect()
    }

    fn keys(&self) -> impl Iterator<Item = &String> {
        self.condition.values().flat_map(BTreeMap::keys)
    }

    /// Where AWS would not understand the statement as it is meant.
    fn mistakes(&self, reference: &BTreeMap<String, Call>) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut wrong = |what: String| mistakes.push(format!("{}: {what}", self.sid));
        for arn in self.resources() {
            if arn != "*" && !arn.starts_with("arn:*:") {
                wrong(format!("{arn} is of one partition"));
            }
        }
        let types = self.types();
        for kind in &types {
            let has = |action: &String| reference[action].types.contains_key(*kind);
            if !self.action.iter().any(has) {
                wrong(format!("no call of it is about {kind}"));
            }
        }
        for action in &self.action {
            let call = &reference[action];
            let named = types
                .iter()
                .filter_map(|it| Some((it, call.types.get(*it)?)));
            if types.is_empty() != call.types.is_empty()
                || named.clone().count() == 0 && !types.is_empty()
            {
                wrong(format!("{action} is about {:?}", call.types.keys()));
            }
            for (kind, known) in named {
                let unknown =
                    |key: &&String| !(known.keys.contains(key) || call.keys.contains(key));
                for key in self.keys().filter(unknown) {
                    wrong(format!("{action} of {kind} has no {key}"));
                }
            }
        }
        mistakes
    }
}

#[test]
fn the_policies_say_what_aws_understands() {
    let reference: BTreeMap<String, Call> = serde_json::from_str(REFERENCE).unwrap();
    let mut mistakes = Vec::new();
    for (name, text) in POLICIES {
        let policy: Policy = serde_json::from_str(text).unwrap();
        let all = policy.statements.iter();
        mistakes.extend(all.clone().flat_map(|it| it.mistakes(&reference)));
        let actions = all.clone().flat_map(|it| &it.action);
        for action in actions {
            let of_action = all.clone().filter(|it| it.action.contains(action));
            let named: Vec<&str> = of_action.flat_map(Statement::types).collect();
            for (kind, known) in &reference[action].types {
                let exempt = NEVER_NAMED
                    .iter()
                    .any(|(call, _, types)| call == action && types.contains(&kind.as_str()));
                if !named.contains(&kind.as_str()) && (known.required || !exempt) {
                    mistakes.push(format!("{name}: {action} may not name any {kind}"));
                }
            }
        }
    }
    assert_eq!(mistakes, [""; 0]);
}

/// Tests the test, with mistakes that the policy once had.
#[test]
fn a_tag_that_a_type_does_not_have_is_found() {
    let reference: BTreeMap<String, Call> = serde_json::from_str(REFERENCE).unwrap();
    let statement = |action: &str, resource: &str, key: &str| Statement {
        sid: "S".into(),
        action: vec![action.into()],
        resource: resource.into(),
        condition: BTreeMap::from([(
            "StringLike".into(),
            BTreeMap::from([(key.into(), "*".into())]),
        )]),
    };
    let (request, own) = (
        "aws:RequestTag/pgherd:cluster",
        "aws:ResourceTag/pgherd:cluster",
    );
    for (action, resource, key, mistakes) in [
        ("ec2:RunInstances", "arn:*:ec2:*:*:instance/*", request, 0),
        ("ec2:RunInstances", "arn:*:ec2:*:*:key-pair/*", request, 1),
        ("ec2:RunInstances", "arn:aws:ec2:*:*:instance/*", request, 1),
        ("ec2:StopInstances", "arn:*:ec2:*:*:instance/*", own, 0),
        ("ec2:StopInstances", "*", own, 1),
        ("ec2:StopInstances", "arn:*:ec2:*:*:volume/*", own, 2),
        (
            "ec2:ModifyNetworkInterfaceAttribute",
            "arn:*:ec2:*:*:subnet/*",
            request,
            1,
        ),
    ] {
        let found = statement(action, resource, key).mistakes(&reference);
        assert_eq!(
            found.len(),
            mistakes,
            "{action} {resource} {key}: {found:?}"
        );
    }
}
