//! Poolers that hold their clients back for a moment, while another member becomes the leader.
//!
//! PgBouncer's `PAUSE` waits for open transactions and begins no others; clients stay connected and wait.
//! A timer on the host ends it, whatever becomes of this process.

use std::time::Duration;

use futures_util::future::join_all;

use super::CONSOLE;
use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    inventory::{HostName, PoolMode, Role},
    remote::{Remote, Script},
};

/// How long a host may take to answer; open transactions may take ten seconds of it.
const ANSWER: Duration = Duration::from_secs(20);
/// After how many seconds the timer lets clients go on, at a change of leader.
pub(crate) const AT_MOST: u32 = 30;
const UNIT: &str = "pgherd-pooler-resume";
/// PgBouncer resumes at this signal, also when it still waits for transactions.
const RESUME: &str = "systemctl kill -s USR2 --kill-who=main pgbouncer";

/// Poolers whose clients wait.
pub(crate) struct Hold<'a> {
    remote: &'a dyn Remote,
    hosts: Vec<HostName>,
}

/// Holds the clients of all poolers back, for `at_most` seconds. There is nothing to hold in sessions that last: a client may be idle
/// for ever there.
///
/// # Errors
/// Transactions are open that do not end. Then no client is held back.
pub(crate) async fn hold<'a>(
    cluster: &Cluster,
    remote: &'a dyn Remote,
    at_most: u32,
) -> Result<Hold<'a>> {
    let settings = cluster.inventory.pgbouncer.as_ref();
    let shares = settings.is_some_and(|it| it.pool_mode == PoolMode::Transaction);
    let doors = cluster.with_role(Role::Pgbouncer).filter(|_| shares);
    let hold = Hold {
        remote,
        hosts: doors.map(|node| node.name.clone()).collect(),
    };
    let script = Script::new()
        .line("systemctl is-active --quiet pgbouncer || exit 0")
        .line(format!("systemctl stop {UNIT}.timer 2>/dev/null || true"))
        .line(format!(
            "systemd-run --quiet --collect --unit={UNIT} --on-active={at_most} \
             --timer-property=AccuracySec=100ms {RESUME}"
        ))
        .line(format!("if ! {CONSOLE} PAUSE >/dev/null; then"))
        .line(format!("  {RESUME}"))
        .line(format!("  systemctl stop {UNIT}.timer"))
        .line("  exit 1")
        .line("fi");
    match hold.everywhere(&script).await {
        Ok(()) => Ok(hold),
        Err(error) => {
            hold.release().await;
            Err(error)
        }
    }
}

impl Hold<'_> {
    /// Lets clients go on. If this fails, the timer does it.
    pub(crate) async fn release(self) {
        let script = Script::new()
            .line("systemctl is-active --quiet pgbouncer || exit 0")
            .line(RESUME)
            .line(format!("systemctl stop {UNIT}.timer 2>/dev/null || true"));
        drop(self.everywhere(&script).await);
    }

    async fn everywhere(&self, script: &Script) -> Result<()> {
        let each = self.hosts.iter().map(async |host| {
            let quiet = |_, _: &str| {};
            let output = self.remote.run(host, script, ANSWER, &quiet).await?;
            match output.success() {
                true => Ok(()),
                false => Err(busy(host, &output.stderr)),
            }
        });
        let failures: Vec<Error> = join_all(each)
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect();
        match <[Error; 1]>::try_from(failures) {
            Ok([one]) => Err(one),
            Err(none) if none.is_empty() => Ok(()),
            Err(several) => Err(Error::several(
                "the poolers cannot hold their clients back",
                several,
            )),
        }
    }
}

fn busy(host: &HostName, stderr: &str) -> Error {
    Error::new(
        Code::TransactionsOpen,
        "the pooler cannot hold its clients back: transactions are open that do not end",
    )
    .on(host)
    .left("clients go on; the leader was not changed")
    .excerpt("stderr", stderr.to_owned())
    .hint(format!(
        "see them on this host: {CONSOLE} 'SHOW SERVERS'; end them, and run the same command again"
    ))
}
