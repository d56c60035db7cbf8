//! Finds clients that are connected to the cluster and do not belong to the drill.

use futures_util::future::join_all;

use super::clients::{Clients, Target};
use crate::{
    error::{Code, Error, Result},
    quantity::count,
    services::postgres::APPLICATION,
};

/// Connections of one kind that are neither pgherd's nor the cluster's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherClient {
    pub member: String,
    pub user: String,
    pub application: String,
    pub count: u64,
}

impl std::fmt::Display for OtherClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let connections = count(self.count, "connection");
        write!(f, "{}: {connections} of {}", self.member, self.user)?;
        if !self.application.is_empty() {
            write!(f, " ({})", self.application)?;
        }
        Ok(())
    }
}

/// Asks every member for its connections.
pub async fn other_clients(clients: &Clients) -> Result<Vec<OtherClient>> {
    // Patroni's connections have its name, and walsenders are no client backends.
    let statement = format!(
        "select usename, application_name, count(*) from pg_stat_activity \
         where backend_type = 'client backend' and pid <> pg_backend_pid() \
         and application_name <> '{APPLICATION}' and application_name not like 'Patroni%' \
         group by 1, 2 order by 1, 2"
    );
    let members = clients.members();
    let asked = members.iter().map(|member| {
        let statement = &statement;
        async move {
            let target = Target::Member(member.clone());
            let sql = clients.open(&target).await.map_err(|error| {
                Error::new(Code::StatementFailed, "cannot see who is connected")
                    .on(member)
                    .cause(error.to_string())
            })?;
            let rows = sql
                .query(statement)
                .await
                .map_err(|error| error.on(member))?;
            let client = |row: &tokio_postgres::SimpleQueryRow| {
                let field = |at: usize| row.get(at).unwrap_or_default().to_owned();
                OtherClient {
                    member: member.to_string(),
                    user: field(0),
                    application: field(1),
                    count: field(2).parse().unwrap_or(1),
                }
            };
            Ok::<_, Error>(rows.iter().map(client).collect::<Vec<_>>())
        }
    });
    let mut other_clients = Vec::new();
    for answer in join_all(asked).await {
        other_clients.extend(answer?);
    }
    Ok(other_clients)
}
