//! The sections of services beside PostgreSQL and etcd.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    super::{PoolMode, choice::OneOf, limits},
    AWS, Number, Placed, WITHOUT_CLOUD, Word,
};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::inventory) struct Haproxy {
    /// The port that leads to the leader.
    #[schemars(transform = limits::WRITE_PORT)]
    pub(in crate::inventory) write_port: Option<Number>,
    /// The port that leads to the replicas.
    #[schemars(transform = limits::READ_PORT)]
    pub(in crate::inventory) read_port: Option<Number>,
    /// The port of the statistics page.
    #[schemars(transform = limits::STATS_PORT)]
    pub(in crate::inventory) stats_port: Option<Number>,
    /// How many connections one address may have on the write port, and on the read port. More are
    /// refused at once. HAProxy's own host (over loopback) and the members are not counted. Raise it
    /// if many clients share an address (NAT, a proxy), or if one host's pool is larger.
    #[schemars(
        transform = limits::CONNECTIONS,
        extend("x-default" = "4/5 of the connections that PostgreSQL has for clients (77 with its default `max_connections` of 100)")
    )]
    pub(in crate::inventory) connections_per_source: Option<Number>,
    /// An address that moves between the hosts with the role `haproxy`, of which there are two or more. It is
    /// in their network, and no host's. keepalived keeps it on a host whose HAProxy leads to the leader
    /// ([front-doors.md](front-doors.md)).
    #[schemars(
        transform = limits::ADDRESS,
        extend("x-kinds" = WITHOUT_CLOUD, "x-default" = "none; clients name every front door")
    )]
    pub(in crate::inventory) vip: Option<Word>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::inventory) struct Pgbouncer {
    /// The port of the pooler.
    #[schemars(transform = limits::PGBOUNCER_PORT)]
    pub(in crate::inventory) port: Option<Number>,
    /// For how long a client has a connection to PostgreSQL for itself: until its transaction ends, or until
    /// the client disconnects.
    #[schemars(
        with = "Option<OneOf<PoolMode>>",
        extend("default" = limits::POOL_MODE.as_str())
    )]
    pub(in crate::inventory) pool_mode: Option<Word>,
    /// How many clients one pooler accepts.
    #[schemars(transform = limits::MAX_CLIENT_CONN)]
    pub(in crate::inventory) max_client_conn: Option<Number>,
    /// How many connections to PostgreSQL one pooler opens for one database, for all users together. The
    /// other clients wait for one of them.
    #[schemars(
        transform = limits::MAX_DB_CONNECTIONS,
        extend("x-default" = "half of the connections that PostgreSQL has for clients, divided by the numbers of poolers and of `postgresql.databases` (48 with one of each)")
    )]
    pub(in crate::inventory) max_db_connections: Option<Number>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::inventory) struct Backup {
    /// When full backups are made: a calendar expression of systemd's, in the time zone of the host with the
    /// role `backup`.
    #[schemars(transform = limits::SCHEDULE, extend("default" = limits::FULL))]
    pub(in crate::inventory) full: Option<Word>,
    /// When differential backups are made, which hold what has changed since the last full one.
    #[schemars(transform = limits::SCHEDULE, extend("default" = limits::DIFFERENTIAL))]
    pub(in crate::inventory) differential: Option<Word>,
    /// When incremental backups are made, which hold what has changed since the last backup of any type.
    #[schemars(transform = limits::SCHEDULE, extend("x-default" = "none; there are no incremental backups"))]
    pub(in crate::inventory) incremental: Option<Word>,
    /// How many full backups are kept, with all that is needed to restore any moment since the oldest of them.
    #[schemars(transform = limits::KEEP_FULL)]
    pub(in crate::inventory) keep_full: Option<Number>,
    /// How old the last proof that a restore works may become. Restores are rehearsed for that three times as often;
    /// `0`: they are not, and no proof is asked for ([backups.md](backups.md#prove-a-restore)).
    #[schemars(transform = limits::PROVE_WITHIN)]
    pub(in crate::inventory) prove_within: Option<Number>,
    /// A bucket of S3, or of a store that speaks it, that holds the backups instead of the host's disk, see
    /// below.
    pub(in crate::inventory) s3: Option<Placed<S3>>,
    /// Whether the host's disk holds the backups. With `true` beside `s3`, they are in both places, each of which has all
    /// backups and all WAL ([backups.md](backups.md#in-both-places)).
    #[schemars(extend("x-default" = "`true`; with `s3`, `false`"))]
    pub(in crate::inventory) disk: Option<Placed<bool>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::inventory) struct S3 {
    /// The name of the bucket. It must exist, unless `create` is set.
    #[schemars(required, transform = limits::BUCKET)]
    pub(in crate::inventory) bucket: Option<Word>,
    /// The region of the bucket; of other stores, whatever they call it.
    #[schemars(required, transform = limits::BUCKET_REGION)]
    pub(in crate::inventory) region: Option<Word>,
    /// The host name of the store, with its port if that is not 443. It must speak TLS.
    #[schemars(transform = limits::ENDPOINT, extend("x-default" = "`s3.<region>.amazonaws.com`"))]
    pub(in crate::inventory) endpoint: Option<Word>,
    /// The folder in the bucket. Two clusters never share one.
    #[schemars(transform = limits::BUCKET_PATH, extend("x-default" = "`/<cluster>`"))]
    pub(in crate::inventory) path: Option<Word>,
    /// Whether the bucket is part of the path instead of the host name, as many stores other than AWS want it.
    #[schemars(extend("default" = limits::PATH_STYLE))]
    pub(in crate::inventory) path_style: Option<bool>,
    /// Whether `up` makes the bucket if it does not exist: private, with versions, reached by TLS only. A bucket that
    /// exists is used as it is ([backups.md](backups.md#a-bucket-that-pgherd-makes)).
    #[schemars(extend("default" = limits::CREATE_BUCKET))]
    pub(in crate::inventory) create: Option<bool>,
    /// The name of an instance profile of the account, in place of an access key: only the host with the role `backup` gets
    /// it. The bucket must exist ([backups.md](backups.md#without-an-access-key)).
    #[schemars(
        transform = limits::INSTANCE_PROFILE,
        extend("x-kinds" = AWS, "x-default" = "none; the secrets have an access key")
    )]
    pub(in crate::inventory) profile: Option<Word>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::inventory) struct Monitoring {
    /// Networks from which a Prometheus of your own may read the metrics (port 9998 of every host). The hosts with the role
    /// `monitoring` always may.
    #[schemars(transform = limits::NETWORK, extend("x-default" = "none"))]
    pub(in crate::inventory) allow: Option<Vec<Word>>,
    /// For how many days the Prometheus of the host with the role `monitoring` keeps what it has read.
    #[schemars(transform = limits::KEEP_DAYS)]
    pub(in crate::inventory) keep_days: Option<Number>,
    /// A file with the URL that alerts are sent to, as Alertmanager's webhooks are. Whoever knows such a URL can write to it, so it is
    /// treated as a password. The file is read by each run.
    #[schemars(extend("x-type" = "file", "x-default" = "none"))]
    pub(in crate::inventory) webhook_file: Option<Word>,
    /// Where alerts are mailed to; needs `email_from` and `smarthost`.
    #[schemars(transform = limits::EMAIL, extend("x-default" = "none"))]
    pub(in crate::inventory) email_to: Option<Word>,
    /// Whom such mail is from.
    #[schemars(transform = limits::EMAIL, extend("x-default" = "none"))]
    pub(in crate::inventory) email_from: Option<Word>,
    /// The mail server that takes it without a password.
    #[schemars(transform = limits::SMARTHOST, extend("x-default" = "none"))]
    pub(in crate::inventory) smarthost: Option<Word>,
}
