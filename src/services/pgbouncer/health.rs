//! PgBouncer's health: whether clients get through each one to the leader, and to a replica.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::client::{Pools, ask};
use crate::{
    cluster::{Cluster, POOLER_USER},
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    quantity::count,
    secret::Secret,
    services::{
        health::{Check, Health, Look, Shown, units},
        postgres::{Login, login_as},
    },
};

pub(crate) const HEALTH: &dyn Health = &Pooler;

const NAME: &str = "pgbouncer";
/// How long a login and a query may take.
const ANSWER: Duration = Duration::from_secs(10);

struct Pooler;

#[async_trait]
impl Health for Pooler {
    fn role(&self) -> Role {
        Role::Pgbouncer
    }

    async fn shown(&self, look: &Look<'_>) -> Shown {
        let mut shown = Shown {
            units: units(self.role(), look),
            ..Shown::default()
        };
        let mut documents = Vec::new();
        let active = shown.units.iter_mut().filter(|row| row.active);
        let (rows, hosts): (Vec<_>, Vec<HostName>) = active
            .map(|row| {
                let host = HostName::new(&row.host);
                (row, host)
            })
            .unzip();
        let asked = hosts.iter().map(|host| ask(look.ways.remote, host));
        let said = join_all(asked).await;
        for ((row, host), said) in rows.into_iter().zip(&hosts).zip(said) {
            match said {
                Ok(pools) => {
                    row.state.push_str(&format!(", {}", in_words(&pools)));
                    documents.push(document(host, &pools));
                }
                Err(error) => {
                    let error = error.to_string();
                    row.state.push_str(", its console does not answer");
                    documents.push(json!({"host": host, "error": error}));
                }
            }
        }
        shown.document = Map::from_iter([(NAME.to_owned(), documents.into())]);
        shown
    }

    async fn checks(&self, look: &Look<'_>) -> Vec<Check> {
        let cluster = look.ways.cluster;
        let logins = logins(cluster);
        let doors: Vec<&HostName> = cluster
            .with_role(self.role())
            .map(|node| &node.name)
            .collect();
        let each = doors.iter().flat_map(|door| {
            let logins = logins.iter();
            logins.map(|login| async {
                let tried = timeout(ANSWER, attempt(look, door, login)).await;
                let silent = || {
                    let what = format!("no answer in {} s", ANSWER.as_secs());
                    Err(Error::new(Code::PostgresqlUnreachable, what).on(door))
                };
                let error = tried.unwrap_or_else(|_| silent()).err()?;
                Some(format!("as {} to {}: {error}", login.user, login.database))
            })
        });
        let wrong: Vec<String> = join_all(each).await.into_iter().flatten().collect();
        vec![Check::of(NAME, wrong, right(doors.len(), &logins))]
    }
}

fn in_words(pools: &Pools) -> String {
    let mut words = format!(
        "{}, {} to PostgreSQL",
        count(pools.clients, "client"),
        count(pools.servers, "connection")
    );
    if pools.waiting > 0 {
        words.push_str(&format!(
            ", {} waiting for up to {} s",
            pools.waiting, pools.longest_wait
        ));
    }
    words.push_str(&format!("; {}", pools.version));
    if !pools.prepares() {
        words.push_str(", without prepared statements");
    }
    words
}

fn document(host: &HostName, pools: &Pools) -> Value {
    json!({
        "host": host,
        "version": pools.version,
        "prepared_statements": pools.prepares(),
        "clients": pools.clients,
        "waiting": pools.waiting,
        "longest_wait": pools.longest_wait,
        "connections": pools.servers,
    })
}

/// A login through a pooler, and where it must lead.
struct Trial<'a> {
    user: &'a str,
    password: &'a Secret,
    database: String,
    reads: bool,
}

/// Each database of the inventory, as its owner. That proves that verifiers are found there; `postgres`, as the
/// role that finds them, proves the way.
fn logins(cluster: &Cluster) -> Vec<Trial<'_>> {
    let inventory = &cluster.inventory;
    let reads: Vec<&str> = inventory.pooled_for_reading().collect();
    let mut each: Vec<(&str, &str, &Secret)> = Vec::new();
    if let Some(password) = &cluster.secrets.pooler {
        each.push(("postgres", POOLER_USER, password));
    }
    for (database, settings) in &inventory.postgresql.databases {
        let password = cluster.secrets.users.get(&settings.owner);
        each.extend(password.map(|it| (database.as_str(), settings.owner.as_str(), it)));
    }
    let mut logins = Vec::new();
    // A cluster of one has nobody to read from.
    let replicas = cluster.with_role(Role::Postgres).nth(1).is_some();
    for (database, user, password) in each {
        let trial = |database: String, reads| Trial {
            user,
            password,
            database,
            reads,
        };
        logins.push(trial(database.to_owned(), false));
        if replicas && reads.contains(&database) {
            logins.push(trial(format!("{database}_read"), true));
        }
    }
    logins
}

async fn attempt(look: &Look<'_>, door: &HostName, trial: &Trial<'_>) -> Result<()> {
    let port = look
        .ways
        .cluster
        .inventory
        .port(super::SERVICE.ports[0].number);
    let stream = look.ways.remote.dial(door, port).await?;
    let login = Login {
        user: trial.user,
        database: &trial.database,
        password: trial.password,
        // PgBouncer takes no options.
        options: None,
    };
    let session = login_as(&login, stream, door, look.tls)
        .await
        .map_err(|error| {
            let what = format!("no connection to PostgreSQL through port {port}");
            Error::new(Code::PostgresqlUnreachable, what)
                .on(door)
                .because(error)
        })?;
    let replica = session
        .value("select pg_catalog.pg_is_in_recovery()")
        .await?;
    let (wanted, leads) = match trial.reads {
        true => ("t", "the leader, not to a replica"),
        false => ("f", "a replica, not to the leader"),
    };
    if replica == wanted {
        return Ok(());
    }
    Err(Error::new(Code::ClientsNotServed, format!("it leads to {leads}")).on(door))
}

fn right(doors: usize, logins: &[Trial<'_>]) -> String {
    let databases = logins.iter().filter(|it| !it.reads).count();
    let reads = logins.iter().filter(|it| it.reads).count();
    let mut right = format!(
        "logins through {} reach the leader in {}",
        count(doors, "pooler"),
        count(databases, "database")
    );
    if reads > 0 {
        right.push_str(&format!(", and a replica in {reads}"));
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::world::{FIVE, cluster};

    const POOLED: &str = "pgbouncer: {}\npostgresql:\n  users: { shop: }\n  databases: { shop: , 'my shop': { owner: shop } }\n";

    #[test]
    fn each_database_is_tried_as_somebody_whose_password_is_known() {
        let mut cluster = cluster(POOLED, FIVE);
        let tried = |cluster: &Cluster| -> Vec<String> {
            let logins = logins(cluster);
            let words = logins.iter();
            words
                .map(|it| format!("{} {}", it.user, it.database))
                .collect()
        };
        let own = ["pgherd_pooler postgres", "pgherd_pooler postgres_read"];
        assert_eq!(tried(&cluster), own);
        let password = Secret::new("shop-s3cret");
        cluster.secrets.users.insert("shop".into(), password);
        let all = tried(&cluster);
        assert_eq!(all[2..], ["shop shop", "shop shop_read", "shop my shop"]);
    }

    #[test]
    fn what_a_pooler_lacks_and_who_waits_is_told() {
        let pools = Pools {
            version: "1.18.0".into(),
            clients: 12,
            waiting: 2,
            longest_wait: 3,
            servers: 1,
        };
        assert_eq!(
            in_words(&pools),
            "12 clients, 1 connection to PostgreSQL, 2 waiting for up to 3 s; 1.18.0, without prepared statements"
        );
        let newer = Pools {
            version: "1.24.1".into(),
            ..Pools::default()
        };
        assert_eq!(
            in_words(&newer),
            "0 clients, 0 connections to PostgreSQL; 1.24.1"
        );
        assert_eq!(
            document(&HostName::new("door"), &newer)["prepared_statements"],
            true
        );
    }
}
