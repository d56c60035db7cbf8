//! What AWS's own models say about a call: names, types, enums, lengths, patterns and required parameters.
//!
//! The models are botocore's. tests/data/aws-models.json has those of the calls that pgherd makes;
//! `scripts/aws-models` writes it. A moto server accepts much that AWS refuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

pub(crate) const MODELS: &str = include_str!("../data/aws-models.json");

#[derive(Deserialize)]
pub(crate) struct Models {
    /// The shape of each call's parameters.
    pub(crate) operations: BTreeMap<String, String>,
    /// The names that a call's filters can have.
    filters: BTreeMap<String, BTreeSet<String>>,
    shapes: BTreeMap<String, Shape>,
}

#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    members: BTreeMap<String, Member>,
    #[serde(default)]
    required: Vec<String>,
    /// The shape of a list's items.
    member: Option<String>,
    #[serde(rename = "enum")]
    values: Option<BTreeSet<String>>,
    min: Option<f64>,
    max: Option<f64>,
    pattern: Option<String>,
}

#[derive(Deserialize)]
struct Member {
    shape: String,
    /// In characters. Only for parameters whose limit is in EC2's documentation and not in its model.
    max: Option<usize>,
}

pub(crate) static KNOWN: LazyLock<Models> = LazyLock::new(|| serde_json::from_str(MODELS).unwrap());

/// A call's parameters, whatever their encoding.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Node {
    pub(crate) text: Option<String>,
    pub(crate) inner: BTreeMap<String, Node>,
}

impl Node {
    /// From a query such as `Filter.1.Name=vpc-id&Filter.1.Value.1=vpc-1`.
    pub(crate) fn of_query(body: &str) -> Self {
        let mut root = Self::default();
        for (key, value) in body.split('&').filter_map(|it| it.split_once('=')) {
            if key == "Action" || key == "Version" {
                continue;
            }
            let mut node = &mut root;
            // Some protocols have this word between a list and the number of an item.
            let path = decoded(key);
            for word in path.split('.').filter(|word| *word != "member") {
                node = node.inner.entry(word.to_owned()).or_default();
            }
            node.text = Some(decoded(value));
        }
        root
    }

    fn of_json(value: &Value) -> Self {
        let inner = match value {
            Value::Object(all) => all
                .iter()
                .map(|(key, it)| (key.clone(), Self::of_json(it)))
                .collect(),
            Value::Array(all) => (1..)
                .zip(all)
                .map(|(n, it): (usize, _)| (n.to_string(), Self::of_json(it)))
                .collect(),
            _ => BTreeMap::new(),
        };
        let text = match value {
            Value::Object(_) | Value::Array(_) => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        Self { text, inner }
    }

    pub(crate) fn get(&self, path: &str) -> Option<&str> {
        let mut node = self;
        for word in path.split('.') {
            node = node.inner.get(word)?;
        }
        node.text.as_deref()
    }

    /// The items of a list, in order.
    pub(crate) fn items(&self, name: &str) -> Vec<&Self> {
        let list = self.inner.get(name);
        let at = |n: usize| list?.inner.get(&n.to_string());
        (1..).map_while(at).collect()
    }
}

/// Decodes `+` and `%2F`.
pub(crate) fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&hex, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What AWS would refuse about a call: the parameter and the reason.
pub(crate) fn mistakes(action: &str, body: &str) -> Vec<String> {
    let parameters = match serde_json::from_str(body) {
        Ok(json) => Node::of_json(&json),
        Err(_) => Node::of_query(body),
    };
    let Some(shape) = KNOWN.operations.get(action) else {
        return vec![format!(
            "{action}: tests/data/aws-models.json does not have it: name it in docs/iam-policy.json and run scripts/aws-models"
        )];
    };
    let mut found = Vec::new();
    check(&parameters, shape, "", &mut found);
    if action.starts_with("ec2:") {
        found.extend(wrong_filters(action, &parameters));
        found.extend(wrong_tags(&parameters));
        found.extend(in_words_only(action, &parameters));
    }
    found.iter().map(|it| format!("{action}: {it}")).collect()
}

fn joined(path: &str, word: &str) -> String {
    match path {
        "" => word.to_owned(),
        _ => format!("{path}.{word}"),
    }
}

fn check(node: &Node, shape: &str, path: &str, found: &mut Vec<String>) {
    let shape = &KNOWN.shapes[shape];
    match shape.kind.as_str() {
        "structure" => check_structure(node, shape, path, found),
        "list" => check_list(node, shape, path, found),
        _ => match &node.text {
            Some(text) if node.inner.is_empty() => {
                found.extend(wrong_text(text, shape).map(|why| format!("{path} {why}")));
            }
            _ => found.push(format!("{path} is to be one value, a {}", shape.kind)),
        },
    }
}

fn check_structure(node: &Node, shape: &Shape, path: &str, found: &mut Vec<String>) {
    if node.text.is_some() {
        found.push(format!("{path} is to have members"));
    }
    for (name, inner) in &node.inner {
        let path = joined(path, name);
        let Some(member) = shape.members.get(name) else {
            found.push(format!("{path} is not a parameter"));
            continue;
        };
        check(inner, &member.shape, &path, found);
        if let (Some(max), Some(text)) = (member.max, &inner.text)
            && text.chars().count() > max
        {
            found.push(format!("{path} is longer than {max} characters: {text}"));
        }
    }
    let missing = shape
        .required
        .iter()
        .filter(|it| !node.inner.contains_key(*it));
    found.extend(missing.map(|it| format!("{} is missing", joined(path, it))));
}

fn check_list(node: &Node, shape: &Shape, path: &str, found: &mut Vec<String>) {
    if node.text.is_some() {
        found.push(format!("{path} is to be a list"));
    }
    let count = node.inner.len();
    let too_few = shape.min.is_some_and(|min| (count as f64) < min);
    let too_many = shape.max.is_some_and(|max| (count as f64) > max);
    if too_few || too_many {
        found.push(format!("{path} has {count} items"));
    }
    let item = shape.member.as_deref().unwrap();
    for (number, inner) in &node.inner {
        let path = joined(path, number);
        match number.parse::<usize>() {
            Ok(n) if (1..=count).contains(&n) => check(inner, item, &path, found),
            _ => found.push(format!("{path} is not the number of an item")),
        }
    }
}

/// Why a value does not have its type.
fn wrong_text(text: &str, shape: &Shape) -> Option<String> {
    let within = |number: f64| {
        shape.min.is_none_or(|min| number >= min) && shape.max.is_none_or(|max| number <= max)
    };
    let kind = shape.kind.as_str();
    let fits = match kind {
        "boolean" => matches!(text, "true" | "false"),
        "integer" => text.parse::<i32>().is_ok_and(|it| within(it.into())),
        "long" => text.parse::<i64>().is_ok(),
        "float" | "double" => text.parse::<f64>().is_ok_and(within),
        "blob" => BASE64_STANDARD.decode(text).is_ok(),
        "timestamp" => text.parse::<jiff::Timestamp>().is_ok(),
        _ => true,
    };
    if !fits {
        return Some(format!("is no {kind}, or not within its bounds: {text}"));
    }
    if kind != "string" {
        return None;
    }
    if shape
        .values
        .as_ref()
        .is_some_and(|them| !them.contains(text))
    {
        return Some(format!("is none of the values that it can have: {text}"));
    }
    if !within(text.chars().count() as f64) {
        return Some(format!("is too long or too short: {text}"));
    }
    let pattern = shape.pattern.as_ref()?;
    let pattern = Regex::new(&format!("^(?:{pattern})$")).unwrap();
    (!pattern.is_match(text)).then(|| format!("is not of the form {pattern}: {text}"))
}

/// EC2 refuses an unknown filter; moto only reports that it has not implemented it.
fn wrong_filters(action: &str, parameters: &Node) -> Vec<String> {
    let filters = parameters.items("Filter");
    let known = KNOWN.filters.get(action);
    let mut found = Vec::new();
    for filter in &filters {
        let name = filter.get("Name").unwrap_or_default();
        let is_known = name.strip_prefix("tag:").map_or_else(
            || known.is_some_and(|it| it.contains(name)),
            |key| !key.is_empty(),
        );
        if !is_known {
            found.push(format!("there is no filter {name:?}"));
        }
        if filter.items("Value").is_empty() {
            found.push(format!("the filter {name:?} has no value"));
        }
    }
    let values: usize = filters.iter().map(|it| it.items("Value").len()).sum();
    if values > 200 {
        found.push(format!("{values} filter values are more than 200"));
    }
    found
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions>
fn wrong_tags(parameters: &Node) -> Vec<String> {
    let mut found = Vec::new();
    let mut kinds = BTreeSet::new();
    for specification in parameters.items("TagSpecification") {
        let kind = specification.get("ResourceType").unwrap_or_default();
        if !kinds.insert(kind) {
            found.push(format!("tags of {kind} are given twice"));
        }
        found.extend(wrong_keys(&specification.items("Tag")));
    }
    found.extend(wrong_keys(&parameters.items("Tag")));
    found
}

fn wrong_keys(tags: &[&Node]) -> Vec<String> {
    let mut found = Vec::new();
    let mut keys = BTreeSet::new();
    for tag in tags {
        let key = tag.get("Key").unwrap_or_default();
        if key.is_empty() || key.to_lowercase().starts_with("aws:") {
            found.push(format!("a tag may not be called {key:?}"));
        }
        if !keys.insert(key) {
            found.push(format!("the tag {key} is there twice"));
        }
    }
    if tags.len() > 50 {
        found.push(format!("{} tags are more than 50", tags.len()));
    }
    found
}

/// EC2's model requires none of these parameters, but one of them must be there.
const ONE_OF: [(&str, &[&str]); 6] = [
    ("ec2:AuthorizeSecurityGroupIngress", &["GroupId"]),
    ("ec2:DeleteKeyPair", &["KeyName", "KeyPairId"]),
    ("ec2:DeleteSecurityGroup", &["GroupId"]),
    ("ec2:ImportKeyPair", &["PublicKeyMaterial"]),
    ("ec2:RevokeSecurityGroupIngress", &["GroupId"]),
    ("ec2:RunInstances", &["ImageId", "LaunchTemplate"]),
];

/// The types of resources that a creating call can tag.
const TAGGED: [(&str, &[&str]); 3] = [
    ("ec2:CreateSecurityGroup", &["security-group"]),
    ("ec2:ImportKeyPair", &["key-pair"]),
    (
        "ec2:RunInstances",
        &[
            "instance",
            "network-interface",
            "spot-instances-request",
            "volume",
        ],
    ),
];

/// Rules that only the text of the API's reference has
/// (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Welcome.html>).
fn in_words_only(action: &str, parameters: &Node) -> Vec<String> {
    let mut found = Vec::new();
    let of_action = |table: &[(&str, &'static [&'static str])]| {
        table.iter().find(|(it, _)| *it == action).map(|it| it.1)
    };
    if let Some(names) = of_action(&ONE_OF)
        && !names.iter().any(|it| parameters.inner.contains_key(*it))
    {
        found.push(format!("none of {} is there", names.join(", ")));
    }
    if let Some(kinds) = of_action(&TAGGED) {
        for specification in parameters.items("TagSpecification") {
            let kind = specification.get("ResourceType").unwrap_or_default();
            if !kinds.contains(&kind) {
                found.push(format!("it gives no tags to a {kind}"));
            }
        }
    }
    if action == "ec2:DescribeInstances"
        && let Some(most) = parameters.get("MaxResults")
    {
        if !most.parse().is_ok_and(|it| (5..=1000).contains(&it)) {
            found.push(format!("MaxResults is not from 5 to 1000: {most}"));
        }
        if parameters.inner.contains_key("InstanceId") {
            found.push("MaxResults does not go with InstanceId".into());
        }
    }
    if action == "ec2:RunInstances" {
        found.extend(wrong_launch(parameters));
    }
    found
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html>
fn wrong_launch(parameters: &Node) -> Vec<String> {
    let mut found = Vec::new();
    let interfaces = parameters.items("NetworkInterface");
    for name in [
        "SecurityGroup",
        "SecurityGroupId",
        "SubnetId",
        "PrivateIpAddress",
    ] {
        if !interfaces.is_empty() && parameters.inner.contains_key(name) {
            found.push(format!("{name} belongs to the network interface"));
        }
    }
    let public = |it: &&Node| it.inner.contains_key("AssociatePublicIpAddress");
    if interfaces.len() > 1 && interfaces.iter().any(public) {
        found.push("AssociatePublicIpAddress is for one interface alone".into());
    }
    if let Some(data) = parameters.get("UserData") {
        match BASE64_STANDARD.decode(data) {
            Ok(data) if data.len() > 16 * 1024 => {
                found.push(format!("UserData has {} bytes, of 16384", data.len()));
            }
            Ok(_) => {}
            Err(_) => found.push("UserData is not base64".into()),
        }
    }
    for device in parameters.items("BlockDeviceMapping") {
        let number = |name: &str| device.get(name).and_then(|it| it.parse::<i64>().ok());
        if device.get("Ebs.VolumeType") != Some("gp3") {
            continue;
        }
        let (size, iops) = (number("Ebs.VolumeSize"), number("Ebs.Iops"));
        if size.is_some_and(|it| !(1..=65_536).contains(&it)) {
            found.push(format!("a volume of {size:?} GiB is no gp3"));
        }
        let most = size
            .unwrap_or(65_536)
            .saturating_mul(500)
            .clamp(3000, 80_000);
        if iops.is_some_and(|it| !(3000..=most).contains(&it)) {
            found.push(format!("a gp3 of {size:?} GiB has no {iops:?} IOPS"));
        }
    }
    found
}
