//! What EC2 refuses before it does anything, and moto does not.

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{model::Node, nature::instances, proxy::Call, xml::Element};

/// One of EC2's codes, and its message.
pub(crate) type Refusal = (&'static str, String);

/// Sends a request to the server directly; returns the body of its answer.
pub(crate) type Ask<'a> = &'a dyn Fn(&str) -> Element;

/// The prefix of ids, the call that looks one up, its parameter, and the code for an unknown one.
const IDS: [(&str, &str, &str, &str); 5] = [
    (
        "i-",
        "DescribeInstances",
        "InstanceId",
        "InvalidInstanceID.NotFound",
    ),
    (
        "sg-",
        "DescribeSecurityGroups",
        "GroupId",
        "InvalidGroup.NotFound",
    ),
    (
        "subnet-",
        "DescribeSubnets",
        "SubnetId",
        "InvalidSubnetID.NotFound",
    ),
    ("ami-", "DescribeImages", "ImageId", "InvalidAMIID.NotFound"),
    (
        "eni-",
        "DescribeNetworkInterfaces",
        "NetworkInterfaceId",
        "InvalidNetworkInterfaceID.NotFound",
    ),
];

/// All ids that a call names, each with the code for an unknown one.
pub(crate) fn ids(parameters: &Node) -> Vec<(&str, &'static str)> {
    let mut found: Vec<(&str, &'static str)> = Vec::new();
    if let Some(text) = &parameters.text {
        let known = IDS.iter().find(|it| text.starts_with(it.0));
        found.extend(known.map(|it| (text.as_str(), it.3)));
    }
    // An unknown thing in a filter is not refused, only not found.
    let inner = parameters
        .inner
        .iter()
        .filter(|(name, _)| *name != "Filter");
    found.extend(inner.flat_map(|(_, it)| ids(it)));
    found
}

/// What EC2 may answer instead of saying whether a call is allowed.
pub(crate) fn validate(call: &Call, parameters: &Node, ask: Ask<'_>) -> Result<(), Refusal> {
    for (id, code) in ids(parameters) {
        let (_, look, name, _) = IDS.iter().find(|it| it.3 == code).unwrap();
        let answer = ask(&format!("Action={look}&{name}.1={id}"));
        if !answer.all("Error").is_empty() || answer.all("item").is_empty() {
            return Err((code, format!("{id} does not exist")));
        }
    }
    let exists = |query: &str| !ask(query).all("item").is_empty();
    match call.action.as_str() {
        "ec2:CreateSecurityGroup" => {
            let name = parameters.get("GroupName").unwrap_or_default();
            let vpc = parameters.get("VpcId").unwrap_or_default();
            let query = format!(
                "Action=DescribeSecurityGroups&Filter.1.Name=group-name&Filter.1.Value.1={name}\
                 &Filter.2.Name=vpc-id&Filter.2.Value.1={vpc}"
            );
            if exists(&query) {
                return Err((
                    "InvalidGroup.Duplicate",
                    format!("The security group '{name}' already exists"),
                ));
            }
        }
        "ec2:ImportKeyPair" => {
            let key = parameters.get("PublicKeyMaterial").unwrap_or_default();
            let key = BASE64_STANDARD.decode(key).unwrap_or_default();
            if !(key.starts_with(b"ssh-ed25519 ") || key.starts_with(b"ssh-rsa ")) {
                return Err((
                    "InvalidKey.Format",
                    "Key is not in valid OpenSSH public key format".into(),
                ));
            }
            let name = parameters.get("KeyName").unwrap_or_default();
            let query =
                format!("Action=DescribeKeyPairs&Filter.1.Name=key-name&Filter.1.Value.1={name}");
            if exists(&query) {
                return Err((
                    "InvalidKeyPair.Duplicate",
                    format!("The keypair '{name}' already exists."),
                ));
            }
        }
        "ec2:RunInstances" => taken(parameters, ask)?,
        "ec2:StartInstances" => {
            for id in parameters.items("InstanceId") {
                let id = id.text.clone().unwrap_or_default();
                let found = ask(&format!("Action=DescribeInstances&InstanceId.1={id}"));
                let states = found.all("instanceState");
                if states
                    .iter()
                    .any(|it| !matches!(it.word("name"), "stopped" | "running"))
                {
                    return Err((
                        "IncorrectInstanceState",
                        format!(
                            "The instance '{id}' is not in a state from which it can be started."
                        ),
                    ));
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Refuses an address that an instance (also a terminating one) or another interface has.
pub(crate) fn taken(parameters: &Node, ask: Ask<'_>) -> Result<(), Refusal> {
    for interface in parameters.items("NetworkInterface") {
        let Some(address) = interface.get("PrivateIpAddress") else {
            continue;
        };
        let subnet = interface.get("SubnetId").unwrap_or_default();
        let all = ask("Action=DescribeInstances");
        let has = |it: &&&Element| {
            let state = it.child("instanceState").map_or("", |it| it.word("name"));
            state != "terminated"
                && it.word("privateIpAddress") == address
                && it.word("subnetId") == subnet
        };
        if instances(&all).iter().any(|it| has(&it)) {
            return Err((
                "InvalidIPAddress.InUse",
                format!("Address {address} is in use."),
            ));
        }
    }
    Ok(())
}

/// Refuses to delete a group that is in use.
pub(crate) fn in_use(group: &str, ask: Ask<'_>) -> Result<(), Refusal> {
    let all = ask("Action=DescribeInstances");
    let lives = |it: &&&Element| {
        let state = it.child("instanceState").map_or("", |it| it.word("name"));
        state != "terminated"
    };
    let names = |it: &Element| it.all("groupId").iter().any(|it| it.text == group);
    let instances = instances(&all);
    let by_instance = instances.iter().filter(lives).any(|it| names(it));
    let groups = ask("Action=DescribeSecurityGroups");
    let by_group = groups.all("securityGroupInfo").iter().any(|set| {
        let others = set.children.iter().filter(|it| it.word("groupId") != group);
        let mut rules = others.filter_map(|it| it.child("ipPermissions"));
        rules.any(names)
    });
    match by_instance || by_group {
        true => Err((
            "DependencyViolation",
            format!("resource {group} has a dependent object"),
        )),
        false => Ok(()),
    }
}
