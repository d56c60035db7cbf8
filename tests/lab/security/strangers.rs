//! Everybody who does not belong to the cluster is refused, everywhere.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use super::{HOSTS, SERVER, Secrets, address, door, overwrite, within};
use crate::{support::Lab, watch::Door};

/// Asks as a user on the engine's machine, which is no host of the cluster; returns the status, or 0 without an
/// answer.
pub(super) fn curl(words: &[&str]) -> u32 {
    let output = Command::new("curl")
        .args(["-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"])
        .args(words)
        .output()
        .expect("curl runs");
    String::from_utf8_lossy(&output.stdout).parse().unwrap_or(0)
}

pub(super) fn the_front_door_is_closed_to_strangers(lab: &Lab) {
    let ca = lab.workspace().join("pki/ca.crt").display().to_string();
    let secrets = Secrets::of(lab);
    let door = door(lab);
    assert_eq!(
        door.ask("select ssl, version from pg_stat_ssl where pid = pg_backend_pid()"),
        "t|TLSv1.3"
    );
    let plain = Door {
        conninfo: door.conninfo.replace("verify-full", "disable"),
        ..door.clone()
    };
    let told = String::from_utf8_lossy(&plain.psql("select 1").stderr).into_owned();
    assert!(
        told.contains("no encryption") || told.contains("pg_hba.conf"),
        "{told}"
    );
    // Patroni's own roles can log in only from the members.
    let member = address(lab, "node1");
    for (role, key) in [("replicator", "replication"), ("rewind", "rewind")] {
        let stranger = Door {
            conninfo: format!(
                "host={member} port=5432 user={role} dbname=postgres sslmode=verify-full sslrootcert={ca}"
            ),
            password: secrets.get(key).to_owned(),
        };
        let told = String::from_utf8_lossy(&stranger.psql("select 1").stderr).into_owned();
        assert!(told.contains("pg_hba.conf rejects connection"), "{told}");
    }

    // Patroni's interface: anybody who reaches it may read; a change needs the password, and an address of the
    // cluster.
    let rest = format!("https://{member}:8008");
    assert_eq!(curl(&["--cacert", &ca, &format!("{rest}/health")]), 200);
    let change = format!("{rest}/config");
    let patch = ["--cacert", &ca, "-X", "PATCH", "-d", "{}", &change];
    assert!(matches!(curl(&patch), 401 | 403));
    let login = tempfile::NamedTempFile::new().unwrap();
    let line = format!("user = \"patroni:{}\"\n", secrets.get("rest_api"));
    fs::write(login.path(), line).unwrap();
    let known = [&["-K", login.path().to_str().unwrap()][..], &patch].concat();
    assert_eq!(curl(&known), 403, "the password alone is not enough");

    // etcd accepts certificates of the cluster's authority, and nothing else.
    let etcd = format!(
        "https://{}:2379/v3/cluster/member/list",
        address(lab, "node4")
    );
    let list = ["--cacert", &ca, "-X", "POST", "-d", "{}", &etcd];
    assert_eq!(curl(&list), 0, "without a certificate");
    let pki = lab.workspace().join("pki");
    let (cert, key) = (pki.join("operator.crt"), pki.join("operator.key"));
    let shown = [
        "--cert",
        cert.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ];
    assert_eq!(curl(&[&shown[..], &list].concat()), 200);

    let stats = format!("https://127.0.0.1:{}", lab.read_port + 1);
    assert_eq!(curl(&["--cacert", &ca, &format!("{stats}/")]), 401);
    assert_eq!(curl(&["--cacert", &ca, &format!("{stats}/metrics")]), 200);
}

/// A certificate for every host of the lab, of an authority that nothing trusts.
struct Rogue {
    dir: tempfile::TempDir,
}

impl Rogue {
    fn new(addresses: &[String]) -> Self {
        let rogue = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let names = HOSTS.iter().map(|host| format!("DNS:{host}"));
        let addresses = addresses.iter().map(|address| format!("IP:{address}"));
        let san: Vec<String> = names
            .chain(addresses)
            .chain(["IP:127.0.0.1".into()])
            .collect();
        let extensions = rogue.path("extensions");
        fs::write(&extensions, format!("subjectAltName={}\n", san.join(","))).unwrap();
        let ec = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        rogue.openssl(
            &[
                &[
                    "req",
                    "-x509",
                    "-days",
                    "30",
                    "-subj",
                    "/CN=rogue",
                    "-keyout",
                    "ca.key",
                    "-out",
                    "ca.crt",
                ][..],
                &ec,
            ]
            .concat(),
        );
        rogue.openssl(
            &[
                &[
                    "req",
                    "-subj",
                    "/CN=rogue host",
                    "-keyout",
                    "server.key",
                    "-out",
                    "server.csr",
                ][..],
                &ec,
            ]
            .concat(),
        );
        rogue.openssl(&[
            "x509",
            "-req",
            "-days",
            "30",
            "-in",
            "server.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "extensions",
            "-out",
            "server.crt",
        ]);
        rogue
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, words: &[&str]) {
        let output = Command::new("openssl")
            .args(words)
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// As members ask each other: with Patroni's own class, and its own configuration.
fn patroni_asks(lab: &Lab, from: &str, address: &str) -> String {
    lab.on(
        from,
        &format!(
            "/opt/patroni/bin/python -c \"
from patroni.config import Config
from patroni.request import PatroniRequest
try:
    print(PatroniRequest(Config(\\\"/etc/patroni.yml\\\")).request(\\\"GET\\\", \\\"https://{address}:8008/patroni\\\").status)
except Exception as e:
    print(e)\""
        ),
    )
}

#[expect(
    clippy::too_many_lines,
    reason = "it is one story, told from its begin to its end"
)]
pub(super) fn nobody_is_believed_who_shows_another_authoritys_certificate(lab: &Lab) {
    let addresses: Vec<String> = HOSTS.iter().map(|host| address(lab, host)).collect();
    let rogue = Rogue::new(&addresses);
    let text = |name: &str| fs::read_to_string(rogue.path(name)).unwrap();

    // A client that trusts another authority; pgherd's own front door can be such a client too.
    let door = door(lab);
    let elsewhere = Door {
        conninfo: door.conninfo.replace(
            &lab.workspace().join("pki/ca.crt").display().to_string(),
            rogue.path("ca.crt").to_str().unwrap(),
        ),
        ..door
    };
    let told = String::from_utf8_lossy(&elsewhere.psql("select 1").stderr).into_owned();
    assert!(told.contains("certificate verify failed"), "{told}");

    // A client that presents a certificate of another authority to etcd.
    let ca = lab.workspace().join("pki/ca.crt").display().to_string();
    let (cert, key) = (rogue.path("server.crt"), rogue.path("server.key"));
    let status = curl(&[
        "--cacert",
        &ca,
        "--cert",
        cert.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
        "-X",
        "POST",
        "-d",
        "{}",
        &format!("https://{}:2379/v3/cluster/member/list", addresses[3]),
    ]);
    assert_eq!(status, 0);

    // An etcd that presents one: it reads its certificate again at each handshake.
    let etcd = ["crt", "key"].map(|end| format!("/etc/pgherd/tls/etcd/server.{end}"));
    for (path, name) in etcd.iter().zip(["server.crt", "server.key"]) {
        lab.on("node4", &format!("cp -p {path} {path}.good"));
        overwrite(lab, "node4", path, &text(name));
    }
    let told = lab.on(
        "node1",
        "timeout 20 /opt/patroni/bin/patronictl -c /etc/patroni.yml list 2>&1 || true",
    );
    assert!(
        told.contains("CERTIFICATE_VERIFY_FAILED") || told.contains("certificate verify failed"),
        "{told}"
    );
    for path in &etcd {
        lab.on("node4", &format!("mv {path}.good {path}"));
    }
    assert!(
        lab.on(
            "node1",
            "/opt/patroni/bin/patronictl -c /etc/patroni.yml list"
        )
        .contains("Leader")
    );

    // A leader that presents one, as Patroni and as PostgreSQL.
    let leader = lab.leader();
    let replica = if leader == "node1" { "node2" } else { "node1" };
    let at = &addresses[HOSTS.iter().position(|host| *host == leader).unwrap()];
    assert!(patroni_asks(lab, replica, at).contains("200"));
    for end in ["crt", "key"] {
        lab.on(
            &leader,
            &format!("cp -p {SERVER}.{end} {SERVER}.{end}.good"),
        );
        overwrite(
            lab,
            &leader,
            &format!("{SERVER}.{end}"),
            &text(&format!("server.{end}")),
        );
    }
    lab.on(&leader, "systemctl reload patroni");
    within(
        Duration::from_secs(15),
        "Patroni to Patroni is refused",
        || patroni_asks(lab, replica, at).contains("CERTIFICATE_VERIFY_FAILED"),
    );
    within(
        Duration::from_secs(15),
        "HAProxy's checks are refused",
        || {
            let told = lab.on("haproxy", "journalctl --no-pager -q -u haproxy -n 40");
            told.contains(&format!("write/{leader} failed"))
                && told.contains("SSL handshake failure")
        },
    );
    let psql = "cd / && setpriv --reuid=postgres --regid=postgres --init-groups psql -XAtq -h /var/run/postgresql -d postgres";
    lab.on(
        &leader,
        &format!("{psql} -c \"select count(pg_terminate_backend(pid)) from pg_stat_replication\""),
    );
    within(Duration::from_secs(15), "replication is refused", || {
        lab.on(replica, "journalctl --no-pager -q -u patroni -n 60")
            .contains("certificate verify failed")
    });
    let streaming = lab.on(
        &leader,
        &format!("{psql} -c \"select count(*) from pg_stat_replication\""),
    );
    assert_eq!(streaming.trim(), "0");
    for end in ["crt", "key"] {
        lab.on(&leader, &format!("mv {SERVER}.{end}.good {SERVER}.{end}"));
    }
    lab.on(&leader, "systemctl reload patroni");
    lab.holds_within(Duration::from_secs(60));
}
