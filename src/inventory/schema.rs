//! The inventory's file as it is written, before any of it is believed.
//!
//! Numbers and words are taken as they come and judged in `check`, so that one run shows every
//! mistake and can say more than "invalid u16". Sections may be empty: whoever comments out the last
//! key of one wants its defaults.

use indexmap::IndexMap;
use serde::Deserialize;
use serde_yaml::Spanned;

/// A word, a name, or a number kept as it was written.
pub(super) type Word = Spanned<String>;
pub(super) type Number = Spanned<i64>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) cluster: Option<Word>,
    pub(super) provider: Option<Spanned<Provider>>,
    pub(super) ssh: Option<Ssh>,
    pub(super) postgresql: Option<Postgresql>,
    pub(super) patroni: Option<Patroni>,
    pub(super) etcd: Option<Etcd>,
    pub(super) haproxy: Option<Haproxy>,
    pub(super) tls: Option<Tls>,
    pub(super) secrets: Option<Secrets>,
    pub(super) ca_bundle: Option<Word>,
    pub(super) hosts: Option<Spanned<IndexMap<Word, Option<Host>>>>,
}

/// The keys of every kind; which of them a kind takes, `check` knows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) kind: Option<Word>,
    pub(super) image: Option<Word>,
    pub(super) subnet: Option<Word>,
    pub(super) region: Option<Word>,
    pub(super) profile: Option<Word>,
    pub(super) endpoint_url: Option<Word>,
    pub(super) instance_type: Option<Word>,
    pub(super) volume_gb: Option<Number>,
    pub(super) iops: Option<Number>,
    pub(super) subnet_id: Option<Word>,
    pub(super) subnet_ids: Option<Spanned<Vec<Word>>>,
    pub(super) connect: Option<Word>,
    pub(super) operator_cidrs: Option<Spanned<Vec<Word>>>,
    pub(super) tags: Option<Spanned<IndexMap<Word, Word>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ssh {
    pub(super) user: Option<Word>,
    pub(super) port: Option<Number>,
    pub(super) identity_file: Option<Word>,
    pub(super) connect_timeout: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Postgresql {
    pub(super) version: Option<Word>,
    pub(super) source: Option<Word>,
    pub(super) port: Option<Number>,
    pub(super) data_dir: Option<Word>,
    pub(super) allow: Option<Vec<Word>>,
    pub(super) parameters: Option<IndexMap<Word, Word>>,
    pub(super) users: Option<IndexMap<Word, Option<User>>>,
    pub(super) databases: Option<IndexMap<Word, Option<Database>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub(super) roles: Option<Vec<Word>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    pub(super) owner: Option<Word>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patroni {
    pub(super) source: Option<Word>,
    pub(super) ttl: Option<Number>,
    pub(super) loop_wait: Option<Number>,
    pub(super) retry_timeout: Option<Number>,
    pub(super) maximum_lag_on_failover: Option<Number>,
    pub(super) synchronous: Option<bool>,
    pub(super) failsafe: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Etcd {
    pub(super) api: Option<Word>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Haproxy {
    pub(super) write_port: Option<Number>,
    pub(super) read_port: Option<Number>,
    pub(super) stats_port: Option<Number>,
    pub(super) connections_per_source: Option<Number>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secrets {
    pub(super) file: Option<Word>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Host {
    pub(super) roles: Option<Spanned<Vec<Word>>>,
    pub(super) address: Option<Word>,
    pub(super) zone: Option<Word>,
    pub(super) instance_type: Option<Word>,
    pub(super) volume_gb: Option<Number>,
    pub(super) iops: Option<Number>,
}
