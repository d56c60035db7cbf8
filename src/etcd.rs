//! etcd's v3 interface, as far as pgherd asks it anything.
//!
//! Source: the gRPC gateway of etcd 3.4 and later (`/v3/…`, keys and values in base64).

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    cluster::ETCD_CLIENT_PORT,
    error::{Error, Result},
    http::Http,
    inventory::HostName,
};

/// How long a member may take to tell its list, which it has at hand.
const VIEW: Duration = Duration::from_secs(4);

/// The keys that Patroni keeps for one cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PatroniKeys {
    /// The database system's identifier; empty while a bootstrap is under way.
    pub initialize: Option<String>,
    /// The member that holds the leader lock.
    pub leader: Option<String>,
    /// The cluster-wide configuration.
    pub config: Option<Value>,
    /// What each member last said of itself.
    pub members: BTreeMap<String, Value>,
    /// When the bootstrap lock was last written, as etcd's revision.
    pub initialize_revision: Option<String>,
}

impl PatroniKeys {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A member as etcd lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Member {
    #[serde(rename = "ID")]
    pub id: String,
    /// Empty until the member has started once.
    #[serde(default)]
    pub name: String,
    #[serde(rename = "peerURLs", default)]
    pub peer_urls: Vec<String>,
    #[serde(rename = "clientURLs", default)]
    pub client_urls: Vec<String>,
}

/// What one member says of the store that it is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The store's own id, in which all of its members agree.
    pub cluster_id: String,
    /// The id of the member that was asked.
    pub member_id: String,
    pub members: Vec<Member>,
}

#[derive(Deserialize)]
struct Pair {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    mod_revision: String,
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Members {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    members: Vec<Member>,
}

#[derive(Default, Deserialize)]
struct Header {
    #[serde(default)]
    cluster_id: String,
    #[serde(default)]
    member_id: String,
}

/// The prefix of everything Patroni stores for `scope`; `namespace` is `/db/`, as in `patroni.yml`.
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

    /// Whether this member is up and sees a leader.
    pub async fn healthy(&self) -> Result<bool> {
        #[derive(Deserialize)]
        struct Health {
            health: String,
        }
        let answer = self
            .http
            .get(self.host, ETCD_CLIENT_PORT, "/health", None)
            .await?;
        if !answer.status.is_success() {
            return Ok(false);
        }
        Ok(answer.json::<Health>()?.health == "true")
    }

    pub async fn members(&self) -> Result<Vec<Member>> {
        let members: Members = self.post("/v3/cluster/member/list", &json!({})).await?;
        Ok(members.members)
    }

    /// The store as this member knows it, which needs no quorum.
    pub async fn view(&self) -> Result<View> {
        let body = json!({});
        let asked = self.post::<Members>("/v3/cluster/member/list", &body);
        let said = tokio::time::timeout(VIEW, asked)
            .await
            .unwrap_or_else(|_| {
                let seconds = VIEW.as_secs();
                Err(Error::failed(format!(
                    "etcd did not say within {seconds} s who its members are"
                ))
                .on(self.host))
            })?;
        Ok(View {
            cluster_id: said.header.cluster_id,
            member_id: said.header.member_id,
            members: said.members,
        })
    }

    /// Tells the cluster under which URL a member's peers find it.
    ///
    /// Needs a quorum, and no restart of the member, which has its own URLs from its config.
    pub async fn update_member(&self, id: &str, peer_url: &str) -> Result<()> {
        let body = json!({"ID": id, "peerURLs": [peer_url]});
        self.post::<Value>("/v3/cluster/member/update", &body)
            .await
            .map(|_| ())
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
        let mut keys = PatroniKeys::default();
        for pair in range.kvs {
            let (Some(key), Some(value)) = (decode(&pair.key), decode(&pair.value)) else {
                continue;
            };
            match key.strip_prefix(&prefix) {
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
        Ok(keys)
    }

    /// Deletes a bootstrap lock that nobody has touched since `revision`; says whether it did.
    pub async fn release_initialize(&self, scope: &str, revision: &str) -> Result<bool> {
        #[derive(Deserialize)]
        struct Done {
            #[serde(default)]
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

    /// Deletes what a member of Patroni's has said of itself, which it says again in its next loop.
    pub async fn forget_patroni_member(&self, scope: &str, member: &str) -> Result<()> {
        let key = encode(&format!("{}members/{member}", prefix(scope)));
        self.post::<Value>("/v3/kv/deleterange", &json!({"key": key}))
            .await
            .map(|_| ())
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
            return Err(Error::failed(format!("etcd answered {}", answer.status))
                .on(self.host)
                .cause(answer.text()));
        }
        answer.json()
    }
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

    #[test]
    fn the_range_ends_right_after_the_prefix() {
        assert_eq!(successor("/db/pg/"), "/db/pg0");
        assert!("/db/pg/members/node1" < successor("/db/pg/").as_str());
        assert!("/db/pg-2/leader" < "/db/pg/", "another scope lies outside");
    }
}
