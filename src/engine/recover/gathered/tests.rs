use base64::{Engine, prelude::BASE64_STANDARD};

use super::*;
use crate::contract::{
    BACKUP_CONFIG, HAPROXY_CONFIG, KEEPALIVED_CONFIG, PATRONI_CONFIG, POOLER_USERS, RESTORE_MARK,
};

const INVENTORY: &str = "cluster: pg\nprovider: { kind: docker }\nhosts:\n  \
    node1: { roles: [postgres, etcd] }\n  node2: { roles: [postgres] }\n  door: { roles: [haproxy] }\n";
const MARK: &str = "pg\n0a1b2c3d4e5f\n";

fn inventory() -> Inventory {
    Inventory::parse(std::path::Path::new("pgherd.yaml"), INVENTORY).unwrap()
}

/// A host with these files, and the mark of the cluster.
fn host(name: &str, files: &[(&str, &str)], there: &[&str]) -> (HostName, Told) {
    let mark = [(MARKER, MARK)];
    let all = mark
        .iter()
        .filter(|_| !files.iter().any(|it| it.0 == MARKER));
    let line =
        |(path, text): &(&str, &str)| format!("file {path} {}\n", BASE64_STANDARD.encode(text));
    let mut lines: String = all.chain(files).map(line).collect();
    lines.extend(there.iter().map(|path| format!("there {path}\n")));
    let answer = format!("Welcome!\nrecovery version 1\n{lines}recovery ends\n");
    (HostName::new(name), Told::parse(&answer).unwrap())
}

fn patroni(replication: (&str, &str), superuser: &str) -> String {
    let (role, password) = replication;
    format!(
        "restapi: {{authentication: {{username: patroni, password: rest}}}}\npostgresql:\n  authentication:\n    \
         superuser: {{username: postgres, password: {superuser}}}\n    \
         replication: {{username: {role}, password: {password}}}\n    \
         rewind: {{username: {}, password: {password}}}\n",
        role.replace("replicator", "rewind")
    )
}

fn gathered(all: &[(HostName, Told)]) -> Gathered {
    Gathered::of(&inventory(), all)
        .map_err(|it| it.to_string())
        .unwrap()
}

fn refusal(all: &[(HostName, Told)]) -> Error {
    Gathered::of(&inventory(), all).map(|_| ()).unwrap_err()
}

#[test]
fn every_password_is_found_where_it_is() {
    let patroni = patroni(("replicator", "r"), "su");
    let all = [
        host("node1", &[(PATRONI_CONFIG, &patroni)], &[]),
        host(
            "node2",
            &[
                (PATRONI_CONFIG, &patroni),
                (
                    BACKUP_CONFIG,
                    "repo1-cipher-pass=key\nrepo1-s3-key=ak\nrepo1-s3-key-secret=sk\n",
                ),
            ],
            &[],
        ),
        host(
            "door",
            &[
                (HAPROXY_CONFIG, "listen stats\n  stats auth pgherd:st\n"),
                (KEEPALIVED_CONFIG, "auth_pass vrrp1234\n"),
                (POOLER_USERS, "\"pgherd_pooler\" \"pool\"\n"),
            ],
            &[],
        ),
    ];
    let gathered = gathered(&all);
    assert_eq!(gathered.id, "0a1b2c3d4e5f");
    let recovered = gathered.recovered();
    let passwords: Vec<(&str, &str)> = recovered
        .passwords
        .iter()
        .map(|(name, value)| (name.as_str(), value.expose()))
        .collect();
    assert_eq!(
        passwords,
        [
            ("backup", "key"),
            ("pooler", "pool"),
            ("replication", "r"),
            ("rest_api", "rest"),
            ("rewind", "r"),
            ("s3_key", "ak"),
            ("s3_secret", "sk"),
            ("stats", "st"),
            ("superuser", "su"),
            ("vrrp", "vrrp1234"),
        ]
    );
    assert!(recovered.interim.is_none() && recovered.pki.is_none());
    assert_eq!(gathered.secrets().len(), 10, "all are masked");
}

#[test]
fn where_hosts_differ_most_decide_and_a_change_of_the_passwords_goes_on() {
    let (old, new) = (
        patroni(("replicator", "old"), "su"),
        patroni(("replicator_interim", "between"), "su2"),
    );
    let of = |name, text: &String| host(name, &[(PATRONI_CONFIG, text.as_str())], &[]);
    let gathered = gathered(&[of("node1", &old), of("node2", &new), of("door", &new)]);
    let superuser = &gathered.passwords["superuser"];
    assert_eq!(superuser.value.expose(), "su2");
    assert_eq!(superuser.hosts, ["node2", "door"].map(HostName::new));
    assert_eq!(superuser.others, [HostName::new("node1")]);
    let recovered = gathered.recovered();
    let interim = recovered.interim.unwrap();
    assert_eq!(interim.replication.expose(), "between");
    assert_eq!(recovered.passwords["replication"].expose(), "old");
    assert!(!recovered.passwords.contains_key(INTERIM_REPLICATION));
}

#[test]
fn hosts_must_be_of_one_cluster_with_the_inventorys_name() {
    let marked = |name, mark| host(name, &[(MARKER, mark)], &[]);
    for (all, code, part) in [
        (
            vec![marked("node1", "mine\nof my own\n")],
            Code::ClusterNotFound,
            "no cluster pg",
        ),
        (
            vec![marked("node1", "other\n0a1b2c3d4e5f\n")],
            Code::InventoryContradictsHosts,
            "as other",
        ),
        (
            vec![marked("node1", MARK), marked("node2", "pg\nffffffffffff\n")],
            Code::HostOfAnotherCluster,
            "several clusters",
        ),
    ] {
        let error = refusal(&all);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.left_behind(), Some("nothing was changed"));
    }
    // A host without a mark is new.
    assert_eq!(
        gathered(&[marked("node1", MARK), marked("node2", "\n")]).id,
        "0a1b2c3d4e5f"
    );
}

#[test]
fn what_only_the_lost_workspace_can_complete_is_refused() {
    for (path, what) in [
        (RESTORE_MARK, "restore"),
        ("/data/patroni.upgrade", "upgrade"),
    ] {
        let error = refusal(&[host("node1", &[], &[path])]);
        assert_eq!(error.code(), Code::NotPossibleNow);
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(error.host(), Some(&HostName::new("node1")));
        assert!(error.causes()[0].contains(path));
    }
    let kept = gathered(&[host("node1", &[], &["/data/patroni.before-upgrade"])]).kept;
    assert_eq!(kept.len(), 1);
}

#[test]
fn certificates_are_found_in_one_file_or_two_and_the_larger_trust_counts() {
    let pem =
        |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n");
    let (one, two) = (pem("CERTIFICATE", "one"), pem("CERTIFICATE", "two"));
    let both = format!("{one}\n{two}");
    let (cert, key) = (pem("CERTIFICATE", "c"), pem("PRIVATE KEY", "k"));
    let together = format!("{cert}\n{key}");
    let tls = "/etc/pgherd/tls";
    let (etcd, door) = (format!("{tls}/etcd"), format!("{tls}/haproxy"));
    let node1 = |trusted: &str| {
        host(
            "node1",
            &[
                (&format!("{etcd}/ca.crt"), trusted),
                (&format!("{etcd}/server.crt"), &cert),
                (&format!("{etcd}/server.key"), &key),
            ],
            &[],
        )
    };
    let door = |trusted: &str| {
        host(
            "door",
            &[
                (&format!("{door}/ca.crt"), trusted),
                (&format!("{door}/server.pem"), &together),
            ],
            &[],
        )
    };
    let found = gathered(&[node1(&one), door(&both)]).certificates.unwrap();
    assert_eq!(found.trusted, both);
    assert_eq!(found.hosts.len(), 2);
    for (host, it) in &found.hosts {
        assert_eq!(
            (it.cert.as_str(), it.key.expose()),
            (cert.as_str(), key.as_str()),
            "{host}"
        );
    }
    assert_eq!(
        found.operator, found.hosts[0].1,
        "the front door's is no client's"
    );
    let error = refusal(&[node1(&one), door(&two)]);
    assert_eq!(error.code(), Code::CertificateUnusable, "{error}");
    let error = refusal(&[door(&two)]);
    assert!(error.to_string().contains("etcd lets pgherd in"), "{error}");
}

#[test]
fn an_answer_that_is_cut_off_is_no_answer() {
    for text in [
        "",
        "recovery version 1\n",
        "recovery version 1\nfile /a !\nrecovery ends\n",
    ] {
        assert!(Told::parse(text).is_none(), "{text}");
    }
}
