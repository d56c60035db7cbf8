//! EC2's errors, and the messages about them.

use std::sync::atomic::{AtomicUsize, Ordering};

use pgherd::{error::Kind, provider};

use crate::{
    proxy::{Call, Verdict},
    support::{FIVE, KEY, Lab, hosts, launch},
};

const NOTHING: &str = "<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>";

/// Refuses the first `times` of the calls for which `which` is true.
fn first(
    times: usize,
    code: &'static str,
    which: impl Fn(&Call) -> bool + Send + Sync + 'static,
) -> impl Fn(&Call) -> Verdict + Send + Sync + 'static {
    let seen = AtomicUsize::new(0);
    move |call| match which(call) && seen.fetch_add(1, Ordering::SeqCst) < times {
        true => Verdict::Refuse(code),
        false => Verdict::Pass,
    }
}

pub(crate) async fn throttling_is_waited_out() {
    let lab = Lab::new("throttled").await;
    for call in ["DescribeSubnets", "RunInstances", "TerminateInstances"] {
        lab.proxy
            .judge(first(2, "RequestLimitExceeded", move |it| it.is(call)));
        if call == "TerminateInstances" {
            lab.remove().await.unwrap();
        } else {
            lab.launch(&FIVE).await.unwrap();
            let id = lab.id_of("node1").await;
            let ended = lab.ec2.terminate_instances().instance_ids(id);
            ended.send().await.unwrap();
        }
    }
    lab.proxy.pass_all();
    assert_eq!(lab.left().await, [""; 0]);
}

pub(crate) async fn what_was_just_made_may_be_unknown() {
    let lab = Lab::new("eventual").await;
    let [groups, runs, lists] = [const { AtomicUsize::new(0) }; 3];
    lab.proxy.judge(move |call| {
        let early = |seen: &AtomicUsize, times| seen.fetch_add(1, Ordering::SeqCst) < times;
        if call.is("AuthorizeSecurityGroupIngress") && early(&groups, 4) {
            Verdict::Refuse("InvalidGroup.NotFound")
        } else if call.is("RunInstances") && early(&runs, 3) {
            Verdict::Refuse("InvalidKeyPair.NotFound")
        } else if call.is("DescribeInstances") && early(&lists, 4) {
            // The first is before the launch.
            Verdict::Answer(NOTHING.into())
        } else {
            Verdict::Pass
        }
    });
    assert_eq!(lab.launch(&FIVE).await.unwrap().len(), 5);
    assert_eq!(lab.instances().await.len(), 5);
    lab.proxy.pass_all();
    lab.remove().await.unwrap();
}

pub(crate) async fn half_a_launch_is_completed() {
    let lab = Lab::new("half").await;
    let seen = AtomicUsize::new(0);
    lab.proxy.judge(move |call| {
        match call.is("RunInstances") && seen.fetch_add(1, Ordering::SeqCst) >= 3 {
            true => Verdict::Refuse("InsufficientInstanceCapacity"),
            false => Verdict::Pass,
        }
    });
    let error = lab.launch(&FIVE).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert_eq!(error.failures().len(), 2, "{error:?}");
    assert!(error.failures().iter().all(|it| it.host().is_some()));
    assert!(
        error.failures()[0].what().contains("no capacity"),
        "{error:?}"
    );
    let left = error.left_behind().unwrap();
    assert_eq!(left.matches("instance ").count(), 3, "{left}");
    assert!(left.contains("key pair pgherd-half"), "{left}");
    let three: Vec<String> = lab
        .instances()
        .await
        .iter()
        .map(|it| it.instance_id().unwrap().to_owned())
        .collect();

    lab.proxy.pass_all();
    let machines = lab.launch(&FIVE).await.unwrap();
    assert_eq!(machines.len(), 5);
    assert!(
        three
            .iter()
            .all(|id| machines.iter().any(|it| it.id == *id))
    );
    assert_eq!(lab.instances().await.len(), 5);

    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
}

pub(crate) async fn groups_are_released_late() {
    let lab = Lab::new("late").await;
    lab.launch(&FIVE).await.unwrap();
    lab.proxy.judge(first(5, "DependencyViolation", |call| {
        call.is("DeleteSecurityGroup")
    }));
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
}

pub(crate) async fn a_missing_permission_is_named() {
    for (action, dry, said) in [
        ("RunInstances", true, "ec2:RunInstances"),
        ("CreateSecurityGroup", true, "ec2:CreateSecurityGroup"),
        ("ImportKeyPair", true, "ec2:ImportKeyPair"),
        ("DescribeImages", false, "find the newest image"),
        ("DescribeSubnets", false, "look at the subnets"),
    ] {
        let lab = Lab::new("forbidden").await;
        lab.proxy.judge(move |call| {
            match call.action == format!("ec2:{action}") && call.dry_run == dry {
                true => Verdict::Refuse("UnauthorizedOperation"),
                false => Verdict::Pass,
            }
        });
        let error = lab.provider().preflight(&hosts(), KEY).await.unwrap_err();
        assert!(
            error.what().contains("may not") && error.what().contains(said),
            "{error:?}"
        );
        assert!(
            error.hints()[0].contains("docs/iam-policy.json"),
            "{error:?}"
        );
        assert_eq!(lab.left().await, [""; 0]);
    }
    // All at once, if more than one is missing.
    let lab = Lab::new("forbidden").await;
    lab.proxy.judge(|call| match call.dry_run {
        true => Verdict::Refuse("UnauthorizedOperation"),
        false => Verdict::Pass,
    });
    let error = lab.provider().preflight(&hosts(), KEY).await.unwrap_err();
    assert_eq!(error.failures().len(), 3, "{error:?}");
}

pub(crate) async fn what_cannot_be_is_said_before_anything_is_made() {
    let lab = Lab::new("impossible").await;
    let refused = async |text: &str, parts: &[&str]| {
        let provider = provider::from_inventory(&lab.parse(text)).unwrap();
        let error = provider.preflight(&hosts(), KEY).await.unwrap_err();
        let said = format!("{error:?}");
        for part in parts {
            assert!(said.contains(part), "{part} is missing in {said}");
        }
    };
    let five = |provider: &str| {
        lab.five(provider);
        std::fs::read_to_string(lab.dir.path().join("pgherd.yaml")).unwrap()
    };
    refused(
        &five("").replace(&lab.subnet, "subnet-0123456789abcdef0"),
        &["InvalidSubnetID.NotFound", "provider.region"],
    )
    .await;
    refused(
        &five("  instance_type: t9.enormous\n"),
        &[
            "no t9.enormous",
            "the region has no instance type t9.enormous",
        ],
    )
    .await;
    refused(
        &five("  image: ami-0123456789abcdef0\n"),
        &["no image ami-0123456789abcdef0"],
    )
    .await;
    refused(
        &five("").replace("connect: private", "connect: public"),
        &["operator_cidrs"],
    )
    .await;
    refused(
        &five("").replace(
            "node2: { roles: [postgres]",
            "node2: { roles: [postgres], zone: eu-central-1z",
        ),
        &["it is in another zone"],
    )
    .await;
    refused(
        &five("").replace(
            "node2: { roles: [postgres]",
            "node2: { roles: [postgres], address: 10.9.9.9",
        ),
        &["10.9.9.9 is not in it"],
    )
    .await;
    lab.proxy.judge(|call| match call.is("DescribeSubnets") {
        true => Verdict::Answer(
            "<DescribeSubnetsResponse><subnetSet/></DescribeSubnetsResponse>".into(),
        ),
        false => Verdict::Pass,
    });
    let subnet = format!("  subnet_id: {}\n", lab.subnet);
    refused(
        &five("").replace(&subnet, ""),
        &["no default VPC", "create-default-vpc"],
    )
    .await;
    lab.proxy.pass_all();
    lab.proxy
        .judge(|call| match call.action.starts_with("ec2:") {
            true => Verdict::Refuse("AuthFailure"),
            false => Verdict::Pass,
        });
    refused(&five(""), &["does not accept these credentials"]).await;
    lab.proxy.pass_all();
    assert_eq!(lab.left().await, [""; 0]);
}

pub(crate) async fn one_host_has_one_instance() {
    let lab = Lab::new("twice").await;
    lab.launch(&["node1"]).await.unwrap();
    let tags = [("pgherd:cluster", "twice"), ("pgherd:host", "node1")];
    let second = lab.stray("ami-0aaaaaaaaaaaaaaa1", &tags).await;
    let error = lab.provider().discover().await.unwrap_err();
    assert!(error.to_string().contains(&second), "{error:?}");
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
}

pub(crate) async fn a_host_that_ends_at_once_says_why() {
    let lab = Lab::new("ends").await;
    // As EC2 does when the volume's key is not available: the call succeeds, and then this follows.
    let list = |id: &str| {
        format!(
            "<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>{id}</instanceId>\
             <instanceState><code>48</code><name>terminated</name></instanceState>\
             <stateReason><code>Client.InternalError</code><message>Client error on launch</message></stateReason>\
             <placement><availabilityZone>eu-central-1a</availabilityZone></placement>\
             <tagSet><item><key>pgherd:host</key><value>node1</value></item></tagSet>\
             </item></instancesSet></item></reservationSet></DescribeInstancesResponse>"
        )
    };
    lab.proxy.judge(move |call| {
        if call.is("RunInstances") {
            Verdict::Answer(
                "<RunInstancesResponse><instancesSet><item><instanceId>i-0dead</instanceId>\
                 <instanceState><code>0</code><name>pending</name></instanceState></item></instancesSet></RunInstancesResponse>"
                    .into(),
            )
        } else if call.is("DescribeInstances") && call.body.contains("terminated") {
            Verdict::Answer(list("i-0dead"))
        } else {
            Verdict::Pass
        }
    });
    let error = lab.launch(&["node1"]).await.unwrap_err();
    assert!(
        error.to_string().contains("Client error on launch"),
        "{error:?}"
    );
    let key = |hint: &String| hint.contains("docs/iam-policy-own-key.json");
    assert!(error.hints().iter().any(key), "{error:?}");
    lab.proxy.pass_all();
    launch(&*lab.provider(), &["node1"], &lab.events)
        .await
        .unwrap();
    lab.remove().await.unwrap();
}

/// No port is opened to everybody because the right address is unknown.
pub(crate) async fn only_aws_knows_this_machine() {
    let lab = Lab::new("seen").await;
    lab.five("");
    let text = std::fs::read_to_string(lab.dir.path().join("pgherd.yaml")).unwrap();
    let inventory = lab.parse(&text.replace("connect: private", "connect: public"));
    let provider = provider::from_inventory(&inventory).unwrap();
    let error = provider.preflight(&hosts(), KEY).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.hints()[0].contains("operator_cidrs: ["), "{error:?}");
    assert_eq!(lab.left().await, [""; 0]);
}

/// EC2 reports a quota only at the launch that exceeds it.
pub(crate) async fn a_quota_is_named_and_what_there_is_now() {
    let lab = Lab::new("quota").await;
    lab.proxy.judge(|call| match call.is("RunInstances") {
        true => Verdict::Refuse("VcpuLimitExceeded"),
        false => Verdict::Pass,
    });
    let error = lab.launch(&["node1"]).await.unwrap_err();
    assert!(error.what().contains("quota of vCPUs"), "{error:?}");
    assert!(
        error.what().contains("t2.medium in eu-central-1"),
        "{error:?}"
    );
    assert!(error.hints()[1].contains("Service Quotas"), "{error:?}");
    let left = error.left_behind().unwrap();
    assert!(
        left.contains("security group pgherd-quota-postgres (sg-"),
        "{left}"
    );
    assert!(!left.contains("instance "), "{left}");
    lab.proxy.pass_all();
    lab.remove().await.unwrap();
}

/// What to do differs for each.
pub(crate) async fn each_refusal_has_its_remedy() {
    let lab = Lab::new("remedies").await;
    for (action, code, said, what, remedy) in [
        (
            "RunInstances",
            "InvalidParameterCombination",
            "The specified instance type is not eligible for Free Tier.",
            "the account's free plan",
            "c7i-flex.large",
        ),
        (
            "RunInstances",
            "InsufficientInstanceCapacity",
            "",
            "no capacity",
            "t3.medium for t2.medium",
        ),
        (
            "RunInstances",
            "VcpuLimitExceeded",
            "",
            "quota of vCPUs",
            "fewer vCPUs",
        ),
        (
            "RunInstances",
            "InsufficientFreeAddressesInSubnet",
            "",
            "no address left",
            "provider.subnet_ids",
        ),
        (
            "AuthorizeSecurityGroupIngress",
            "RulesPerSecurityGroupLimitExceeded",
            "",
            "more rules than the account's quota",
            "fewer, larger networks",
        ),
    ] {
        lab.proxy.judge(move |call| match call.is(action) {
            true => Verdict::Say(code, said),
            false => Verdict::Pass,
        });
        let error = lab.launch(&["node1"]).await.unwrap_err();
        assert!(error.what().contains(what), "{error:?}");
        assert!(
            error.hints().iter().any(|it| it.contains(remedy)),
            "{error:?}"
        );
        lab.proxy.pass_all();
        lab.remove().await.unwrap();
    }
    // The same code for another reason has nothing to do with a plan.
    lab.proxy.judge(|call| match call.is("RunInstances") {
        true => Verdict::Say("InvalidParameterCombination", "Not with that one."),
        false => Verdict::Pass,
    });
    let error = lab.launch(&["node1"]).await.unwrap_err();
    assert!(!error.what().contains("plan"), "{error:?}");
    lab.proxy.pass_all();
    lab.remove().await.unwrap();
}

/// Its hosts would have no address by which the others know them.
pub(crate) async fn subnets_without_ipv4_are_named() {
    let lab = Lab::new("six").await;
    let six = "<item><subnetId>subnet-6</subnetId><vpcId>vpc-1</vpcId><state>available</state>\
               <ipv6Native>true</ipv6Native><availabilityZone>eu-central-1a</availabilityZone></item>";
    lab.proxy
        .judge(move |call| match call.is("DescribeSubnets") {
            true => Verdict::Answer(format!(
                "<DescribeSubnetsResponse><subnetSet>{six}</subnetSet></DescribeSubnetsResponse>"
            )),
            false => Verdict::Pass,
        });
    let error = lab.provider().preflight(&hosts(), KEY).await.unwrap_err();
    let said = format!("{error:?}");
    assert!(error.what().contains("only IPv6 addresses"), "{said}");
    assert!(said.contains("subnet-6"), "{said}");
    assert_eq!(lab.left().await, [""; 0]);
}

/// EC2 has several codes for a group that does not exist yet, or is still in use.
pub(crate) async fn a_group_goes_by_all_its_names() {
    let lab = Lab::new("words").await;
    lab.proxy
        .judge(first(2, "InvalidSecurityGroupID.NotFound", |call| {
            call.is("AuthorizeSecurityGroupIngress") || call.is("RunInstances")
        }));
    lab.launch(&["node1"]).await.unwrap();
    lab.proxy.judge(first(2, "InvalidGroup.InUse", |call| {
        call.is("DeleteSecurityGroup")
    }));
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
    lab.launch(&["node1"]).await.unwrap();
    // Somebody else has removed them meanwhile.
    lab.proxy
        .judge(|call| match call.is("DeleteSecurityGroup") {
            true => Verdict::Refuse("InvalidSecurityGroupID.NotFound"),
            false => Verdict::Pass,
        });
    lab.remove().await.unwrap();
    lab.proxy.pass_all();
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
}

pub(crate) async fn what_may_not_be_removed_is_listed() {
    let lab = Lab::new("kept").await;
    lab.launch(&["node1"]).await.unwrap();
    for (action, said, left) in [
        (
            "TerminateInstances",
            "may not terminate the instances",
            "instance node1 (i-",
        ),
        (
            "DeleteKeyPair",
            "may not delete the key pair",
            "key pair pgherd-kept (key-",
        ),
    ] {
        lab.proxy.judge(move |call| match call.is(action) {
            true => Verdict::Refuse("UnauthorizedOperation"),
            false => Verdict::Pass,
        });
        let error = lab.remove().await.unwrap_err();
        assert!(error.what().contains(said), "{error:?}");
        assert!(error.left_behind().unwrap().contains(left), "{error:?}");
        assert!(
            error.hints().iter().any(|it| it.contains("down")),
            "{error:?}"
        );
    }
    lab.proxy.pass_all();
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
}

/// Another region has neither the cluster nor its subnets, and what is elsewhere is not touched.
pub(crate) async fn in_the_wrong_region_nothing_is_made() {
    let lab = Lab::new("elsewhere").await;
    lab.launch(&["node1"]).await.unwrap();
    lab.five("");
    let text = std::fs::read_to_string(lab.dir.path().join("pgherd.yaml")).unwrap();
    let inventory = lab.parse(&text.replace("eu-central-1", "eu-west-1"));
    let provider = provider::from_inventory(&inventory).unwrap();
    assert!(provider.discover().await.unwrap().is_empty());
    let error = provider.preflight(&hosts(), KEY).await.unwrap_err();
    assert!(
        error
            .hints()
            .iter()
            .any(|it| it.contains("provider.region")),
        "{error:?}"
    );
    assert_eq!(
        error.left_behind(),
        Some("the account has nothing of the cluster")
    );
    assert!(provider.resources().await.unwrap().is_empty());
    assert_eq!(lab.instances().await.len(), 1);
    lab.remove().await.unwrap();
}
