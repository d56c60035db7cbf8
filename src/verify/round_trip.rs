//! Writes a row through the write port, and reads it from every replica through the read port, at each front
//! door.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use futures_util::future::join_all;

use super::{Check, Prover};
use crate::{
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    poll,
    quantity::count,
    services::postgres::{Door, FrontDoor, ONE_AT_A_TIME, Sql, own_schema, refuse_strange},
    sql::literal,
};

/// How long a committed row may take to reach a replica.
const ARRIVAL: Duration = Duration::from_secs(10);

async fn trip(prover: &Prover, host: &HostName) -> Result<String> {
    let door = FrontDoor {
        cluster: &prover.cluster,
        host,
        remote: prover.remote.clone(),
        tls: prover.tls.clone(),
    };
    let writer = door.open(Door::Write).await?;
    if writer.value("select pg_is_in_recovery()").await? != "f" {
        return Err(Error::new(
            Code::ClientsNotServed,
            "the write port leads to a replica",
        ));
    }
    let nonce = format!("{:032x}", rand::random::<u128>());
    let row = literal(&nonce);
    refuse_read_only(&writer).await?;
    refuse_full(&writer, "the leader").await?;
    refuse_strange(&writer.query(&own_schema()).await?)?;
    writer
        .query(&format!(
            "{ONE_AT_A_TIME}; create table if not exists pgherd.proof (nonce text primary key, written timestamptz not null default now()); \
             insert into pgherd.proof (nonce) values ({row})"
        ))
        .await?;
    let leader = writer.value("select host(inet_server_addr())").await?;
    let read = read_everywhere(prover, &door, &row, &leader).await;
    // In any case the row is not needed any more. Rows that a killed run left are deleted too.
    writer
        .query(&format!(
            "delete from pgherd.proof where nonce = {row} or written < now() - interval '1 hour'"
        ))
        .await?;
    let replicas = read?;
    Ok(match replicas {
        0 => "a row written through the write port was accepted; there is no replica".into(),
        1 => "a row written through the write port was read from the replica".into(),
        many => format!("a row written through the write port was read from all {many} replicas"),
    })
}

/// Fails if the configuration makes every client's transaction read-only.
///
/// pgherd's own session overrides that, so the row alone would not show it. A setting of a role or a database
/// is intended for its users, and is no error.
async fn refuse_read_only(writer: &Sql) -> Result<()> {
    let set = writer
        .query(
            "select sourcefile from pg_file_settings where name = 'default_transaction_read_only' \
             and applied and setting::boolean",
        )
        .await?;
    match set.first().and_then(|row| row.get(0)) {
        None => Ok(()),
        Some(file) => Err(Error::new(
            Code::ClientsNotServed,
            "clients cannot write: default_transaction_read_only is on",
        )
        .cause(format!("it is set in {file}"))),
    }
}

/// Fails if clients use all connections that they may have.
///
/// pgherd's own session uses a connection that is reserved for superusers.
async fn refuse_full(sql: &Sql, called: &str) -> Result<()> {
    const FULL: &str = "select case when used >= most then used || ' of ' || most else '' end from \
         (select pg_catalog.count(*) as used from pg_catalog.pg_stat_activity \
          where backend_type = 'client backend' and application_name <> 'pgherd') taken, \
         (select pg_catalog.sum(case name when 'max_connections' then setting::pg_catalog.int8 \
          else - setting::pg_catalog.int8 end) as most from pg_catalog.pg_settings where name in \
          ('max_connections', 'superuser_reserved_connections', 'reserved_connections')) there";
    let full = sql.value(FULL).await?;
    if full.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Code::ConnectionsExhausted,
        format!("no connection is left for clients: {full} are in use on {called}"),
    )
    .cause("max_connections, minus those reserved for superusers"))
}

pub(super) async fn check(prover: &Prover) -> Check {
    let doors = prover.cluster.with_role(Role::Haproxy);
    let trips = doors.map(async |node| (&node.name, trip(prover, &node.name).await));
    told(join_all(trips).await)
}

/// The result of all round trips. With several front doors, each detail names its own.
fn told(trips: Vec<(&HostName, Result<String>)>) -> Check {
    let several = trips.len() > 1;
    let named = |host: &HostName, text: String| match several {
        true => format!("at {host}: {text}"),
        false => text,
    };
    let failed = |host: &HostName, error: &Error| match several {
        true => named(host, error.told_of(host)),
        false => error.to_string(),
    };
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for (host, trip) in trips {
        match trip {
            Ok(detail) => right.push(named(host, detail)),
            Err(error) => wrong.push(failed(host, &error)),
        }
    }
    Check::of("front-door", wrong, right.join("; "))
}

/// Holds connections through the read port open until every replica has one, and waits on each for the row. The
/// listener balances by the fewest connections, so each new connection goes to another replica.
async fn read_everywhere(
    prover: &Prover,
    door: &FrontDoor<'_>,
    row: &str,
    leader: &str,
) -> Result<usize> {
    let databases: Vec<(&HostName, Ipv4Addr)> = prover
        .cluster
        .with_role(Role::Postgres)
        .filter_map(|node| match node.address {
            crate::cluster::Address::Known(address) => Some((&node.name, address)),
            crate::cluster::Address::Pending(_) => None,
        })
        .collect();
    let expected = databases.len().saturating_sub(1);
    let mut open: Vec<Sql> = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let attempts = expected * 4;
    while seen.len() < expected && open.len() < attempts {
        let reader = door.open(Door::Read).await?;
        let who = reader
            .value("select host(inet_server_addr()) || ' ' || pg_is_in_recovery()")
            .await?;
        let Some(address) = who.strip_suffix(" true") else {
            return Err(Error::new(
                Code::ClientsNotServed,
                "the read port leads to the leader",
            ));
        };
        if seen.insert(address.to_owned()) {
            refuse_full(&reader, address).await?;
            await_row(&reader, row, address).await?;
        }
        open.push(reader);
    }
    if seen.len() < expected {
        let missing: Vec<String> = databases
            .iter()
            .filter(|(_, address)| {
                let address = address.to_string();
                address != leader && !seen.contains(&address)
            })
            .map(|(name, _)| name.to_string())
            .collect();
        return Err(Error::new(
            Code::ClientsNotServed,
            format!(
                "through the read port only {} of {} answered (not: {})",
                seen.len(),
                count(expected, "replica"),
                missing.join(", ")
            ),
        ));
    }
    Ok(expected)
}

async fn await_row(reader: &Sql, row: &str, address: &str) -> Result<()> {
    let query = format!("select count(*) from pgherd.proof where nonce = {row}");
    let arrived = poll::until_found(ARRIVAL, Duration::from_millis(50), || async {
        // On a new replica, even the table may not have arrived yet.
        let exists = reader
            .value("select to_regclass('pgherd.proof') is not null")
            .await?;
        let there = exists == "t" && reader.value(&query).await? == "1";
        Ok::<_, Error>(there.then_some(()))
    });
    arrived.await?.ok_or_else(|| {
        let seconds = ARRIVAL.as_secs();
        Error::new(
            Code::ClientsNotServed,
            format!("the row had not arrived at {address} after {seconds} s"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_front_door_is_named_once() {
        let (a, b) = (HostName::new("a"), HostName::new("b"));
        let refused = |host: &HostName| {
            let what = "no connection to PostgreSQL through port 5000";
            Err(Error::new(Code::PostgresqlUnreachable, what).on(host))
        };
        let check = told(vec![(&a, refused(&a)), (&b, Ok("a row was read".into()))]);
        assert_eq!(
            check.detail,
            "at a: no connection to PostgreSQL through port 5000"
        );
        // One that failed at another host names that one too.
        let check = told(vec![(&a, refused(&b)), (&b, refused(&b))]);
        assert_eq!(
            check.detail,
            "at a: b: no connection to PostgreSQL through port 5000; at b: no connection to PostgreSQL through port 5000"
        );
        let check = told(vec![(&a, refused(&a))]);
        assert_eq!(
            check.detail,
            "a: no connection to PostgreSQL through port 5000"
        );
    }
}
