//! Runs that are interrupted between any two calls.

use std::{collections::BTreeSet, fs};

use pgherd::provider;

use crate::{
    proxy::{Call, Verdict},
    support::{FIVE, Lab, cut_offs, launch, stride, tag},
};

/// Swallows the call with this number: before it is done, or after.
fn dies_at(lab: &Lab, number: usize, done: bool) {
    lab.proxy.take();
    lab.proxy
        .judge(move |call: &Call| match call.number == number {
            true if done => Verdict::DoAndSwallow,
            true => Verdict::Swallow,
            false => Verdict::Pass,
        });
}

pub(crate) async fn a_launch_may_die_at_any_call() {
    let mut died = 0;
    for done in [false, true] {
        for number in cut_offs(done) {
            let lab = Lab::new(&format!("crash-{number}-{}", u8::from(done))).await;
            dies_at(&lab, number, done);
            // Dropping the run has the effect of a kill: only what it has written is on disk.
            let survived = tokio::select! {
                launched = lab.launch(&FIVE) => {
                    launched.unwrap_or_else(|error| panic!("{error:?}"));
                    true
                }
                () = lab.proxy.has_swallowed() => false,
            };
            lab.proxy.pass_all();
            if !survived {
                died += 1;
                let machines = lab.launch(&FIVE).await;
                let machines = machines.unwrap_or_else(|error| panic!("call {number}: {error:?}"));
                assert_eq!(machines.len(), 5, "call {number}");
            }
            whole(&lab, number).await;
            lab.remove().await.unwrap();
            assert_eq!(lab.left().await, [""; 0]);
            if survived {
                break;
            }
        }
    }
    assert!(died * stride() > 40, "only {died} calls were tried");
}

/// Five instances, three groups with all their rules, one key pair, and the keys that their tags name.
pub(crate) async fn whole(lab: &Lab, number: usize) {
    let instances = lab.instances().await;
    let hosts: BTreeSet<&str> = instances
        .iter()
        .map(|it| tag(it.tags(), "pgherd:host"))
        .collect();
    assert_eq!((instances.len(), hosts.len()), (5, 5), "call {number}");
    assert_eq!(lab.left().await.len(), 9, "call {number}");
    let launches = lab
        .dir
        .path()
        .join(format!(".pgherd/{}/launches", lab.name));
    let open: Vec<_> = fs::read_dir(launches).into_iter().flatten().collect();
    assert!(open.len() <= 5);
}

pub(crate) async fn a_removal_may_die_at_any_call() {
    for number in cut_offs(true) {
        let lab = Lab::new(&format!("fall-{number}")).await;
        lab.launch(&FIVE).await.unwrap();
        dies_at(&lab, number, true);
        let survived = tokio::select! {
            removed = lab.remove() => {
                removed.unwrap_or_else(|error| panic!("{error:?}"));
                true
            }
            () = lab.proxy.has_swallowed() => false,
        };
        lab.proxy.pass_all();
        lab.remove()
            .await
            .unwrap_or_else(|error| panic!("call {number}: {error:?}"));
        assert_eq!(lab.left().await, [""; 0], "call {number}");
        assert_eq!(lab.instances().await.len(), 0);
        if survived {
            assert!(number > 10);
            break;
        }
    }
}

/// EC2 refuses a token with other parameters; what the token has created is used.
pub(crate) async fn a_token_outlives_a_change_of_the_inventory() {
    let lab = Lab::new("mismatch").await;
    lab.proxy
        .judge(|call: &Call| match call.is("RunInstances") {
            true => Verdict::DoAndSwallow,
            false => Verdict::Pass,
        });
    tokio::select! {
        _ = lab.launch(&["node1"]) => panic!("it should have died"),
        () = lab.proxy.has_swallowed() => {}
    }
    let made = lab.id_of("node1").await;
    let token = fs::read_to_string(lab.dir.path().join(".pgherd/mismatch/launches/node1")).unwrap();
    let token = token.lines().next().unwrap().to_owned();
    // The list of instances lags behind once, so that only the token is left to go by.
    lab.proxy.take();
    let first = std::sync::atomic::AtomicBool::new(true);
    let known = token.clone();
    let by_token = format!(
        "<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>{made}</instanceId>\
         </item></instancesSet></item></reservationSet></DescribeInstancesResponse>"
    );
    lab.proxy.judge(move |call: &Call| {
        if call.is("RunInstances") && call.parameter("ClientToken") == Some(&known) {
            Verdict::Refuse("IdempotentParameterMismatch")
        } else if call.is("DescribeInstances") && call.body.contains("client-token") {
            // moto cannot search by it.
            Verdict::Answer(by_token.clone())
        } else if call.is("DescribeInstances")
            && first.swap(false, std::sync::atomic::Ordering::SeqCst)
        {
            Verdict::Answer(
                "<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>".into(),
            )
        } else {
            Verdict::Pass
        }
    });
    let inventory = lab.five("  instance_type: m5.large\n");
    let provider = provider::from_inventory(&inventory).unwrap();
    let machines = launch(&*provider, &["node1"], &lab.events).await.unwrap();
    assert_eq!(machines[0].id, made);

    // If the token's instance has terminated, another token creates another one.
    lab.proxy.pass_all();
    lab.ec2
        .terminate_instances()
        .instance_ids(&made)
        .send()
        .await
        .unwrap();
    let dir = lab.dir.path().join(".pgherd/mismatch/launches");
    lab.proxy
        .judge(|call: &Call| match call.is("RunInstances") {
            true => Verdict::Swallow,
            false => Verdict::Pass,
        });
    tokio::select! {
        _ = lab.launch(&["node1"]) => panic!("it should have died"),
        () = lab.proxy.has_swallowed() => {}
    }
    let token = fs::read_to_string(dir.join("node1")).unwrap();
    let token = token.lines().next().unwrap().to_owned();
    lab.proxy.pass_all();
    lab.proxy.judge(move |call: &Call| {
        match call.is("RunInstances") && call.parameter("ClientToken") == Some(&token) {
            true => Verdict::Refuse("IdempotentInstanceTerminated"),
            false => Verdict::Pass,
        }
    });
    let machines = lab.launch(&["node1"]).await.unwrap();
    assert_ne!(machines[0].id, made);
    lab.proxy.pass_all();
    lab.remove().await.unwrap();
}
