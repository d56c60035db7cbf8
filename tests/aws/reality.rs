//! A cluster's life when EC2 has a bad day.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use pgherd::{
    error::{Code, Kind},
    provider,
};

use crate::{
    crashes::whole,
    proxy::{Call, Verdict},
    support::{FIVE, KEY, Lab, hosts, launch},
};

async fn gone(lab: &Lab) {
    lab.remove()
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(lab.left().await, [""; 0]);
    assert_eq!(lab.instances().await.len(), 0);
}

/// Instances, groups and key pairs, and their tags; removed things are still listed.
pub(crate) async fn what_is_known_late_is_waited_for() {
    let lab = Lab::new("lag").await;
    lab.proxy.nature().lag(Duration::from_secs(2));
    let machines = lab.launch(&FIVE).await.unwrap();
    assert_eq!(machines.len(), 5);
    tokio::time::sleep(Duration::from_secs(2)).await;
    whole(&lab, 0).await;
    gone(&lab).await;
}

/// What the dead run has created is not known yet to the next run, nor to the `down` after it.
pub(crate) async fn a_run_may_die_and_nobody_knows_yet_what_it_made() {
    for action in ["CreateSecurityGroup", "ImportKeyPair", "RunInstances"] {
        for removed_at_once in [false, true] {
            let lab = Lab::new(&format!("late-{}-{removed_at_once}", action.to_lowercase())).await;
            lab.proxy.nature().lag(Duration::from_secs(2));
            lab.proxy.judge(move |call| match call.is(action) {
                true => Verdict::DoAndSwallow,
                false => Verdict::Pass,
            });
            tokio::select! {
                _ = lab.launch(&FIVE) => panic!("it should have died"),
                () = lab.proxy.has_swallowed() => {}
            }
            lab.proxy.pass_all();
            if removed_at_once {
                gone(&lab).await;
                tokio::time::sleep(Duration::from_secs(2)).await;
                assert_eq!(lab.left().await, [""; 0], "{action}");
                assert_eq!(lab.instances().await.len(), 0, "{action}");
                continue;
            }
            let again = lab.launch(&FIVE).await;
            again.unwrap_or_else(|error| panic!("{action}: {error:?}"));
            lab.proxy.nature().lag(Duration::ZERO);
            whole(&lab, 0).await;
            gone(&lab).await;
        }
    }
}

/// The inventory changes between a run that died and the next one, which cannot see yet what the first one
/// launched.
pub(crate) async fn a_token_is_believed_more_than_a_list() {
    let lab = Lab::new("token").await;
    lab.proxy.nature().lag(Duration::from_secs(2));
    lab.proxy.judge(|call| match call.is("RunInstances") {
        true => Verdict::DoAndSwallow,
        false => Verdict::Pass,
    });
    tokio::select! {
        _ = lab.launch(&["node1"]) => panic!("it should have died"),
        () = lab.proxy.has_swallowed() => {}
    }
    lab.proxy.pass_all();
    let made = lab.id_of("node1").await;
    let provider = provider::from_inventory(&lab.five("  instance_type: m5.large\n")).unwrap();
    let machines = launch(&*provider, &["node1"], &lab.events).await.unwrap();
    assert_eq!(machines[0].id, made);
    assert_eq!(
        lab.instances().await.len(),
        1,
        "no second node1 was launched"
    );
    lab.proxy.nature().lag(Duration::ZERO);
    gone(&lab).await;
}

/// `down` waits for instances that take their time, and whose groups EC2 does not delete meanwhile; so does an
/// `up` that needs the address of one.
pub(crate) async fn what_ends_slowly_is_waited_for() {
    let lab = Lab::new("slow").await;
    lab.launch(&FIVE).await.unwrap();
    lab.proxy.nature().end_after(Duration::from_secs(3));
    let begun = Instant::now();
    // A `down` that dies right after its beginning.
    lab.proxy.judge(|call| match call.is("TerminateInstances") {
        true => Verdict::DoAndSwallow,
        false => Verdict::Pass,
    });
    tokio::select! {
        _ = lab.remove() => panic!("it should have died"),
        () = lab.proxy.has_swallowed() => {}
    }
    lab.proxy.pass_all();
    assert_eq!(
        lab.provider().discover().await.unwrap(),
        [],
        "they are no hosts any more"
    );
    assert_eq!(lab.left().await.len(), 9, "but still there");
    gone(&lab).await;
    assert!(begun.elapsed() > Duration::from_secs(3));

    let fixed = |lab: &Lab| {
        let mut inventory = lab.five("");
        let node1 = inventory.hosts.get_mut(&hosts()[0]).unwrap();
        node1.address = Some(format!("{}.99", lab.network).parse().unwrap());
        provider::from_inventory(&inventory).unwrap()
    };
    let first = launch(&*fixed(&lab), &["node1"], &lab.events)
        .await
        .unwrap();
    let ended = lab.provider();
    let all = ended.resources().await.unwrap();
    let instance: Vec<_> = all
        .iter()
        .filter(|it| it.kind == "instance")
        .cloned()
        .collect();
    let events = lab.events.clone();
    let (_, second) = tokio::join!(ended.remove(&instance, &events), async {
        while !lab.provider().discover().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        launch(&*fixed(&lab), &["node1"], &lab.events).await
    });
    let second = second.unwrap();
    assert_eq!(second[0].address, first[0].address);
    assert_ne!(second[0].id, first[0].id);
    gone(&lab).await;
}

/// If Service Quotas may be asked, nothing is created; if not, the launch reports it, and the next run
/// completes it.
pub(crate) async fn a_quota_holds_at_the_launch() {
    let lab = Lab::new("held").await;
    lab.proxy.nature().quota(8);
    let error = lab.provider().preflight(&hosts(), KEY).await.unwrap_err();
    assert_eq!(error.code(), Code::AwsQuota);
    assert_eq!(lab.left().await, [""; 0]);
    let error = lab.launch(&FIVE).await.unwrap_err();
    assert_eq!(error.code(), Code::AwsQuota);
    assert!(error.to_string().contains("vCPU capacity"), "{error:?}");
    let left = error.left_behind().unwrap();
    assert_eq!(left.matches("instance ").count(), 4, "{left}");
    lab.proxy.nature().quota(10);
    lab.launch(&FIVE).await.unwrap();
    whole(&lab, 0).await;
    // A stopped instance uses nothing until it is started.
    let node1 = lab.id_of("node1").await;
    let stop = lab.ec2.stop_instances().instance_ids(&node1);
    stop.send().await.unwrap();
    assert_eq!(
        lab.provider()
            .preflight(&hosts(), KEY)
            .await
            .unwrap()
            .doubts,
        [""; 0]
    );
    lab.proxy.nature().quota(9);
    let error = lab.provider().preflight(&hosts(), KEY).await.unwrap_err();
    assert!(
        error
            .what()
            .contains("1 host needs 2 vCPUs, and the account has 1 left"),
        "{error:?}"
    );
    let begun = Instant::now();
    let error = lab.launch(&FIVE).await.unwrap_err();
    assert!(error.to_string().contains("vCPU capacity"), "{error:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "it waits for nothing"
    );
    gone(&lab).await;
}

/// Credentials that expire during a run: at each kind of call, of a launch and of a removal.
pub(crate) async fn a_session_may_expire_at_any_moment() {
    let expire = |lab: &Lab, action: &'static str, nth: usize| {
        let (seen, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        lab.proxy.judge(move |call: &Call| {
            if call.is(action) && seen.fetch_add(1, Ordering::SeqCst) == nth {
                over.store(true, Ordering::SeqCst);
            }
            match over.load(Ordering::SeqCst) {
                true => Verdict::Say("RequestExpired", "Request has expired."),
                false => Verdict::Pass,
            }
        });
    };
    let lab = Lab::new("session").await;
    let moments = [
        ("DescribeInstances", 0),
        ("DescribeSubnets", 0),
        ("CreateSecurityGroup", 1),
        ("AuthorizeSecurityGroupIngress", 1),
        ("ImportKeyPair", 0),
        ("RunInstances", 2),
        ("DescribeInstances", 1),
    ];
    for (action, nth) in moments {
        expire(&lab, action, nth);
        let error = lab.launch(&FIVE).await.unwrap_err();
        expired(&error, action);
        lab.proxy.pass_all();
        lab.launch(&FIVE)
            .await
            .unwrap_or_else(|error| panic!("{action}: {error:?}"));
        whole(&lab, 0).await;
        let removal = [
            ("DescribeInstances", 0),
            ("TerminateInstances", 0),
            ("DescribeInstances", 2),
            ("DeleteSecurityGroup", 1),
        ];
        if action == "DescribeInstances" && nth == 0 {
            for (action, nth) in removal {
                expire(&lab, action, nth);
                let error = lab.remove().await.unwrap_err();
                expired(&error, action);
                lab.proxy.pass_all();
            }
        }
        gone(&lab).await;
    }
}

fn expired(error: &pgherd::error::Error, action: &str) {
    assert_eq!(error.code(), Code::AwsCredentials, "{action}: {error:?}");
    let said = format!("{error:?}");
    assert!(said.contains("expired"), "{action}: {said}");
    assert!(said.contains("aws sso login"), "{action}: {said}");
    assert!(said.contains("again"), "{action}: {said}");
}

/// A few calls at once and then one now and then: slower, and no error.
pub(crate) async fn bursts_of_throttling_are_waited_out() {
    let lab = Lab::new("bursts").await;
    lab.proxy.nature().throttle(6.0, 4.0);
    lab.provider().preflight(&hosts(), KEY).await.unwrap();
    lab.launch(&FIVE).await.unwrap();
    gone(&lab).await;
    // If it lasts, the error says so.
    lab.proxy.judge(|call| match call.is("DescribeSubnets") {
        true => Verdict::Refuse("RequestLimitExceeded"),
        false => Verdict::Pass,
    });
    let begun = Instant::now();
    let error = lab.launch(&FIVE).await.unwrap_err();
    assert_eq!(
        (error.code(), error.kind()),
        (Code::AwsThrottled, Kind::Failed)
    );
    assert!(error.hints()[0].contains("again"), "{error:?}");
    assert!(begun.elapsed() > Duration::from_secs(2));
    lab.proxy.pass_all();
    lab.launch(&FIVE[..1]).await.unwrap();
    gone(&lab).await;
}

/// A `DryRun` that finds a wrong parameter first: the group and the key are not listed, but exist.
pub(crate) async fn a_question_is_validated_first() {
    let lab = Lab::new("asks").await;
    lab.proxy.nature().quota(32);
    let ask = async || {
        lab.provider()
            .preflight(&hosts(), KEY)
            .await
            .unwrap()
            .doubts
    };
    assert_eq!(ask().await, [""; 0]);
    let group = lab
        .ec2
        .create_security_group()
        .group_name("pgherd-asks-postgres");
    group
        .description("x")
        .vpc_id(&lab.vpc)
        .send()
        .await
        .unwrap();
    let key = lab.ec2.import_key_pair().key_name("pgherd-asks");
    key.public_key_material(KEY.as_bytes().into())
        .send()
        .await
        .unwrap();
    lab.proxy.judge(|call| match call.action.as_str() {
        "ec2:DescribeKeyPairs" => {
            Verdict::Answer("<DescribeKeyPairsResponse><keySet/></DescribeKeyPairsResponse>".into())
        }
        _ => Verdict::Pass,
    });
    let doubts = ask().await.join("\n");
    for code in ["InvalidGroup.Duplicate", "InvalidKeyPair.Duplicate"] {
        assert!(doubts.contains(code), "{code} is missing in {doubts}");
    }
}
