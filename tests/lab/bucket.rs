//! Backups in a bucket: of moto, behind TLS, which S3 itself always has.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    backups::{failing, kept, rest, until},
    support::Lab,
};

const NAME: &str = "s3.lab.test";

/// A store.
struct Store {
    /// Ends when its input does.
    _moto: Child,
    /// The port of the store itself, without TLS.
    behind: u16,
    port: u16,
    /// PEM.
    certificate: String,
    /// Whoever connects is turned away.
    away: Arc<AtomicBool>,
}

impl Store {
    fn with_bucket(bucket: &str) -> Self {
        let store = Self::empty();
        assert_eq!(store.by_hand("PUT", &format!("/{bucket}"), "").0, 200);
        store
    }

    fn empty() -> Self {
        let behind = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/moto");
        let moto = Command::new(script)
            .arg(behind.to_string())
            .stdin(Stdio::piped())
            .spawn()
            .expect("scripts/moto runs");
        // The first run installs it.
        let deadline = Instant::now() + Duration::from_secs(300);
        while TcpStream::connect(("127.0.0.1", behind)).is_err() {
            assert!(Instant::now() < deadline, "moto does not answer");
            thread::sleep(Duration::from_millis(200));
        }
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let away = Arc::new(AtomicBool::new(false));
        Self {
            _moto: moto,
            behind,
            port: in_front(config, behind, away.clone()),
            certificate: made.cert.pem(),
            away,
        }
    }

    /// Somebody else's call: status, and what was answered.
    fn by_hand(&self, method: &str, uri: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.behind)).unwrap();
        let request = format!(
            "{method} {uri} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    /// A proxy for HTTPS that knows the way to the store, whose name nothing else on this machine knows.
    fn proxy(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (proxy, to) = (listener.local_addr().unwrap(), self.port);
        thread::spawn(move || {
            for mut near in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        near.read_exact(&mut byte).ok()?;
                        head.extend(byte);
                    }
                    assert!(head.starts_with(format!("CONNECT {NAME}:{to} ").as_bytes()));
                    let mut far = TcpStream::connect(("127.0.0.1", to)).ok()?;
                    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                        .ok()?;
                    let (mut from_near, mut to_far) =
                        (near.try_clone().ok()?, far.try_clone().ok()?);
                    thread::spawn(move || io::copy(&mut from_near, &mut to_far));
                    io::copy(&mut far, &mut near).ok()
                });
            }
        });
        format!("http://{proxy}")
    }
}

/// Serves TLS on all addresses, because hosts connect to it; returns the port.
fn in_front(config: rustls::ServerConfig, behind: u16, away: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                if away.load(Ordering::Relaxed) {
                    continue;
                }
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let to = SocketAddr::from(([127, 0, 0, 1], behind));
                    let mut front = acceptor.accept(stream).await.ok()?;
                    let mut begin = vec![0; 4096];
                    let length = front.read(&mut begin).await.ok()?;
                    let begin = &begin[..length];
                    // moto does not look at the conditions of a policy, and would let nobody in any more.
                    if begin.windows(8).any(|it| it == b"?policy=") {
                        let head =
                            b"HTTP/1.1 501 x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                        front.write_all(head).await.ok()?;
                        return front.shutdown().await.ok().map(|()| (0, 0));
                    }
                    let mut back = tokio::net::TcpStream::connect(to).await.ok()?;
                    back.write_all(begin).await.ok()?;
                    tokio::io::copy_bidirectional(&mut front, &mut back)
                        .await
                        .ok()
                });
            }
        });
    });
    port
}

const KEYS: &str = "s3_key: lab\ns3_secret: 'a/secret+of=ours'\n";

/// Tells a host where the store is: on the machine that it reaches everything through.
fn name_the_store() -> String {
    format!("ip route | sed -n \"s/^default via \\([^ ]*\\).*/\\1 {NAME}/p\" >>/etc/hosts")
}

/// Writes the inventory with its backups in the bucket; `more` are other keys of `s3`, and `beside` those beside it.
fn in_the_bucket(lab: &Lab, store: &Store, more: &str, beside: &str) {
    fs::write(lab.file("store.pem"), &store.certificate).unwrap();
    let port = store.port;
    lab.write_inventory(&format!(
        "{}ca_bundle: store.pem\nsecrets: {{ file: mine.yaml }}\n\
         backup: {{ s3: {{ bucket: backups, region: eu-central-1, endpoint: '{NAME}:{port}', path_style: true{more} }}{beside} }}\n",
        rest()
    ));
}

/// The secrets that are the user's.
fn give(lab: &Lab, text: &str) {
    fs::write(lab.file("mine.yaml"), text).unwrap();
    fs::set_permissions(lab.file("mine.yaml"), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn backups_move_to_a_bucket() {
    let store = Store::with_bucket("backups");
    let lab = Lab::new("bucket", &rest());
    lab.expect(0, &["up", "--yes"]);
    let name_it = name_the_store();
    lab.on("keeper", &name_it);

    in_the_bucket(&lab, &store, "", "");
    give(&lab, "s3_key: lab\n");
    let said = lab.expect(2, &["up", "--yes"]).stderr;
    assert!(said.contains("`s3_secret` is missing"), "{said}");
    give(&lab, KEYS);
    // This machine does not know the store's name, and the host does.
    let said = lab.expect(0, &["plan"]).stdout;
    assert!(
        said.contains("pgherd knows nothing of the bucket backups from here"),
        "{said}"
    );
    lab.kill_up(|event| event["event"] == "step_started" && event["name"] == "create-stanza");
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["plan", "--check"]);
    until("a backup is in the bucket", || {
        let kept = kept(&lab);
        kept["backups"].as_array().is_some_and(|it| !it.is_empty())
    });
    lab.holds_within(Duration::from_secs(60));
    lab.expect(0, &["rehearse", "--at", "latest"]);
    assert!(!lab.logs().contains("a/secret+of=ours"), "it is a secret");
    let list = || {
        lab.on(
            "keeper",
            "cd /; runuser -u postgres -- pgbackrest --config=/etc/pgherd/backup/pgbackrest.conf repo-ls --recurse archive | \
             grep -o \".*/0[0-9A-F]*-.*\" | sort",
        )
    };
    let before = list().lines().count();
    for _ in 0..3 {
        lab.sql("create table filler as select 1 as n");
        lab.sql("drop table filler");
        lab.sql("select pg_switch_wal()");
    }
    until("the WAL is in the bucket", || {
        list().lines().count() >= before + 3
    });
    let all = list();
    let gone = all.lines().rev().nth(1).unwrap().to_owned();
    let gone = gone.trim();
    let remove = format!(
        "cd /; runuser -u postgres -- pgbackrest --config=/etc/pgherd/backup/pgbackrest.conf repo-rm \"archive/{gone}\""
    );
    lab.on("keeper", &remove);
    let segment = gone.rsplit('/').next().unwrap().split('-').next().unwrap();
    assert_eq!(kept(&lab)["missing_wal"][0], segment, "{gone}");
    let said = lab.expect(0, &["down", "--yes"]);
    assert!(said.stderr.contains("s3://backups/"), "{}", said.stderr);
    assert!(
        lab.workspace().join("secrets.yaml").exists(),
        "the key of the backups"
    );
    assert_eq!(lab.leftovers(), "");
}

/// The labels of the backups in a place.
fn labels(lab: &Lab, place: &str) -> Vec<String> {
    let kept = kept(lab);
    let backups = kept["backups"].as_array().unwrap().iter();
    let there = backups.filter(|it| it["place"] == place);
    there
        .map(|it| it["label"].as_str().unwrap().to_owned())
        .collect()
}

fn proven(lab: &Lab, place: &str) -> Value {
    let kept = kept(lab);
    let mut places = kept["places"].as_array().unwrap().iter();
    places.find(|it| it["place"] == place).unwrap()["proven"].clone()
}

/// As docs/backups.md says: a second place is added, each serves alone while the other is away, and one is left out again.
#[test]
fn backups_are_kept_in_two_places() {
    let store = Store::with_bucket("backups");
    let lab = Lab::new("places", &rest());
    lab.expect(0, &["up", "--yes"]);
    until("the first backup is made", || {
        labels(&lab, "disk").len() == 1
    });
    let first = labels(&lab, "disk");

    lab.on("keeper", &name_the_store());
    in_the_bucket(&lab, &store, "", ", disk: true");
    give(&lab, KEYS);
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["plan", "--check"]);
    until("a backup is in the bucket", || {
        labels(&lab, "bucket").len() == 1 && kept(&lab)["at_work"] == false
    });
    assert_eq!(labels(&lab, "disk"), first, "that place is as it was");
    let said = lab.expect(0, &["backup"]).stderr;
    assert!(said.contains(" on the disk is complete: "), "{said}");
    assert!(said.contains(" in the bucket is complete: "), "{said}");
    for place in ["disk", "bucket"] {
        let said = lab.expect(0, &["rehearse", "--at", "latest", "--from", place]);
        assert!(
            said.stderr.contains("a restore is proven, of what is"),
            "{}",
            said.stderr
        );
        assert_eq!(proven(&lab, place)["place"], place);
    }
    lab.holds_within(Duration::from_secs(60));
    a_place_that_is_away(&lab, &store);
    each_place_restores(&lab, &store);

    lab.write_inventory(&rest());
    lab.expect(0, &["up", "--yes"]);
    assert_eq!(kept(&lab)["places"].as_array().unwrap().len(), 1);
    assert!(!labels(&lab, "disk").is_empty());
    lab.holds_within(Duration::from_secs(90));
    lab.expect(0, &["down", "--yes", "--with-backups"]);
    assert_eq!(lab.leftovers(), "");
}

fn write_and_switch(lab: &Lab, number: u32) {
    lab.sql(&format!("insert into orders values ({number})"));
    lab.sql("select pg_switch_wal()");
}

/// The other one gets all WAL and its backups; it is told which is away, and that the other one is good.
fn a_place_that_is_away(lab: &Lab, store: &Store) {
    lab.sql("create table orders (n int)");
    write_and_switch(lab, 1);
    store.away.store(true, Ordering::Relaxed);
    for number in 2..6 {
        write_and_switch(lab, number);
    }
    let last = lab.sql("select pg_walfile_name(pg_switch_wal())");
    let begin = Instant::now();
    until("the disk has all WAL", || {
        let found = format!("find /var/lib/pgherd-backups/archive -name \"{last}-*\" -type f");
        !lab.on("keeper", &found).is_empty()
    });
    println!(
        "with the bucket away, WAL was on the disk after {:.0} s",
        begin.elapsed().as_secs_f64()
    );
    until("it is told that WAL waits", || {
        failing(lab, "archive").contains("cannot archive")
    });
    let said = failing(lab, "backups");
    assert!(
        said.contains("in the bucket: pgBackRest cannot read it: "),
        "{said}"
    );
    assert!(said.contains("; what is on the disk is good"), "{said}");
    let before = labels(lab, "disk").len();
    let said = lab.expect(1, &["backup"]).stderr;
    assert!(said.contains("the backup in the bucket failed"), "{said}");
    assert_eq!(labels(lab, "disk").len(), before + 1);
    lab.expect(0, &["rehearse", "--at", "latest", "--from", "disk"]);
    lab.expect(3, &["rehearse", "--at", "latest", "--from", "bucket"]);
    let leader = lab.leader();
    let begin = Instant::now();
    lab.run(&["switchover", "--yes"]);
    until("the old leader follows", || {
        let state =
            "runuser -u postgres -- psql -Atc \"select pg_is_in_recovery()\" 2>/dev/null || true";
        lab.leader() != leader && lab.on(&leader, &format!("cd /; {state}")).trim() == "t"
    });
    println!(
        "with the bucket away, the old leader followed after {:.0} s",
        begin.elapsed().as_secs_f64()
    );
}

/// Takes the table out as it was, then restores the cluster; returns what is said of that. One place is away.
fn a_dropped_table_comes_back(lab: &Lab, file: &str) -> String {
    let moment = lab.sql("select now()");
    thread::sleep(Duration::from_millis(1100));
    lab.sql("drop table orders");
    let out = lab.file(file);
    let words = [
        "restore",
        "--table",
        "postgres.orders",
        "--to",
        &moment,
        "--out",
        out.to_str().unwrap(),
    ];
    lab.expect(0, &words);
    let taken = fs::read_to_string(&out).unwrap();
    assert!(taken.contains("COPY public.orders"));
    lab.expect(3, &["restore", "--to", &moment, "--yes"]).stderr
}

/// From the disk while the bucket is away, and from the bucket while the disk's backups are not to be read.
fn each_place_restores(lab: &Lab, store: &Store) {
    let said = a_dropped_table_comes_back(lab, "of-disk.sql");
    assert!(said.contains("the restore itself is complete"), "{said}");
    assert_eq!(lab.sql("select count(*) from orders"), "5");
    store.away.store(false, Ordering::Relaxed);
    lab.sql("select pg_switch_wal()");
    until("the bucket gets WAL again", || {
        lab.sql("select last_archived_time > now() - interval $$20 s$$ from pg_stat_archiver")
            == "t"
    });
    lab.expect(0, &["backup", "--full"]);
    lab.expect(0, &["rehearse", "--at", "latest", "--from", "bucket"]);
    lab.holds_within(Duration::from_secs(90));

    lab.expect(0, &["restore", "--discard-old"]);
    let repository = "/var/lib/pgherd-backups/backup";
    lab.on("keeper", &format!("mv {repository} {repository}.away"));
    let said = a_dropped_table_comes_back(lab, "orders.sql");
    assert!(said.contains("on the disk: "), "{said}");
    assert_eq!(lab.sql("select count(*) from orders"), "5");
    lab.on(
        "keeper",
        &format!("rm -rf {repository}; mv {repository}.away {repository}"),
    );
    lab.expect(0, &["restore", "--discard-old"]);
    until("the backup that the restore began has ended", || {
        kept(lab)["at_work"] == false
    });
    lab.expect(0, &["backup", "--full"]);
    lab.expect(0, &["rehearse", "--at", "latest", "--from", "disk"]);
    lab.holds_within(Duration::from_secs(90));
}

#[test]
fn a_bucket_is_made_and_goes_only_by_its_name() {
    let store = Store::empty();
    let mut lab = Lab::new("made", &rest());
    for name in ["https_proxy", "no_proxy", "NO_PROXY"] {
        lab.environment.push((name, String::new()));
    }
    lab.environment.push(("HTTPS_PROXY", store.proxy()));
    in_the_bucket(&lab, &store, "", "");
    // No word of a message, which would be masked.
    give(&lab, "s3_key: AKIAEXAMPLE\ns3_secret: 'a/secret+of=ours'\n");
    let said = lab.expect(1, &["up", "--yes"]).stderr;
    assert!(said.contains("has no bucket backups"), "{said}");
    assert_eq!(lab.leftovers(), "", "nothing was made");

    in_the_bucket(&lab, &store, ", create: true", "");
    let said = lab.expect(0, &["plan"]).stdout;
    assert!(
        said.contains("~ bucket backups at s3.lab.test is made"),
        "{said}"
    );
    assert_eq!(
        store.by_hand("GET", "/backups", "").0,
        404,
        "a plan makes nothing"
    );
    lab.kill_up(|event| event["event"] == "resource" && event["kind"] == "bucket");
    lab.kill_up(|event| event["event"] == "step_started" && event["host"] == "keeper");
    lab.on("keeper", &name_the_store());
    let versioning = || store.by_hand("GET", "/backups?versioning", "").1;
    assert!(
        versioning().contains("<Status>Enabled"),
        "it came before the hosts"
    );
    let said = lab.expect(0, &["up", "--yes"]).stderr;
    assert!(!said.contains("note: the bucket"), "{said}");
    lab.expect(0, &["plan", "--check"]);
    until("a backup is in the bucket", || {
        let kept = kept(&lab);
        kept["backups"].as_array().is_some_and(|it| !it.is_empty())
    });

    // Somebody changes it: that is told, and stays.
    let suspended = "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";
    assert_eq!(
        store.by_hand("PUT", "/backups?versioning", suspended).0,
        200
    );
    let rule = "<LifecycleConfiguration><Rule><ID>tidy</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status>\
                <Expiration><Days>30</Days></Expiration></Rule></LifecycleConfiguration>";
    assert_eq!(store.by_hand("PUT", "/backups?lifecycle", rule).0, 200);
    let said = lab.expect(0, &["up", "--yes"]).stderr;
    for part in [
        "note: the bucket backups keeps no versions",
        "the rule `tidy` removes objects after 30 days",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(versioning().contains("<Status>Suspended"));

    let said = lab.expect(0, &["down", "--yes"]).stderr;
    assert!(said.contains("s3://backups/"), "{said}");
    assert_eq!(store.by_hand("GET", "/backups", "").0, 200);
    let said = lab
        .expect(2, &["down", "--yes", "--with-bucket", "backup"])
        .stderr;
    assert!(
        said.contains("the bucket with the backups is backups"),
        "{said}"
    );
    let said = lab
        .expect(0, &["down", "--yes", "--with-bucket", "backups"])
        .stderr;
    assert!(said.contains("removed backups"), "{said}");
    assert_eq!(store.by_hand("GET", "/backups", "").0, 404);
    assert!(!lab.workspace().join("secrets.yaml").exists());
    assert_eq!(lab.leftovers(), "");
}
