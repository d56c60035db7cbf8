//! The rules of security groups after changes by the inventory or by hand.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{IpPermission, IpRange};
use pgherd::provider::{self, Part, Provider};

use crate::{
    proxy::{Call, Verdict},
    support::{FIVE, Lab, cut_offs, launch, tag},
};

pub(crate) async fn rules_follow_the_inventory() {
    let lab = Lab::new("rules").await;
    let inventory = lab.five("  operator_cidrs: [203.0.113.7/32]\n");
    let provider = provider::from_inventory(&inventory).unwrap();
    launch(&*provider, &FIVE[..4], &lab.events).await.unwrap();
    let before = rules(&lab).await;
    assert!(
        before
            .iter()
            .filter(|it| it.ends_with("203.0.113.7/32"))
            .count()
            == 4,
        "{before:?}"
    );
    assert_eq!(before.len(), 12, "{before:?}");
    lab.proxy.take();

    let inventory = lab.five("  operator_cidrs: [203.0.113.8/32]\n");
    let provider = provider::from_inventory(&inventory).unwrap();
    launch(&*provider, &FIVE[4..], &lab.events).await.unwrap();
    // Rules that nobody needs any more are removed last.
    provider.repair(Part::All, &lab.events).await.unwrap();
    let after = rules(&lab).await;
    let renamed: BTreeSet<String> = before
        .iter()
        .map(|it| it.replace("203.0.113.7", "203.0.113.8"))
        .collect();
    assert_eq!(after, renamed);
    let calls = lab.proxy.take();
    assert_eq!(
        calls
            .iter()
            .filter(|it| it.is("AuthorizeSecurityGroupIngress"))
            .count(),
        3
    );
    assert_eq!(
        calls
            .iter()
            .filter(|it| it.is("CreateSecurityGroup"))
            .count(),
        0
    );
    lab.remove().await.unwrap();
}

async fn rules(lab: &Lab) -> BTreeSet<String> {
    let filter = aws_sdk_ec2::types::Filter::builder();
    let filter = filter.name("tag:pgherd:cluster").values(&lab.name).build();
    let groups = lab
        .ec2
        .describe_security_groups()
        .filters(filter)
        .send()
        .await
        .unwrap();
    let groups = groups.security_groups();
    let name = |id: &str| {
        let group = groups.iter().find(|it| it.group_id() == Some(id)).unwrap();
        tag(group.tags(), "pgherd:role").to_owned()
    };
    let mut all = BTreeSet::new();
    for group in groups {
        for rule in group.ip_permissions() {
            let ranges = rule
                .ip_ranges()
                .iter()
                .map(|it| it.cidr_ip().unwrap().to_owned());
            let pairs = rule
                .user_id_group_pairs()
                .iter()
                .map(|it| name(it.group_id().unwrap()));
            for source in ranges.chain(pairs) {
                let (to, port) = (name(group.group_id().unwrap()), rule.from_port().unwrap());
                all.insert(format!("{to} {port} <- {source}"));
            }
        }
    }
    all
}

fn provider(lab: &Lab, operators: &str, allow: &str) -> Box<dyn Provider> {
    lab.five(&format!("  operator_cidrs: [{operators}]\n"));
    let text = std::fs::read_to_string(lab.dir.path().join("pgherd.yaml")).unwrap();
    let allow = format!("postgresql: {{ allow: [{allow}] }}\nhosts:\n");
    let inventory = lab.parse(&text.replace("hosts:\n", &allow));
    provider::from_inventory(&inventory).unwrap()
}

fn amending(calls: &[Call]) -> usize {
    let amends = |call: &&Call| {
        call.is("AuthorizeSecurityGroupIngress") || call.is("RevokeSecurityGroupIngress")
    };
    calls.iter().filter(amends).count()
}

pub(crate) async fn those_of_running_hosts_follow_too() {
    let lab = Lab::new("drift").await;
    let first = provider(&lab, "203.0.113.7/32", "10.9.0.0/16");
    launch(&*first, &FIVE, &lab.events).await.unwrap();
    let before = rules(&lab).await;
    lab.proxy.take();
    first.discover().await.unwrap();
    assert_eq!(first.drift().await.unwrap().changes, [""; 0]);
    let calls = lab.proxy.take();
    assert_eq!(calls.len(), 3, "what is right costs one look: {calls:?}");

    let second = provider(&lab, "203.0.113.8/32", "10.9.0.0/16, 10.8.0.0/16");
    let ssh = lab.port;
    let [old, new] = ["203.0.113.7/32", "203.0.113.8/32"];
    let ssh_alone = |role| {
        format!("security group pgherd-drift-{role} opens {ssh} to {new}; closes {ssh} to {old}")
    };
    assert_eq!(
        second.drift().await.unwrap().changes,
        [
            ssh_alone("postgres"),
            ssh_alone("etcd"),
            format!(
                "security group pgherd-drift-haproxy opens 5000 to 10.8.0.0/16, 5001 to 10.8.0.0/16, \
                 7000 to {new}, {ssh} to {new}; closes 7000 to {old}, {ssh} to {old}"
            ),
        ]
    );
    assert_eq!(rules(&lab).await, before, "to look changes nothing");
    assert_eq!(amending(&lab.proxy.take()), 0);
    second.repair(Part::All, &lab.events).await.unwrap();
    let mut wanted: BTreeSet<String> = before
        .iter()
        .map(|it| it.replace("203.0.113.7", "203.0.113.8"))
        .collect();
    wanted.extend(["haproxy 5000 <- 10.8.0.0/16", "haproxy 5001 <- 10.8.0.0/16"].map(String::from));
    assert_eq!(rules(&lab).await, wanted);
    assert_eq!(amending(&lab.proxy.take()), 6);
    assert_eq!(second.drift().await.unwrap().changes, [""; 0]);
    second.repair(Part::All, &lab.events).await.unwrap();
    assert_eq!(amending(&lab.proxy.take()), 0, "a second time does nothing");

    // Somebody opens a port by hand.
    let world = IpPermission::builder()
        .ip_protocol("tcp")
        .from_port(5432)
        .to_port(5432)
        .ip_ranges(IpRange::builder().cidr_ip("0.0.0.0/0").build())
        .build();
    let id = group(&lab, "postgres").await;
    let opened = lab.ec2.authorize_security_group_ingress().group_id(id);
    opened.ip_permissions(world).send().await.unwrap();
    assert_eq!(
        second.drift().await.unwrap().changes,
        ["security group pgherd-drift-postgres closes 5432 to 0.0.0.0/0"]
    );
    lab.proxy.judge(|call| match call.dry_run {
        true => Verdict::Refuse("UnauthorizedOperation"),
        false => Verdict::Pass,
    });
    let error = second.drift().await.unwrap_err();
    assert!(
        error.what().contains("ec2:RevokeSecurityGroupIngress"),
        "{error:?}"
    );
    // An answer about something else does not stop the run, and is shown.
    lab.proxy.judge(|call| match call.dry_run {
        true => Verdict::Refuse("InvalidPermission.NotFound"),
        false => Verdict::Pass,
    });
    let drift = second.drift().await.unwrap();
    assert_eq!(drift.changes.len(), 1);
    assert!(
        drift.doubts[0].contains("EC2 answered InvalidPermission.NotFound"),
        "{drift:?}"
    );
    lab.proxy.pass_all();
    second.repair(Part::All, &lab.events).await.unwrap();
    assert_eq!(rules(&lab).await, wanted);
    lab.remove().await.unwrap();
}

pub(crate) async fn a_host_is_in_the_groups_of_its_roles() {
    let lab = Lab::new("roles").await;
    lab.launch(&FIVE).await.unwrap();
    lab.proxy.take();
    let before = lab.provider();
    before.discover().await.unwrap();
    assert_eq!(before.drift().await.unwrap().changes, [""; 0]);
    let looks = lab.proxy.take();
    assert_eq!(
        looks.iter().filter(|it| it.is("DescribeInstances")).count(),
        1
    );
    // A group of the user's, which stays.
    let own = lab
        .ec2
        .create_security_group()
        .group_name("own")
        .description("own");
    let own = own.vpc_id(&lab.vpc).send().await.unwrap().group_id.unwrap();
    let node4 = lab.id_of("node4").await;
    let mut groups = groups_of(&lab, &node4).await;
    groups.insert(own.clone());
    let interface = interface_of(&lab, &node4).await;
    let put = lab.ec2.modify_network_interface_attribute();
    let put = put.network_interface_id(interface);
    put.set_groups(Some(groups.into_iter().collect()))
        .send()
        .await
        .unwrap();
    assert_eq!(before.drift().await.unwrap().changes, [""; 0]);

    let after = other_roles(&lab);
    let told = after.drift().await.unwrap().changes;
    assert_eq!(
        told,
        [
            "instance haproxy joins pgherd-roles-etcd; leaves pgherd-roles-haproxy",
            "instance node4 joins pgherd-roles-haproxy; leaves pgherd-roles-etcd",
        ]
    );
    lab.proxy.take();
    after.repair(Part::All, &lab.events).await.unwrap();
    assert_eq!(after.drift().await.unwrap().changes, [""; 0]);
    let wanted = BTreeSet::from([own.clone(), group(&lab, "haproxy").await]);
    assert_eq!(groups_of(&lab, &node4).await, wanted);
    lab.remove().await.unwrap();
    lab.ec2
        .delete_security_group()
        .group_id(own)
        .send()
        .await
        .unwrap();
}

/// The same hosts, but two of them have exchanged their roles.
pub(crate) fn other_roles(lab: &Lab) -> Box<dyn Provider> {
    lab.five("");
    let text = std::fs::read_to_string(lab.dir.path().join("pgherd.yaml")).unwrap();
    let text = text.replace("node4: { roles: [etcd]", "node4: { roles: [haproxy]");
    let text = text.replace("haproxy: { roles: [haproxy]", "haproxy: { roles: [etcd]");
    let provider = provider::from_inventory(&lab.parse(&text));
    provider.unwrap()
}

async fn instance_of(lab: &Lab, id: &str) -> aws_sdk_ec2::types::Instance {
    let all = lab.instances().await.into_iter();
    let mut all = all.filter(|it| it.instance_id() == Some(id));
    all.next().unwrap()
}

async fn interface_of(lab: &Lab, id: &str) -> String {
    let instance = instance_of(lab, id).await;
    let interface = &instance.network_interfaces()[0];
    interface.network_interface_id().unwrap().to_owned()
}

async fn groups_of(lab: &Lab, id: &str) -> BTreeSet<String> {
    let instance = instance_of(lab, id).await;
    let groups = instance.network_interfaces()[0].groups().iter();
    groups.map(|it| it.group_id().unwrap().to_owned()).collect()
}

/// The run is interrupted at each call, and the next run completes it.
pub(crate) async fn mending_may_die_at_any_call() {
    let lab = Lab::new("mend").await;
    let mut address = 1;
    let first = provider(&lab, "203.0.113.1/32", "10.9.0.0/16");
    launch(&*first, &FIVE, &lab.events).await.unwrap();
    for done in [false, true] {
        for number in cut_offs(done) {
            address += 1;
            let wanted = format!("203.0.113.{address}/32");
            let next = provider(&lab, &wanted, "10.9.0.0/16");
            lab.proxy.take();
            lab.proxy
                .judge(move |call: &Call| match call.number == number {
                    true if done => Verdict::DoAndSwallow,
                    true => Verdict::Swallow,
                    false => Verdict::Pass,
                });
            let survived = tokio::select! {
                mended = next.repair(Part::All, &lab.events) => {
                    mended.unwrap_or_else(|error| panic!("{error:?}"));
                    true
                }
                () = lab.proxy.has_swallowed() => false,
            };
            lab.proxy.pass_all();
            let next = provider(&lab, &wanted, "10.9.0.0/16");
            next.repair(Part::All, &lab.events).await.unwrap();
            assert_eq!(
                next.drift().await.unwrap().changes,
                [""; 0],
                "call {number}"
            );
            let all = rules(&lab).await;
            let operators = all.iter().filter(|it| it.contains("203.0.113."));
            assert!(operators.clone().all(|it| it.ends_with(&wanted)), "{all:?}");
            assert_eq!(operators.count(), 4);
            if survived {
                assert!(number > 6, "only {number} calls were tried");
                break;
            }
        }
    }
    lab.remove().await.unwrap();
}

async fn group(lab: &Lab, role: &str) -> String {
    let filter = aws_sdk_ec2::types::Filter::builder();
    let name = format!("pgherd-{}-{role}", lab.name);
    let filter = filter.name("group-name").values(name).build();
    let groups = lab.ec2.describe_security_groups().filters(filter);
    let groups = groups.send().await.unwrap();
    groups.security_groups()[0].group_id().unwrap().to_owned()
}
