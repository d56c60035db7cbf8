//! `pgherd drill`.

use std::time::Duration;

use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use tokio_util::sync::CancellationToken;

use super::Global;
use crate::{
    drill::{Crew, LONGEST_HOLD, Scenario, record::Limits},
    engine::drill::{play, repair, watch},
    error::{Error, Result},
    report::Terminal,
};

/// What `pgherd drill` takes.
#[derive(Debug, Args)]
pub struct Wish {
    /// What to break
    #[arg(value_parser = What::parser(), value_name = "SCENARIO", default_value = "all")]
    pub(crate) what: What,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Go on although others are connected to the cluster, who will feel it too
    #[arg(long)]
    pub(crate) despite_clients: bool,
    /// Do each scenario so many times, and show median and worst
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) runs: u16,
    /// Exit with 3 when writes are refused for longer than this, such as `30s`
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) max_outage: Option<f64>,
    /// Exit with 3 when more acknowledged commits than this are missing afterwards
    #[arg(long, value_name = "COMMITS", default_value_t = 0)]
    pub(crate) max_lost: u64,
    /// So many writers with lasting connections; the more there are, the more is under way when a
    /// leader dies
    #[arg(long, value_name = "N", default_value_t = Crew::default().writers, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) writers: u32,
    /// With `crash-host`: hold replication up for this time before the host dies, at most 30s, so
    /// that it shows what the replicas do not have yet
    #[arg(long, value_name = "TIME", value_parser = lag)]
    pub(crate) lag: Option<f64>,
    /// With `watch`: end by itself after this time, such as `60s` or `5m`
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    pub(crate) length: Option<f64>,
    /// Only put right what a drill that was killed has left broken
    #[arg(long, conflicts_with_all = ["what", "runs", "max_outage", "max_lost", "writers", "lag", "length"])]
    pub(crate) repair: bool,
}

impl Wish {
    pub(crate) fn crew(&self) -> Crew {
        Crew {
            writers: self.writers,
            ..Crew::default()
        }
    }

    pub(crate) fn lag(&self) -> Option<Duration> {
        self.lag.map(Duration::from_secs_f64)
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_outage: self.max_outage,
            max_lost: self.max_lost,
        }
    }
}

/// What to break, as the command line offers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    All,
    One(Scenario),
}

impl What {
    fn parser() -> impl TypedValueParser<Value = Self> {
        let all = PossibleValue::new("all")
            .help("Every one of these in turn, with a proven cluster between any two");
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
        Scenario::Switchover => "Hand the leadership over, as `pgherd switchover` does",
        Scenario::HaproxyRestart => "Restart HAProxy",
        Scenario::ReplicaDown => {
            "Stop Patroni and PostgreSQL on a replica, the synchronous one if there is one"
        }
        Scenario::EtcdDown => "Stop etcd on all of its hosts",
        Scenario::StopLeader => "Stop Patroni and PostgreSQL on the leader in good order",
        Scenario::KillLeader => "Kill Patroni and PostgreSQL on the leader",
        Scenario::CrashHost => "Make the leader's host die",
        Scenario::IsolateLeader => "Cut the leader's host off from the network",
        Scenario::Watch => "Nothing: measure while somebody else does something, until Ctrl-C",
    }
}

pub(super) async fn run(
    global: &Global,
    wish: &Wish,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    if wish.lag.is_some() && wish.what != What::One(Scenario::CrashHost) {
        return Err(Error::input("--lag goes with the scenario crash-host only")
            .hint("pgherd drill crash-host --lag 5s"));
    }
    match wish.what {
        _ if wish.repair => repair::run(global, terminal, cancel).await,
        What::One(Scenario::Watch) => watch::run(global, wish, terminal, cancel).await,
        what => play::run(global, wish, &what.scenarios(), terminal, cancel).await,
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

/// A time that replication may be held up for.
fn lag(text: &str) -> Result<f64, String> {
    let seconds = seconds(text)?;
    let longest = LONGEST_HOLD.as_secs_f64();
    if seconds > 0.0 && seconds <= longest {
        Ok(seconds)
    } else {
        Err(format!(
            "it must be more than nothing and at most {longest} s"
        ))
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
