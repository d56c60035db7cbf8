//! Instances that are stopped on purpose, and come back.

use aws_sdk_ec2::types::InstanceStateName as State;
use pgherd::{
    provider::{Machine, MachineState},
    workspace::BrokenHost,
};

use crate::{
    proxy::{Call, Verdict},
    support::Lab,
};

async fn one(lab: &Lab) -> Machine {
    lab.launch(&["node1"]).await.unwrap().remove(0)
}

async fn state(lab: &Lab) -> State {
    let instances = lab.instances().await;
    let state = instances[0].state.as_ref().unwrap();
    state.name.clone().unwrap()
}

fn called(calls: &[Call], action: &str) -> usize {
    calls.iter().filter(|call| call.is(action)).count()
}

pub(crate) async fn a_host_dies_without_a_word_and_comes_back_where_it_was() {
    let lab = Lab::new("dies").await;
    let machine = one(&lab).await;
    let provider = lab.provider();
    assert!(provider.can_crash());
    lab.proxy.take();
    provider.crash(&machine).await.unwrap();
    let calls = lab.proxy.take();
    let stop = calls.iter().find(|call| call.is("StopInstances")).unwrap();
    assert_eq!(stop.parameter("SkipOsShutdown"), Some("true"));
    // That is a clean shutdown, in which Patroni releases its lock.
    assert_eq!(stop.parameter("Force"), None);
    assert_eq!(stop.parameter("InstanceId.1"), Some(machine.id.as_str()));
    assert_eq!(state(&lab).await, State::Stopped);
    let found = lab.provider().discover().await.unwrap();
    assert_eq!(found[0].state, MachineState::Stopped);

    provider.revive(&machine).await.unwrap();
    assert_eq!(called(&lab.proxy.take(), "StartInstances"), 1);
    let found = lab.provider().discover().await.unwrap();
    assert_eq!(
        (&found[0].id, found[0].state, found[0].address),
        (&machine.id, MachineState::Running, machine.address)
    );
    // A running instance is left alone.
    provider.revive(&machine).await.unwrap();
    assert_eq!(called(&lab.proxy.take(), "StartInstances"), 0);
    lab.remove().await.unwrap();
}

/// Nobody reads what hosts write in a clean shutdown, unless a volume stays.
pub(crate) async fn only_hosts_with_a_volume_that_stays_are_shut_down_in_order() {
    let lab = Lab::new("order").await;
    lab.launch(&["node1", "node2"]).await.unwrap();
    let (node1, node2) = (lab.id_of("node1").await, lab.id_of("node2").await);
    let zone = lab.instances().await[0].placement.clone().unwrap();
    let volume = lab.ec2.create_volume().size(1);
    let volume = volume.set_availability_zone(zone.availability_zone);
    let volume = volume.send().await.unwrap().volume_id.unwrap();
    let attached = lab.ec2.attach_volume().device("/dev/sdf");
    let attached = attached.volume_id(volume).instance_id(&node2);
    attached.send().await.unwrap();
    lab.proxy.take();
    lab.remove().await.unwrap();
    let calls = lab.proxy.take();
    let ended: Vec<_> = calls
        .iter()
        .filter(|call| call.is("TerminateInstances"))
        .map(|call| {
            (
                call.parameter("InstanceId.1"),
                call.parameter("SkipOsShutdown"),
            )
        })
        .collect();
    assert_eq!(
        ended,
        [
            (Some(node1.as_str()), Some("true")),
            (Some(node2.as_str()), None)
        ]
    );
    assert_eq!(lab.left().await, [""; 0]);
}

pub(crate) async fn one_that_still_stops_is_waited_for() {
    let lab = Lab::new("stops").await;
    let machine = one(&lab).await;
    lab.provider().crash(&machine).await.unwrap();
    let stopping = format!(
        "<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>{}</instanceId>\
         <instanceState><code>64</code><name>stopping</name></instanceState>\
         </item></instancesSet></item></reservationSet></DescribeInstancesResponse>",
        machine.id
    );
    let looks = std::sync::atomic::AtomicUsize::new(0);
    lab.proxy.judge(move |call| {
        let early = || looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2;
        match call.is("DescribeInstances") && early() {
            true => Verdict::Answer(stopping.clone()),
            false => Verdict::Pass,
        }
    });
    lab.proxy.take();
    lab.provider().revive(&machine).await.unwrap();
    let calls = lab.proxy.take();
    let started = calls.iter().position(|call| call.is("StartInstances"));
    let before = &calls[..started.unwrap()];
    assert_eq!(called(before, "DescribeInstances"), 3);
    assert_eq!(state(&lab).await, State::Running);
    lab.proxy.pass_all();
    lab.remove().await.unwrap();
}

/// A drill that is killed anywhere leaves a note, with which the host is started.
pub(crate) async fn a_drill_may_die_at_any_call() {
    let mut died = 0;
    for done in [false, true] {
        for number in 0.. {
            let lab = Lab::new(&format!("drill-{number}-{}", u8::from(done))).await;
            let machine = one(&lab).await;
            let note = serde_json::to_string(&BrokenHost::of(&machine)).unwrap();
            lab.proxy.take();
            lab.proxy.judge(move |call| match call.number == number {
                true if done => Verdict::DoAndSwallow,
                true => Verdict::Swallow,
                false => Verdict::Pass,
            });
            let provider = lab.provider();
            let drill = async {
                provider.crash(&machine).await.unwrap();
                provider.revive(&machine).await.unwrap();
            };
            let survived = tokio::select! {
                () = drill => true,
                () = lab.proxy.has_swallowed() => false,
            };
            lab.proxy.pass_all();
            // All that the next run knows.
            let noted: BrokenHost = serde_json::from_str(&note).unwrap();
            lab.provider().revive(&noted.machine()).await.unwrap();
            let found = lab.provider().discover().await.unwrap();
            assert_eq!(found.len(), 1, "call {number}");
            assert_eq!(
                (found[0].state, found[0].address),
                (MachineState::Running, machine.address),
                "call {number}"
            );
            lab.remove().await.unwrap();
            if survived {
                break;
            }
            died += 1;
        }
    }
    assert!(died > 6, "only {died} calls were tried");
}

pub(crate) async fn what_cannot_be_done_to_a_host_is_said() {
    let lab = Lab::new("cannot").await;
    let machine = one(&lab).await;
    let provider = lab.provider();
    // A security group does not end open connections, so a swap would cut off no host.
    assert!(!provider.can_isolate());
    let error = provider.isolate(&machine).await.unwrap_err();
    assert!(error.to_string().contains("cut a host off"), "{error:?}");

    lab.proxy.judge(|call| match call.is("StopInstances") {
        true => Verdict::Refuse("UnauthorizedOperation"),
        false => Verdict::Pass,
    });
    let error = provider.crash(&machine).await.unwrap_err();
    assert!(error.to_string().contains("ec2:StopInstances"), "{error:?}");
    assert_eq!(state(&lab).await, State::Running);
    lab.proxy.pass_all();

    let policy = include_str!("../../docs/iam-policy.json");
    for action in ["ec2:StopInstances", "ec2:StartInstances"] {
        assert!(policy.contains(action), "the policy lacks {action}");
    }
    let ended = lab.ec2.terminate_instances().instance_ids(&machine.id);
    ended.send().await.unwrap();
    let error = provider.revive(&machine).await.unwrap_err();
    assert!(error.to_string().contains("is gone"), "{error:?}");
    lab.remove().await.unwrap();
}
