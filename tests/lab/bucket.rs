//! Backups in a bucket: of moto, behind TLS, which S3 itself always has.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{
    backups::{kept, rest, until},
    support::Lab,
};

const NAME: &str = "s3.lab.test";

/// A store with one bucket.
struct Store {
    /// Ends when its input does.
    _moto: Child,
    port: u16,
    /// PEM.
    certificate: String,
}

impl Store {
    fn with_bucket(bucket: &str) -> Self {
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
        while !made(behind, bucket) {
            assert!(Instant::now() < deadline, "moto does not answer");
            thread::sleep(Duration::from_millis(200));
        }
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Self {
            _moto: moto,
            port: in_front(config, behind),
            certificate: made.cert.pem(),
        }
    }
}

/// Makes the bucket; false if nobody answers.
fn made(port: u16, bucket: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let request = format!(
        "PUT /{bucket} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).is_ok() && answer.contains(" 200 ")
}

/// Serves TLS on all addresses, because hosts connect to it; returns the port.
fn in_front(config: rustls::ServerConfig, behind: u16) -> u16 {
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
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let to = SocketAddr::from(([127, 0, 0, 1], behind));
                    let mut front = acceptor.accept(stream).await.ok()?;
                    let mut back = tokio::net::TcpStream::connect(to).await.ok()?;
                    tokio::io::copy_bidirectional(&mut front, &mut back)
                        .await
                        .ok()
                });
            }
        });
    });
    port
}

#[test]
fn backups_move_to_a_bucket() {
    let store = Store::with_bucket("backups");
    let lab = Lab::new("bucket", &rest());
    lab.expect(0, &["up", "--yes"]);
    let name_it =
        format!("ip route | sed -n \"s/^default via \\([^ ]*\\).*/\\1 {NAME}/p\" >>/etc/hosts");
    lab.on("keeper", &name_it);

    fs::write(lab.file("store.pem"), &store.certificate).unwrap();
    let port = store.port;
    lab.write_inventory(&format!(
        "{}ca_bundle: store.pem\nsecrets: {{ file: mine.yaml }}\n\
         backup: {{ s3: {{ bucket: backups, region: eu-central-1, endpoint: '{NAME}:{port}', path_style: true }} }}\n",
        rest()
    ));
    let give = |text: &str| {
        fs::write(lab.file("mine.yaml"), text).unwrap();
        fs::set_permissions(lab.file("mine.yaml"), fs::Permissions::from_mode(0o600)).unwrap();
    };
    give("s3_key: lab\n");
    let said = lab.expect(2, &["up", "--yes"]).stderr;
    assert!(said.contains("`s3_secret` is missing"), "{said}");
    give("s3_key: lab\ns3_secret: 'a/secret+of=ours'\n");
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
