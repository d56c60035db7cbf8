//! Turns the written inventory into the checked one. Checks every value, and collects all mistakes.
//!
//! A wrong value is replaced by its default, so that the rest can be checked too. Checks that compare several
//! values run only if each of the values is right, so that a mistake is reported once.

use super::{
    Haproxy, Inventory, Patroni, Role, SecretsSource, Tls,
    bounds::{Bounds, Limit, Shape},
    choice::Choice,
    keys, limits,
    placed::{Span, span_of},
    problem::{Problem, alternatives, quoted},
    schema::{self, Number, Word},
    source::Source,
};

mod accounts;
mod backup;
mod bucket;
mod files;
mod hosts;
mod monitoring;
mod net;
pub(crate) mod parameters;
mod pgbouncer;
mod ports;
pub(super) mod postgresql;
mod provider;
mod ssh;
mod state;
mod vip;
mod volume;

pub(crate) use parameters::memory_in_kib;

/// The mistakes found so far.
#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// The value; or `None` and one more problem.
    fn keep<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.add(problem)).ok()
    }
}

/// Checks a whole document.
pub(super) fn inventory(
    source: &Source<'_>,
    document: &schema::Document,
) -> Result<Inventory, Vec<Problem>> {
    let problems = &mut Problems::default();
    // If something is missing, only the document's first key can be marked.
    let start = start_of(source.text);

    let cluster = match &document.cluster {
        Some(name) => problems.keep(cluster_name(name)),
        None => {
            problems.add(
                Problem::new(start.clone(), "the inventory has no `cluster`")
                    .hint("add `cluster: postgres`, or another name"),
            );
            None
        }
    };
    let mut provider = provider::check(problems, &start, document);
    let hosts = hosts::check(problems, source, &start, document.hosts.as_ref());
    let ssh = ssh::check(problems, source, document.ssh.as_ref());
    let postgresql = postgresql::check(problems, source, document.postgresql.as_ref());
    let patroni = patroni(problems, document.patroni.as_ref());
    etcd(problems, document.etcd.as_ref());
    let haproxy = haproxy(problems, document.haproxy.as_ref());
    let pgbouncer = pgbouncer::check(problems, document);
    let backup = backup::check(problems, document, &hosts);
    let monitoring = monitoring::check(problems, source.path, document, &hosts);
    let ca_bundle = document
        .ca_bundle
        .as_ref()
        .and_then(|file| problems.keep(files::ca_bundle(source.path, file)));
    let secrets = SecretsSource {
        file: document
            .secrets
            .as_ref()
            .and_then(|secrets| secrets.file.as_ref())
            .and_then(|file| problems.keep(files::secrets(source.path, file))),
    };

    let state = state::check(problems, source, document.state.as_ref());

    if let (Some(provider), Some(haproxy)) = (&mut provider, &document.haproxy) {
        vip::check(problems, provider, haproxy, document, &hosts);
    }
    if let (Some(provider), Some(written)) = (&mut provider, &document.hosts) {
        hosts::check_addresses(problems, provider, document.provider.as_ref(), written);
    }
    if let (Some(provider), Some(written)) = (&provider, &document.ssh) {
        ssh::check_way(problems, provider, written, &ssh, &hosts);
    }
    let (true, Some(cluster), Some(provider)) = (problems.0.is_empty(), cluster, provider) else {
        return Err(std::mem::take(&mut problems.0));
    };
    let tls = document.tls.as_ref().and_then(|tls| tls.enabled);
    let mut inventory = Inventory {
        path: source.path.to_owned(),
        cluster,
        provider,
        ssh,
        postgresql,
        patroni,
        haproxy,
        pgbouncer,
        backup,
        monitoring,
        tls: Tls {
            enabled: tls.unwrap_or(limits::TLS),
        },
        secrets,
        state,
        ca_bundle,
        hosts,
        templates: None,
    };
    give_roles_that_follow(&mut inventory);
    ports::check(problems, document, &inventory);
    volume::check_mount_point(problems, document, &inventory);
    match problems.0.is_empty() {
        true => Ok(inventory),
        false => Err(std::mem::take(&mut problems.0)),
    }
}

/// Gives hosts the roles that follow from another role and a key.
fn give_roles_that_follow(inventory: &mut Inventory) {
    for role in Role::ALL {
        let Some(follows) = &role.service().follows else {
            continue;
        };
        if !inventory.wants(follows.when) {
            continue;
        }
        for host in inventory.hosts.values_mut() {
            if follows.role.is_none_or(|role| host.roles.contains(&role)) {
                host.roles.push(role);
                host.roles.sort_unstable();
            }
        }
    }
}

/// The first key of a document, or its beginning.
fn start_of(text: &str) -> Span {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        if !content.is_empty() && !content.starts_with('#') && !content.starts_with("---") {
            let key = content.split(':').next().unwrap_or(content);
            let indent = line.len() - line.trim_start().len();
            return offset + indent..offset + indent + key.len();
        }
        offset += line.len();
    }
    0..0
}

/// Patroni's scope, the prefix of every resource and the name of a folder. So it must be valid as all of these,
/// and short enough for the suffixes.
fn cluster_name(name: &Word) -> Result<String, Problem> {
    let value = name.value.as_str();
    if limits::CLUSTER_NAME.fits(value) {
        return Ok(value.to_owned());
    }
    let what = format!("{} cannot name a cluster", quoted(value));
    Err(Problem::new(span_of(name), what)
        .label(if value.len() > 31 {
            "longer than 31 characters"
        } else {
            "a name is lowercase letters, digits and inner dashes"
        })
        .hint(
            "it becomes Patroni's scope, the prefix of every resource and a folder's name: 1 to 31 \
             of a-z, 0-9 and `-`, a letter first, no dash last, such as `postgres`",
        ))
}

/// A number of seconds within bounds, or the default.
fn seconds(
    problems: &mut Problems,
    name: &str,
    written: Option<&Number>,
    Limit { bounds, default }: Limit<u32>,
) -> u32 {
    let Some(number) = written else {
        return default;
    };
    bounds.take(number.value).unwrap_or_else(|| {
        problems.add(
            Problem::new(
                span_of(number),
                format!("{name} is {bounds} seconds, not {}", number.value),
            )
            .label(format!("default: {default}")),
        );
        default
    })
}

fn patroni(problems: &mut Problems, written: Option<&schema::Patroni>) -> Patroni {
    let none = schema::Patroni::default();
    let written = written.unwrap_or(&none);
    let source = written.source.as_ref();
    let before = problems.0.len();
    let patroni = Patroni {
        source: source
            .and_then(|word| problems.keep(one_of(word)))
            .unwrap_or(limits::PATRONI_SOURCE),
        ttl: seconds(
            problems,
            "Patroni's `ttl`",
            written.ttl.as_ref(),
            limits::TTL,
        ),
        loop_wait: seconds(
            problems,
            "Patroni's `loop_wait`",
            written.loop_wait.as_ref(),
            limits::LOOP_WAIT,
        ),
        retry_timeout: seconds(
            problems,
            "Patroni's `retry_timeout`",
            written.retry_timeout.as_ref(),
            limits::RETRY_TIMEOUT,
        ),
        maximum_lag_on_failover: written
            .maximum_lag_on_failover
            .as_ref()
            .and_then(|bytes| problems.keep(lag(bytes)))
            .unwrap_or(limits::MAXIMUM_LAG.default),
        synchronous: written.synchronous.unwrap_or(limits::SYNCHRONOUS),
        failsafe: written.failsafe.unwrap_or(limits::FAILSAFE),
    };
    let given = [&written.loop_wait, &written.retry_timeout, &written.ttl];
    if problems.0.len() == before
        && let Some(at) = given.into_iter().flatten().map(span_of).next()
    {
        problems.keep(timing(&patroni, at));
    }
    patroni
}

fn lag(bytes: &Number) -> Result<u64, Problem> {
    let Limit { bounds, default } = limits::MAXIMUM_LAG;
    bounds.take(bytes.value).ok_or_else(|| {
        Problem::new(
            span_of(bytes),
            "`maximum_lag_on_failover` is a number of bytes greater than 0",
        )
        .label("with no lag allowed, no replica could take over")
        .hint(format!("the default is {default}, one MiB"))
    })
}

/// The leader needs time for one loop and two failed attempts before its lock expires.
fn timing(patroni: &Patroni, at: Span) -> Result<(), Problem> {
    let Patroni {
        ttl,
        loop_wait,
        retry_timeout,
        ..
    } = *patroni;
    let least = loop_wait + 2 * retry_timeout;
    if least <= ttl {
        return Ok(());
    }
    // As `_validate_and_adjust_timeouts` in Patroni does.
    let (adjusted_loop, adjusted_retry) = if 1 + 2 * retry_timeout > ttl {
        (1, (ttl - 1) / 2)
    } else {
        (ttl - 2 * retry_timeout, retry_timeout)
    };
    Err(Problem::new(
        at,
        format!(
            "Patroni needs loop_wait + 2 × retry_timeout ≤ ttl, but {loop_wait} + 2 × \
             {retry_timeout} = {least} is more than {ttl}"
        ),
    )
    .hint(format!(
        "Patroni would silently run with loop_wait {adjusted_loop} and retry_timeout \
         {adjusted_retry}; write that, or a ttl of at least {least}"
    ))
    .hint("30/10/10 (ttl/loop_wait/retry_timeout) is its default, 20/2/5 the fastest advised"))
}

fn etcd(problems: &mut Problems, written: Option<&schema::Etcd>) {
    let Some(api) = written.and_then(|etcd| etcd.api.as_ref()) else {
        return;
    };
    match api.value.as_str() {
        "v3" | "3" => {}
        "v2" | "2" => problems.add(
            Problem::new(
                span_of(api),
                "etcd's v2 interface is off since etcd 3.4 and gone in 3.6",
            )
            .label("only `v3`")
            .hint(
                "Patroni speaks v3 to etcd here; keys written through v2 are invisible to v3, so \
                 nothing would be gained by turning v2 on",
            ),
        ),
        other => problems.add(
            Problem::new(
                span_of(api),
                format!("{} is not an interface of etcd", quoted(other)),
            )
            .label("only `v3`"),
        ),
    }
}

fn haproxy(problems: &mut Problems, written: Option<&schema::Haproxy>) -> Haproxy {
    let none = schema::Haproxy::default();
    let written = written.unwrap_or(&none);
    Haproxy {
        write_port: ports::port(problems, written.write_port.as_ref(), limits::WRITE_PORT),
        read_port: ports::port(problems, written.read_port.as_ref(), limits::READ_PORT),
        stats_port: ports::port(problems, written.stats_port.as_ref(), limits::STATS_PORT),
        connections_per_source: connections(problems, written.connections_per_source.as_ref()),
        vip: written
            .vip
            .as_ref()
            .and_then(|word| problems.keep(net::host_address(word))),
    }
}

/// A number of connections, at least 1.
fn connections(problems: &mut Problems, written: Option<&Number>) -> Option<u32> {
    let number = written?;
    let count = limits::CONNECTIONS.take(number.value);
    if count.is_none() {
        problems.add(
            Problem::new(
                span_of(number),
                format!("{} is no number of connections", number.value),
            )
            .label(limits::CONNECTIONS.to_string()),
        );
    }
    count
}

/// One of a few words, as its value.
fn one_of<T: Choice>(word: &Word) -> Result<T, Problem> {
    T::of(&word.value).ok_or_else(|| {
        Problem::new(
            span_of(word),
            format!("{} is not {}", quoted(&word.value), T::NOUN),
        )
        .did_you_mean(keys::nearest(&word.value, T::words()))
        .hint(format!("valid here: {}", alternatives(T::words())))
    })
}

/// A number within bounds; `noun` says what it is.
fn bounded(
    problems: &mut Problems,
    number: &Number,
    noun: &str,
    bounds: Bounds<u32>,
) -> Option<u32> {
    let value = bounds.take(number.value);
    if value.is_none() {
        problems.add(
            Problem::new(span_of(number), format!("{} is not {noun}", number.value))
                .label(bounds.to_string()),
        );
    }
    value
}

/// A text that must have a certain form, if it is set.
fn shaped(problems: &mut Problems, word: Option<&Word>, shape: Shape) -> Option<String> {
    let word = word?;
    if shape.fits(&word.value) {
        return Some(word.value.clone());
    }
    problems.add(Problem::new(
        span_of(word),
        format!("{} is not {}", quoted(&word.value), shape.wanted),
    ));
    None
}
