//! Another cluster is made from the backups of one, which is only read.

use std::fs;

use serde_json::Value;

use crate::{
    backups::{kept, until},
    lost::archived,
    quorum::door,
    support::{Lab, prepared_image},
    watch::Writer,
};

fn rest(users: &str, hosts: &str) -> String {
    format!(
        "provider: {{ kind: docker, image: \"{}\" }}\n\
         postgresql: {{ version: distro, users: {{ {users} }}, databases: {{ shop: {{ owner: app }} }} }}\n\
         patroni: {{ ttl: 20, loop_wait: 2, retry_timeout: 5 }}\nhosts:\n{hosts}",
        prepared_image()
    )
}

const SOURCE: &str = "  db1: { roles: [postgres, etcd] }\n  keeper: { roles: [haproxy, backup] }\n";
const COPY: &str = "  db1: { roles: [postgres, etcd] }\n  db2: { roles: [postgres] }\n  keeper: { roles: [haproxy, backup] }\n";

#[test]
fn another_cluster_is_made_from_the_backups_of_one() {
    let prod = Lab::new("prod", &rest("app: {}, reporting: {}", SOURCE));
    let copy = Lab::new("copy", &rest("app: {}", COPY));
    prod.expect(0, &["up", "--yes"]);
    until("the first backup is made", || {
        let kept = kept(&prod);
        kept["backups"].as_array().is_some_and(|it| !it.is_empty())
    });
    let heartbeat = has_customers(&prod);
    let writer = Writer::start(&door(&prod));

    what_is_impossible_is_refused(&prod, &copy);
    wrong_sql_opens_nothing(&prod, &copy);
    it_goes_on(&prod, &copy);
    is_a_clone(&copy, &heartbeat);
    shares_nothing(&prod, &copy);

    let written = writer.end();
    assert_eq!(written.refused, [""; 0], "its clients noticed nothing");
    prod.expect(0, &["verify"]);
    prod.expect(0, &["plan", "--check"]);
    assert_eq!(kept(&prod)["wrong"], serde_json::json!([]));
    assert_eq!(
        prod.sql_in("shop", "select mail from customers where n = 7"),
        "7@example.com"
    );

    let said = prod.expect(2, &words(&copy, &["--to", "latest"])).stderr;
    assert!(said.contains("has a database already"), "{said}");
    for lab in [&copy, &prod] {
        lab.expect(0, &["down", "--yes", "--with-backups"]);
        assert_eq!(lab.leftovers(), "");
    }
}

fn words<'a>(copy: &Lab, more: &[&'a str]) -> Vec<&'a str> {
    // The test's own strings live as long as the process.
    let into: &'static str = copy.inventory().display().to_string().leak();
    let mut words = vec!["restore", "--into", into, "--yes", "--json"];
    words.extend(more);
    words
}

/// Customers, somebody with a password, and a subscription that takes changes from elsewhere. Returns the newest heartbeat
/// that is in the repository.
fn has_customers(prod: &Lab) -> String {
    prod.sql_in(
        "shop",
        "create table customers as select n, n || '@example.com' as mail from generate_series(1, 1000) n",
    );
    prod.sql("create role auditor login password 'auditors-own-word'");
    prod.sql_in(
        "shop",
        "create subscription feed connection 'host=192.0.2.1 dbname=none' publication none \
         with (connect = false, slot_name = 'feed')",
    );
    prod.sql_in("shop", "alter subscription feed enable");
    archived(prod)
}

fn what_is_impossible_is_refused(prod: &Lab, copy: &Lab) {
    let itself: &'static str = prod.inventory().display().to_string().leak();
    let said = prod
        .expect(2, &["restore", "--into", itself, "--to", "latest", "--yes"])
        .stderr;
    assert!(said.contains("are of the same cluster"), "{said}");
    for (to, why) in [
        ("2020-01-01 00:00:00Z", "no backup is older than"),
        ("2120-01-01 00:00:00Z", "is in the future"),
    ] {
        let said = prod.expect(2, &words(copy, &["--to", to])).stderr;
        assert!(said.contains(why), "{said}");
    }
    let said = prod.expect(2, &words(copy, &[])).stderr;
    assert!(said.contains("no moment is named"), "{said}");

    let other = copy.file("other.yaml");
    let text = fs::read_to_string(copy.inventory()).unwrap();
    fs::write(&other, text.replace("version: distro", "version: 18")).unwrap();
    let other: &'static str = other.display().to_string().leak();
    let said = prod
        .expect(2, &["restore", "--into", other, "--to", "latest", "--yes"])
        .stderr;
    assert!(said.contains("and the cluster has 18"), "{said}");

    fs::write(prod.file("two.sql"), "select 1;\n\\connect postgres\n").unwrap();
    let more = ["--to", "latest", "--run", "two.sql"];
    let said = prod.expect(2, &words(copy, &more)).stderr;
    assert!(said.contains("two.sql:2: it connects to another"), "{said}");

    let into: &'static str = copy.inventory().display().to_string().leak();
    let outlook = prod.json(&[
        "restore",
        "--into",
        into,
        "--to",
        "latest",
        "--dry-run",
        "--json",
    ]);
    assert_eq!(outlook["from"], prod.name.as_str(), "{outlook}");
    assert_eq!(
        outlook["hosts_made"],
        serde_json::json!(["db1", "db2", "keeper"])
    );
    assert_eq!(outlook["own_backups"], true);
    assert_eq!(copy.leftovers(), "", "nothing was made");
}

/// Starts the clone, and kills it when a step with this name has begun or ended. Returns whether it was killed: if a
/// member leads already when the run looks, it waits for nothing, and completes the clone.
fn cut_off(prod: &Lab, copy: &Lab, more: &[&str], (event, name): (&str, &str)) -> bool {
    let words = words(copy, more);
    let ended = prod.kill_or_end(&words, |it| it["event"] == event && it["name"] == name);
    assert!(ended.is_none_or(|it| it.success()), "{event} {name}");
    ended.is_none()
}

fn wrong_sql_opens_nothing(prod: &Lab, copy: &Lab) {
    let wrong = "update customers set mail = 'nobody';\nupdate nothing set mail = 'nobody';\n";
    fs::write(prod.file("sanitise.sql"), wrong).unwrap();
    let more = ["--to", "latest", "--run", "sanitise.sql"];
    let first = ("step_finished", "configure-patroni");
    assert!(cut_off(prod, copy, &more, first));
    let said = copy.expect(2, &["up", "--yes"]).stderr;
    assert!(said.contains("a clone of lab-prod-"), "{said}");
    assert!(said.contains(" restore --into "), "{said}");
    let said = copy
        .expect(2, &["restore", "--to", "latest", "--yes"])
        .stderr;
    assert!(said.contains("a clone of lab-prod-"), "{said}");

    let said = prod.expect(1, &words(copy, &[])).stderr;
    for part in [
        "sanitise.sql:2: ERROR:",
        "nobody can reach the clone's database",
        "restore --back",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(
        copy.on("db1", "systemctl is-active patroni || true"),
        "inactive\n"
    );
    let said = copy.run(&["psql", "--", "-Atqc", "select 1"]);
    assert!(!said.status.success(), "nobody gets in");
    let said = copy.expect(0, &["restore", "--back", "--yes"]).stderr;
    assert!(
        said.contains("what was restored so far is removed"),
        "{said}"
    );
    assert_eq!(copy.on("db1", "ls /data/patroni"), "");
}

/// Killed after some steps, or after each if the environment says so, and begun again.
fn it_goes_on(prod: &Lab, copy: &Lab) {
    let every = std::env::var_os("PGHERD_LAB_EVERY_STEP").is_some();
    fs::write(
        prod.file("sanitise.sql"),
        "update customers set mail = 'nobody';\ninsert into customers values (1001, 'once');\n",
    )
    .unwrap();
    let more = ["--to", "latest", "--run", "shop:sanitise.sql"];
    for (event, name, always) in [
        ("step_finished", "prepare-clone", false),
        ("step_started", "restore", true),
        ("step_finished", "restore", true),
        ("step_finished", "release-member", false),
        ("step_finished", "await-leader", true),
        ("step_finished", "ensure-roles", false),
        ("step_finished", "await-streaming", false),
        ("step_finished", "create-stanza", false),
    ] {
        if (every || always) && !cut_off(prod, copy, &more, (event, name)) {
            assert!(prod.last_said().contains("is made from lab-prod-"));
            return;
        }
    }
    let said = prod.expect(0, &words(copy, &[])).stderr;
    assert!(said.contains("is made from lab-prod-"), "{said}");
}

fn is_a_clone(copy: &Lab, heartbeat: &str) {
    let mails = "select string_agg(distinct mail, ' ' order by mail), count(*) from customers";
    assert_eq!(copy.sql_in("shop", mails), "nobody once|1001");
    let there = format!("select count(*) from pgherd_heartbeat.ledger where at = '{heartbeat}'");
    assert_eq!(copy.sql(&there), "1");
    // What is disabled stays so: its publisher would lose what the other cluster's subscription has not read yet.
    let feed = "select subenabled, subslotname is null from pg_subscription";
    assert_eq!(copy.sql(feed), "f|t");
    let marks =
        "select count(*) from pg_db_role_setting, unnest(setconfig) it where it like 'pgherd.%'";
    assert_eq!(copy.sql(marks), "0");
    copy.expect(0, &["plan", "--check"]);
    copy.expect(0, &["verify"]);
    assert_eq!(
        copy.on(
            "db1",
            "ls -d /var/lib/pgherd/clone /run/pgherd-clone 2>/dev/null || true"
        ),
        ""
    );
}

/// Neither passwords nor archives.
fn shares_nothing(prod: &Lab, copy: &Lab) {
    let locked = "select string_agg(rolname, ' ' order by rolname) from pg_authid where rolcanlogin and rolpassword is null";
    assert_eq!(copy.sql(locked), "auditor reporting");
    for password in prod.passwords() {
        assert!(!copy.passwords().contains(&password));
    }
    let mut stranger = door(copy);
    assert_eq!(stranger.ask("select 1"), "1");
    stranger.password = door(prod).password;
    assert!(!stranger.psql("select 1").status.success());

    until("the clone has a backup of its own", || {
        let kept = kept(copy);
        let made = kept["backups"].as_array().is_some_and(|it| !it.is_empty());
        made && kept["wrong"] == serde_json::json!([])
    });
    archived(copy);
    let stanzas = |lab: &Lab| lab.on("keeper", "ls /var/lib/pgherd-backups/archive");
    assert_eq!(stanzas(copy), format!("{}\n", copy.name));
    assert_eq!(stanzas(prod), format!("{}\n", prod.name));
    let later = "find /var/lib/pgherd-backups -name \"00000002*\" | wc -l";
    assert_eq!(
        prod.on("keeper", later),
        "0\n",
        "the clone archives elsewhere"
    );
    assert_ne!(copy.on("keeper", later), "0\n");
    let status: Value = copy.json(&["status", "--json"]);
    assert!(!status.to_string().contains("is under way"), "{status}");
}
