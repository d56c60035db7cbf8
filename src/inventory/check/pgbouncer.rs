//! Checks the pooler.

use super::{
    super::{
        Pgbouncer,
        bounds::Limit,
        limits,
        placed::span_of,
        problem::Problem,
        schema::{Document, Number},
    },
    Problems, one_of, ports,
};

pub(super) fn check(problems: &mut Problems, document: &Document) -> Option<Pgbouncer> {
    let section = document.pgbouncer.as_ref()?;
    let tls = document.tls.as_ref().and_then(|tls| tls.enabled);
    if !tls.unwrap_or(limits::TLS) {
        problems.add(
            Problem::new(
                span_of(section),
                "`pgbouncer` needs TLS: `tls.enabled` is false",
            )
            .label("clients send their passwords' proofs to it")
            .hint("leave `tls.enabled: false` out"),
        );
    }
    let databases = document.postgresql.as_ref();
    let databases = databases.and_then(|it| it.databases.as_ref());
    let mut names = databases.into_iter().flat_map(|it| it.keys());
    if let Some(name) = names.find(|name| name.value == limits::CONSOLE) {
        problems.add(
            Problem::new(
                span_of(name),
                "no client of a pooler reaches a database called `pgbouncer`",
            )
            .label("the name of PgBouncer's own console")
            .also(span_of(section), "the pooler")
            .hint("choose another name"),
        );
    }
    let written = &section.value;
    Some(Pgbouncer {
        port: ports::port(problems, written.port.as_ref(), limits::PGBOUNCER_PORT),
        pool_mode: written
            .pool_mode
            .as_ref()
            .and_then(|word| problems.keep(one_of(word)))
            .unwrap_or(limits::POOL_MODE),
        max_client_conn: clients(problems, written.max_client_conn.as_ref()),
        max_db_connections: connections(problems, written.max_db_connections.as_ref()),
    })
}

fn clients(problems: &mut Problems, written: Option<&Number>) -> u32 {
    let Limit { bounds, default } = limits::MAX_CLIENT_CONN;
    let Some(number) = written else {
        return default;
    };
    bounds.take(number.value).unwrap_or_else(|| {
        let what = format!("{} is no number of clients", number.value);
        problems.add(Problem::new(span_of(number), what).label(bounds.to_string()));
        default
    })
}

fn connections(problems: &mut Problems, written: Option<&Number>) -> Option<u32> {
    let number = written?;
    let taken = limits::MAX_DB_CONNECTIONS.take(number.value);
    if taken.is_none() {
        let what = format!("{} is no number of connections for a pool", number.value);
        problems
            .add(Problem::new(span_of(number), what).label(limits::MAX_DB_CONNECTIONS.to_string()));
    }
    taken
}
