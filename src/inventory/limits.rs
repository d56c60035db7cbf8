//! Bounds, shapes and defaults of the inventory's values.
//!
//! Each value stands here once. `check` uses it, and through `schema` it gets into the JSON Schema and
//! docs/inventory.md.

use ipnet::Ipv4Net;

use super::{
    Connect, PatroniSource, PgSource, PoolMode, Scheme, Tuning,
    bounds::{Bounds, Limit, Shape, bounds, shape},
};
use crate::contract;

const fn seconds(least: u32, most: u32, default: u32) -> Limit<u32> {
    Limit {
        bounds: bounds("seconds", least, Some(most)),
        default,
    }
}

const fn port(least: u16, default: u16) -> Limit<u16> {
    Limit {
        bounds: bounds("port", least, Some(u16::MAX)),
        default,
    }
}

/// The pattern of an IPv4 address.
macro_rules! address {
    () => {
        concat!(byte!(), r"(\.", byte!(), "){3}")
    };
}
/// The pattern of a host to jump over.
macro_rules! jump {
    () => {
        "([A-Za-z_][A-Za-z0-9._-]*@)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
    };
}
macro_rules! byte {
    () => {
        "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    };
}

pub(super) const CLUSTER_NAME: Shape = shape(
    "name",
    "a name: 1 to 31 of a-z, 0-9 and `-`, a letter first, no dash last",
    "^[a-z]([a-z0-9-]{0,29}[a-z0-9])?$",
);
pub(super) const HOST_NAME: Shape = shape(
    "name",
    "a host's name: up to 63 of a-z, 0-9 and `-`, a letter first, no dash last",
    "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$",
)
// Names that the distributions' `/etc/hosts` use for something else.
.but_not(&[
    "localhost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-allnodes",
    "ip6-allrouters",
]);
pub(super) const ADDRESS: Shape = shape(
    "IPv4 address",
    "an IPv4 address, such as `192.168.0.21`",
    concat!("^", address!(), "$"),
)
// `check` gives the reason for each.
.but_not_like("^(0|127|22[4-9]|2[3-5][0-9]|169[.]254)[.]");
pub(super) const NETWORK: Shape = shape(
    "network",
    "an IPv4 network, such as `10.0.0.0/24`",
    concat!("^", address!(), "/(3[0-2]|[12]?[0-9])$"),
);
/// A network for hosts.
pub(super) const SUBNET: Shape =
    NETWORK.but_not_like("^(0|127|22[4-9]|2[3-5][0-9]|169[.]254)[.]|/[0-7]$");

pub(super) const CONTAINER_IMAGE: Shape = shape(
    "image",
    "the name of an image, such as `debian:12`",
    "^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$",
);
/// The word for the newest prepared image that has everything.
pub(super) const PREPARED: &str = "prepared";
pub(super) const AMI: Shape = shape(
    "image",
    "`ubuntu-24.04`, `ubuntu-24.04-minimal`, `prepared` or an id, such as `ami-0123456789abcdef0`",
    "^(ubuntu-24[.]04(-minimal)?|prepared|ami-[0-9a-f]{8,17})$",
);
/// The default for `kind: aws`.
pub(super) const AWS_IMAGE: &str = "ubuntu-24.04-minimal";
/// EC2 accepts more letters than editors' regular expressions can name.
pub(super) const TAG_NAME: Shape = shape(
    "text",
    "1 to 128 characters, neither `aws:…` nor `pgherd:…`",
    "^.{1,128}$",
)
.but_not_like("^([aA][wW][sS]|[pP][gG][hH][eE][rR][dD]):");
pub(super) const REGION: Shape = shape(
    "region",
    "a region, such as `eu-central-1`",
    "^[a-z]+(-[a-z]+)+-[0-9]+$",
);
/// A region and a letter, or the longer name of a local zone.
pub(super) const ZONE: Shape = shape(
    "availability zone",
    "an availability zone, such as `eu-central-1a`",
    "^[a-z0-9]*-[a-z0-9]*-[a-z0-9-]*[0-9][a-z]+$",
);
pub(super) const PROFILE: Shape = shape(
    "name",
    "the name of a profile in the AWS configuration",
    r"^[^\u0000-\u001f\u007f-\u009f]+$",
);
pub(super) const URL: Shape = shape(
    "URL",
    "a URL, such as `http://127.0.0.1:5000`",
    r"^https?://[A-Za-z0-9\[][!-~]*$",
);
pub(super) const SUBNET_ID: Shape = shape(
    "id",
    "a subnet's id, such as `subnet-0123456789abcdef0`",
    "^subnet-[0-9a-f]{8,17}$",
);
pub(super) const INSTANCE_TYPE: Shape = shape(
    "instance type",
    "an instance type, such as `t2.medium`",
    "^[a-z0-9-]+[.][a-z0-9-]+$",
);
pub(super) const DEFAULT_INSTANCE_TYPE: &str = "t2.medium";
/// The size of a root volume: enough for the system and some data, and within gp3's limits.
pub(super) const VOLUME_GB: Bounds<u32> = bounds("GiB", LEAST_VOLUME_GB, Some(65_536));
pub(super) const LEAST_VOLUME_GB: u32 = 10;
pub(super) const DEFAULT_VOLUME_GB: u32 = 20;
/// The range of gp3's setting; EC2 chooses the default.
pub(super) const IOPS: Bounds<u32> = bounds("number", LEAST_IOPS, Some(80_000));
/// The maximum of gp3's setting for each GiB.
pub(super) const IOPS_PER_GB: u32 = 500;
/// The size of a data volume, within gp3's limits.
pub(super) const DATA_VOLUME_GB: Bounds<u32> = bounds("GiB", 10, Some(65_536));
/// The range of gp3's setting; EC2 chooses the default.
pub(super) const THROUGHPUT: Bounds<u32> = bounds("MiB/s", 125, Some(2_000));
/// gp3 needs this number of I/O operations for each MiB/s.
pub(super) const IOPS_PER_MIB: u32 = 4;
/// What gp3 has if nothing else is asked for.
pub(super) const LEAST_IOPS: u32 = 3_000;
pub(super) const KMS_KEY: Shape = shape(
    "key",
    "a KMS key: its ARN, its id, or `alias/…`",
    "^(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+|alias/[A-Za-z0-9/_-]+|(mrk-)?[0-9a-f-]{32,36})$",
);
pub(super) const CONNECT: Connect = Connect::Public;
pub(super) const SCHEME: Scheme = Scheme::Internal;

/// Bastions: user, host and port, with commas between them.
pub(super) const PROXY_JUMP: Shape = shape(
    "bastion",
    "`[USER@]HOST[:PORT]`, several with commas",
    concat!("^", jump!(), "(, *", jump!(), ")*$"),
);
/// A path, or the word for the session's agent.
pub(super) const SSH_AGENT: Shape = shape(
    "path",
    "the path of a socket (`/…` or `~/…`), or `SSH_AUTH_SOCK`",
    r"^(SSH_AUTH_SOCK|~?/[^\u0000-\u001f\u007f-\u009f]+)$",
)
// ssh would expand it, and has no escape for it.
.but_not_like(r"[$]");
pub(super) const SSH_USER: Shape = shape(
    "name",
    "the name of a user",
    "^[A-Za-z_][A-Za-z0-9._-]{0,31}$",
);
pub(super) const DEFAULT_SSH_USER: &str = "ubuntu";
pub(super) const SSH_PORT: Limit<u16> = port(1, 22);
pub(super) const CONNECT_TIMEOUT: Limit<u32> = seconds(1, 600, 10);
pub(super) const KEEP_ALIVE: Limit<u32> = seconds(0, 3600, 60);

pub(super) const POSTGRESQL_MAJOR: u16 = 16;
pub(super) const POSTGRESQL_SOURCE: PgSource = PgSource::Distro;
/// The user postgres cannot use ports below 1024.
pub(super) const POSTGRESQL_PORT: Limit<u16> = port(1_024, 5_432);
/// `check` has the folders of others.
pub(super) const DATA_DIR: Shape = shape(
    "path",
    "a folder of its own: absolute, without blanks, no slash last",
    "^(/[A-Za-z0-9._-]+)+$",
);
pub(super) const DEFAULT_DATA_DIR: &str = "/data/patroni";
/// The networks of clients; the default is any network.
pub(super) fn allow() -> Vec<Ipv4Net> {
    vec![Ipv4Net::default()]
}

/// A name that PostgreSQL keeps unchanged; `check` counts its bytes.
const NAME: Shape = shape(
    "name",
    "a name of up to 63 bytes without control characters",
    r"^[^\u0000-\u001f\u007f-\u009f]{1,63}$",
);
/// Taken are the cluster's own roles; reserved are the names that PostgreSQL refuses (its `check_rolespec_name`
/// and `IsReservedName`).
pub(super) const USER_NAME: Shape = NAME
    .but_not(&[
        contract::SUPERUSER,
        contract::REPLICATION_USER,
        contract::REWIND_USER,
        contract::INTERIM_REPLICATION_USER,
        contract::INTERIM_REWIND_USER,
        contract::POOLER_USER,
        contract::MONITOR_USER,
    ])
    .but_not_like("^(pg_|(public|none)$)");
/// A user that is a member of the superuser would be a superuser.
pub(super) const MEMBERSHIP: Shape = NAME.but_not(&[contract::SUPERUSER]);
pub(super) const DATABASE_NAME: Shape = NAME.but_not(&["postgres", "template0", "template1"]);

pub(super) const PATRONI_SOURCE: PatroniSource = PatroniSource::Pypi;
// The lower bounds are Patroni's own (`Config._validate_and_adjust_timeouts`). Patroni raises smaller values,
// and reports it only in its log.
pub(super) const TTL: Limit<u32> = seconds(20, 3_600, 30);
pub(super) const LOOP_WAIT: Limit<u32> = seconds(1, 3_600, 10);
pub(super) const RETRY_TIMEOUT: Limit<u32> = seconds(3, 3_600, 10);
/// If no lag were allowed, no replica could take over.
pub(super) const MAXIMUM_LAG: Limit<u64> = Limit {
    bounds: bounds("bytes", 1, None),
    default: 1_048_576,
};
pub(super) const SYNCHRONOUS: bool = false;
pub(super) const FAILSAFE: bool = true;

pub(super) const WRITE_PORT: Limit<u16> = port(1, 5_000);
pub(super) const READ_PORT: Limit<u16> = port(1, 5_001);
pub(super) const STATS_PORT: Limit<u16> = port(1, 7_000);
pub(super) const CONNECTIONS: Bounds<u32> = bounds("number", 1, None);

/// The user postgres cannot use ports below 1024.
pub(super) const PGBOUNCER_PORT: Limit<u16> = port(1_024, 6_432);
/// Of a cluster that runs, nothing changes until its inventory asks for it. `init` writes `auto`.
pub(super) const TUNING: Tuning = Tuning::Defaults;
pub(super) const POOL_MODE: PoolMode = PoolMode::Transaction;
/// Its unit may have more than twice as many files open.
pub(super) const MAX_CLIENT_CONN: Limit<u32> = Limit {
    bounds: bounds("number", 1, Some(100_000)),
    default: 1_000,
};
/// The role that finds verifiers needs one of them for a moment.
pub(super) const MAX_DB_CONNECTIONS: Bounds<u32> = bounds("number", 2, None);
/// PgBouncer's own console.
pub(super) const CONSOLE: &str = "pgbouncer";

/// A calendar expression of systemd's, as far as its characters tell; the host's systemd judges the rest.
pub(super) const SCHEDULE: Shape = shape(
    "calendar expression",
    "a calendar expression of systemd's, such as `Sun 01:00` or `*-*-* 03:30`",
    r"^[A-Za-z0-9*][A-Za-z0-9*:,./~ -]{0,58}[A-Za-z0-9*]$",
);
pub(super) const FULL: &str = "Sun 01:00";
pub(super) const DIFFERENTIAL: &str = "Mon..Sat 01:00";
pub(super) const KEEP_FULL: Limit<u32> = Limit {
    bounds: bounds("number", 1, Some(999)),
    default: 2,
};
pub(super) const PROVE_WITHIN: Limit<u32> = Limit {
    bounds: bounds("days", 0, Some(366)),
    default: 7,
};

pub(super) const BUCKET: Shape = shape(
    "name",
    "the name of a bucket: 3 to 63 of a-z, 0-9, `.` and `-`",
    "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
);
pub(super) const BUCKET_REGION: Shape = shape(
    "region",
    "a region, such as `eu-central-1`",
    "^[A-Za-z0-9][A-Za-z0-9-]{0,62}$",
);
pub(super) const ENDPOINT: Shape = shape(
    "host name",
    "a host name, such as `s3.example.com` or `minio.example.com:9000`",
    "^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[1-9][0-9]{0,4})?$",
);
pub(super) const BUCKET_PATH: Shape = shape(
    "path",
    "a folder in the bucket: a slash first and none last",
    "^(/[A-Za-z0-9._-]+)+$",
);
pub(super) const INSTANCE_PROFILE: Shape = shape(
    "instance profile",
    "the name of an instance profile: up to 128 letters, digits and any of `+=,.@_-`",
    "^[A-Za-z0-9+=,.@_-]{1,128}$",
);
pub(super) const PATH_STYLE: bool = false;
pub(super) const CREATE_BUCKET: bool = false;

pub(super) const RECIPIENT: Shape = shape(
    "public key",
    "a public key: `age1…`, or `ssh-ed25519 AAAA…`",
    r"^(age1[a-z0-9]{20,120}|ssh-ed25519 [A-Za-z0-9+/=]{40,120}( [^\x00-\x1f]{1,200})?)$",
);

pub(super) const TLS: bool = true;

/// For how many days Prometheus keeps what it has read.
pub(super) const KEEP_DAYS: Limit<u32> = Limit {
    bounds: bounds("number", 1, Some(3_650)),
    default: 30,
};
pub(super) const EMAIL: Shape = shape(
    "e-mail address",
    "an e-mail address, such as `oncall@example.com`",
    r"^[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9][A-Za-z0-9.-]{0,252}$",
);
pub(super) const SMARTHOST: Shape = shape(
    "mail server",
    "a mail server with its port, such as `mail.example.com:25`",
    r"^[A-Za-z0-9][A-Za-z0-9.-]{0,252}:[1-9][0-9]{0,4}$",
);

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [Shape; 22] = [
        ADDRESS,
        AMI,
        BUCKET,
        BUCKET_PATH,
        BUCKET_REGION,
        CLUSTER_NAME,
        CONTAINER_IMAGE,
        DATA_DIR,
        ENDPOINT,
        HOST_NAME,
        INSTANCE_PROFILE,
        INSTANCE_TYPE,
        NETWORK,
        PROFILE,
        RECIPIENT,
        REGION,
        SSH_USER,
        SUBNET_ID,
        URL,
        ZONE,
        TAG_NAME,
        USER_NAME,
    ];

    const SAMPLES: [&str; 11] = [
        "10.0.0.1",
        "10.0.0.0/8",
        "name",
        "/data/pg",
        "ami-01234567",
        "eu-central-1",
        "eu-central-1a",
        "subnet-01234567",
        "t2.medium",
        "http://a",
        "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    ];

    #[test]
    fn every_shape_is_one_of_the_whole_text() {
        for shape in SHAPES {
            let text = SAMPLES.into_iter().find(|text| shape.fits(text));
            let text = text.unwrap_or_else(|| panic!("{shape:?} fits nothing"));
            for around in [format!("{text}\n"), format!("\n{text}"), String::new()] {
                assert!(!shape.fits(&around), "{shape:?} fits {around:?}");
            }
        }
    }

    #[test]
    fn the_shapes_of_aws_are_known() {
        for region in ["eu-central-1", "us-gov-west-1", "ap-southeast-12"] {
            assert!(REGION.fits(region), "{region}");
        }
        for region in ["eu", "eu-central", "eu-central-1a", "EU-central-1", "-1"] {
            assert!(!REGION.fits(region), "{region}");
        }
        assert!(ZONE.fits("eu-central-1a") && ZONE.fits("us-west-2-lax-1b"));
        assert!(!ZONE.fits("eu-central-1") && !ZONE.fits("a") && !ZONE.fits("EU-central-1a"));
        assert!(INSTANCE_TYPE.fits("t2.medium") && INSTANCE_TYPE.fits("u-6tb1.56xlarge"));
        assert!(!INSTANCE_TYPE.fits("t2-medium") && !INSTANCE_TYPE.fits("t2."));
        assert!(AMI.fits("ami-0123456789abcdef0") && !AMI.fits("ami-xyz"));
        assert!(AMI.fits(AWS_IMAGE) && !AMI.fits("ubuntu-24x04"));
        assert!(URL.fits("http://127.0.0.1:5000") && URL.fits("https://[::1]:80/x"));
        assert!(!URL.fits("127.0.0.1:5000") && !URL.fits("http://") && !URL.fits("http://a b"));
    }
}
