//! Former weaknesses: each of these was used to break a cluster.

use std::{
    io::Read as _,
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use super::{address, door};
use crate::{support::Lab, watch::Door};

/// Where a hostile function leaves its mark, on the member that has run it as the superuser.
const MARK: &str = "/var/tmp/pgherd-lab-superuser";

pub(super) fn what_an_application_makes_in_public_is_not_run_by_pgherd(lab: &Lab) {
    lab.sql("grant create on schema public to public");
    let own = door(lab);
    let login = Door {
        conninfo: own.conninfo.replace("dbname=shop", "dbname=postgres"),
        ..own
    };
    // An operator with exactly these types is preferred to the polymorphic one of pg_catalog, and so is a
    // function. A superuser who looks for names in `public` runs them.
    let trap = format!(
        "create function public.trap(text, boolean) returns text language plpgsql as $$ begin \
         execute 'copy (select 1) to program ''cat >>{MARK}'''; return 'sprung'; end $$; \
         create operator public.|| (leftarg = text, rightarg = boolean, function = public.trap); \
         create function public.count(boolean) returns bigint language plpgsql as $$ begin \
         execute 'copy (select 1) to program ''cat >>{MARK}'''; return 1; end $$;"
    );
    let made = login.psql(&trap);
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let said = lab.expect(3, &["verify"]);
    assert!(said.stderr.contains("close-public"), "{}", said.stderr);
    lab.expect(0, &["status"]);
    let marks = |of: &Lab| -> String {
        ["node1", "node2", "node3"]
            .map(|node| of.on(node, &format!("ls {MARK} 2>/dev/null; true")))
            .concat()
    };
    assert_eq!(marks(lab), "");
    // The trap works for everyone who has `public` on the path.
    lab.sql("select 'x'::text || true");
    assert!(marks(lab).contains(MARK));
    for node in ["node1", "node2", "node3"] {
        lab.on(node, &format!("rm -f {MARK}"));
    }

    let said = lab.expect(4, &["plan", "--check"]);
    let shown = "CREATE on the schema public of the database postgres is taken from PUBLIC";
    assert!(said.stdout.contains(shown), "{}", said.stdout);
    lab.expect(0, &["up", "--yes"]);
    lab.expect(0, &["plan", "--check"]);
    let refused = login.psql("create table public.mine ()");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        told.contains("permission denied for schema public"),
        "{told}"
    );
    assert_eq!(
        door(lab).ask("create table public.mine (); drop table public.mine; select 1"),
        "1"
    );
    lab.sql("drop operator public.|| (text, boolean)");
    lab.sql("drop function public.trap(text, boolean), public.count(boolean)");
}

pub(super) fn haproxys_host_cannot_write_to_etcd(lab: &Lab) {
    let pki = lab.workspace().join("pki");
    let etcd = format!("https://{}:2379/v3/kv/put", address(lab, "node4"));
    let put = |host: &str| {
        let file = |end: &str| pki.join(format!("{host}.{end}")).display().to_string();
        super::strangers::curl(&[
            "--cacert",
            &pki.join("ca.crt").display().to_string(),
            "--cert",
            &file("crt"),
            "--key",
            &file("key"),
            "-X",
            "POST",
            "-d",
            r#"{"key": "L2xhYg==", "value": "eA=="}"#,
            &etcd,
        ])
    };
    let on_host = lab.on("haproxy", "cat /etc/pgherd/tls/haproxy/server.pem");
    let issued = std::fs::read_to_string(pki.join("haproxy.crt")).unwrap();
    assert!(on_host.contains(issued.trim()), "it is what the host has");
    assert_eq!(put("haproxy"), 0);
    assert_eq!(put("node1"), 200);
}

pub(super) fn a_crowd_that_says_nothing_shuts_nobody_out(lab: &Lab) {
    let mut crowd: Vec<TcpStream> = (0..150)
        .map(|_| TcpStream::connect(("127.0.0.1", lab.write_port)).unwrap())
        .collect();
    assert_eq!(lab.sql("select 'in'"), "in");
    // Above its limit, a source is refused at once.
    let refused = crowd
        .iter_mut()
        .filter_map(|stream| {
            let wait = Some(Duration::from_millis(20));
            stream.set_read_timeout(wait).unwrap();
            match stream.read(&mut [0]) {
                Ok(0) => Some(()),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Some(()),
                _ => None,
            }
        })
        .count();
    // One source gets 77 of 97 connections, on a cluster with PostgreSQL's own defaults.
    assert!((70..=73).contains(&refused), "{refused}");
}

pub(super) fn a_systems_user_is_no_role_of_the_same_name(lab: &Lab) {
    let psql = "psql -XAtw -h /var/run/postgresql";
    let asks = |user: &str, role: &str| {
        lab.on(
            "node1",
            &format!(
                "cd / && setpriv --reuid={user} --regid={user} --init-groups {psql} -U {role} \
                 -d postgres -c \"select current_user\" 2>&1 || true"
            ),
        )
    };
    lab.on("node1", "useradd shop");
    let told = asks("shop", "shop");
    assert!(told.contains("no password supplied"), "{told}");
    let told = asks("shop", "postgres");
    assert!(told.contains("Peer authentication failed"), "{told}");
    for user in ["root", "postgres"] {
        assert_eq!(asks(user, "postgres").trim(), "postgres", "{user}");
    }
    lab.on("node1", "userdel shop");
}

pub(super) fn ciphers_without_authentication_are_refused(lab: &Lab) {
    let pki = lab.workspace().join("pki");
    let file = |name: &str| pki.join(name).display().to_string();
    let takes = |port: &str, more: &[&str], ciphers: &str| {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", port, "-tls1_2", "-cipher"])
            .arg(format!("{ciphers}:@SECLEVEL=0"))
            .args([
                "-cert",
                &file("operator.crt"),
                "-key",
                &file("operator.key"),
            ])
            .args(more)
            .stdin(Stdio::null())
            .output()
            .expect("openssl runs");
        String::from_utf8_lossy(&output.stdout).contains("Verify return code")
            && !String::from_utf8_lossy(&output.stdout).contains("Cipher is (NONE)")
    };
    let member = address(lab, "node1");
    let etcd = address(lab, "node4");
    let ports: [(String, &[&str]); 5] = [
        (format!("{member}:5432"), &["-starttls", "postgres"]),
        (format!("{member}:8008"), &[]),
        (format!("{etcd}:2379"), &[]),
        (format!("{etcd}:2380"), &[]),
        (format!("127.0.0.1:{}", lab.read_port + 1), &[]),
    ];
    for (port, more) in ports {
        let weak = "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-CCM8:\
                    ECDHE-ECDSA-CAMELLIA128-SHA256";
        assert!(!takes(&port, more, weak), "{port}");
        assert!(
            takes(&port, more, "ECDHE-ECDSA-AES128-GCM-SHA256"),
            "{port}"
        );
    }
}

pub(super) fn haproxy_has_no_capability_that_it_does_not_need(lab: &Lab) {
    let status = lab.on(
        "haproxy",
        "grep -hE \"^(CapBnd|NoNewPrivs):\" /proc/$(systemctl show -p MainPID --value haproxy)/status",
    );
    // net_bind_service, sys_chroot, setuid, setgid, kill, chown, dac_override.
    assert!(status.contains("00000000000404e3"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

pub(super) fn strangers_at_patronis_port_shut_nobody_out(lab: &Lab) {
    let leader = address(lab, &lab.leader());
    // Patroni has five threads, each of which waits without limit for its client's first message.
    let crowd: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect((leader.as_str(), 8008)).unwrap())
        .collect();
    let refused = |mut stream: &TcpStream| {
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        match stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    };
    // HAProxy takes a server for dead after two checks, each of which may take 2 s.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(lab.sql("select 'in'"), "in");
    let stay = crowd.iter().filter(|stream| !refused(stream)).count();
    assert!(stay <= 4, "{stay} of one stranger's");
    // Accepted connections end by themselves.
    std::thread::sleep(Duration::from_secs(5));
    let stay = crowd.iter().filter(|stream| !refused(stream)).count();
    assert_eq!(stay, 0);
    let told = lab.on(
        &lab.leader(),
        "tr \"\\0\" \"\\n\" </proc/$(head -n 1 /data/patroni/postmaster.pid)/environ | grep -c PYTHONPATH || true",
    );
    assert_eq!(told.trim(), "0", "PostgreSQL has nothing of it");
}

pub(super) fn pgherds_own_schema_is_not_shared(lab: &Lab) {
    let table = [
        (
            "alter schema pgherd owner to shop",
            "alter schema pgherd owner to postgres",
        ),
        (
            "grant create on schema pgherd to shop",
            "revoke create on schema pgherd from shop",
        ),
        (
            "grant trigger on pgherd.proof to shop",
            "revoke trigger on pgherd.proof from shop",
        ),
    ];
    for (give, take) in table {
        lab.sql(give);
        let said = lab.expect(3, &["verify"]);
        for part in ["does not belong only to pgherd", "the role shop"] {
            assert!(said.stdout.contains(part), "{give}: {}", said.stdout);
        }
        lab.sql(take);
    }
    lab.expect(0, &["verify"]);
    // A drill creates its own tables, and writes nothing into tables that others can influence.
    lab.sql("alter default privileges in schema pgherd grant trigger on tables to shop");
    let said = lab.expect(1, &["drill", "switchover", "--yes"]);
    assert!(
        said.stderr.contains("does not belong only to pgherd"),
        "{}",
        said.stderr
    );
    lab.sql("alter default privileges in schema pgherd revoke trigger on tables from shop");
    let left =
        "select count(*) from pg_tables where schemaname = 'pgherd' and tablename like 'drill%'";
    assert_eq!(lab.sql(left), "0");
}

pub(super) fn a_server_that_lets_no_client_write_does_not_hold(lab: &Lab) {
    lab.sql("alter system set default_transaction_read_only = on");
    lab.sql("select pg_reload_conf()");
    let said = lab.expect(3, &["verify"]);
    let told = "clients cannot write: default_transaction_read_only is on";
    assert!(said.stdout.contains(told), "{}", said.stdout);
    lab.sql("alter system reset default_transaction_read_only");
    lab.sql("select pg_reload_conf()");
    lab.expect(0, &["verify"]);
}
