//! What was open once: each of these was used to break a cluster.

use std::{
    io::Read as _,
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use super::{address, door};
use crate::{support::Lab, watch::Door};

/// Where a hostile function would leave its mark, on the member that has run it as the superuser.
const MARK: &str = "/var/tmp/pgherd-lab-superuser";

pub(super) fn what_an_application_makes_in_public_is_not_run_by_pgherd(lab: &Lab) {
    lab.sql("grant create on schema public to public");
    let own = door(lab);
    let login = Door {
        conninfo: own.conninfo.replace("dbname=shop", "dbname=postgres"),
        ..own
    };
    // An operator of these very types is preferred to the one of pg_catalog that takes anything; so is a
    // function. Whoever looks for names in `public` as the superuser runs them.
    let trap = format!(
        "create function public.trap(text, boolean) returns text language plpgsql as $$ begin \
         execute 'copy (select 1) to program ''touch {MARK}'''; return 'sprung'; end $$; \
         create operator public.|| (leftarg = text, rightarg = boolean, function = public.trap); \
         create function public.count(boolean) returns bigint language plpgsql as $$ begin \
         execute 'copy (select 1) to program ''touch {MARK}'''; return 1; end $$;"
    );
    let made = login.psql(&trap);
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    lab.expect(0, &["verify"]);
    lab.expect(0, &["status"]);
    let marks = |of: &Lab| -> String {
        ["node1", "node2", "node3"]
            .map(|node| of.on(node, &format!("ls {MARK} 2>/dev/null; true")))
            .concat()
    };
    assert_eq!(marks(lab), "");
    // The trap works: it springs for whoever has `public` on the path.
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
    // Over its bound a source is refused at once.
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
    // 77 of 97 are for one source, on a cluster of PostgreSQL's own defaults.
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
