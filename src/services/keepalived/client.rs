//! Asks each front door which one has the cluster's address.

use std::{net::Ipv4Addr, time::Duration};

use futures_util::future::join_all;

use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    remote::{Remote, Script},
};

/// How long a host may take to say whether it has the address, and whether something answers at it.
const ANSWER: Duration = Duration::from_secs(10);
/// Asks whether the address is on the host, and if not, whether a PostgreSQL server answers at it.
///
/// Source of the eight bytes: PostgreSQL's documentation, 54.7, `SSLRequest`.
pub(crate) const ASK: &str = r#"if ip -4 -o address show to "$VIP/32" | grep -q .; then
  echo holds
  exit
fi
perl -MIO::Socket::INET -e '
  $SIG{ALRM} = sub { exit };
  alarm 3;
  my $door = IO::Socket::INET->new(PeerAddr => $ENV{VIP}, PeerPort => $ENV{PORT}, Timeout => 2) or exit;
  syswrite $door, pack("NN", 8, 80877103);
  print "answers\n" if sysread($door, my $answer, 1)'"#;

/// What a front door says of the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// It has the address.
    Holds,
    /// Another host has it, and leads to a PostgreSQL server.
    Answers,
    /// From this front door, nothing answers at it.
    Silent,
}

/// What each front door says.
pub(crate) type All = Vec<(HostName, Result<Said>)>;

pub(super) fn holders(said: &All) -> Vec<&HostName> {
    let holds = said.iter().filter(|(_, it)| matches!(it, Ok(Said::Holds)));
    holds.map(|(host, _)| host).collect()
}

/// The front door that has the address now; the first one if several have it.
pub(crate) async fn holder(cluster: &Cluster, remote: &dyn Remote) -> Option<HostName> {
    let vip = cluster.inventory.haproxy.vip?;
    let said = ask_all(cluster, remote, vip).await;
    holders(&said).first().map(|host| (*host).clone())
}

pub(super) async fn ask_all(cluster: &Cluster, remote: &dyn Remote, vip: Ipv4Addr) -> All {
    let port = cluster.inventory.haproxy.write_port;
    let script = Script::probe(format!("VIP={vip} PORT={port}\nexport VIP PORT\n{ASK}"));
    let asked = cluster.with_role(Role::Keepalived).map(async |node| {
        let said = ask(remote, &node.name, &script).await;
        (node.name.clone(), said)
    });
    join_all(asked).await
}

async fn ask(remote: &dyn Remote, host: &HostName, script: &Script) -> Result<Said> {
    let quiet = |_, _: &str| {};
    let output = remote.run(host, script, ANSWER, &quiet).await?;
    if !output.success() {
        let what = "this host does not say which addresses it has";
        return Err(Error::new(Code::ServiceRefused, what)
            .on(host)
            .excerpt("stderr", output.stderr));
    }
    Ok(match output.stdout.trim() {
        "holds" => Said::Holds,
        "answers" => Said::Answers,
        _ => Said::Silent,
    })
}
