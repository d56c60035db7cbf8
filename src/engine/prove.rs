//! The proof at the end of a run.

use std::time::Duration;

use super::{at_work, connected::Connected, context::Context, observe::Observed};
use crate::{
    error::Result,
    event::{Event, Events},
    poll,
    provider::Balancer,
    verify::{self, Proof, Prover},
};

/// How long the cluster may take to be healthy after the last step. A replication connection whose other end is
/// gone takes a minute to time out.
pub(super) const SETTLING: Duration = Duration::from_secs(75);

/// How long to repeat a check that only a person can repair. Its failure may still be temporary.
const HOPE: Duration = Duration::from_secs(2);

/// How long a run waits for a load balancer that is still being made, or has not judged a front door yet.
const MAKING: Duration = Duration::from_secs(300);

/// From one question about a load balancer to the next: each is several calls, and its checks take as long.
const PAUSE: Duration = Duration::from_secs(3);

/// How long replicas may take to catch up, and HAProxy to notice a recent change, if this run changed nothing.
const BOUND: Duration = Duration::from_secs(5);

/// Verifies a cluster as it is.
pub(crate) async fn now(context: &Context) -> Result<Proof> {
    let hosts = context.host_status().await?;
    let machines = hosts.complete(context)?;
    let (events, _quiet) = Events::channel();
    context
        .on(machines, &events, async |connected| {
            let observed = connected.look().await?;
            at_work::notice(&observed.found.facts, context.operator.as_ref());
            connected.prove(observed.whole()?, BOUND).await
        })
        .await
}

/// The same, but writes nothing: whether clients are served is judged by what the services say.
pub(crate) async fn without_writing(context: &Context) -> Result<Proof> {
    let hosts = context.host_status().await?;
    let machines = hosts.complete(context)?;
    let (events, _quiet) = Events::channel();
    context
        .on(machines, &events, async |connected| {
            let deadline = tokio::time::Instant::now() + BOUND;
            loop {
                let observed = connected.look().await?.whole()?;
                let plan = observed.differences()?;
                let prover = Prover {
                    writes: false,
                    ..connected.prover(&observed)
                };
                let (proof, balancer) = tokio::join!(
                    prover.look(&observed.found, &plan),
                    context.provider.balancer()
                );
                let proof = proof.with_balancer(&balancer, &context.command("up"));
                let late = tokio::time::Instant::now() >= deadline;
                if proof.passed || proof.is_hopeless() || late {
                    return Ok(proof);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
        .await
}

impl Connected<'_> {
    pub(super) fn prover(&self, observed: &Observed) -> Prover {
        Prover {
            cluster: observed.cluster.clone(),
            remote: self.remote.clone(),
            http: self.http.clone(),
            tls: self.tls.clone(),
            files: observed.files.clone(),
            writes: true,
        }
    }

    /// Waits a little until the members replicate and HAProxy leads to them all, which it notices about a second
    /// after the last of them is ready.
    ///
    /// A proof that comes before that has to be done again, with a look at every host. Whatever does not come to
    /// be, the proof says.
    pub(super) async fn until_it_stands(&self, observed: &Observed) {
        let prover = self.prover(observed);
        let stands = poll::until(BOUND, Duration::from_millis(100), || async {
            match prover.stand().await.iter().all(|check| check.passed) {
                true => Ok(()),
                false => Err(()),
            }
        });
        let _ = stands.await;
    }

    /// Verifies the cluster, again and again until it is healthy or `timeout` is over.
    pub(crate) async fn prove(&self, first: Observed, timeout: Duration) -> Result<Proof> {
        self.events.emit(Event::VerifyStarted);
        let begin = tokio::time::Instant::now();
        let mut deadline = begin + timeout;
        let mut observed = first;
        let (mut balancer, mut asked) = (Ok(None), None::<tokio::time::Instant>);
        loop {
            let prover = self.prover(&observed);
            let plan = observed.differences()?;
            let due = asked.is_none_or(|at| at.elapsed() >= PAUSE);
            let ask = async {
                match due {
                    true => Some(self.context.provider.balancer().await),
                    false => None,
                }
            };
            let (proof, answer) = tokio::join!(prover.look(&observed.found, &plan), ask);
            if let Some(answer) = answer {
                balancer = answer;
                asked = Some(tokio::time::Instant::now());
            }
            let proof = proof.with_balancer(&balancer, &self.context.command("up"));
            let coming = |it: &Option<Balancer>| it.as_ref().is_some_and(verify::is_coming);
            if timeout == SETTLING && balancer.as_ref().is_ok_and(coming) {
                let longer = tokio::time::Instant::now() + timeout;
                deadline = deadline.max(longer.min(begin + MAKING));
            }
            // Waiting helps little where somebody has to do something.
            let loop_wait = Duration::from_secs(self.context.inventory.patroni.loop_wait.into());
            let hope = match proof.may_await_patroni() {
                true => HOPE + loop_wait,
                false => HOPE,
            };
            let hopeless = proof.is_hopeless() && begin.elapsed() >= hope;
            if proof.passed || hopeless || tokio::time::Instant::now() >= deadline {
                for (host, facts) in &observed.found.facts {
                    self.tell_software(host, facts);
                }
                proof.announce(&self.events);
                return Ok(proof);
            }
            // Not `poll::until`: what is seen may put the end of the time off.
            tokio::time::sleep(Duration::from_millis(200)).await;
            observed = self.look().await?.whole()?;
        }
    }
}
