//! The inventory's file as it is written, before any of it is believed; and all that there is to say
//! of a key.
//!
//! Numbers and words are taken as they come and judged in `check`, so that one run shows every
//! mistake and can say more than "invalid u16". Sections may be empty: whoever comments out the last
//! key of one wants its defaults.
//!
//! A key's comment is what editors and docs/inventory.md say of it. Its bounds, its shape and its
//! default are those of `limits`, its words those of a `Choice`. `json` makes the JSON Schema of it,
//! and `keys` the lists of keys. What JSON Schema has no word for:
//!
//! - `x-type` names the type where its JSON type does not,
//! - `x-default` says in words what happens without the key, where that is no value,
//! - `x-kinds` are the kinds of provider that take the key, if not all do.

#![expect(
    const_item_mutation,
    reason = "a transform may change itself; those of `limits` do not"
)]

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Connect, CpuCredits, PatroniSource, PgSource, ProviderKind, Role,
    bounds::Names,
    choice::OneOf,
    limits,
    placed::{Placed, Span},
    types::{
        Api, Scalar, Version, never_both, no_distro_from_pgdg, no_folder_of_others, no_service,
        parameters,
    },
};

/// A word, a name, or a number kept as it was written.
pub(super) type Word = Placed<String>;
pub(super) type Number = Placed<i64>;

const AWS: [&str; 1] = [ProviderKind::Aws.as_str()];
const DOCKER: [&str; 1] = [ProviderKind::Docker.as_str()];
const WITH_IMAGES: [&str; 2] = [ProviderKind::Docker.as_str(), ProviderKind::Aws.as_str()];

/// The keys of a section that are written, each with its place.
pub(super) fn written(section: &impl Serialize) -> Vec<(String, Span)> {
    let section = serde_json::to_value(section).unwrap_or_default();
    let keys = section.as_object().into_iter().flatten();
    keys.filter_map(|(key, at)| Some((key.clone(), Span::deserialize(at).ok()?)))
        .collect()
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    /// Patroni's scope, the prefix of every resource, and the folder `.pgherd/<cluster>/` beside the
    /// inventory. 1 to 31 of `a-z`, `0-9` and `-`, a letter first, no dash last.
    #[schemars(required, transform = limits::CLUSTER_NAME)]
    pub(super) cluster: Option<Word>,
    /// Where the hosts come from.
    #[schemars(required)]
    pub(super) provider: Option<Placed<Provider>>,
    /// How pgherd reaches them.
    pub(super) ssh: Option<Ssh>,
    /// PostgreSQL's version, place and parameters.
    pub(super) postgresql: Option<Postgresql>,
    /// How failures are noticed.
    pub(super) patroni: Option<Patroni>,
    /// The store of Patroni's state.
    pub(super) etcd: Option<Etcd>,
    /// Where clients connect.
    pub(super) haproxy: Option<Haproxy>,
    /// Encryption inside the cluster.
    pub(super) tls: Option<Tls>,
    /// Passwords that you give yourself.
    pub(super) secrets: Option<Secrets>,
    /// PEM certificates that the hosts are to trust, for hosts behind a proxy that inspects their
    /// traffic.
    #[schemars(extend("x-type" = "file"))]
    pub(super) ca_bundle: Option<Word>,
    /// The hosts by name.
    #[schemars(
        required,
        with = "BTreeMap<String, Host>",
        transform = Names(limits::HOST_NAME),
        extend("minProperties" = 1)
    )]
    pub(super) hosts: Option<Placed<IndexMap<Word, Option<Host>>>>,
}

/// The keys of every kind; `check` refuses those that the kind does not take.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = never_both("subnet_id", "subnet_ids"))]
pub(super) struct Provider {
    /// Containers on this machine, EC2 instances, or hosts you already have.
    #[schemars(required, with = "OneOf<ProviderKind>")]
    pub(super) kind: Option<Word>,
    /// Where the hosts are made.
    #[schemars(
        transform = limits::REGION,
        extend("x-kinds" = AWS, "x-default" = "as the AWS tools find it")
    )]
    pub(super) region: Option<Word>,
    /// The profile whose credentials are used.
    #[schemars(
        with = "Option<Scalar>",
        transform = limits::PROFILE,
        extend("x-kinds" = AWS, "x-default" = "as the AWS tools find it")
    )]
    pub(super) profile: Option<Word>,
    /// Another endpoint that speaks EC2's interface.
    #[schemars(transform = limits::URL, extend("x-kinds" = AWS, "x-default" = "AWS"))]
    pub(super) endpoint_url: Option<Word>,
    /// The size of the hosts.
    #[schemars(
        transform = limits::INSTANCE_TYPE,
        extend("x-kinds" = AWS, "default" = limits::DEFAULT_INSTANCE_TYPE)
    )]
    pub(super) instance_type: Option<Word>,
    /// What becomes of a burstable instance (t2, t3, t4g) that has used up its CPU credits: it falls
    /// back to its baseline, or goes on and costs more.
    #[schemars(
        with = "Option<OneOf<CpuCredits>>",
        extend(
            "x-kinds" = AWS,
            "x-default" = "EC2's own: `standard` for t2, `unlimited` for t3 and t4g"
        )
    )]
    pub(super) cpu_credits: Option<Word>,
    /// The root volume, an encrypted gp3.
    #[schemars(
        transform = limits::VOLUME_GB,
        extend("x-kinds" = AWS, "default" = limits::DEFAULT_VOLUME_GB)
    )]
    pub(super) volume_gb: Option<Number>,
    /// What the root volume can do a second.
    #[schemars(transform = limits::IOPS, extend("x-kinds" = AWS, "x-default" = "gp3's 3000"))]
    pub(super) iops: Option<Number>,
    /// The hosts' image. `docker`: one that is already in the engine is never pulled. `aws`:
    /// `ubuntu-24.04`, `ubuntu-24.04-minimal` or an AMI's id.
    #[schemars(extend(
        "x-kinds" = WITH_IMAGES,
        "x-type" = "image",
        "x-default" = format!("`docker`: made on this machine; `aws`: `{}`", limits::AWS_IMAGE)
    ))]
    pub(super) image: Option<Word>,
    /// The hosts' network, such as `192.168.0.0/24`. Where hosts have addresses and this is not set,
    /// the /24 around the first of them.
    #[schemars(
        transform = limits::SUBNET,
        extend("x-kinds" = DOCKER, "x-default" = "an unused one")
    )]
    pub(super) subnet: Option<Word>,
    /// The subnet of all hosts.
    #[schemars(
        transform = limits::SUBNET_ID,
        extend("x-kinds" = AWS, "x-default" = "those of the default VPC")
    )]
    pub(super) subnet_id: Option<Word>,
    /// Several, of one VPC, to spread the hosts over.
    #[schemars(
        transform = limits::SUBNET_ID,
        extend("x-kinds" = AWS, "x-default" = "those of the default VPC")
    )]
    pub(super) subnet_ids: Option<Placed<Vec<Word>>>,
    /// Which of a host's addresses SSH goes to. Inside the cluster, private ones alone are used.
    #[schemars(
        with = "Option<OneOf<Connect>>",
        extend("x-kinds" = AWS, "default" = limits::CONNECT.as_str())
    )]
    pub(super) connect: Option<Word>,
    /// From where SSH and the statistics page are reachable.
    #[schemars(
        transform = limits::NETWORK,
        extend(
            "x-kinds" = AWS,
            "x-default" = "this machine's address; with `connect: private`, the VPC's networks"
        )
    )]
    pub(super) operator_cidrs: Option<Placed<Vec<Word>>>,
    /// On every resource, beside pgherd's own. Not `aws:…` or `pgherd:…`.
    #[schemars(
        with = "Option<BTreeMap<String, Scalar>>",
        transform = Names(limits::TAG_NAME),
        extend("x-kinds" = AWS, "x-type" = "map of texts")
    )]
    pub(super) tags: Option<Placed<IndexMap<Word, Word>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ssh {
    /// A user who may use sudo without a password, or root.
    #[schemars(
        transform = limits::SSH_USER,
        transform = no_service,
        extend("default" = limits::DEFAULT_SSH_USER)
    )]
    pub(super) user: Option<Word>,
    /// Where sshd listens.
    #[schemars(transform = limits::SSH_PORT)]
    pub(super) port: Option<Number>,
    /// Your own private key, readable by you alone.
    #[schemars(extend("x-type" = "file", "x-default" = "a key made in `.pgherd/<cluster>/`"))]
    pub(super) identity_file: Option<Word>,
    /// After which a host that does not answer is given up.
    #[schemars(transform = limits::CONNECT_TIMEOUT)]
    pub(super) connect_timeout: Option<Number>,
    /// How long a connection stays open after a command, unused, for the next one; 0 keeps none.
    #[schemars(transform = limits::KEEP_ALIVE)]
    pub(super) keep_alive: Option<Number>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = no_distro_from_pgdg)]
pub(super) struct Postgresql {
    /// The major version; `distro` takes what the hosts' distribution has.
    #[schemars(with = "Option<Version>", extend("default" = limits::POSTGRESQL_MAJOR))]
    pub(super) version: Option<Word>,
    /// The hosts' own package sources, or the PostgreSQL project's repository, which is then added.
    /// `pgdg` needs a version by number.
    #[schemars(
        with = "Option<OneOf<PgSource>>",
        extend("default" = limits::POSTGRESQL_SOURCE.as_str())
    )]
    pub(super) source: Option<Word>,
    /// On the database hosts; clients go through HAProxy.
    #[schemars(transform = limits::POSTGRESQL_PORT)]
    pub(super) port: Option<Number>,
    /// A folder of its own: absolute, without blanks, not one of the system.
    #[schemars(
        transform = limits::DATA_DIR,
        transform = no_folder_of_others,
        extend("default" = limits::DEFAULT_DATA_DIR)
    )]
    pub(super) data_dir: Option<Word>,
    /// From where clients may come in, with a password (SCRAM). The cluster's own hosts always may.
    #[schemars(transform = limits::NETWORK, extend("default" = limits::allow()))]
    pub(super) allow: Option<Vec<Word>>,
    /// PostgreSQL's parameters, see below.
    #[schemars(with = "Option<BTreeMap<String, Scalar>>", transform = parameters)]
    pub(super) parameters: Option<IndexMap<Word, Word>>,
    /// The roles that applications log in by, see below.
    #[schemars(
        with = "Option<BTreeMap<String, Option<User>>>",
        transform = Names(limits::USER_NAME)
    )]
    pub(super) users: Option<IndexMap<Word, Option<User>>>,
    /// Their databases.
    #[schemars(
        with = "Option<BTreeMap<String, Option<Database>>>",
        transform = Names(limits::DATABASE_NAME)
    )]
    pub(super) databases: Option<IndexMap<Word, Option<Database>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    /// Roles that it becomes a member of, such as `pg_monitor`; they must exist.
    #[schemars(with = "Option<Vec<Scalar>>", transform = limits::MEMBERSHIP)]
    pub(super) roles: Option<Vec<Word>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    /// Who may do everything in it.
    #[schemars(
        with = "Option<Scalar>",
        extend("x-type" = "one of the users", "x-default" = "the user of the same name")
    )]
    pub(super) owner: Option<Word>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Patroni {
    /// A pinned version with hashes from PyPI in `/opt/patroni`, or the distribution's package.
    #[schemars(
        with = "Option<OneOf<PatroniSource>>",
        extend("default" = limits::PATRONI_SOURCE.as_str())
    )]
    pub(super) source: Option<Word>,
    /// How long the leader's lock holds without being renewed; the longest time until a failover
    /// begins.
    #[schemars(transform = limits::TTL)]
    pub(super) ttl: Option<Number>,
    /// The pause between two looks at the cluster.
    #[schemars(transform = limits::LOOP_WAIT)]
    pub(super) loop_wait: Option<Number>,
    /// How long etcd or PostgreSQL may fail before the leader steps down.
    #[schemars(transform = limits::RETRY_TIMEOUT)]
    pub(super) retry_timeout: Option<Number>,
    /// A replica further behind is not promoted.
    #[schemars(transform = limits::MAXIMUM_LAG)]
    pub(super) maximum_lag_on_failover: Option<Number>,
    /// `true`: a commit waits for a replica, so that a failover loses none.
    #[schemars(extend("default" = limits::SYNCHRONOUS))]
    pub(super) synchronous: Option<bool>,
    /// The leader stays while etcd is away, as long as it reaches all members.
    #[schemars(extend("default" = limits::FAILSAFE))]
    pub(super) failsafe: Option<bool>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Etcd {
    /// The interface that Patroni uses. `v2` is refused: it is off since etcd 3.4 and gone in 3.6.
    #[schemars(with = "Option<Api>")]
    pub(super) api: Option<Word>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Haproxy {
    /// Leads to the leader.
    #[schemars(transform = limits::WRITE_PORT)]
    pub(super) write_port: Option<Number>,
    /// Leads to the replicas.
    #[schemars(transform = limits::READ_PORT)]
    pub(super) read_port: Option<Number>,
    /// The statistics page.
    #[schemars(transform = limits::STATS_PORT)]
    pub(super) stats_port: Option<Number>,
    /// How many connections one address may have on each of the first two ports; more are refused at
    /// once. HAProxy's own host (over loopback) and the members are not counted. Raise it where many
    /// clients share an address (NAT, a proxy) or one host's pool is larger.
    #[schemars(
        transform = limits::CONNECTIONS,
        extend("x-default" = "4/5 of what PostgreSQL takes from clients (77 with its own `max_connections` of 100)")
    )]
    pub(super) connections_per_source: Option<Number>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// Encrypts and verifies every connection inside the cluster, by an authority of its own.
    #[schemars(extend("default" = limits::TLS))]
    pub(super) enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Secrets {
    /// Your own file of passwords, readable by you alone.
    #[schemars(extend("x-type" = "file"))]
    pub(super) file: Option<Word>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Host {
    /// What the host is for; at least one.
    #[schemars(
        required,
        with = "Vec<OneOf<Role>>",
        extend("minItems" = 1, "uniqueItems" = true)
    )]
    pub(super) roles: Option<Placed<Vec<Word>>>,
    /// Where the host is, required for `existing`. For `docker` and `aws`, a fixed address in the
    /// subnet.
    #[schemars(
        transform = limits::ADDRESS,
        extend("x-default" = "given by the provider")
    )]
    pub(super) address: Option<Word>,
    /// The zone that the host is made in.
    #[schemars(
        transform = limits::ZONE,
        extend("x-kinds" = AWS, "x-default" = "hosts of one role are spread")
    )]
    pub(super) zone: Option<Word>,
    /// The size of this host.
    #[schemars(
        transform = limits::INSTANCE_TYPE,
        extend("x-kinds" = AWS, "x-default" = "`provider.instance_type`")
    )]
    pub(super) instance_type: Option<Word>,
    /// The root volume of this host.
    #[schemars(
        transform = limits::VOLUME_GB,
        extend("x-kinds" = AWS, "x-default" = "`provider.volume_gb`")
    )]
    pub(super) volume_gb: Option<Number>,
    /// What the root volume of this host can do a second.
    #[schemars(
        transform = limits::IOPS,
        extend("x-kinds" = AWS, "x-default" = "`provider.iops`")
    )]
    pub(super) iops: Option<Number>,
}
