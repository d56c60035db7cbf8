//! A fake `Remote`: a test defines what scripts and services answer.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Code, Error, Result},
    event::{Event, Events, Outcome, Stamped},
    execute::{self, Context},
    http::Http,
    inventory::HostName,
    plan::{
        Action, Plan, Step,
        tests::world::{FIVE, cluster},
    },
    remote::{Connection, OnLine, Output, Remote, Script},
    services::postgres::SharedSurvey,
};

/// The outcome of a script.
pub(super) enum Answer {
    Ends(i32, &'static str, &'static str),
    Breaks,
    /// Never ends.
    Hangs,
}

/// The status of a service for requests that no test defines.
pub(super) const UNANSWERED: u16 = 0;

/// A request to a service: host, port, `METHOD /path`, and the body.
pub(super) type Asked<'a> = (&'a str, u16, &'a str, &'a Value);

type Scripts = dyn Fn(&str, &Script) -> Answer + Send + Sync;
type Services = dyn Fn(Asked<'_>) -> (u16, Value) + Send + Sync;

pub(super) struct Hosts {
    pub(super) scripts: Box<Scripts>,
    services: Arc<Services>,
    /// The hosts of the inventory.
    pub(super) declared: &'static str,
    /// How long a service may take for a change.
    pub(super) change_limit: Duration,
    /// `HOST begins` and `HOST ends`, in order.
    log: Mutex<Vec<String>>,
}

impl Hosts {
    pub(super) fn new(scripts: impl Fn(&str, &Script) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            scripts: Box::new(scripts),
            services: Arc::new(|_| (503, Value::Null)),
            declared: FIVE,
            change_limit: Duration::from_secs(120),
            log: Mutex::default(),
        }
    }

    /// Scripts succeed; services answer.
    pub(super) fn serving(
        services: impl Fn(Asked<'_>) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        Self {
            services: Arc::new(services),
            ..Self::new(|_, _| Answer::Ends(0, "", ""))
        }
    }

    fn note(&self, host: &HostName, what: &str) {
        self.log.lock().unwrap().push(format!("{host} {what}"));
    }
}

#[async_trait]
impl Remote for Hosts {
    async fn run(
        &self,
        host: &HostName,
        script: &Script,
        _timeout: Duration,
        _on_line: OnLine<'_>,
    ) -> Result<Output> {
        self.note(host, "begins");
        let answer = (self.scripts)(host.as_str(), script);
        // Everything else that is ready gets its turn, as it would while a real host works.
        tokio::time::sleep(Duration::from_millis(20)).await;
        match answer {
            Answer::Ends(code, stdout, stderr) => {
                self.note(host, "ends");
                Ok(Output {
                    code,
                    stdout: stdout.into(),
                    stderr: stderr.into(),
                })
            }
            Answer::Breaks => {
                Err(Error::new(Code::SshConnectionLost, "the connection broke").on(host))
            }
            Answer::Hangs => std::future::pending().await,
        }
    }

    async fn dial(&self, host: &HostName, port: u16) -> Result<Box<dyn Connection>> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve(self.services.clone(), host.clone(), port, far));
        Ok(Box::new(near))
    }
}

/// Answers one request.
async fn serve(services: Arc<Services>, host: HostName, port: u16, stream: DuplexStream) {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    stream.read_line(&mut request).await.unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let asked = request.trim_end_matches(" HTTP/1.1\r\n");
    let (status, answer) = services((host.as_str(), port, asked, &body));
    if status == UNANSWERED {
        return std::future::pending().await;
    }
    let answer = answer.to_string();
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// A database's own status; `leader` streams to `replicas`.
pub(super) fn member(leads: bool, replicas: &[(&str, &str)]) -> Value {
    let replication: Vec<Value> = replicas
        .iter()
        .map(|(name, sync)| {
            json!({"application_name": name, "state": "streaming", "sync_state": sync})
        })
        .collect();
    json!({
        "state": "running",
        "role": if leads { "primary" } else { "replica" },
        "timeline": 1,
        "replication": replication,
    })
}

/// The result of a walk.
pub(super) struct Walked {
    pub result: Result<()>,
    pub events: Vec<Stamped>,
    pub log: Vec<String>,
}

impl Walked {
    pub(super) fn error(&self) -> &Error {
        self.result.as_ref().unwrap_err()
    }

    /// How each step ended, in the plan's order.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        let mut ended: Vec<(usize, Outcome)> = self
            .events
            .iter()
            .filter_map(|stamped| match &stamped.event {
                Event::StepFinished { step, outcome, .. } => Some((*step, *outcome)),
                _ => None,
            })
            .collect();
        ended.sort_by_key(|(step, _)| *step);
        ended.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// The lines that steps reported.
    pub(super) fn said(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|stamped| match &stamped.event {
                Event::StepOutput { line, .. } => Some(line.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Whether one entry of the log comes before another.
    pub(super) fn before(&self, one: &str, other: &str) -> bool {
        let at = |entry: &str| self.log.iter().position(|it| it == entry).unwrap();
        at(one) < at(other)
    }
}

pub(super) async fn walk(hosts: Hosts, steps: Vec<Step>) -> Walked {
    walk_until(hosts, steps, &CancellationToken::new()).await
}

/// Walks until `cancel`. Fails if the walk takes much longer than any walk here should.
pub(super) async fn walk_until(
    hosts: Hosts,
    steps: Vec<Step>,
    cancel: &CancellationToken,
) -> Walked {
    walk_plans(hosts, vec![steps], None, cancel).await
}

/// Walks a plan of which so many steps that keep a core busy may run at once.
pub(super) async fn walk_at_once(hosts: Hosts, steps: Vec<Step>, at_once: usize) -> Walked {
    walk_plans(hosts, vec![steps], Some(at_once), &CancellationToken::new()).await
}

/// Walks several plans, each added a moment after the one before.
pub(super) async fn walk_all(hosts: Hosts, plans: Vec<Vec<Step>>) -> Walked {
    walk_plans(hosts, plans, None, &CancellationToken::new()).await
}

async fn walk_plans(
    hosts: Hosts,
    plans: Vec<Vec<Step>>,
    at_once: Option<usize>,
    cancel: &CancellationToken,
) -> Walked {
    let hosts = Arc::new(hosts);
    let remote: Arc<dyn Remote> = hosts.clone();
    let (events, mut receiver) = Events::channel();
    let context = Context {
        cluster: Arc::new(cluster("", hosts.declared)),
        http: Http::new(remote.clone(), None).impatient(hosts.change_limit),
        remote,
        events,
        survey: SharedSurvey::default(),
        cancel: cancel.clone(),
    };
    let walk = async {
        let walk = execute::Walk::begin(cancel.clone());
        for (turn, steps) in plans.into_iter().enumerate() {
            if turn > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let plan = Plan {
                steps,
                at_once,
                ..Plan::default()
            };
            walk.add(plan, &context);
        }
        walk.end().await
    };
    let result = tokio::time::timeout(Duration::from_secs(20), walk).await;
    let mut events = Vec::new();
    while let Ok(event) = receiver.try_recv() {
        events.push(event);
    }
    Walked {
        result: result.expect("the walk ends"),
        events,
        log: hosts.log.lock().unwrap().clone(),
    }
}

pub(super) fn step(host: &str, action: Action, after: &[usize]) -> Step {
    Step {
        host: HostName::new(host),
        name: "try",
        why: "a test".into(),
        after: after.to_vec(),
        changes: Vec::new(),
        action,
        limit: Duration::from_secs(5),
        units: Vec::new(),
    }
}

/// A step that runs a script.
pub(super) fn script(host: &str, after: &[usize]) -> Step {
    step(host, Action::Run(Script::probe("true")), after)
}
