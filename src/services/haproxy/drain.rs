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

/// The names that HAProxy has for a member.
pub(crate) fn servers(cluster: &Cluster, member: &HostName) -> impl Iterator<Item = String> {
    let suffixes: &[&str] = match cluster.tls.is_migrating() {
        true => &["", OVER_TLS],
        false => &[""],
    };
    suffixes
        .iter()
        .map(move |suffix| format!("{member}{suffix}"))
}

/// Sends HAProxy a command for each name of a member: `set server BACKEND/NAME state drain`.
pub(crate) fn say_each(
    cluster: &Cluster,
    member: &HostName,
    command: impl Fn(&str) -> String,
) -> String {
    let lines: Vec<String> = servers(cluster, member)
        .map(|name| format!("say '{}'", command(&name)))
        .collect();
    lines.join("\n")
}

/// Sets a member's state in a backend.
pub(crate) fn set_state(
    cluster: &Cluster,
    backend: &str,
    member: &HostName,
    state: &str,
) -> String {
    say_each(cluster, member, |name| {
        format!("set server {backend}/{name} state {state}")
    })
}

/// Has the host run `commands`, which may use `say`, after so many seconds, whatever becomes of this process, unless
/// [`not_later`] comes first. The script must make the folder of notes before.
///
/// They wait in a file: when systemd reloads its units, it reads a timer of this kind back from text, in which lines
/// and dollar signs do not stay as they were.
pub(crate) fn later(unit: &str, seconds: u32, commands: &str) -> String {
    let commands = quote(&format!("{SAY}\n{commands}\nrm -f \"$0\""));
    format!(
        "{}\nprintf '%s\\n' {commands} >{file}\n\
         systemd-run --quiet --collect --unit={unit} --on-active={seconds} \
         --timer-property=AccuracySec=100ms /bin/sh {file}",
        not_later(unit),
        file = waiting(unit),
    )
}

/// Takes back what [`later`] has asked for.
pub(crate) fn not_later(unit: &str) -> String {
    format!(
        "systemctl stop {unit}.timer 2>/dev/null || true\nrm -f {}",
        waiting(unit)
    )
}

/// The file with what a unit of [`later`] runs.
fn waiting(unit: &str) -> String {
    format!("/run/pgherd/{unit}.sh")
}

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
        ready: set_state(cluster, WRITE, leader, "ready"),
    };
    let script = Script::new()
        .line("systemctl is-active --quiet haproxy || exit 0")
        .notes()
        .line(SAY)
        .line(later(UNIT, AT_MOST, &drained.ready))
        .line(set_state(cluster, WRITE, leader, "drain"));
    drained.everywhere(&script).await;
    drained
}

impl Drained<'_> {
    /// New connections may go to the member again. If this fails, the timer does it.
    pub(crate) async fn release(self) {
        let script = Script::new()
            .line("systemctl is-active --quiet haproxy || exit 0")
            .line(SAY)
            .line(&self.ready)
            .line(not_later(UNIT));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_the_same_after_systemd_has_read_its_units_again() {
        let script = later("pgherd-check-again-a", 15, "say 'enable health write/a'");
        let timer = script.lines().last().unwrap();
        assert!(timer.starts_with("systemd-run "), "{script}");
        assert!(
            timer.ends_with(" /bin/sh /run/pgherd/pgherd-check-again-a.sh"),
            "{timer}"
        );
        assert!(!timer.contains(['$', '\'', '"', '\\']), "{timer}");
    }
}
