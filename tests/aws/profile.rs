//! The instance profile by which the host of the backups opens their bucket.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
};

use aws_sdk_ec2::types::{Filter, IamInstanceProfileSpecification};
use pgherd::{
    error::{Code, Error},
    inventory::HostName,
    provider::{self, Part, Provider},
};
use serde_json::Value;

use crate::{
    members::cut_at,
    proxy::{Call, Verdict},
    server::{REGION, moto},
    support::{KEY, Lab, launch, tag},
};

const HOSTS: [&str; 4] = ["node1", "node4", "haproxy", "keeper"];
const OURS: &str = "backups";
const OTHER: &str = "agents";
/// As EC2 says it.
const UNKNOWN: &str = "Value (backups) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name";

/// A cluster with its backups in a bucket; `profile` opens it, or an access key.
fn provider_of(lab: &Lab, profile: Option<&str>) -> Box<dyn Provider> {
    let hosts = "  node1: { roles: [postgres] }\n  node4: { roles: [etcd] }\n  haproxy: { roles: [haproxy] }\n  \
                 keeper: { roles: [backup] }\n";
    let profile = profile.map_or_else(String::new, |name| format!(", profile: {name}"));
    let backup = format!("backup: {{ s3: {{ bucket: my-backups, region: {REGION}{profile} }} }}\n");
    let inventory = lab.parse(&(lab.text("", hosts) + &backup));
    provider::from_inventory(&inventory).unwrap()
}

/// Somebody makes an instance profile, with a path before its name.
fn make_profile(lab: &Lab, name: &str) {
    let body = format!(
        "Action=CreateInstanceProfile&Version=2010-05-08&InstanceProfileName={name}&Path=%2Fdatabases%2F"
    );
    let mut server = TcpStream::connect(("127.0.0.1", moto())).unwrap();
    write!(
        server,
        "POST / HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=lab/20260101/us-east-1/iam/aws4_request, \
         SignedHeaders=host, Signature=0\r\nx-moto-account-id: {}\r\n\r\n{body}",
        body.len(),
        lab.account
    )
    .unwrap();
    let mut answer = String::new();
    server.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("<InstanceProfileName>"), "{answer}");
}

fn spec(name: &str) -> IamInstanceProfileSpecification {
    IamInstanceProfileSpecification::builder()
        .name(name)
        .build()
}

/// Somebody gives a host a profile.
async fn give(lab: &Lab, host: &str, name: &str) {
    let given = lab
        .ec2
        .associate_iam_instance_profile()
        .instance_id(lab.id_of(host).await)
        .iam_instance_profile(spec(name));
    given.send().await.unwrap();
}

/// Somebody takes the profile of a host away.
async fn take(lab: &Lab, host: &str) {
    let association = associations(lab, host).await.remove(0).0;
    let taken = lab.ec2.disassociate_iam_instance_profile();
    taken.association_id(association).send().await.unwrap();
}

/// The ties of a host to profiles, each with the profile's name.
async fn associations(lab: &Lab, host: &str) -> Vec<(String, String)> {
    let filter = Filter::builder().name("instance-id");
    let found = lab
        .ec2
        .describe_iam_instance_profile_associations()
        .filters(filter.values(lab.id_of(host).await).build())
        .send()
        .await
        .unwrap();
    let all = found.iam_instance_profile_associations().iter();
    all.map(|it| {
        let arn = it.iam_instance_profile().unwrap().arn().unwrap();
        let name = arn.rsplit('/').next().unwrap().to_owned();
        (it.association_id().unwrap().to_owned(), name)
    })
    .collect()
}

/// The hosts that have a profile, each with its name.
async fn with_profile(lab: &Lab) -> Vec<String> {
    let all = lab.instances().await;
    let of = |it: &aws_sdk_ec2::types::Instance| {
        let arn = it.iam_instance_profile()?.arn()?.to_owned();
        let name = arn.rsplit('/').next()?;
        Some(format!("{} {name}", tag(it.tags(), "pgherd:host")))
    };
    let mut with: Vec<String> = all.iter().filter_map(of).collect();
    with.sort();
    with
}

async fn changes(provider: &dyn Provider) -> Vec<String> {
    provider.drift().await.unwrap().changes
}

async fn preflight(provider: &dyn Provider) -> Result<Vec<String>, Error> {
    let hosts = HOSTS.map(HostName::new);
    Ok(provider.preflight(&hosts, KEY).await?.made)
}

pub(crate) async fn the_host_of_the_backups_alone_is_launched_with_it() {
    let lab = Lab::new("profile-at-launch").await;
    make_profile(&lab, OURS);
    let provider = provider_of(&lab, Some(OURS));
    let made = preflight(&*provider).await.unwrap();
    let named: Vec<&String> = made
        .iter()
        .filter(|it| it.contains("instance profile"))
        .collect();
    assert!(
        named.len() == 1
            && named[0].starts_with("instance keeper:")
            && named[0].ends_with("with the instance profile backups"),
        "{made:?}"
    );
    let calls = lab.proxy.take();
    let asked = calls.iter().find(|it| it.action == "ec2:RunInstances");
    let asked = asked.unwrap();
    assert!(asked.dry_run && asked.parameter("IamInstanceProfile.Name") == Some(OURS));

    launch(&*provider, &HOSTS, &lab.events).await.unwrap();
    assert_eq!(with_profile(&lab).await, ["keeper backups"]);
    assert_eq!(changes(&*provider).await, [""; 0]);
    let calls = lab.proxy.take();
    let launched = calls.iter().filter(|it| it.is("RunInstances"));
    let given = launched.filter_map(|it| it.parameter("IamInstanceProfile.Name"));
    assert_eq!(given.collect::<Vec<_>>(), [OURS]);
    // Without the key, pgherd leaves it to whoever has given it.
    let keys = provider_of(&lab, None);
    assert_eq!(changes(&*keys).await, [""; 0]);
    lab.remove().await.unwrap();
}

pub(crate) async fn a_running_host_gets_it_by_the_policies_in_the_manual() {
    let lab = Lab::new("profile-later").await;
    make_profile(&lab, OURS);
    make_profile(&lab, OTHER);
    let keys = provider_of(&lab, None);
    launch(&*keys, &HOSTS, &lab.events).await.unwrap();
    assert_eq!(with_profile(&lab).await, [""; 0]);
    lab.proxy.take();

    let provider = provider_of(&lab, Some(OURS));
    let gets = "instance keeper gets the instance profile backups";
    assert_eq!(changes(&*provider).await, [gets]);
    provider.repair(Part::Missing, &lab.events).await.unwrap();
    assert_eq!(with_profile(&lab).await, ["keeper backups"]);
    assert_eq!(changes(&*provider).await, [""; 0]);

    // Another host has it, from a time when that one kept the backups: it goes, but only at the end.
    give(&lab, "node1", OURS).await;
    give(&lab, "node4", OTHER).await;
    let gives_up = "instance node1 gives up the instance profile backups";
    assert_eq!(changes(&*provider).await, [gives_up]);
    provider.repair(Part::Missing, &lab.events).await.unwrap();
    assert_eq!(changes(&*provider).await, [gives_up]);
    provider.repair(Part::All, &lab.events).await.unwrap();
    assert_eq!(with_profile(&lab).await, ["keeper backups", "node4 agents"]);

    // A host can have one alone. (moto still shows the old one at the instance.)
    take(&lab, "keeper").await;
    give(&lab, "keeper", OTHER).await;
    let instead = "instance keeper gets the instance profile backups instead of agents";
    assert_eq!(changes(&*provider).await, [instead]);
    for _ in 0..2 {
        provider.repair(Part::Missing, &lab.events).await.unwrap();
        let now = associations(&lab, "keeper").await;
        assert!(now.len() == 1 && now[0].1 == OURS, "{now:?}");
    }

    let calls = lab.proxy.take();
    let called: BTreeSet<&str> = calls.iter().map(|it| it.action.as_str()).collect();
    let policy = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    let own = policy(include_str!("../../docs/iam-policy-profile.json"));
    let actions = own["Statement"].as_array().unwrap().iter();
    let actions = actions.flat_map(|it| it["Action"].as_array().unwrap());
    for action in actions.map(|it| it.as_str().unwrap()) {
        // What these calls need besides, and no call of its own.
        assert!(
            action == "iam:PassRole" || called.contains(action),
            "{action} is never called: {called:?}"
        );
    }
    lab.remove().await.unwrap();
}

pub(crate) async fn giving_it_may_die_at_any_call() {
    let lab = Lab::new("profile-dies").await;
    make_profile(&lab, OURS);
    launch(&*provider_of(&lab, None), &HOSTS, &lab.events)
        .await
        .unwrap();
    for done in [false, true] {
        for number in 0.. {
            let provider = provider_of(&lab, Some(OURS));
            cut_at(&lab, number, done);
            let survived = tokio::select! {
                repaired = provider.repair(Part::All, &lab.events) => {
                    repaired.unwrap_or_else(|error| panic!("{error:?}"));
                    true
                }
                () = lab.proxy.has_swallowed() => false,
            };
            lab.proxy.pass_all();
            let next = provider_of(&lab, Some(OURS));
            next.repair(Part::All, &lab.events).await.unwrap();
            assert_eq!(with_profile(&lab).await, ["keeper backups"]);
            assert_eq!(changes(&*next).await, [""; 0]);
            take(&lab, "keeper").await;
            if survived {
                assert!(number > 0, "no call was tried");
                break;
            }
        }
    }
    lab.remove().await.unwrap();
}

pub(crate) async fn what_is_wrong_with_it_is_said_before_anything_is_made() {
    let lab = Lab::new("profile-refused").await;
    let provider = provider_of(&lab, Some(OURS));
    let asks = |call: &Call| call.action == "ec2:RunInstances" && call.dry_run;
    lab.proxy.judge(move |call| match asks(call) {
        true => Verdict::Refuse("UnauthorizedOperation"),
        false => Verdict::Pass,
    });
    let error = preflight(&*provider).await.unwrap_err();
    assert!(error.what().contains("iam:PassRole"), "{error:?}");
    let named = |it: &String| it.contains("docs/iam-policy-profile.json");
    assert!(error.hints().iter().any(named), "{error:?}");
    lab.proxy.judge(move |call| match asks(call) {
        true => Verdict::Say("InvalidParameterValue", UNKNOWN),
        false => Verdict::Pass,
    });
    let error = preflight(&*provider).await.unwrap_err();
    assert_eq!(error.code(), Code::ProviderSettingUnusable, "{error:?}");
    assert!(
        error.what().contains("no such instance profile"),
        "{error:?}"
    );
    assert_eq!(lab.left().await, [""; 0]);
}
