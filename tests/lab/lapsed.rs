//! Certificates, and the authority itself, that have expired.

use std::{fs, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

use crate::support::{Lab, docker};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Everything for TLS expires at once, on the hosts and in the workspace, and all services have loaded it: none
/// of them accepts another's certificate any more.
pub(crate) fn an_authority_that_has_ended_is_replaced(lab: &Lab) {
    lab.sql("insert into precious values (2)");
    end_everything(lab);

    let said = lab.expect(3, &["verify"]);
    for (host, whose) in [
        ("one", "HAProxy, Patroni and PostgreSQL, the certificate"),
        ("two", "Patroni and PostgreSQL, the authority"),
    ] {
        let line = said
            .stdout
            .lines()
            .find(|line| line.contains("certificates"));
        let line = line.expect("the check");
        assert!(line.contains(&format!("{host}: of ")), "{line}");
        assert!(line.contains(whose) && line.contains("ended on"), "{line}");
    }
    let status = lab.json(&["status", "--json"]);
    let not_valid = status["certificates"]["not_valid"]
        .as_array()
        .expect("a list");
    assert!(!not_valid.is_empty(), "{status}");
    for words in [
        &["render", "--yes"][..],
        &["switchover", "--yes"],
        &["restart", "--yes"],
        &["rotate", "secrets", "--yes"],
        &["psql"],
    ] {
        let said = lab.expect(1, words).stderr;
        assert!(
            said.contains("ended on") && said.contains(" up"),
            "{words:?}: {said}"
        );
    }
    let planned = lab.expect(0, &["plan"]).stdout;
    assert!(planned.contains("it is replaced by a new one"), "{planned}");

    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["verify"]);
    assert_eq!(lab.sql("select count(*) from precious where id = 2"), "1");
    assert!(lab.expect(0, &["plan"]).stdout.contains("nothing to do"));
    let ca = fs::read_to_string(lab.workspace().join("pki/ca.crt")).expect("an authority");
    assert_eq!(
        ca.matches("BEGIN CERTIFICATE").count(),
        1,
        "the old one is gone"
    );
    assert!(!lab.workspace().join("pki/next").exists());
}

/// As if pgherd had made the authority eleven years ago, and nobody had looked since.
fn end_everything(lab: &Lab) {
    let pki = lab.workspace().join("pki");
    let key = fs::read_to_string(pki.join("ca.key")).expect("a key");
    let key = KeyPair::from_pem(&key).expect("a key");
    let mut params = CertificateParams::default();
    let name = format!("pgherd {}", lab.name);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = std::time::SystemTime::now();
    params.not_before = (now - 4000 * DAY).into();
    params.not_after = (now - 2 * DAY).into();
    let ended = params.self_signed(&key).expect("a certificate").pem();
    fs::write(pki.join("ca.crt"), ended).expect("a file");
    for name in ["one", "two", "operator"] {
        fs::remove_file(pki.join(format!("{name}.crt"))).expect("a file");
    }
    // Without the certificates, this issues new ones from the existing authority.
    lab.expect(3, &["verify"]);
    for (host, folders) in [
        ("one", &["etcd", "postgres", "haproxy"][..]),
        ("two", &["postgres"]),
    ] {
        for folder in folders {
            let to = format!("{}:/etc/pgherd/tls/{folder}", lab.container(host));
            let copy = |from: &str, name: &str| {
                docker(&[
                    "cp",
                    &pki.join(from).display().to_string(),
                    &format!("{to}/{name}"),
                ]);
            };
            copy("ca.crt", "ca.crt");
            copy(&format!("{host}.crt"), "server.crt");
            if *folder == "haproxy" {
                let tls = "/etc/pgherd/tls/haproxy";
                copy(&format!("{host}.key"), "server.key");
                lab.on(host, &format!("cd {tls} && cat server.crt server.key >server.pem && rm server.crt server.key"));
            }
        }
    }
    lab.on(
        "one",
        "systemctl restart etcd; systemctl reload patroni haproxy",
    );
    lab.on("two", "systemctl reload patroni");
}
