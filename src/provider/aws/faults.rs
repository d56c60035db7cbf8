//! Stops instances on purpose, for drills.
//!
//! There is no fault that cuts an instance off. Security groups do not end open connections, so swapping them
//! would only seem to cut a host off while it still talks to the others. A network ACL applies to the whole
//! subnet.

use std::time::Duration;

use aws_sdk_ec2::{
    Client,
    types::{Filter, InstanceStateName as State},
};

use super::failure::{Doing, Failure};
use crate::{
    error::{Code, Error, Result},
    poll,
    provider::Machine,
};

/// The time between two looks at an instance.
const LOOK: Duration = Duration::from_secs(1);
/// How long an instance may take to stop or to start.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Stops the instance without notifying its system, which cannot even write its buffers to disk.
///
/// `Force` is different: it asks the system to shut down first, and Patroni would release its lock
/// (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StopInstances.html>).
pub(super) async fn crash(ec2: &Client, machine: &Machine) -> Result<()> {
    let asked = ec2
        .stop_instances()
        .instance_ids(&machine.id)
        .skip_os_shutdown(true)
        .send()
        .await
        .doing("stop an instance (ec2:StopInstances)");
    match asked {
        Ok(_) => Ok(()),
        Err(failure) => Err(Error::from(failure).on(&machine.host)),
    }
}

/// Shuts the instance down cleanly, and waits until it has stopped.
pub(super) async fn stop(ec2: &Client, machine: &Machine) -> Result<()> {
    let stopped = async {
        ec2.stop_instances()
            .instance_ids(&machine.id)
            .send()
            .await
            .doing("stop an instance (ec2:StopInstances)")?;
        await_state(ec2, machine, &[State::Stopped]).await
    };
    let stopped = stopped.await;
    stopped
        .map(|_| ())
        .map_err(|error: Error| error.on(&machine.host))
}

/// Starts the instance when it has stopped. It keeps its private address, and gets a new public one unless it
/// has an elastic one.
pub(super) async fn revive(ec2: &Client, machine: &Machine) -> Result<()> {
    let started = async {
        if await_state(ec2, machine, &[State::Stopped, State::Running]).await? == State::Running {
            return Ok(());
        }
        ec2.start_instances()
            .instance_ids(&machine.id)
            .send()
            .await
            .doing("start an instance (ec2:StartInstances)")?;
        await_state(ec2, machine, &[State::Running])
            .await
            .map(|_| ())
    };
    started
        .await
        .map_err(|error: Error| error.on(&machine.host))
}

async fn await_state(ec2: &Client, machine: &Machine, wanted: &[State]) -> Result<State> {
    let gone = || Error::new(Code::HostNotRunning, "its instance is gone");
    let reached = poll::until(TIMEOUT, LOOK, || async {
        match state(ec2, &machine.id).await {
            Ok(Some(state)) if wanted.contains(&state) => Ok(Ok(state)),
            Ok(Some(State::Terminated | State::ShuttingDown) | None) => Ok(Err(gone())),
            Ok(Some(state)) => Err(state),
            Err(failure) => Ok(Err(failure.into())),
        }
    });
    reached.await.unwrap_or_else(|over| {
        Err(Error::new(
            Code::HostDidNotStart,
            format!(
                "its instance is still {} after {} s",
                over.last.as_str(),
                over.after.as_secs()
            ),
        ))
    })
}

async fn state(ec2: &Client, id: &str) -> Result<Option<State>, Failure> {
    // By a filter: an instance that is unknown for a moment is then no error.
    let answer = ec2
        .describe_instances()
        .filters(Filter::builder().name("instance-id").values(id).build())
        .send()
        .await
        .doing("look at an instance (ec2:DescribeInstances)")?;
    let instances = answer
        .reservations
        .into_iter()
        .flatten()
        .flat_map(|reservation| reservation.instances.unwrap_or_default());
    Ok(instances
        .into_iter()
        .find_map(|instance| instance.state?.name))
}
