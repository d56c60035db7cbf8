//! HAProxy's view of its backends, from its stats page.
//!
//! Source: HAProxy management guide, section 9.1 (CSV format); the page is `/` on the stats port.

use futures_util::future::join_all;
use serde::Serialize;

use crate::{
    cluster::{Cluster, STATS_USER},
    error::{Code, Error, Result},
    http::Http,
    inventory::{HostName, Role},
};

/// The listener that leads to the leader, with its name in the rendered config.
pub const WRITE: &str = "write";
/// The listener that leads to the replicas.
pub const READ: &str = "read";
/// The suffix of a member's name for the check with TLS, if there is also one without.
pub const OVER_TLS: &str = "_tls";

/// One server behind one listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Server {
    /// The listener: `write` or `read`.
    pub listener: String,
    pub name: String,
    /// `UP`, `DOWN`, `no check`, `UP 1/2`, …
    pub status: String,
    /// Present connections.
    pub sessions: u64,
    /// The result of the last check.
    pub check: String,
}

impl Server {
    pub fn is_up(&self) -> bool {
        self.status.starts_with("UP")
    }

    /// A member with two checks is up if one of them succeeds.
    fn merge(&mut self, other: Self) {
        let sessions = self.sessions + other.sessions;
        if other.is_up() {
            *self = other;
        }
        self.sessions = sessions;
    }
}

/// The servers of all listeners according to the HAProxy of each front door, in the inventory's order.
pub async fn everywhere(http: &Http, cluster: &Cluster) -> Vec<(HostName, Result<Vec<Server>>)> {
    let doors = cluster.with_role(Role::Haproxy);
    let asked = doors.map(async |node| {
        let answer = servers(http, cluster, &node.name).await;
        (node.name.clone(), answer)
    });
    join_all(asked).await
}

/// The servers of all listeners according to the HAProxy on `host`.
pub async fn servers(http: &Http, cluster: &Cluster, host: &HostName) -> Result<Vec<Server>> {
    let port = cluster.inventory.haproxy.stats_port;
    let login = (STATS_USER, &cluster.secrets.stats);
    let answer = http.get(host, port, "/;csv", Some(login)).await?;
    if !answer.status.is_success() {
        return Err(Error::new(
            Code::ServiceRefused,
            format!("the stats page answered {}", answer.status),
        )
        .on(host));
    }
    parse(&answer.text(), host)
}

/// Reads the page. A missing column counts as empty, except for the two that are indispensable.
fn parse(csv: &str, host: &HostName) -> Result<Vec<Server>> {
    let mut lines = csv.lines();
    let header = fields(lines.next().unwrap_or_default().trim_start_matches("# "));
    let column = |name: &str| header.iter().position(|have| have == name);
    let (Some(px), Some(sv)) = (column("pxname"), column("svname")) else {
        return Err(Error::new(
            Code::AnswerUnusable,
            "HAProxy's stats have no columns pxname and svname",
        )
        .on(host)
        .excerpt(
            "the page begins with",
            csv.chars().take(200).collect::<String>(),
        ));
    };
    let (status, scur, check) = (column("status"), column("scur"), column("check_status"));
    let mut servers = Vec::new();
    for line in lines {
        let fields = fields(line);
        let (Some(listener), Some(name)) = (fields.get(px), fields.get(sv)) else {
            continue;
        };
        if matches!(name.as_str(), "FRONTEND" | "BACKEND" | "") {
            continue;
        }
        let field = |at: Option<usize>| {
            at.and_then(|at| fields.get(at))
                .cloned()
                .unwrap_or_default()
        };
        let server = Server {
            listener: listener.clone(),
            name: name.strip_suffix(OVER_TLS).unwrap_or(name).to_owned(),
            status: field(status),
            sessions: field(scur).parse().unwrap_or(0),
            check: field(check),
        };
        let same = servers
            .iter_mut()
            .find(|it: &&mut Server| (&it.listener, &it.name) == (&server.listener, &server.name));
        match same {
            Some(one) => one.merge(server),
            None => servers.push(server),
        }
    }
    Ok(servers)
}

/// The fields of a line. A field in quotes may contain commas, and doubled quotes.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        let last = fields.len() - 1;
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                fields[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields[last].push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_asked_in_two_ways_is_one() -> Result<()> {
        let csv = "# pxname,svname,scur,status,check_status\n\
                   write,node1,3,DOWN,L7RSP\nwrite,node1_tls,2,UP,L7OK\n\
                   write,node2,0,UP,L7OK\nwrite,node2_tls,1,DOWN,L6RSP\n";
        let servers = parse(csv, &HostName::new("haproxy"))?;
        let seen: Vec<_> = servers
            .iter()
            .map(|it| (it.name.as_str(), it.is_up(), it.sessions, it.check.as_str()))
            .collect();
        assert_eq!(
            seen,
            [("node1", true, 5, "L7OK"), ("node2", true, 1, "L7OK")]
        );
        Ok(())
    }

    #[test]
    fn frontends_and_totals_are_not_servers() -> Result<()> {
        let csv = "# pxname,svname,scur,status,check_status\n\
                   write,FRONTEND,0,OPEN,\nwrite,node1,3,UP,L7OK\nwrite,node2,0,DOWN,L7STS\n\
                   write,BACKEND,3,UP,\n";
        let servers = parse(csv, &HostName::new("haproxy"))?;
        assert_eq!(servers.len(), 2);
        assert!(servers[0].is_up() && !servers[1].is_up());
        assert_eq!(
            (servers[0].name.as_str(), servers[0].sessions),
            ("node1", 3)
        );
        Ok(())
    }

    /// Whatever one field contains, and whichever column is missing, the rest is read.
    #[test]
    fn a_page_is_read_whatever_one_of_its_fields_holds() {
        let header = "# pxname,svname,status,scur,check_status,last_chk";
        let row = [
            "write",
            "node1",
            "UP",
            "3",
            "L7OK",
            "\"HTTP, \"\"fine\"\"\"",
        ];
        let host = HostName::new("haproxy");
        for at in 0..row.len() {
            for strange in [
                "",
                "null",
                "-1",
                "a b",
                "\"a,b\"",
                "99999999999999999999999",
            ] {
                let mut row = row;
                row[at] = strange;
                let page = format!("{header}\n{}\nwrite,node2,UP,1,L7OK,\n", row.join(","));
                let servers = parse(&page, &host).unwrap();
                let other = servers.iter().find(|it| it.name == "node2").unwrap();
                assert!(other.is_up() && other.sessions == 1, "{page}");
                assert!(at != 2 || !servers.iter().any(|it| it.name == "node1" && it.is_up()));
            }
            let names: Vec<&str> = header.split(',').collect();
            let cut = |fields: &[&str]| [&fields[..at], &fields[at + 1..]].concat().join(",");
            let read = parse(&format!("{}\n{}\n", cut(&names), cut(&row)), &host);
            match read {
                Ok(servers) => assert_eq!(servers[0].name, "node1"),
                Err(error) => assert!(at < 2 && error.what().contains("pxname")),
            }
        }
        let error = parse("<html>401</html>", &host).unwrap_err();
        assert!(error.excerpts()[0].text.contains("401"));
    }
}
