//! Hosts that somebody already has, with things on them that are not pgherd's.

use std::{collections::BTreeMap, fs, process::Command};

use pgherd::{
    event::Events,
    inventory::{HostName, Inventory},
    provider::{self, Access, Machine},
};

use crate::support::{Lab, base_image};

const HOSTS: [&str; 4] = ["alpha", "beta", "gamma", "door"];

/// Bare hosts, as a colleague would hand them over: addresses, a key that opens them, and their own
/// keys to compare.
fn bare_hosts(lab: &Lab, key: &std::path::Path) -> BTreeMap<HostName, Machine> {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(key)
        .status()
        .expect("ssh-keygen runs");
    assert!(status.success());
    let inventory = Inventory::load(&lab.inventory()).expect("a right inventory");
    let provider = provider::from_inventory(&inventory).expect("a provider");
    let access = Access {
        user: "ubuntu".into(),
        public_key: fs::read_to_string(key.with_extension("pub")).expect("a key"),
    };
    let hosts: Vec<HostName> = HOSTS.into_iter().map(HostName::new).collect();
    let (events, _quiet) = Events::channel();
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(provider.launch(&hosts, &access, &events))
        .expect("hosts")
        .into_iter()
        .map(|machine| (machine.host.clone(), machine))
        .collect()
}

#[test]
fn what_was_there_is_respected_and_what_was_put_there_goes_again() {
    base_image();
    let roles = "hosts:\n  alpha: { roles: [postgres, etcd] }\n  beta: { roles: [postgres, etcd] }\n  \
                 gamma: { roles: [postgres, etcd] }\n  door: { roles: [haproxy] }\n";
    let lab = Lab::new("own", &format!("provider: {{ kind: docker }}\n{roles}"));
    let key = lab.dir.path().join("handed-over");
    let machines = bare_hosts(&lab, &key);

    // The same hosts again, now as somebody's own.
    let own = tempfile::tempdir().expect("a folder");
    let mut text = format!(
        "cluster: own\nprovider: {{ kind: existing }}\nssh: {{ identity_file: {} }}\n\
         ca_bundle: /etc/ssl/certs/ca-certificates.crt\n\
         postgresql: {{ version: distro, data_dir: /srv/pg/main }}\nhosts:\n",
        key.display()
    );
    for (host, machine) in &machines {
        let roles = if host.as_str() == "door" {
            "haproxy"
        } else {
            "postgres, etcd"
        };
        let address = machine.address.expect("an address");
        text.push_str(&format!(
            "  {host}: {{ roles: [{roles}], address: {address} }}\n"
        ));
    }
    fs::write(own.path().join("pgherd.yaml"), text).expect("an inventory");
    let pgherd = |words: &[&str], code: i32| {
        let output = lab
            .command(words)
            .current_dir(own.path())
            .env("HOME", own.path())
            .output()
            .expect("pgherd runs");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "pgherd {words:?}\n{said}");
        said
    };

    // A host whose key nobody has vouched for is not trusted, and the error says how to.
    let said = pgherd(&["up", "--yes"], 1);
    assert!(said.contains("ssh-keyscan"), "{said}");
    fs::create_dir_all(own.path().join(".ssh")).expect("a folder");
    let known: String = machines
        .values()
        .map(|machine| {
            format!(
                "{} {}\n",
                machine.address.expect("an address"),
                machine.host_key.as_deref().expect("a key").trim()
            )
        })
        .collect();
    fs::write(own.path().join(".ssh/known_hosts"), known).expect("known hosts");

    // Somebody's data, and somebody's process, stop the run before it changes anything.
    let on =
        |host: &str, line: &str| pgherd(&["ssh", host, "--", &format!("sudo sh -c '{line}'")], 0);
    pgherd(&["plan"], 0);
    pgherd(&["up"], 2);
    on(
        "beta",
        "mkdir -p /srv/pg/main && echo precious >/srv/pg/main/data",
    );
    let said = pgherd(&["up", "--yes"], 1);
    assert!(
        said.contains("/srv/pg/main is not empty") && said.contains("beta"),
        "{said}"
    );
    assert!(on("beta", "cat /srv/pg/main/data").contains("precious"));
    assert!(on("alpha", "ls /etc/pgherd 2>/dev/null || echo untouched").contains("untouched"));
    on("beta", "rm -r /srv/pg/main");
    on(
        "gamma",
        "systemd-run --quiet --unit=squatter /usr/sbin/sshd -D -p 5432 -o PidFile=none",
    );
    let said = pgherd(&["up", "--yes"], 1);
    assert!(
        said.contains("port 5432 is taken") && said.contains("squatter.service"),
        "{said}"
    );
    on("gamma", "systemctl stop squatter");
    on("alpha", "echo \"10.9.9.9 mine\" >>/etc/hosts");

    pgherd(&["up", "--yes"], 0);
    let said = pgherd(&["up"], 0);
    assert!(said.contains("nothing to do"), "{said}");
    assert!(on("alpha", "cat /etc/hosts").contains("10.9.9.9 mine"));

    let before = on(
        "alpha",
        "ls /opt /var/lib/etcd; command -v haproxy etcd || true",
    );
    assert!(before.contains("patroni"), "{before}");
    pgherd(&["down", "--yes"], 0);
    pgherd(&["down", "--yes"], 0);
    // The hosts are still theirs; the keys of the cluster are gone, so this goes by their own.
    let ssh = |host: &str, line: &str| {
        let machine = &machines[&HostName::new(host)];
        let output = Command::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "UserKnownHostsFile=.ssh/known_hosts",
                "-o",
                "BatchMode=yes",
                "-i",
            ])
            .arg(&key)
            .arg(format!("ubuntu@{}", machine.address.expect("an address")))
            .arg(line)
            .current_dir(own.path())
            .output()
            .expect("ssh runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let left = ssh(
        "alpha",
        "ls -d /etc/pgherd /etc/patroni.yml /opt/patroni /srv/pg/main /var/lib/pgherd /etc/systemd/system/patroni.service 2>/dev/null; cat /etc/hosts; dpkg -l | grep -cE 'postgresql-[0-9]|etcd-server' || true; systemctl is-active patroni etcd",
    );
    assert!(
        !left.contains("pgherd")
            && !left.contains("/opt/patroni")
            && !left.contains("/srv/pg/main"),
        "{left}"
    );
    assert!(
        left.contains("10.9.9.9 mine") && left.contains("\n0\n"),
        "{left}"
    );
}
