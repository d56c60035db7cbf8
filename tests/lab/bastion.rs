//! Hosts of a private subnet: from this machine, nothing on them answers, and another host is the only way.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use pgherd::provider::Machine;

use crate::{
    existing::bare_hosts,
    support::{Lab, docker, prepared_image},
};

const HOSTS: [&str; 2] = ["one", "two"];

/// A user's folder: an inventory, a key, settings for `ssh`, and the keys of hosts that the user has accepted.
struct User<'a> {
    lab: &'a Lab,
    dir: tempfile::TempDir,
    key: PathBuf,
    machines: Vec<Machine>,
}

impl User<'_> {
    fn address(&self, host: &str) -> Ipv4Addr {
        let machine = self.machines.iter().find(|it| it.host.as_str() == host);
        machine.and_then(|it| it.address).unwrap()
    }

    /// An inventory in which the hosts have the addresses of these machines.
    fn write(&self, one: &str, two: &str) {
        let text = format!(
            "cluster: private\nprovider: {{ kind: existing }}\n\
             ssh: {{ identity_file: {}, proxy_jump: ubuntu@entrance, config: settings, connect_timeout: 10 }}\n\
             postgresql: {{ version: distro }}\nhosts:\n  \
             one: {{ roles: [postgres, etcd, haproxy], address: {} }}\n  \
             two: {{ roles: [postgres], address: {} }}\n",
            self.key.display(),
            self.address(one),
            self.address(two)
        );
        fs::write(self.dir.path().join("pgherd.yaml"), text).unwrap();
        let settings = format!(
            "Host entrance\n  HostName {}\nHost *\n  Compression yes\n",
            self.address("jump")
        );
        fs::write(self.dir.path().join("settings"), settings).unwrap();
    }

    /// The user has accepted the keys of these hosts, at their addresses, and of no others.
    fn knows(&self, hosts: &[&str]) {
        let line = |host: &&str| {
            let machine = self.machines.iter().find(|it| it.host.as_str() == *host);
            let key = machine.and_then(|it| it.host_key.as_deref()).unwrap();
            format!("{} {}\n", self.address(host), key.trim())
        };
        let known: String = hosts.iter().map(line).collect();
        let folder = self.dir.path().join(".ssh");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("known_hosts"), known).unwrap();
    }

    fn output(&self, words: &[&str]) -> Output {
        let mut command = self.lab.command(words);
        let command = command.current_dir(self.dir.path());
        let output = command.env("HOME", self.dir.path()).output().unwrap();
        crate::support::schemas::check_if_json(words, &output.stdout);
        output
    }

    fn pgherd(&self, code: i32, words: &[&str]) -> String {
        let output = self.output(words);
        let said = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
        let said = said.concat();
        assert_eq!(output.status.code(), Some(code), "pgherd {words:?}\n{said}");
        said
    }

    /// Runs a shell line as root on a host, without SSH.
    fn inside(&self, host: &str, line: &str) -> String {
        docker(&["exec", &self.lab.container(host), "sh", "-c", line])
    }

    fn answers(&self, host: &str, port: u16) -> bool {
        let at = SocketAddr::from((self.address(host), port));
        TcpStream::connect_timeout(&at, Duration::from_secs(2)).is_ok()
    }
}

#[test]
fn hosts_behind_a_bastion_are_reached_through_it_and_by_nothing_else() {
    let hosts = format!(
        "provider: {{ kind: docker, image: '{}' }}\nhosts:\n  jump: {{ roles: [haproxy] }}\n  \
         one: {{ roles: [postgres, etcd] }}\n  two: {{ roles: [postgres] }}\n",
        prepared_image()
    );
    let lab = Lab::new("bastion", &hosts);
    let key = lab.dir.path().join("handed-over");
    let machines = bare_hosts(&lab, &key, &["jump", "one", "two"]);
    let user = User {
        lab: &lab,
        dir: tempfile::tempdir().unwrap(),
        key,
        machines: machines.into_values().collect(),
    };
    for host in HOSTS {
        // This machine has the network's first address.
        let [a, b, c, _] = user.address(host).octets();
        user.inside(host, &format!("ip route add blackhole {a}.{b}.{c}.1/32"));
        assert!(!user.answers(host, 22), "{host} is not private");
    }
    assert!(user.answers("jump", 22));

    keys_are_accepted_by_the_user_alone(&user);
    user.pgherd(0, &["up", "--yes"]);
    let status = user.pgherd(0, &["status"]);
    assert!(status.contains("one") && status.contains("two"), "{status}");
    user.pgherd(0, &["verify"]);
    let said = user.pgherd(0, &["psql", "--", "-Atqc", "select 6 * 7"]);
    assert!(said.contains("42"), "{said}");
    let said = user.pgherd(0, &["ssh", "two", "--", "hostname"]);
    assert!(said.contains("two"), "{said}");
    user.pgherd(0, &["logs", "one", "patroni"]);
    // Its clients log in with passwords. They take no address that leads from here to anybody.
    let said = user.pgherd(0, &["switchover", "--yes"]);
    println!("{said}");
    let said = user.pgherd(0, &["up"]);
    assert!(said.contains("nothing to do"), "{said}");

    who_only_looks_is_told_as_much(&user);
    a_key_ends_what_is_watched(&user);
    another_host_is_named_that_answers_there(&user);
    a_lost_workspace_comes_back(&user);
    a_bastion_that_fails_is_named(&user);

    user.pgherd(0, &["down", "--yes"]);
    for host in HOSTS {
        let left = user.inside(host, "ls -d /etc/pgherd /etc/patroni 2>/dev/null || true");
        assert_eq!(left.trim(), "", "{host}");
    }
}

fn keys_are_accepted_by_the_user_alone(user: &User<'_>) {
    user.write("one", "two");
    user.knows(&["jump"]);
    let said = user.pgherd(1, &["plan"]);
    let from_there = format!(
        "-l ubuntu entrance ssh-keyscan -t ed25519 {} >> ~/.ssh/known_hosts",
        user.address("one")
    );
    assert!(said.contains(&from_there), "{said}");

    user.knows(&HOSTS);
    let said = user.pgherd(1, &["plan"]);
    let told = "the bastion entrance shows a host key that you have not accepted";
    assert!(said.contains(told), "{said}");

    user.knows(&["jump", "one", "two"]);
    user.pgherd(0, &["plan"]);
}

/// On a terminal, which gets its settings back.
fn a_key_ends_what_is_watched(user: &User<'_>) {
    let pgherd = env!("CARGO_BIN_EXE_pgherd");
    let there = format!("{pgherd} status --watch && stty -a");
    let mut shell = Command::new("timeout");
    let output = shell
        .args([
            "60",
            "sh",
            "-c",
            "(sleep 15; printf q; sleep 3) | script -qec \"$0\" /dev/null",
        ])
        .arg(&there)
        .current_dir(user.dir.path())
        .env("HOME", user.dir.path())
        .env("TERM", "xterm")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("q quits"), "{said}");
    assert!(
        said.contains(" icanon") && said.contains(" echo "),
        "{said}"
    );
}

/// Not about bastions, but here is a small cluster.
fn who_only_looks_is_told_as_much(user: &User<'_>) {
    let said = user.pgherd(2, &["logs", "one", "patrony"]);
    assert!(said.contains("no unit called patrony"), "{said}");
    assert!(said.contains("patroni, "), "{said}");
    user.pgherd(0, &["logs", "one", "ssh"]);

    let rows = "select count(*) from pg_stat_all_tables where schemaname = 'pgherd'";
    let before = user.pgherd(0, &["psql", "--", "-Atqc", rows]);
    let said = user.pgherd(0, &["status", "--check"]);
    assert!(said.contains("healthy, as far as"), "{said}");
    assert_eq!(user.pgherd(0, &["psql", "--", "-Atqc", rows]), before);
    user.pgherd(0, &["pause", "--yes"]);
    let said = user.pgherd(3, &["status", "--check"]);
    assert!(said.contains("FAILED pause"), "{said}");
    let output = user.output(&["status", "--check", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = status["checks"].as_array().unwrap().iter();
    let names: Vec<_> = checks.map(|it| it["name"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"pause") && !names.contains(&"front-door"),
        "{names:?}"
    );
    let disks = status["disks"].as_array().unwrap();
    let data = |host: &str| {
        let mut disks = disks.iter();
        disks.any(|it| it["host"] == host && it["holds"] == "the data directory")
    };
    assert!(data("one") && data("two"), "{disks:?}");
    user.pgherd(0, &["resume", "--yes"]);
}

fn another_host_is_named_that_answers_there(user: &User<'_>) {
    user.write("two", "one");
    let said = user.pgherd(1, &["plan"]);
    let at = user.address("two");
    assert!(
        said.contains(&format!("at {at} two answers, not one")),
        "{said}"
    );
    user.write("one", "two");
}

fn a_lost_workspace_comes_back(user: &User<'_>) {
    fs::remove_dir_all(user.dir.path().join(".pgherd")).unwrap();
    let said = user.pgherd(1, &["status"]);
    assert!(said.contains("its workspace is not"), "{said}");
    user.knows(&["jump"]);
    user.pgherd(0, &["recover", "--trust-host-keys"]);
    user.pgherd(0, &["verify"]);
}

fn a_bastion_that_fails_is_named(user: &User<'_>) {
    let config = "/etc/ssh/sshd_config.d/00-test.conf";
    for (line, told) in [
        (
            format!("echo AllowTcpForwarding no >{config}"),
            "the bastion entrance does not forward connections",
        ),
        (
            format!("echo DenyUsers ubuntu >{config}"),
            "the bastion entrance refuses the login",
        ),
        (
            format!("echo Port 2222 >{config}"),
            "the bastion entrance cannot be reached",
        ),
    ] {
        user.inside("jump", &format!("{line} && systemctl restart ssh"));
        user.pgherd(0, &["ssh", "--close"]);
        let said = user.pgherd(1, &["plan"]);
        assert!(said.contains(told), "{line}\n{said}");
    }
    user.inside("jump", &format!("rm {config} && systemctl restart ssh"));
    // The host's own fault is not the bastion's.
    user.inside(
        "two",
        "systemctl stop ssh.socket ssh 2>/dev/null || systemctl stop ssh",
    );
    let said = user.pgherd(1, &["plan"]);
    assert!(
        said.contains("the bastion entrance cannot reach the host"),
        "{said}"
    );
    user.inside("two", "systemctl start ssh");
    user.pgherd(0, &["verify"]);
}
