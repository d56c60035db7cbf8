//! The keys of the inventory's file, as it is written and before it is checked.
//!
//! Numbers and words are read as text and checked in `check`. So one run shows every mistake, and a message can
//! say more than "invalid u16". Sections may be empty: a user who comments out the last key of a section wants
//! its defaults.
//!
//! A key's comment is its description in editors and in docs/inventory.md. Its bounds, form and default come
//! from `limits`, its words from a `Choice`. `json` makes the JSON Schema from these types, and `keys` the
//! lists of keys. JSON Schema has no words for three things:
//!
//! - `x-type` names the type, if the JSON type does not,
//! - `x-default` says in words what happens without the key, if that is not a value,
//! - `x-kinds` lists the kinds of provider that take the key, if not all do.

#![expect(
    const_item_mutation,
    reason = "a transform may change itself; those of `limits` do not"
)]

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Connect, CpuCredits, LoadBalancer, PatroniSource, PgSource, ProviderKind, Role, Scheme, Tuning,
    bounds::Names,
    choice::OneOf,
    limits,
    placed::{Placed, Span},
    types::{
        Api, Scalar, Version, never_both, no_distro_from_pgdg, no_folder_of_others, no_service,
        only_with, parameters,
    },
};

mod services;

pub(super) use services::{Backup, Haproxy, Monitoring, Pgbouncer, S3};

/// A word, a name, or a number, kept as written.
pub(super) type Word = Placed<String>;
pub(super) type Number = Placed<i64>;

const AWS: [&str; 1] = [ProviderKind::Aws.as_str()];
const DOCKER: [&str; 1] = [ProviderKind::Docker.as_str()];
const WITHOUT_CLOUD: [&str; 2] = [
    ProviderKind::Docker.as_str(),
    ProviderKind::Existing.as_str(),
];
const WITH_IMAGES: [&str; 2] = [ProviderKind::Docker.as_str(), ProviderKind::Aws.as_str()];

/// The keys of a section that are set, each with its place.
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
    /// How pgherd reaches the hosts.
    pub(super) ssh: Option<Ssh>,
    /// PostgreSQL's version, data directory and parameters.
    pub(super) postgresql: Option<Postgresql>,
    /// How Patroni detects failures.
    pub(super) patroni: Option<Patroni>,
    /// The DCS, in which Patroni keeps its state.
    pub(super) etcd: Option<Etcd>,
    /// Where clients connect.
    pub(super) haproxy: Option<Haproxy>,
    /// A pooler on every host with the role `haproxy`, so that many clients share few connections to
    /// PostgreSQL; `{}` has the defaults, and without the section there is none ([pooling.md](pooling.md)).
    pub(super) pgbouncer: Option<Placed<Pgbouncer>>,
    /// When backups are made, and where they are kept; by the host with the role `backup` ([backups.md](backups.md)).
    pub(super) backup: Option<Placed<Backup>>,
    /// Metrics of every host, over TLS, and who may read them; `{}` has the defaults, and without the section there are none, unless a
    /// host has the role `monitoring` ([monitoring.md](monitoring.md)).
    pub(super) monitoring: Option<Placed<Monitoring>>,
    /// Encryption inside the cluster.
    pub(super) tls: Option<Tls>,
    /// Passwords of your own.
    pub(super) secrets: Option<Secrets>,
    /// Where the workspace's secrets are kept for several people and machines, encrypted; without the section, this
    /// machine alone has them ([shared-state.md](shared-state.md)).
    pub(super) state: Option<Placed<State>>,
    /// PEM certificates that the hosts trust in addition, for hosts behind a proxy that inspects their
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

/// The keys of all kinds of provider; `check` refuses a key that the kind does not take.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    transform = never_both("subnet_id", "subnet_ids"),
    transform = only_with("load_balancer_scheme", "load_balancer")
)]
pub(super) struct Provider {
    /// Containers on this machine, EC2 instances, or hosts you already have.
    #[schemars(required, with = "OneOf<ProviderKind>")]
    pub(super) kind: Option<Word>,
    /// The region of the hosts.
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
    /// Another endpoint with EC2's API.
    #[schemars(transform = limits::URL, extend("x-kinds" = AWS, "x-default" = "AWS"))]
    pub(super) endpoint_url: Option<Word>,
    /// The size of the hosts.
    #[schemars(
        transform = limits::INSTANCE_TYPE,
        extend("x-kinds" = AWS, "default" = limits::DEFAULT_INSTANCE_TYPE)
    )]
    pub(super) instance_type: Option<Word>,
    /// What happens when a burstable instance (t2, t3, t4g) has used up its CPU credits: `standard`
    /// slows it to its baseline, `unlimited` keeps its speed and costs more.
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
    /// I/O operations per second of the root volume.
    #[schemars(transform = limits::IOPS, extend("x-kinds" = AWS, "x-default" = "gp3's 3000"))]
    pub(super) iops: Option<Number>,
    /// A disk of its own for the data of each host with the role `postgres`, an encrypted gp3. It outlives the
    /// instance, and [`replace`](members.md#replace) gives it to the new one ([aws.md](aws.md#data-volumes)).
    #[schemars(
        transform = limits::DATA_VOLUME_GB,
        extend("x-kinds" = AWS, "x-default" = "none; the data are on the root volume")
    )]
    pub(super) data_volume_gb: Option<Number>,
    /// I/O operations per second of the data volumes.
    #[schemars(transform = limits::IOPS, extend("x-kinds" = AWS, "x-default" = "gp3's 3000"))]
    pub(super) data_volume_iops: Option<Number>,
    /// Throughput of the data volumes.
    #[schemars(transform = limits::THROUGHPUT, extend("x-kinds" = AWS, "x-default" = "gp3's 125"))]
    pub(super) data_volume_throughput: Option<Number>,
    /// The KMS key of the data volumes.
    #[schemars(
        transform = limits::KMS_KEY,
        extend("x-kinds" = AWS, "x-default" = "the account's default key for EBS")
    )]
    pub(super) data_volume_kms_key: Option<Word>,
    /// The hosts' image. `prepared`: the newest one of `pgherd image build` that fits. `docker`: an image that the
    /// engine already has is never pulled. `aws`: `ubuntu-24.04`, `ubuntu-24.04-minimal` or an AMI's id.
    #[schemars(extend(
        "x-kinds" = WITH_IMAGES,
        "x-type" = "image",
        "x-default" = format!("`docker`: made on this machine; `aws`: `{}`", limits::AWS_IMAGE)
    ))]
    pub(super) image: Option<Word>,
    /// The hosts' network, such as `192.168.0.0/24`. If it is not set and hosts have addresses, it is
    /// the /24 around the first address.
    #[schemars(
        transform = limits::SUBNET,
        extend("x-kinds" = DOCKER, "x-default" = "an unused network")
    )]
    pub(super) subnet: Option<Word>,
    /// The subnet of all hosts.
    #[schemars(
        transform = limits::SUBNET_ID,
        extend("x-kinds" = AWS, "x-default" = "those of the default VPC")
    )]
    pub(super) subnet_id: Option<Word>,
    /// Several subnets of one VPC, over which the hosts are spread.
    #[schemars(
        transform = limits::SUBNET_ID,
        extend("x-kinds" = AWS, "x-default" = "those of the default VPC")
    )]
    pub(super) subnet_ids: Option<Placed<Vec<Word>>>,
    /// Which address of a host SSH connects to. Inside the cluster, only private addresses are used.
    #[schemars(
        with = "Option<OneOf<Connect>>",
        extend("x-kinds" = AWS, "default" = limits::CONNECT.as_str())
    )]
    pub(super) connect: Option<Word>,
    /// Networks from which SSH and the statistics page are reachable.
    #[schemars(
        transform = limits::NETWORK,
        extend(
            "x-kinds" = AWS,
            "x-default" = "this machine's address; with `connect: private`, the VPC's networks"
        )
    )]
    pub(super) operator_cidrs: Option<Placed<Vec<Word>>>,
    /// What is in front of the hosts with the role `haproxy`: `network` is a Network Load Balancer, which
    /// leads clients from one name to a healthy one of them ([front-doors.md](front-doors.md)).
    #[schemars(
        with = "Option<OneOf<LoadBalancer>>",
        extend("x-kinds" = AWS, "x-default" = "none; clients name every front door")
    )]
    pub(super) load_balancer: Option<Word>,
    /// From where the load balancer can be reached: from the VPC and what is connected with it, or from the
    /// internet. It cannot be changed later.
    #[schemars(
        with = "Option<OneOf<Scheme>>",
        extend("x-kinds" = AWS, "default" = limits::SCHEME.as_str())
    )]
    pub(super) load_balancer_scheme: Option<Word>,
    /// Tags for every resource, in addition to pgherd's own. Not `aws:…` or `pgherd:…`.
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
    /// The user that SSH logs in as: one who may use sudo without a password, or root.
    #[schemars(
        transform = limits::SSH_USER,
        transform = no_service,
        extend("default" = limits::DEFAULT_SSH_USER)
    )]
    pub(super) user: Option<Word>,
    /// The port on which sshd listens.
    #[schemars(transform = limits::SSH_PORT)]
    pub(super) port: Option<Number>,
    /// Your own private key, readable only by you. With `agent`, it may be the public key.
    #[schemars(extend("x-type" = "file", "x-default" = "a key made in `.pgherd/<cluster>/`"))]
    pub(super) identity_file: Option<Word>,
    /// The bastion through which the hosts are reached: `[USER@]HOST[:PORT]`, a name in your `ssh` settings
    /// included; several with commas, in the order in which they are passed. Not for `docker`.
    #[schemars(
        transform = limits::PROXY_JUMP,
        extend("x-default" = "none; the hosts are reached from this machine")
    )]
    pub(super) proxy_jump: Option<Word>,
    /// A file with settings of your own for `ssh`, which count for hosts (by the inventory's names) and for bastions
    /// where pgherd has none.
    #[schemars(extend("x-type" = "file", "x-default" = "none; for bastions `~/.ssh/config`"))]
    pub(super) config: Option<Word>,
    /// The agent that has the keys: the path of its socket, or `SSH_AUTH_SOCK`.
    #[schemars(
        transform = limits::SSH_AGENT,
        extend("x-default" = "as `ssh` finds it, where you have no `identity_file`")
    )]
    pub(super) agent: Option<Word>,
    /// How long pgherd waits for a host that does not answer.
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
    /// The major version. `distro`: the version of the hosts' distribution.
    #[schemars(with = "Option<Version>", extend("default" = limits::POSTGRESQL_MAJOR))]
    pub(super) version: Option<Word>,
    /// Where the packages come from: the hosts' own package sources, or the PostgreSQL project's
    /// repository, which pgherd then adds. `pgdg` needs a version number.
    #[schemars(
        with = "Option<OneOf<PgSource>>",
        extend("default" = limits::POSTGRESQL_SOURCE.as_str())
    )]
    pub(super) source: Option<Word>,
    /// PostgreSQL's port on the database hosts. Clients use HAProxy's ports.
    #[schemars(transform = limits::POSTGRESQL_PORT)]
    pub(super) port: Option<Number>,
    /// The data directory: an absolute path without blanks, to a folder that nothing else uses.
    #[schemars(
        transform = limits::DATA_DIR,
        transform = no_folder_of_others,
        extend("default" = limits::DEFAULT_DATA_DIR)
    )]
    pub(super) data_dir: Option<Word>,
    /// Networks from which clients may connect, with a password (SCRAM). The cluster's own hosts always may.
    #[schemars(transform = limits::NETWORK, extend("default" = limits::allow()))]
    pub(super) allow: Option<Vec<Word>>,
    /// Where parameters come from that you do not set: `auto` derives them from the size of each host
    /// ([tuning.md](tuning.md)); with `defaults`, they are PostgreSQL's defaults.
    #[schemars(
        with = "Option<OneOf<Tuning>>",
        extend("default" = limits::TUNING.as_str())
    )]
    pub(super) tuning: Option<Word>,
    /// PostgreSQL's parameters, see below.
    #[schemars(with = "Option<BTreeMap<String, Scalar>>", transform = parameters)]
    pub(super) parameters: Option<IndexMap<Word, Word>>,
    /// The roles that applications log in as, see below.
    #[schemars(
        with = "Option<BTreeMap<String, Option<User>>>",
        transform = Names(limits::USER_NAME)
    )]
    pub(super) users: Option<IndexMap<Word, Option<User>>>,
    /// The databases of applications, see below.
    #[schemars(
        with = "Option<BTreeMap<String, Option<Database>>>",
        transform = Names(limits::DATABASE_NAME)
    )]
    pub(super) databases: Option<IndexMap<Word, Option<Database>>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    /// Roles that the user becomes a member of, such as `pg_monitor`. They must exist.
    #[schemars(with = "Option<Vec<Scalar>>", transform = limits::MEMBERSHIP)]
    pub(super) roles: Option<Vec<Word>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    /// The user that owns the database.
    #[schemars(
        with = "Option<Scalar>",
        extend("x-type" = "one of the users", "x-default" = "the user of the same name")
    )]
    pub(super) owner: Option<Word>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Patroni {
    /// A pinned version with hashes from PyPI, in `/opt/patroni`, or the distribution's package.
    #[schemars(
        with = "Option<OneOf<PatroniSource>>",
        extend("default" = limits::PATRONI_SOURCE.as_str())
    )]
    pub(super) source: Option<Word>,
    /// How long the leader's lock is valid without renewal: the longest time until a failover
    /// begins.
    #[schemars(transform = limits::TTL)]
    pub(super) ttl: Option<Number>,
    /// The pause between two rounds in which Patroni looks at the cluster.
    #[schemars(transform = limits::LOOP_WAIT)]
    pub(super) loop_wait: Option<Number>,
    /// How long etcd or PostgreSQL may fail before the leader steps down.
    #[schemars(transform = limits::RETRY_TIMEOUT)]
    pub(super) retry_timeout: Option<Number>,
    /// A replica that is further behind is not promoted.
    #[schemars(transform = limits::MAXIMUM_LAG)]
    pub(super) maximum_lag_on_failover: Option<Number>,
    /// `true`: a commit waits for a replica, so that a failover loses no commit.
    #[schemars(extend("default" = limits::SYNCHRONOUS))]
    pub(super) synchronous: Option<bool>,
    /// The leader stays while etcd is away, as long as it reaches all members.
    #[schemars(extend("default" = limits::FAILSAFE))]
    pub(super) failsafe: Option<bool>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Etcd {
    /// The etcd API that Patroni uses. `v2` is refused: it is off by default since etcd 3.4 and gone in 3.6.
    #[schemars(with = "Option<Api>")]
    pub(super) api: Option<Word>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// Encrypts and verifies every connection inside the cluster, with a certificate authority of its own.
    #[schemars(extend("default" = limits::TLS))]
    pub(super) enabled: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// A folder that all of them reach, such as one on NFS, or a git working copy; it must exist.
    #[schemars(required, extend("x-type" = "folder"))]
    pub(super) directory: Option<Word>,
    /// The public keys of all who may read it: `age1…`, or SSH keys of the type `ssh-ed25519`. Yours is one of them.
    #[schemars(
        required,
        with = "Vec<String>",
        transform = limits::RECIPIENT,
        extend("minItems" = 1)
    )]
    pub(super) recipients: Option<Placed<Vec<Word>>>,
    /// The file with your private key, readable only by you.
    #[schemars(extend(
        "x-type" = "file",
        "x-default" = "`~/.config/pgherd/identity`, or else `~/.ssh/id_ed25519`"
    ))]
    pub(super) identity: Option<Word>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Secrets {
    /// Your own file of passwords, readable only by you.
    #[schemars(extend("x-type" = "file"))]
    pub(super) file: Option<Word>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Host {
    /// The roles of the host; at least one.
    #[schemars(
        required,
        with = "Vec<OneOf<Role>>",
        extend("minItems" = 1, "uniqueItems" = true)
    )]
    pub(super) roles: Option<Placed<Vec<Word>>>,
    /// The host's address. Required for `existing`. For `docker` and `aws`: a fixed address in the
    /// subnet.
    #[schemars(
        transform = limits::ADDRESS,
        extend("x-default" = "given by the provider")
    )]
    pub(super) address: Option<Word>,
    /// The availability zone of the host.
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
    /// I/O operations per second of the root volume of this host.
    #[schemars(
        transform = limits::IOPS,
        extend("x-kinds" = AWS, "x-default" = "`provider.iops`")
    )]
    pub(super) iops: Option<Number>,
    /// The data volume of this host, which has the role `postgres`.
    #[schemars(
        transform = limits::DATA_VOLUME_GB,
        extend("x-kinds" = AWS, "x-default" = "`provider.data_volume_gb`")
    )]
    pub(super) data_volume_gb: Option<Number>,
    /// I/O operations per second of this host's data volume.
    #[schemars(
        transform = limits::IOPS,
        extend("x-kinds" = AWS, "x-default" = "`provider.data_volume_iops`")
    )]
    pub(super) data_volume_iops: Option<Number>,
    /// Throughput of this host's data volume.
    #[schemars(
        transform = limits::THROUGHPUT,
        extend("x-kinds" = AWS, "x-default" = "`provider.data_volume_throughput`")
    )]
    pub(super) data_volume_throughput: Option<Number>,
    /// The KMS key of this host's data volume.
    #[schemars(
        transform = limits::KMS_KEY,
        extend("x-kinds" = AWS, "x-default" = "`provider.data_volume_kms_key`")
    )]
    pub(super) data_volume_kms_key: Option<Word>,
}
