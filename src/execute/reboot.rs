//! Has a host boot again, and waits until it answers.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Context, Latest, Say};
use crate::{
    error::{Code, Error, Result},
    event::Stream,
    facts,
    inventory::HostName,
    plan::Step,
    poll,
    remote::Script,
};

const LOOK: Duration = Duration::from_millis(500);
/// How long a host that is going down or coming up may leave a question without an answer.
const ANSWER: Duration = Duration::from_secs(15);
/// How long the command itself may take; it does not wait for the shutdown.
const ORDER: Duration = Duration::from_secs(30);

/// What identifies the system that runs on a host.
async fn mark(host: &HostName, context: &Context) -> Result<String> {
    let quiet = |_, _: &str| {};
    let script = facts::boot();
    let said = context.remote.run(host, &script, ANSWER, &quiet).await?;
    let mark = said.stdout.trim();
    if mark.is_empty() {
        return Err(Error::new(
            Code::AnswerUnusable,
            "the host does not say which boot it runs from",
        )
        .on(host));
    }
    Ok(mark.to_owned())
}

/// Returns when the host runs another system than the one with the mark `boot`.
pub(super) async fn reboot(boot: &str, step: &Step, context: &Context, say: Say<'_>) -> Result<()> {
    let host = &step.host;
    if mark(host, context).await? != boot {
        say(Stream::Stdout, "it has booted again already");
        return Ok(());
    }
    let script = Script::new().line("systemctl reboot");
    match context.remote.run(host, &script, ORDER, say).await {
        Ok(said) if !said.success() => {
            return Err(
                Error::new(Code::ScriptFailed, "systemd refuses to reboot the host")
                    .on(host)
                    .excerpt("stderr", said.stderr)
                    .left("it was not rebooted"),
            );
        }
        // The connection may end before the answer comes.
        Ok(_) | Err(_) => {}
    }
    let latest = Latest::default();
    let back = poll::until(step.limit, LOOK, || async {
        let state = match timeout(ANSWER, mark(host, context)).await {
            Ok(Ok(now)) if now != boot => return Ok(()),
            Ok(Ok(_)) => "it is shutting down".to_owned(),
            Ok(Err(error)) => format!("it does not answer: {}", error.what()),
            Err(_) => "it does not answer".to_owned(),
        };
        // A connection to the system that is gone would fail only after some time.
        if state != "it is shutting down" {
            context.remote.forget(host).await;
        }
        latest.say(state.clone(), say);
        sleep(LOOK).await;
        Err(state)
    });
    back.await.map_err(|over| {
        let (seconds, state) = (over.after.as_secs(), over.last);
        Error::new(
            Code::StepTimedOut,
            format!("it did not come back within {seconds} s after its reboot: {state}"),
        )
        .on(host)
        .left("the other hosts serve, and none of them was rebooted after it")
        .hint("look at its console; if pgherd made it and it does not run, start it: pgherd up")
    })
}
