//! A client for the part of etcd's v3 API that pgherd uses.
//!
//! Source: the gRPC gateway of etcd 3.4 and later (`/v3/…`, keys and values in base64).

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    cluster::ETCD_CLIENT_PORT,
    error::{Code, Error, Result},
    http::Http,
    inventory::HostName,
    liberal,
};

/// How long a member may take to return its member list, which it has in memory.
const VIEW: Duration = Duration::from_secs(4);

/// The keys that Patroni keeps for one cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PatroniKeys {
    /// The database's system identifier; empty while a bootstrap is under way.
    pub initialize: Option<String>,
    /// The member that holds the leader lock.
    pub leader: Option<String>,
    /// The cluster-wide configuration.
    pub config: Option<Value>,
    /// The latest report of each member.
    pub members: BTreeMap<String, Value>,
    /// When the bootstrap lock was last written, as etcd's revision.
    pub initialize_revision: Option<String>,
}

impl PatroniKeys {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A member in etcd's list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Member {
    #[serde(rename = "ID", deserialize_with = "liberal::text")]
    pub id: String,
    /// Empty until the member has started once.
    #[serde(deserialize_with = "liberal::text")]
    pub name: String,
    #[serde(rename = "peerURLs", deserialize_with = "liberal::list")]
    pub peer_urls: Vec<String>,
    #[serde(rename = "clientURLs", deserialize_with = "liberal::list")]
    pub client_urls: Vec<String>,
    /// It copies the store, and has no vote.
    #[serde(rename = "isLearner", deserialize_with = "liberal::flag")]
    pub is_learner: bool,
}

impl Member {
    /// The name of its host. A member that never started is known only by its peer URL.
    pub fn host(&self) -> Option<&str> {
        if !self.name.is_empty() {
            return Some(&self.name);
        }
        let url = self.peer_urls.first()?;
        let (_, rest) = url.split_once("://")?;
        rest.split(':').next().filter(|host| !host.is_empty())
    }
}

/// A member's view of its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The store's id, on which all of its members agree.
    pub cluster_id: String,
    /// The id of the member that answered.
    pub member_id: String,
    pub members: Vec<Member>,
}

/// A member's own health (`GET /health`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    pub healthy: bool,
    /// Why it is not healthy (etcd 3.5 and later); empty if it gives no reason.
    pub reason: String,
}

impl Health {
    /// The reason in brackets, for the end of a sentence; empty if there is none.
    pub fn why(&self) -> String {
        match self.reason.as_str() {
            "" => String::new(),
            reason => format!(" ({reason})"),
        }
    }
}

/// An alarm that a member has raised. It stays until somebody disarms it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Alarm {
    #[serde(rename = "memberID", deserialize_with = "liberal::text")]
    pub member: String,
    /// `NOSPACE`, `CORRUPT`, or a kind of a later etcd.
    #[serde(rename = "alarm", deserialize_with = "liberal::text")]
    pub kind: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pair {
    #[serde(deserialize_with = "liberal::text")]
    key: String,
    #[serde(deserialize_with = "liberal::text")]
    value: String,
    #[serde(deserialize_with = "liberal::text")]
    mod_revision: String,
}

#[derive(Deserialize)]
struct Range {
    #[serde(default, deserialize_with = "liberal::list")]
    kvs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Members {
    #[serde(default, deserialize_with = "liberal::part")]
    header: Header,
    #[serde(default, deserialize_with = "liberal::list")]
    members: Vec<Member>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Header {
    #[serde(deserialize_with = "liberal::text")]
    cluster_id: String,
    #[serde(deserialize_with = "liberal::text")]
    member_id: String,
}

#[derive(Deserialize)]
struct Alarms {
    #[serde(default, deserialize_with = "liberal::list")]
    alarms: Vec<Alarm>,
}

/// The prefix of everything that Patroni stores for `scope`; `namespace` is `/db/`, as in `patroni.yml`.
pub fn prefix(scope: &str) -> String {
    format!("/db/{scope}/")
}

/// A client of the etcd on one host.
pub struct Etcd<'a> {
    http: &'a Http,
    host: &'a HostName,
}

impl<'a> Etcd<'a> {
    pub fn on(http: &'a Http, host: &'a HostName) -> Self {
        Self { http, host }
    }

    /// Whether this member is up, sees a leader, and knows of no alarm.
    pub async fn healthy(&self) -> Result<bool> {
        Ok(self.health().await?.healthy)
    }

    /// The same, with the reason.
    pub async fn health(&self) -> Result<Health> {
        let answer = self
            .http
            .get(self.host, ETCD_CLIENT_PORT, "/health", None)
            .await?;
        // The HTTP status of an unhealthy etcd is an error too, and some versions say nothing else.
        let said: Value = match answer.json() {
            Ok(said) => said,
            Err(error) if answer.status.is_success() => return Err(error),
            Err(_) => Value::Null,
        };
        Ok(Health {
            healthy: answer.status.is_success() && liberal::is_yes(&said["health"]),
            reason: liberal::as_text(&said["reason"]).unwrap_or_default(),
        })
    }

    /// The alarms of all members that this member knows; needs no quorum.
    pub async fn alarms(&self) -> Result<Vec<Alarm>> {
        let alarms: Alarms = self
            .post("/v3/maintenance/alarm", &json!({"action": "GET"}))
            .await?;
        Ok(alarms.alarms)
    }

    pub async fn members(&self) -> Result<Vec<Member>> {
        let members: Members = self.post("/v3/cluster/member/list", &json!({})).await?;
        Ok(members.members)
    }

    /// The store as this member knows it; needs no quorum.
    pub async fn view(&self) -> Result<View> {
        let body = json!({});
        let asked = self.post::<Members>("/v3/cluster/member/list", &body);
        let said = tokio::time::timeout(VIEW, asked)
            .await
            .unwrap_or_else(|_| {
                let seconds = VIEW.as_secs();
                Err(Error::new(
                    Code::EtcdUnreachable,
                    format!("etcd did not list its members within {seconds} s"),
                )
                .on(self.host))
            })?;
        Ok(View {
            cluster_id: said.header.cluster_id,
            member_id: said.header.member_id,
            members: said.members,
        })
    }

    /// Tells the cluster at which URL a member's peers reach it.
    ///
    /// Needs a quorum, but no restart of the member, whose own URLs are in its config.
    pub async fn update_member(&self, id: &str, peer_url: &str) -> Result<()> {
        let body = json!({"ID": id, "peerURLs": [peer_url]});
        self.post::<Value>("/v3/cluster/member/update", &body)
            .await
            .map(|_| ())
    }

    /// Adds a member with the URL `peer_url` as a learner. A learner has no vote before it is promoted, so the
    /// others' quorum does not depend on it (etcd 3.4 and later).
    ///
    /// etcd refuses this while a voting member is not connected to the others, or has been for only a few
    /// seconds.
    pub async fn add_learner(&self, peer_url: &str) -> Result<()> {
        let body = json!({"peerURLs": [peer_url], "isLearner": true});
        self.change("/v3/cluster/member/add", &body).await
    }

    /// Gives a learner its vote. etcd refuses this until the learner has caught up with the leader.
    pub async fn promote(&self, id: &str) -> Result<()> {
        self.change("/v3/cluster/member/promote", &json!({"ID": id}))
            .await
    }

    /// Removes a member from the list, for good: it can never come back with the same id.
    pub async fn remove_member(&self, id: &str) -> Result<()> {
        self.change("/v3/cluster/member/remove", &json!({"ID": id}))
            .await
    }

    /// The id of the leader that this member knows; empty if it knows none.
    pub async fn leader(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Status {
            #[serde(default, deserialize_with = "liberal::text")]
            leader: String,
        }
        let status: Status = self.post("/v3/maintenance/status", &json!({})).await?;
        Ok(status.leader)
    }

    /// Transfers the leadership to another member; only the leader can do it.
    pub async fn move_leader(&self, to: &str) -> Result<()> {
        self.change(
            "/v3/maintenance/transfer-leadership",
            &json!({"targetID": to}),
        )
        .await
    }

    async fn change(&self, path: &str, body: &Value) -> Result<()> {
        self.post::<Value>(path, body).await.map(|_| ())
    }

    /// Everything that Patroni keeps for `scope`, in one call.
    pub async fn patroni_keys(&self, scope: &str) -> Result<PatroniKeys> {
        let prefix = prefix(scope);
        let range: Range = self
            .post(
                "/v3/kv/range",
                &json!({"key": encode(&prefix), "range_end": encode(&successor(&prefix))}),
            )
            .await?;
        Ok(keys_of(range, &prefix))
    }

    /// Deletes a bootstrap lock that has not changed since `revision`; returns whether it did.
    pub async fn release_initialize(&self, scope: &str, revision: &str) -> Result<bool> {
        #[derive(Deserialize)]
        struct Done {
            #[serde(default, deserialize_with = "liberal::flag")]
            succeeded: bool,
        }
        let key = encode(&format!("{}initialize", prefix(scope)));
        let done: Done = self
            .post(
                "/v3/kv/txn",
                &json!({
                    "compare": [{"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": revision}],
                    "success": [{"request_delete_range": {"key": key}}],
                }),
            )
            .await?;
        Ok(done.succeeded)
    }

    /// Deletes the report of one of Patroni's members. Patroni writes it again in its next loop.
    pub async fn forget_patroni_member(&self, scope: &str, member: &str) -> Result<()> {
        let key = encode(&format!("{}members/{member}", prefix(scope)));
        self.post::<Value>("/v3/kv/deleterange", &json!({"key": key}))
            .await
            .map(|_| ())
    }

    /// Deletes what Patroni knows of the WAL's end and of synchronous standbys. The lock `initialize` and the
    /// configuration stay.
    pub async fn forget_position(&self, scope: &str) -> Result<()> {
        for name in ["status", "optime/leader", "sync", "failover"] {
            let key = encode(&format!("{}{name}", prefix(scope)));
            self.post::<Value>("/v3/kv/deleterange", &json!({"key": key}))
                .await?;
        }
        Ok(())
    }

    /// Has the DCS name another database: its identifier, and nothing of how far the other one was. The
    /// configuration stays, and is not paused any more.
    pub async fn adopt_system(&self, scope: &str, system: &str) -> Result<()> {
        let keys = self.patroni_keys(scope).await?;
        // A member may lead with it already.
        if keys.initialize.as_deref() != Some(system) {
            self.forget_position(scope).await?;
            let key = format!("{}initialize", prefix(scope));
            self.put(&key, system).await?;
        }
        if let Some(Value::Object(mut config)) = keys.config
            && config.remove("pause").is_some()
        {
            let config = Value::Object(config).to_string();
            self.put(&format!("{}config", prefix(scope)), &config)
                .await?;
        }
        Ok(())
    }

    async fn put(&self, key: &str, value: &str) -> Result<()> {
        let body = json!({"key": encode(key), "value": encode(value)});
        self.post::<Value>("/v3/kv/put", &body).await.map(|_| ())
    }

    async fn post<T: serde::de::DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        let answer = self
            .http
            .send(
                self.host,
                ETCD_CLIENT_PORT,
                Method::POST,
                path,
                None,
                Some(body),
            )
            .await?;
        if !answer.status.is_success() {
            return Err(Error::new(
                Code::ServiceRefused,
                format!("etcd answered {}", answer.status),
            )
            .on(self.host)
            .cause(answer.text()));
        }
        answer.json()
    }
}

/// Patroni's data in a range of keys; an unreadable value is left out.
fn keys_of(range: Range, prefix: &str) -> PatroniKeys {
    let mut keys = PatroniKeys::default();
    for pair in range.kvs {
        let (Some(key), Some(value)) = (decode(&pair.key), decode(&pair.value)) else {
            continue;
        };
        match key.strip_prefix(prefix) {
            Some("initialize") => {
                keys.initialize = Some(value);
                keys.initialize_revision = Some(pair.mod_revision);
            }
            Some("leader") => keys.leader = Some(value),
            Some("config") => keys.config = serde_json::from_str(&value).ok(),
            Some(rest) => {
                if let Some(member) = rest.strip_prefix("members/") {
                    let value = serde_json::from_str(&value).unwrap_or(Value::Null);
                    keys.members.insert(member.to_owned(), value);
                }
            }
            None => {}
        }
    }
    keys
}

fn encode(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

fn decode(text: &str) -> Option<String> {
    String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()
}

/// The first key after all that begin with `prefix`, which ends in `/`.
fn successor(prefix: &str) -> String {
    let mut end = prefix.trim_end_matches('/').to_owned();
    end.push('0');
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liberal::mutate::mutations;

    #[test]
    fn the_range_ends_right_after_the_prefix() {
        assert_eq!(successor("/db/pg/"), "/db/pg0");
        assert!("/db/pg/members/node1" < successor("/db/pg/").as_str());
        assert!("/db/pg-2/leader" < "/db/pg/", "another scope lies outside");
    }

    #[test]
    fn an_answer_is_read_whatever_one_of_its_fields_holds() {
        let document: Value = serde_json::from_str(include_str!("answers/range.json")).unwrap();
        let whole = keys_of(serde_json::from_value(document.clone()).unwrap(), "/db/pg/");
        assert_eq!(whole.leader.as_deref(), Some("node1"));
        assert_eq!(whole.members.len(), 3);
        let mut count = 0;
        for (what, document) in mutations(&document) {
            let range: Range =
                serde_json::from_value(document).unwrap_or_else(|error| panic!("{what}: {error}"));
            let keys = keys_of(range, "/db/pg/");
            // A strange field affects only its own key: all others are there.
            let seen = keys.members.len() + usize::from(keys.leader.is_some());
            assert!(seen >= 3 || what.starts_with("/kvs "), "{what}: {keys:?}");
            count += 1;
        }
        let document: Value = serde_json::from_str(include_str!("answers/members.json")).unwrap();
        for (what, document) in mutations(&document) {
            let read = serde_json::from_value::<Members>(document);
            assert!(read.is_ok(), "{what}");
            count += 1;
        }
        let alarms = json!({"alarms": [{"memberID": "7", "alarm": "NOSPACE"}]});
        for (what, document) in mutations(&alarms) {
            let read = serde_json::from_value::<Alarms>(document);
            assert!(read.is_ok(), "{what}");
            count += 1;
        }
        assert!(count > 400, "{count}");
    }
}
