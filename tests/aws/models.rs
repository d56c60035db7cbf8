//! Tests of the tests: whether mistakes in a call are found.

use serde_json::Value;

use crate::{
    model::{KNOWN, MODELS, mistakes},
    server::client,
    support::Lab,
};

/// The script and the file that it has written belong together.
pub(crate) async fn the_models_are_those_that_the_script_names() {
    let script = include_str!("../../scripts/aws-models");
    let made: Value = serde_json::from_str(MODELS).unwrap();
    let pinned = format!("readonly pinned='{}'", made["made_of"].as_str().unwrap());
    assert!(script.contains(&pinned), "run scripts/aws-models: {pinned}");
    let policies = [
        include_str!("../../docs/iam-policy.json"),
        include_str!("../../docs/iam-policy-load-balancer.json"),
        include_str!("../../docs/iam-policy-data-volume.json"),
        include_str!("../../docs/iam-policy-profile.json"),
    ];
    let policies = policies.map(|it| serde_json::from_str::<Value>(it).unwrap());
    let statements = policies
        .iter()
        .flat_map(|it| it["Statement"].as_array().unwrap());
    for action in statements.flat_map(|it| it["Action"].as_array().unwrap()) {
        let action = action.as_str().unwrap();
        // AWS makes the first call itself, and the second is none.
        if ["iam:CreateServiceLinkedRole", "iam:PassRole"].contains(&action) {
            continue;
        }
        assert!(
            KNOWN.operations.contains_key(action),
            "run scripts/aws-models: it does not have {action}"
        );
    }
}

/// Calls with mistakes, and the mistakes.
const WRONG: &[(&str, &str, &str)] = &[
    ("StopInstances", "InstanceId.1=i-1&SkipOsShutdown=true", ""),
    (
        "StopInstances",
        "InstanceId.1=i-1&SkipOSShutdown=true",
        "SkipOSShutdown is not a parameter",
    ),
    (
        "StopInstances",
        "InstanceId.1=i-1&Force=yes",
        "Force is no boolean",
    ),
    ("StopInstances", "Force=true", "InstanceId is missing"),
    (
        "StopInstances",
        "InstanceId=i-1",
        "InstanceId is to be a list",
    ),
    (
        "StopInstances",
        "InstanceId.2=i-1",
        "InstanceId.2 is not the number of an item",
    ),
    (
        "DeleteSecurityGroup",
        "DryRun=false",
        "none of GroupId is there",
    ),
    (
        "DescribeVpcs",
        "MaxResults=4",
        "MaxResults is no integer, or not within its bounds: 4",
    ),
    (
        "DescribeInstances",
        "MaxResults=4",
        "MaxResults is not from 5 to 1000: 4",
    ),
    (
        "DescribeVpcs",
        "Filter.1.Name=vpc-id&Filter.1.Value.1=v",
        "",
    ),
    (
        "DescribeVpcs",
        "Filter.1.Name=vpcid&Filter.1.Value.1=v",
        "there is no filter \"vpcid\"",
    ),
    (
        "DescribeVpcs",
        "Filter.1.Name=tag%3Apgherd%3Acluster",
        "has no value",
    ),
    (
        "CreateTags",
        "ResourceId.1=i-1&Tag.1.Key=pgherd%3Aid&Tag.1.Value=x",
        "",
    ),
    (
        "CreateTags",
        "ResourceId.1=i-1&Tag.1.Key=aws%3Aid&Tag.1.Value=x",
        "may not be called \"aws:id\"",
    ),
    (
        "RebootInstances",
        "InstanceId.1=i-1",
        "run scripts/aws-models",
    ),
];

/// The same for launches that are complete but for these mistakes.
const WRONG_LAUNCHES: &[(&str, &str)] = &[
    ("InstanceType=t2.medium", ""),
    (
        "InstanceType=t2.huge",
        "InstanceType is none of the values that it can have: t2.huge",
    ),
    ("MinCount=one", "MinCount is no integer"),
    (
        "SubnetId=s&NetworkInterface.1.DeviceIndex=0",
        "SubnetId belongs to the network interface",
    ),
    (
        "TagSpecification.1.ResourceType=key-pair",
        "gives no tags to a key-pair",
    ),
    ("UserData=%21", "UserData is not base64"),
    (
        "BlockDeviceMapping.1.Ebs.VolumeType=gp3&BlockDeviceMapping.1.Ebs.VolumeSize=8\
         &BlockDeviceMapping.1.Ebs.Iops=5000",
        "has no Some(5000) IOPS",
    ),
];

fn wrong_is(action: &str, body: &str, wrong: &str) {
    let found = mistakes(action, body);
    if wrong.is_empty() {
        assert_eq!(found, [""; 0], "{action} {body}");
    } else {
        assert_eq!(found.len(), 1, "{action} {body}: {found:?}");
        assert!(
            found[0].starts_with(action) && found[0].contains(wrong),
            "{found:?}"
        );
    }
}

pub(crate) async fn what_is_wrong_with_a_call_is_found() {
    for (action, body, wrong) in WRONG {
        wrong_is(&format!("ec2:{action}"), body, wrong);
    }
    let launch = |more: &str, wrong: &str| {
        let body = format!("Action=RunInstances&ImageId=ami-1&MinCount=1&MaxCount=1&{more}");
        wrong_is("ec2:RunInstances", &body, wrong);
    };
    for (more, wrong) in WRONG_LAUNCHES {
        launch(more, wrong);
    }
    let token = format!("ClientToken={}", "t".repeat(65));
    launch(&token, "ClientToken is longer than 64 characters");
    let data = format!("UserData={}", "QUFB".repeat(5500));
    launch(&data, "UserData has 16500 bytes");
    let key = "k".repeat(128);
    let key = format!("ResourceId.1=i-1&Tag.1.Key={key}&Tag.1.Value=x");
    wrong_is("ec2:CreateTags", &key, "Tag.1.Key is longer than 127");
    wrong_is(
        "ec2:RunInstances",
        "MinCount=1&ImageId=ami-1",
        "MaxCount is missing",
    );
    let quota = |code: &str| format!("{{\"ServiceCode\": \"ec2\", \"QuotaCode\": \"{code}\"}}");
    let get = "servicequotas:GetServiceQuota";
    wrong_is(get, &quota("L-1216C47A"), "");
    wrong_is(get, &quota("1216"), "QuotaCode is not of the form");
    wrong_is(
        "ssm:GetParameter",
        "{\"Name\": [\"a\"]}",
        "Name is to be one value",
    );
    wrong_is(
        "sts:GetCallerIdentity",
        "Action=GetCallerIdentity&Version=2011-06-15",
        "",
    );
}

/// A test notices a refusal even if the provider takes it for another error.
pub(crate) async fn a_wrong_call_fails_its_test() {
    let lab = Lab::new("wrong").await;
    let asked = client(&lab.proxy.url())
        .describe_vpcs()
        .max_results(3)
        .send()
        .await;
    assert!(asked.is_err());
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(lab)));
    let said = dropped.unwrap_err().downcast::<String>().unwrap();
    assert!(
        said.contains("ec2:DescribeVpcs: MaxResults is no integer"),
        "{said}"
    );
}
