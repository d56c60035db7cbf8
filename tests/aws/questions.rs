//! What is asked before anything is created, and the result of the answers.

use aws_sdk_ec2::types::InstanceType;
use base64::{Engine, prelude::BASE64_STANDARD};
use pgherd::{
    error::{Code, Kind},
    inventory::{HostName, Inventory},
    provider::{self, Preflight},
};

use crate::{
    proxy::{Call, Verdict},
    support::{FIVE, KEY, Lab, hosts, launch},
};

const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTY= test";
const TOUCHED: &str = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t test";

async fn preflight(lab: &Lab) -> pgherd::error::Result<Preflight> {
    lab.provider().preflight(&hosts(), KEY).await
}

fn asked<'a>(calls: &'a [Call], action: &str) -> &'a Call {
    let action = format!("ec2:{action}");
    let mut all = calls.iter().filter(|it| it.dry_run && it.action == action);
    all.next()
        .unwrap_or_else(|| panic!("{action} was not asked"))
}

/// EC2 may check parameters first, and then says nothing about permissions.
pub(crate) async fn what_may_be_wrong_is_a_doubt() {
    let lab = Lab::new("doubts").await;
    lab.proxy.judge(|call| {
        let code = match call.action.as_str() {
            "ec2:CreateSecurityGroup" => "InvalidGroup.Duplicate",
            "ec2:ImportKeyPair" => "InvalidKey.Format",
            "ec2:RunInstances" => "InvalidIPAddress.InUse",
            "ec2:StartInstances" => "IncorrectInstanceState",
            _ => return Verdict::Pass,
        };
        match call.dry_run {
            true => Verdict::Refuse(code),
            false => Verdict::Pass,
        }
    });
    let answer = preflight(&lab).await.unwrap();
    for part in [
        "may make security groups (ec2:CreateSecurityGroup, ec2:CreateTags), EC2 answered InvalidGroup.Duplicate: as the test says",
        "EC2 answered InvalidKey.Format",
        "EC2 answered InvalidIPAddress.InUse",
    ] {
        let found = answer.doubts.iter().any(|doubt| doubt.contains(part));
        assert!(found, "{part} is missing in {:?}", answer.doubts);
    }
    assert!(
        answer
            .made
            .iter()
            .any(|it| it.starts_with("instance node1"))
    );

    lab.launch(&FIVE).await.unwrap();
    let stop = lab.ec2.stop_instances();
    let stop = stop.instance_ids(lab.id_of("node1").await);
    stop.send().await.unwrap();
    let answer = preflight(&lab).await.unwrap();
    let told = |doubt: &String| doubt.contains("IncorrectInstanceState");
    assert!(answer.doubts.iter().any(told), "{answer:?}");
    lab.proxy.pass_all();
    lab.remove().await.unwrap();
}

/// Only node4, at a fixed address, which an inventory cannot have on the loopback.
fn fixed(lab: &Lab) -> Inventory {
    let mut inventory = lab.five("");
    let node4 = inventory.hosts.get_mut(&HostName::new("node4")).unwrap();
    node4.address = Some(format!("{}.99", lab.network).parse().unwrap());
    inventory
}

pub(crate) async fn an_address_that_is_taken_is_not_asked_for() {
    let lab = Lab::new("taken").await;
    let address = format!("{}.99", lab.network);
    let node4 = [HostName::new("node4")];
    let provider = || provider::from_inventory(&fixed(&lab)).unwrap();
    let named = |calls: &[Call]| {
        let asked = asked(calls, "RunInstances");
        let name = "NetworkInterface.1.PrivateIpAddress";
        asked.parameter(name).map(str::to_owned)
    };
    let taken = |answer: &Preflight| answer.doubts.iter().any(|it| it.contains("belongs to"));
    lab.proxy.take();
    let answer = provider().preflight(&node4, KEY).await.unwrap();
    assert!(!taken(&answer), "{answer:?}");
    assert_eq!(named(&lab.proxy.take()), Some(address.clone()));

    let interface = lab.ec2.create_network_interface().subnet_id(&lab.subnet);
    let made = interface.private_ip_address(&address).send().await.unwrap();
    let id = made
        .network_interface
        .unwrap()
        .network_interface_id
        .unwrap();
    let answer = provider().preflight(&node4, KEY).await.unwrap();
    let said = format!("the address {address} of node4 belongs to {id} now");
    assert!(
        answer.doubts.iter().any(|it| it.contains(&said)),
        "{answer:?}"
    );
    assert_eq!(named(&lab.proxy.take()), None);
}

pub(crate) async fn keys_that_ec2_does_not_import_are_refused() {
    let lab = Lab::new("ecdsa").await;
    for key in [ECDSA, TOUCHED] {
        let error = lab.provider().preflight(&hosts(), key).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Input);
        let kind = key.split(' ').next().unwrap();
        assert!(error.what().contains(kind), "{error:?}");
        assert!(
            error.hints()[0].contains("ssh-keygen -t ed25519"),
            "{error:?}"
        );
    }
    assert_eq!(lab.proxy.take(), [], "nothing was asked, and nothing made");
}

pub(crate) async fn the_key_itself_is_asked_about() {
    let lab = Lab::new("key").await;
    lab.proxy.take();
    preflight(&lab).await.unwrap();
    let calls = lab.proxy.take();
    let key = asked(&calls, "ImportKeyPair").parameter("PublicKeyMaterial");
    let key = key
        .unwrap()
        .replace("%2B", "+")
        .replace("%2F", "/")
        .replace("%3D", "=");
    assert_eq!(BASE64_STANDARD.decode(key).unwrap(), KEY.as_bytes());
}

pub(crate) fn quota_of(vcpus: u32) -> impl Fn(&Call) -> Verdict + Send + Sync + 'static {
    move |call| match call.action == "servicequotas:GetServiceQuota" {
        true => {
            assert!(call.body.contains("L-1216C47A"), "{}", call.body);
            Verdict::Answer(format!("{{\"Quota\": {{\"Value\": {vcpus}.0}}}}"))
        }
        false => Verdict::Pass,
    }
}

/// EC2 itself reports it only when some of the hosts exist and cost money.
pub(crate) async fn the_quota_is_asked_before_anything_is_made() {
    let lab = Lab::new("vcpus").await;
    lab.proxy.judge(quota_of(8));
    let error = preflight(&lab).await.unwrap_err();
    assert_eq!(error.code(), Code::AwsQuota);
    assert!(
        error
            .what()
            .contains("5 hosts need 10 vCPUs, and the account has 8 left"),
        "{error:?}"
    );
    assert!(error.hints()[0].contains("--desired-value 10"), "{error:?}");
    lab.proxy.judge(quota_of(10));
    assert_eq!(preflight(&lab).await.unwrap().doubts, [""; 0]);
    // Other instances of the account count too.
    lab.stray("ami-0aaaaaaaaaaaaaaa1", &[("Name", "other")])
        .await;
    let error = preflight(&lab).await.unwrap_err();
    assert!(error.what().contains("has 8 left"), "{error:?}");
    // Existing hosts are not counted again.
    lab.launch(&FIVE[..1]).await.unwrap();
    lab.proxy.judge(quota_of(12));
    preflight(&lab).await.unwrap();
    // This permission is optional.
    lab.proxy
        .judge(|call| match call.action.starts_with("servicequotas:") {
            true => Verdict::Refuse("AccessDeniedException"),
            false => Verdict::Pass,
        });
    let answer = preflight(&lab).await.unwrap();
    let said = "quota of vCPUs is not known (AccessDeniedException";
    assert!(answer.doubts[0].contains(said), "{answer:?}");
    lab.proxy.pass_all();
    lab.remove().await.unwrap();
    assert_eq!(lab.left().await, [""; 0]);
}

pub(crate) async fn cpu_credits_are_for_burstable_types() {
    let lab = Lab::new("credits").await;
    lab.five("  cpu_credits: unlimited\n");
    let text = std::fs::read_to_string(lab.dir.path().join("pgherd.yaml")).unwrap();
    let inventory = lab.parse(&text.replace(
        "node2: { roles: [postgres]",
        "node2: { roles: [postgres], instance_type: m5.large",
    ));
    let provider = provider::from_inventory(&inventory).unwrap();
    let made = provider
        .preflight(&hosts(), KEY)
        .await
        .unwrap()
        .made
        .join("\n");
    assert!(
        made.contains("node1: t2.medium (unlimited CPU credits)"),
        "{made}"
    );
    assert!(made.contains("node2: m5.large, "), "{made}");
    lab.proxy.take();
    launch(&*provider, &FIVE[..2], &lab.events).await.unwrap();
    let calls = lab.proxy.take();
    let runs = calls.iter().filter(|call| call.is("RunInstances"));
    let credits: Vec<_> = runs
        .map(|call| {
            (
                call.parameter("InstanceType").unwrap(),
                call.parameter("CreditSpecification.CpuCredits"),
            )
        })
        .collect();
    assert_eq!(credits.len(), 2);
    for (kind, credits) in credits {
        let burstable = kind == InstanceType::T2Medium.as_str();
        assert_eq!(credits, burstable.then_some("unlimited"), "{kind}");
    }
    lab.remove().await.unwrap();
}
