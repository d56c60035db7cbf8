//! `pgherd drill`.

use std::time::Duration;

use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use tokio_util::sync::CancellationToken;

use super::{Global, console::Console};
use crate::{
    cluster::Cluster,
    drill::{Crew, LONGEST_HOLD, OtherClient, Scenario, record::Limits},
    engine::{
        context::Context,
        drill::{play, repair, watch},
    },
    error::{Code, Error, Result},
    quantity::duration,
    report::{self, Terminal},
};

/// The arguments of `pgherd drill`.
#[derive(Debug, Args)]
pub struct Wish {
    /// What to break
    #[arg(value_parser = What::parser(), value_name = "SCENARIO", default_value = "all")]
    what: What,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Proceed even if other clients are connected; they are disconnected too
    #[arg(long)]
    despite_clients: bool,
    /// Repeat each scenario N times, and show median and worst
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Exit with 3 if writes are refused for longer than this, such as `30s`
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    max_outage: Option<f64>,
    /// Exit with 3 if more acknowledged commits than this are missing afterwards
    #[arg(long, value_name = "COMMITS", default_value_t = 0)]
    max_lost: u64,
    /// Number of writers with persistent connections; with more writers, more commits are in flight
    /// when a leader dies
    #[arg(long, value_name = "N", default_value_t = Crew::default().writers, value_parser = clap::value_parser!(u32).range(1..=64))]
    writers: u32,
    /// Number of writers through the poolers, where clients share connections in transaction mode
    #[arg(long, value_name = "N", default_value_t = Crew::default().pooled, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pooled: u32,
    /// With `crash-host`: delay replication for this time before the host dies, at most 30s, so that
    /// the drill shows what an asynchronous cluster loses
    #[arg(long, value_name = "TIME", value_parser = lag)]
    lag: Option<f64>,
    /// With `watch`: stop after this time, such as `60s` or `5m`
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    length: Option<f64>,
    /// Only repair what a killed drill has left broken
    #[arg(long, conflicts_with_all = ["what", "runs", "max_outage", "max_lost", "writers", "pooled", "lag", "length"])]
    repair: bool,
}

impl Wish {
    fn crew(&self) -> Crew {
        Crew {
            writers: self.writers,
            pooled: self.pooled,
            ..Crew::default()
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            max_outage: self.max_outage,
            max_lost: self.max_lost,
        }
    }

    fn request(&self) -> play::Request {
        play::Request {
            scenarios: self.what.scenarios(),
            runs: self.runs.into(),
            limits: self.limits(),
            crew: self.crew(),
            lag: self.lag.map(Duration::from_secs_f64),
            despite_clients: self.despite_clients,
        }
    }
}

/// What to break, as the command line offers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    All,
    One(Scenario),
}

impl What {
    fn parser() -> impl TypedValueParser<Value = Self> {
        let all = PossibleValue::new("all")
            .help("All of these in turn; the cluster is verified between two of them");
        let each = Scenario::ALL.into_iter().chain([Scenario::Watch]);
        let each = each.map(|scenario| PossibleValue::new(scenario.as_str()).help(help(scenario)));
        PossibleValuesParser::new([all].into_iter().chain(each))
            .map(|name| Scenario::named(&name).map_or(What::All, What::One))
    }

    fn scenarios(self) -> Vec<Scenario> {
        match self {
            What::All => Scenario::ALL.to_vec(),
            What::One(scenario) => vec![scenario],
        }
    }
}

fn help(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Switchover => "Make another member the leader, as `pgherd switchover` does",
        Scenario::HaproxyRestart => "Restart HAProxy",
        Scenario::HaproxyDown => "Crash the host of a front door; needs two HAProxy hosts",
        Scenario::ReplicaDown => {
            "Stop Patroni and PostgreSQL on a replica; on the synchronous one, if there is one"
        }
        Scenario::ArchiveDown => "Stop the repository of the backups; needs a host with `backup`",
        Scenario::DropTable => {
            "Drop a table of the drill's own, and have it back from the backups; needs a host with `backup`"
        }
        Scenario::EtcdDown => "Stop etcd on all of its hosts",
        Scenario::StopLeader => "Stop Patroni and PostgreSQL cleanly on the leader",
        Scenario::KillLeader => "Kill Patroni and PostgreSQL on the leader",
        Scenario::CrashHost => "Crash the leader's host",
        Scenario::IsolateLeader => "Cut the leader's host off from the network",
        Scenario::Watch => "Nothing: measure while you do something, until Ctrl-C",
    }
}

pub(super) async fn run(
    global: &Global,
    wish: &Wish,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    if wish.lag.is_some() && wish.what != What::One(Scenario::CrashHost) {
        return Err(Error::new(
            Code::InvalidArguments,
            "--lag works only with the scenario crash-host",
        )
        .hint("pgherd drill crash-host --lag 5s"));
    }
    let console = Console::new(terminal, wish.yes).for_people();
    let context = global.existing(&console).await?;
    let played = match wish.what {
        _ if wish.repair => return repaired(&context, terminal, cancel).await,
        What::One(Scenario::Watch) => {
            let request = watch::Request {
                limits: wish.limits(),
                crew: wish.crew(),
                length: wish.length.map(Duration::from_secs_f64),
            };
            watch::run(request, &context, cancel).await?
        }
        _ => play::run(wish.request(), &context, cancel).await?,
    };
    if let Some(record) = &played.record {
        report::print_drills(terminal, record);
    }
    played.result
}

async fn repaired(
    context: &Context,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    if !repair::only(context, cancel).await? {
        terminal.say("nothing to repair: no killed drill has left a fault");
    }
    Ok(())
}

/// Refuses `--yes` while other clients are connected: it does not agree to disconnect them.
pub(super) fn agreed_beforehand(
    request: &play::Request,
    other_clients: &[OtherClient],
) -> Result<()> {
    if other_clients.is_empty() || request.despite_clients {
        return Ok(());
    }
    Err(Error::new(
        Code::ClientsConnected,
        "other clients are connected to the cluster",
    )
    .excerpt("connected", list(other_clients))
    .left("nothing was broken")
    .hint("add --despite-clients to disconnect them too"))
}

/// The other clients that the drill would disconnect, if there are any.
pub(super) fn others(request: &play::Request, other_clients: &[OtherClient]) -> Option<String> {
    if other_clients.is_empty() || request.despite_clients {
        return None;
    }
    let list = list(other_clients);
    Some(format!(
        "Other clients are connected, and will be disconnected too:\n{list}"
    ))
}

fn list(other_clients: &[OtherClient]) -> String {
    other_clients
        .iter()
        .map(|client| format!("  {client}\n"))
        .collect()
}

/// What the drill will break, and for how long.
pub(super) fn outline(cluster: &Cluster, request: &play::Request) -> String {
    let patroni = &cluster.inventory.patroni;
    let mut text = format!(
        "This breaks the cluster {} on purpose, while the drill's own clients write and read:\n",
        cluster.name()
    );
    for scenario in &request.scenarios {
        let bound = scenario.bound(&cluster.inventory);
        let writes = if bound > 0.0 {
            format!("writes may be refused for up to {bound:.0} s")
        } else {
            "writes should continue".to_owned()
        };
        text.push_str(&format!("  {scenario:<16} {}; {writes}\n", what(*scenario)));
    }
    if request.runs > 1 {
        text.push_str(&format!("  each {} times\n", request.runs));
    }
    if let Some(lag) = request.lag {
        let cost = if patroni.synchronous {
            "no commit is acknowledged in that time"
        } else {
            "commits of that time are lost"
        };
        let lag = duration(lag.as_secs_f64());
        text.push_str(&format!(
            "  before that, replication is held up for {lag}: {cost}\n"
        ));
    } else if !patroni.synchronous {
        text.push_str(
            "  patroni.synchronous is off: a leader that dies may take its last commits with it\n",
        );
    }
    text.push_str("  everything is repaired afterwards, also after Ctrl-C\n");
    text
}

fn what(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Switchover => "the leader hands over",
        Scenario::HaproxyRestart => "HAProxy is restarted",
        Scenario::HaproxyDown => "the host of a front door dies, and is started again",
        Scenario::ReplicaDown => "a replica is stopped, and started again",
        Scenario::ArchiveDown => "the repository of the backups is stopped, and started again",
        Scenario::DropTable => {
            "a table of the drill's own is dropped, and comes back from the backups"
        }
        Scenario::EtcdDown => "etcd is stopped everywhere, and started again",
        Scenario::StopLeader => "the leader is stopped, and started again",
        Scenario::KillLeader => "the leader's processes are killed",
        Scenario::CrashHost => "the leader's host dies, and is started again",
        Scenario::IsolateLeader => {
            "the leader's host is cut off from the network, and connected again"
        }
        Scenario::Watch => "nothing is broken",
    }
}

/// `500ms`, `30s`, `1m 30s`.
fn seconds(text: &str) -> Result<f64, String> {
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "write a number with a unit: 500ms, 30s, 5m".to_owned())?;
    if span.is_negative() {
        return Err("a time cannot be negative".into());
    }
    Ok(span.as_secs_f64())
}

/// How long replication may be delayed.
fn lag(text: &str) -> Result<f64, String> {
    let seconds = seconds(text)?;
    let longest = LONGEST_HOLD.as_secs_f64();
    if seconds > 0.0 && seconds <= longest {
        Ok(seconds)
    } else {
        Err(format!("it must be more than 0 and at most {longest} s"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(seconds("30s"), Ok(30.0));
        assert_eq!(seconds("1m 30s"), Ok(90.0));
        assert_eq!(seconds("500ms"), Ok(0.5));
        assert!(seconds("30").is_err() && seconds("-3s").is_err() && seconds("soon").is_err());
    }

    #[test]
    fn replicas_are_kept_waiting_for_a_while_only() {
        assert_eq!(lag("5s"), Ok(5.0));
        assert_eq!(lag("30s"), Ok(30.0));
        assert!(lag("0s").is_err() && lag("31s").is_err() && lag("5").is_err());
    }
}
