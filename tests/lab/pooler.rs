//! PgBouncer on a front door: who gets in, and clients that stay connected while the cluster changes.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Lab, prepared_image};

fn rest(pooler: &str) -> String {
    format!(
        "provider: {{ kind: docker, image: \"{}\" }}\n{pooler}\
         postgresql: {{ version: distro, users: {{ shop: }}, databases: {{ shop: }} }}\n\
         patroni: {{ ttl: 20, loop_wait: 2, retry_timeout: 5 }}\nhosts:\n  \
         db1: {{ roles: [postgres, etcd] }}\n  db2: {{ roles: [postgres] }}\n  \
         door: {{ roles: [haproxy] }}\n",
        prepared_image()
    )
}

/// The password of the user `shop`, as a person would look it up.
fn password(lab: &Lab) -> String {
    let text = fs::read_to_string(lab.workspace().join("secrets.yaml")).unwrap();
    let mut lines = text.lines().filter_map(|line| line.split_once(": "));
    let (_, value) = lines.find(|(key, _)| key.trim() == "\"shop\"").unwrap();
    value.trim_matches('"').to_owned()
}

/// psql through the pooler, with the certificate verified unless `more` says otherwise.
fn psql(lab: &Lab, user: &str, database: &str, password: &str, more: &str) -> Command {
    let ca = lab.workspace().join("pki/ca.crt");
    let ca = ca.display();
    let port = lab.pooler_port;
    let mut psql = Command::new("psql");
    psql.args(["-XAtq", "-d"])
        .arg(format!(
            "host=127.0.0.1 port={port} user={user} dbname={database} sslmode=verify-full sslrootcert={ca} {more}"
        ))
        .env("PGPASSWORD", password)
        .env("PGCONNECT_TIMEOUT", "20");
    psql
}

/// What one statement returns, or why there is no answer.
fn ask(mut psql: Command, statement: &str) -> Result<String, String> {
    let output = psql.args(["-c", statement]).output().expect("psql runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// A client that has connected once. It ends if it loses its connection.
struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn connect(lab: &Lab) -> Self {
        let mut child = psql(lab, "shop", "shop", &password(lab), "")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("psql runs");
        let mut client = Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        assert_eq!(client.ask("select 'in'"), "in");
        client
    }

    /// The answer; empty if it was an error.
    fn ask(&mut self, statement: &str) -> String {
        writeln!(self.input, "{statement};\n\\echo end").expect("the client is connected");
        let mut answer = String::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "the client has lost its connection");
            match line.trim() {
                "end" => return answer,
                other => answer.push_str(other),
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn clients_share_connections_and_stay_connected() {
    let lab = Lab::new("pooler", "");
    let pooler = format!("pgbouncer: {{ port: {} }}\n", lab.pooler_port);
    lab.write_inventory(&rest(&pooler));
    let said = lab.expect(0, &["up", "--yes"]).stderr;
    let line = format!("port={} user=shop dbname=shop", lab.pooler_port);
    assert!(said.contains(&line), "{said}");
    lab.expect(0, &["plan", "--check"]);

    connect_says_how(&lab);
    who_gets_in(&lab);
    a_function_that_is_gone_is_told_and_made_again(&lab);

    let mut client = Client::connect(&lab);
    lab.expect(0, &["rotate", "certs", "--yes"]);
    assert_eq!(
        client.ask("select 'after certificates'"),
        "after certificates"
    );
    lab.expect(0, &["rotate", "secrets", "--yes"]);
    assert_eq!(client.ask("select 'after passwords'"), "after passwords");
    let again = ask(psql(&lab, "shop", "shop", &password(&lab), ""), "select 1");
    assert_eq!(again.as_deref(), Ok("1"));
    assert!(!lab.logs().contains(&of_the_pooler(&lab)), "it is a secret");

    another_leader(&lab, &mut client);
    let status = lab.json(&["status", "--json"]);
    let pooler = &status["pgbouncer"][0];
    assert_eq!(pooler["host"], "door");
    assert!(pooler["clients"].as_u64() >= Some(1), "{pooler}");
    assert!(pooler["version"].as_str().unwrap().starts_with("1."));
    drop(client);

    lab.on("door", "systemctl kill -s KILL pgbouncer");
    until("it runs again", || {
        ask(psql(&lab, "shop", "shop", &password(&lab), ""), "select 1").is_ok()
    });
    lab.holds_within(Duration::from_secs(60));
    it_goes_with_its_section(&lab);

    lab.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "");
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "never: {what}");
        thread::sleep(Duration::from_millis(300));
    }
}

/// The password of the role that finds verifiers.
fn of_the_pooler(lab: &Lab) -> String {
    let text = fs::read_to_string(lab.workspace().join("secrets.yaml")).unwrap();
    let mut lines = text.lines().filter_map(|line| line.split_once(": "));
    let (_, value) = lines.find(|(key, _)| *key == "pooler").unwrap();
    value.trim_matches('"').to_owned()
}

/// What `connect` prints works as it is.
fn connect_says_how(lab: &Lab) {
    let psql = |endpoint: &str, passwords: Option<&str>| {
        let mut psql = Command::new("psql");
        psql.args(["-XAtqw", "-d", endpoint.trim()]);
        psql.env(
            "PGPASSFILE",
            passwords.map_or("/dev/null".into(), |it| lab.file(it)),
        );
        ask(
            psql,
            "select current_user, current_database(), pg_is_in_recovery()",
        )
    };
    let pooled = lab.expect(0, &["connect"]).stdout;
    let port = format!(" port={} ", lab.pooler_port);
    assert!(
        pooled.contains(&port) && pooled.contains("sslmode=verify-full"),
        "{pooled}"
    );
    let words = ["connect", "--format", "pgpass", "-o", "passwords"];
    lab.expect(0, &words);
    assert_eq!(
        psql(&pooled, Some("passwords")).as_deref(),
        Ok("shop|shop|f")
    );
    let said = lab.expect(2, &words).stderr;
    assert!(said.contains("is not overwritten"), "{said}");
    let uri = lab
        .expect(0, &["connect", "--read", "--format", "uri"])
        .stdout;
    assert_eq!(psql(&uri, None).as_deref(), Ok("shop|shop|t"));
    let words = ["connect", "--user", "postgres", "--format", "uri"];
    let superuser = lab.expect(0, &words).stdout;
    assert_eq!(psql(&superuser, None).as_deref(), Ok("postgres|postgres|f"));
    let document = lab.expect(0, &["connect", "--json"]).stdout;
    assert!(!document.contains(&password(lab)), "{document}");
    let own = [
        "psql",
        "--",
        "-wU",
        "shop",
        "-d",
        "shop",
        "-Atqc",
        "select current_user",
    ];
    assert_eq!(lab.expect(0, &own).stdout.trim(), "shop");
}

fn who_gets_in(lab: &Lab) {
    let own = password(lab);
    let asked =
        |database: &str, statement: &str| ask(psql(lab, "shop", database, &own, ""), statement);
    let who = "select current_user || ' in ' || current_database() || ', replica: ' || pg_is_in_recovery()";
    assert_eq!(
        asked("shop", who).as_deref(),
        Ok("shop in shop, replica: false")
    );
    assert_eq!(
        asked("shop_read", who).as_deref(),
        Ok("shop in shop, replica: true")
    );
    lab.sql("create database later");
    assert_eq!(
        asked("later", who).as_deref(),
        Ok("shop in later, replica: false")
    );
    let words = ["psql", "--pooled", "shop", "--", "-Atc", who];
    let said = lab.expect(0, &words).stdout;
    assert_eq!(said.trim(), "shop in shop, replica: false");
    lab.expect(2, &["psql", "--pooled", "postgres"]);

    let wrong = ask(psql(lab, "shop", "shop", "wrong", ""), "select 1");
    assert!(wrong.unwrap_err().contains("authentication failed"));
    let text = fs::read_to_string(lab.workspace().join("secrets.yaml")).unwrap();
    let superuser = text
        .lines()
        .find_map(|line| line.strip_prefix("superuser: "))
        .unwrap()
        .trim_matches('"');
    let refused = ask(psql(lab, "postgres", "postgres", superuser, ""), "select 1");
    refused.expect_err("a superuser");
    let plain = ask(
        psql(lab, "shop", "shop", &own, "sslmode=disable"),
        "select 1",
    );
    let said = plain.expect_err("no TLS");
    assert!(said.contains("SSL required"), "{said}");
    let finder = ask(
        psql(lab, "pgherd_pooler", "shop", &of_the_pooler(lab), ""),
        "select 1",
    );
    finder.expect_err("from elsewhere than the front door");
    // What is on the front door's disk.
    let found = lab.on(
        "door",
        &format!(
            "grep -rl {own} /etc 2>/dev/null; stat -c \"%a %U %G\" /etc/pgbouncer/userlist.txt"
        ),
    );
    assert_eq!(found.trim(), "640 root postgres");
}

fn a_function_that_is_gone_is_told_and_made_again(lab: &Lab) {
    let drop = "drop function pgherd_pooler.user_lookup(text)";
    lab.expect(0, &["psql", "--", "-qd", "shop", "-c", drop]);
    let said = lab.expect(3, &["verify"]).stdout;
    assert!(
        said.contains("the database shop has no function by which PgBouncer finds users"),
        "{said}"
    );
    assert!(said.contains("as shop to shop"), "{said}");
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["plan", "--check"]);
}

/// Clients wait for a moment, and see no error. A transaction that does not end calls the hand-over off.
fn another_leader(lab: &Lab, client: &mut Client) {
    let before = lab.leader();
    assert_eq!(client.ask("begin; select 'open'"), "open");
    let said = lab.expect(1, &["switchover", "--yes"]).stderr;
    assert!(
        said.contains("transactions are open that do not end"),
        "{said}"
    );
    assert_eq!(lab.leader(), before);
    assert_eq!(client.ask("commit; select 'went on'"), "went on");
    let timer = "systemctl list-timers --all --no-legend pgherd-pooler-resume.timer";
    assert_eq!(lab.on("door", timer).trim(), "");

    let words = [
        "drill",
        "switchover",
        "--pooled",
        "12",
        "--yes",
        "--despite-clients",
        "--json",
    ];
    let record = lab.json(&words);
    assert_ne!(lab.leader(), before);
    let measured = &record["drills"][0]["measured"];
    let pooled = &measured["pooled"];
    println!("switchover: {pooled}");
    assert_eq!(pooled["clients"], 12);
    assert_eq!(pooled["errors"], serde_json::json!({}));
    assert!(pooled["acknowledged"].as_u64().is_some_and(|it| it > 100));
    assert_eq!(measured["missing"], 0);
    // New clients of HAProxy wait for the new leader. One that waits in vain has waited for four seconds; without the
    // wait, there are forty refusals a second.
    println!("refused: {}", measured["writers_refused"]);
    assert!(
        measured["writers_refused"]
            .as_u64()
            .is_some_and(|it| it < 5)
    );
    assert_eq!(client.ask("select pg_is_in_recovery()"), "f");
    lab.holds_within(Duration::from_secs(60));
}

fn it_goes_with_its_section(lab: &Lab) {
    lab.write_inventory(&rest(""));
    let said = lab.expect(0, &["plan"]).stdout;
    assert!(said.contains("PgBouncer is given up"), "{said}");
    lab.expect(3, &["verify"]);
    lab.expect(0, &["up", "--yes"]);
    let line = "systemctl is-active pgbouncer; \
                ls -d /etc/pgherd/pooler /etc/pgherd/tls/pgbouncer /etc/pgbouncer/hba.conf \
                /etc/systemd/system/pgbouncer* 2>/dev/null; ss -ltnH | grep PORT; \
                grep pgbouncer /var/lib/pgherd/manifest; true";
    let line = line.replace("PORT", &format!(":{} ", lab.pooler_port));
    assert_eq!(lab.on("door", &line).trim(), "inactive");
    assert_eq!(
        lab.on("door", "systemctl is-active haproxy").trim(),
        "active"
    );
    let left = "select (select count(*) from pg_roles where rolname ~ 'pooler') \
                || ' ' || (select count(*) from pg_namespace where nspname ~ 'pooler')";
    for database in ["postgres", "shop", "later"] {
        let words = ["psql", "--", "-Atqd", database, "-c", left];
        assert_eq!(lab.expect(0, &words).stdout.trim(), "0 0", "{database}");
    }
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["verify"]);
}
