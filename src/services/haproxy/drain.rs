//! HAProxy around a planned change of leader: new clients wait for the new leader.
//!
//! A connection that comes while HAProxy knows no leader waits for one (`await-leader.lua`). But HAProxy notices only
//! by its next checks that a leader has stopped, and would refuse what comes until then. So the leader gets no new
//! connections before it stops. A timer on the host ends that, whatever becomes of this process.

use std::time::Duration;

use futures_util::future::join_all;

use super::{OVER_TLS, WRITE};
use crate::{
    cluster::Cluster,
    inventory::{HostName, Role},
    remote::{Remote, Script, quote},
};

/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// After how many seconds the timer lets new connections go to the member again. A planned change takes less; if it
/// takes longer, HAProxy knows by itself who leads.
const AT_MOST: u32 = 30;
const UNIT: &str = "pgherd-leader-undrain";

/// Speaks to HAProxy's socket. Perl's base package is on every Debian and Ubuntu; `socat` is not.
pub(crate) const SAY: &str = r#"say() {
  perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new(Peer => "/run/haproxy/admin.sock") or die "HAProxy: $!\n"; print $s "$ARGV[0]\n"; $s->shutdown(1); print <$s>' "$1"
}"#;

/// A leader to which every HAProxy sends no new connections.
pub(crate) struct Drained<'a> {
    remote: &'a dyn Remote,
    hosts: Vec<HostName>,
    ready: String,
}

/// Has every HAProxy send no new connections to `leader`. Where that fails, new connections fail for a moment, as
/// those that are open do.
pub(crate) async fn drain<'a>(
    cluster: &Cluster,
    remote: &'a dyn Remote,
    leader: &HostName,
) -> Drained<'a> {
    let doors = cluster.with_role(Role::Haproxy);
    let drained = Drained {
        remote,
        hosts: doors.map(|node| node.name.clone()).collect(),
        ready: state(cluster, leader, "ready"),
    };
    // systemd takes a single dollar sign for a variable.
    let later = format!("{SAY}\n{}", drained.ready).replace('$', "$$");
    let script = Script::new()
        .line("systemctl is-active --quiet haproxy || exit 0")
        .line(SAY)
        .line(format!("systemctl stop {UNIT}.timer 2>/dev/null || true"))
        .line(format!(
            "systemd-run --quiet --collect --unit={UNIT} --on-active={AT_MOST} \
             --timer-property=AccuracySec=100ms /bin/sh -c {}",
            quote(&later)
        ))
        .line(state(cluster, leader, "drain"));
    drained.everywhere(&script).await;
    drained
}

/// Changes the member's state, under all names that HAProxy has for it.
fn state(cluster: &Cluster, member: &HostName, state: &str) -> String {
    let suffixes: &[&str] = match cluster.tls.is_migrating() {
        true => &["", OVER_TLS],
        false => &[""],
    };
    let lines: Vec<String> = suffixes
        .iter()
        .map(|suffix| format!("say 'set server {WRITE}/{member}{suffix} state {state}'"))
        .collect();
    lines.join("\n")
}

impl Drained<'_> {
    /// New connections may go to the member again. If this fails, the timer does it.
    pub(crate) async fn release(self) {
        let script = Script::new()
            .line("systemctl is-active --quiet haproxy || exit 0")
            .line(SAY)
            .line(&self.ready)
            .line(format!("systemctl stop {UNIT}.timer 2>/dev/null || true"));
        self.everywhere(&script).await;
    }

    async fn everywhere(&self, script: &Script) {
        let quiet = |_, _: &str| {};
        let each = self
            .hosts
            .iter()
            .map(|host| self.remote.run(host, script, ANSWER, &quiet));
        drop(join_all(each).await);
    }
}
