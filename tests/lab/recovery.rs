//! States that a cluster cannot leave by itself, and that the next `up` repairs.

use std::time::Duration;

use crate::{
    lapsed,
    support::{Lab, prepared_image, prepared_version},
};

const HOSTS: &str = "patroni: { ttl: 20, loop_wait: 2, retry_timeout: 5 }\nhosts:\n  \
                     one: { roles: [postgres, etcd, haproxy] }\n  two: { roles: [postgres] }\n";
const DATA: &str = "/data/patroni";

fn inventory(parameters: &str) -> String {
    format!(
        "provider: {{ kind: docker, image: {} }}\npostgresql: {{ version: {}, parameters: {{ {parameters} }}, \
         users: {{ app: {{}} }}, databases: {{ app: {{ owner: app }} }} }}\n{HOSTS}",
        prepared_image(),
        prepared_version()
    )
}

#[test]
fn what_a_cluster_cannot_leave_by_itself_the_next_up_ends() {
    let lab = Lab::new(
        "recovery",
        &inventory("max_locks_per_transaction: 10000000"),
    );

    // A parameter that PostgreSQL cannot start with: PostgreSQL's own message, and no database is created.
    let said = lab.expect(1, &["up", "--yes"]).stderr;
    assert!(
        said.contains("FATAL:  could not map anonymous shared memory"),
        "{said}"
    );
    for host in ["one", "two"] {
        assert_eq!(
            lab.on(host, &format!("ls -A {DATA} | wc -l")).trim(),
            "0",
            "{host}"
        );
        let owner = lab.on(host, "stat -c %U /data");
        assert_eq!(
            owner.trim(),
            "postgres",
            "Patroni must be able to rename what failed"
        );
    }

    // What a bootstrap leaves that fails later: on each member its own database, which never ran.
    let initdb = format!(
        "su postgres -c \"/usr/lib/postgresql/{}/bin/initdb -D {DATA} -k\"",
        prepared_version()
    );
    for host in ["one", "two"] {
        lab.on(host, &initdb);
    }
    lab.write_inventory(&inventory("work_mem: 5MB"));
    let planned = lab.expect(0, &["plan"]).stdout;
    assert_eq!(
        planned
            .matches("no server ever came up on this database")
            .count(),
        2,
        "{planned}"
    );
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["verify"]);
    lab.sql("create table precious (id int); insert into precious values (1)");

    a_pause_is_respected(&lab);
    names_come_back_before_etcd_starts(&lab);
    roles_are_put_right(&lab);
    lapsed::an_authority_that_has_ended_is_replaced(&lab);
    assert_eq!(lab.sql("select id from precious where id = 1"), "1");
}

fn patronictl(lab: &Lab, verb: &str) {
    lab.on(
        "one",
        &format!("/opt/patroni/bin/patronictl -c /etc/patroni.yml {verb} --wait"),
    );
}

fn a_pause_is_respected(lab: &Lab) {
    let started = || lab.on("two", &format!("stat -c %Y {DATA}/postmaster.pid"));
    patronictl(lab, "pause");
    let planned = lab.expect(0, &["plan"]).stdout;
    assert!(
        planned.contains("the cluster is paused") && planned.contains("nothing to do"),
        "{planned}"
    );
    lab.on(
        "two",
        "echo \"# by hand\" >>/etc/systemd/system/patroni.service",
    );
    let before = started();
    for words in [
        &["up", "--yes"][..],
        &["render", "--yes"],
        &["rotate", "certs", "--yes"],
        &["switchover", "--yes"],
    ] {
        let code = if words[0] == "switchover" { 2 } else { 1 };
        let said = lab.expect(code, words).stderr;
        assert!(said.contains("the cluster is paused"), "{words:?}: {said}");
        assert!(said.contains("resume"), "{words:?}: {said}");
    }
    assert_eq!(started(), before, "its PostgreSQL was left alone");
    patronictl(lab, "resume");
    lab.expect(0, &["up", "--yes"]);
    lab.holds_within(Duration::from_secs(30));
}

/// What cloud-init does at boot with `manage_etc_hosts`.
fn names_come_back_before_etcd_starts(lab: &Lab) {
    lab.on(
        "one",
        "printf \"127.0.0.1 localhost\\n10.9.9.9 mine\\n\" >/etc/hosts; systemctl restart etcd",
    );
    let hosts = lab.on("one", "cat /etc/hosts");
    assert!(
        hosts.contains("10.9.9.9 mine") && hosts.contains("  two\n"),
        "{hosts}"
    );
    lab.holds_within(Duration::from_secs(30));
    assert!(lab.expect(0, &["plan"]).stdout.contains("nothing to do"));
}

/// Somebody alters or drops each role that pgherd needs, in a running cluster.
fn roles_are_put_right(lab: &Lab) {
    type Case = (&'static str, &'static [&'static str]);
    let cases: [Case; 5] = [
        (
            "alter role postgres password 'another'",
            &["postgres has another password than secrets.yaml says"],
        ),
        (
            "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_replication; drop role replicator",
            &["has no role replicator"],
        ),
        (
            "revoke execute on function pg_catalog.pg_read_binary_file(text) from rewind",
            &["rewind may not execute what pg_rewind needs"],
        ),
        ("alter role app nologin", &["the user app may not log in"]),
        (
            "alter role replicator nologin; alter role rewind password 'another'; \
             alter role app password 'another'",
            &[
                "replicator cannot log in",
                "rewind has another password",
                "the user app has another password",
            ],
        ),
    ];
    lab.sql("create table if not exists acknowledged (id int)");
    for (at, (statement, told)) in cases.iter().enumerate() {
        lab.sql(statement);
        // Through the socket, because the superuser's password may be what is wrong.
        on_the_leader(lab, &format!("insert into acknowledged values ({at})"));
        let said = lab.expect(3, &["verify"]).stdout;
        for words in *told {
            assert!(said.contains(words), "{statement}: {words}: {said}");
        }
        lab.expect(0, &["up", "--yes"]);
        assert_eq!(
            lab.sql("select count(*) from acknowledged"),
            (at + 1).to_string()
        );
    }
    lab.expect(0, &["verify"]);
    assert!(lab.expect(0, &["plan"]).stdout.contains("nothing to do"));
}

fn on_the_leader(lab: &Lab, statement: &str) {
    let primary = |host: &&str| {
        let asked = "psql -Atqc \"select pg_catalog.pg_is_in_recovery()\"";
        lab.on(host, asked).trim() == "f"
    };
    let leader = ["one", "two"].into_iter().find(primary).expect("a primary");
    lab.on(leader, &format!("psql -qc \"{statement}\""));
}
