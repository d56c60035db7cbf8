//! A host on which everything that pgherd would take belongs to somebody else, or is a package's default.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use pgherd::{
    event::Events,
    inventory::{HostName, Inventory},
    provider::{self, Access},
};

use crate::support::{Lab, base_image, docker, prepared_image};

const HOST: &str = "all";

/// An existing host with every role; what its owner does there does not go through pgherd.
struct Theirs {
    lab: Lab,
    dir: tempfile::TempDir,
}

impl Theirs {
    fn new(test: &str, image: &str) -> Self {
        let roles = "hosts: { all: { roles: [postgres, etcd, haproxy] } }\n";
        let lab = Lab::new(
            test,
            &format!("provider: {{ kind: docker, image: '{image}' }}\n{roles}"),
        );
        let dir = tempfile::tempdir().expect("a folder");
        let key = dir.path().join("key");
        let status = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status();
        assert!(status.expect("ssh-keygen runs").success());
        let inventory = Inventory::load(&lab.inventory()).expect("a right inventory");
        let provider = provider::from_inventory(&inventory).expect("a provider");
        let access = Access {
            user: "ubuntu".into(),
            public_key: fs::read_to_string(key.with_extension("pub")).expect("a key"),
            cluster_id: "0a1b2c3d4e5f".into(),
            holder: pgherd::holder::Holder::now("up"),
        };
        let (events, _quiet) = Events::channel();
        let machine = tokio::runtime::Runtime::new()
            .expect("a runtime")
            .block_on(provider.launch(&[HostName::new(HOST)], &access, &events))
            .expect("a host")
            .remove(0);
        let address = machine.address.expect("an address");
        let known = dir.path().join(".ssh");
        fs::create_dir(&known).expect("a folder");
        let host_key = machine.host_key.expect("a key");
        fs::write(
            known.join("known_hosts"),
            format!("{address} {}\n", host_key.trim()),
        )
        .expect("known hosts");
        let text = format!(
            "cluster: theirs\nprovider: {{ kind: existing }}\nssh: {{ identity_file: {} }}\n\
             ca_bundle: /etc/ssl/certs/ca-certificates.crt\n\
             postgresql: {{ version: distro, data_dir: /srv/pg/main }}\n\
             hosts: {{ all: {{ roles: [postgres, etcd, haproxy], address: {address} }} }}\n",
            key.display()
        );
        fs::write(dir.path().join("pgherd.yaml"), text).expect("an inventory");
        Self { lab, dir }
    }

    fn pgherd(&self, words: &[&str], code: i32) -> String {
        let mut command = self.lab.command(words);
        let output = command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            .output()
            .expect("pgherd runs");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "pgherd {words:?}\n{said}");
        said
    }

    /// Types lines as root on the host.
    fn on(&self, lines: &str) -> String {
        docker(&["exec", &self.lab.container(HOST), "sh", "-ec", lines])
    }

    /// Every file, link and folder with its owner, mode and content; packages and their marks; units.
    fn everything(&self) -> BTreeSet<String> {
        let said = self.on(
            r"find /etc /opt /usr/local /usr/sbin /srv /var/lib/etcd /var/lib/postgresql /var/lib/haproxy \
                -name __pycache__ -prune -o -printf '%p %y %u:%g %m %l\n'
              find /etc /opt /usr/local /usr/sbin/policy-rc.d* /srv -name __pycache__ -prune -o -type f -print0 2>/dev/null |
                xargs -0 sha256sum
              dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n'
              apt-mark showmanual | sed 's/^/manual /'
              systemctl list-unit-files --no-legend --no-pager
              systemctl list-units --type service --state active,failed --no-legend --no-pager --plain |
                grep -E '^(haproxy|etcd|patroni|postgresql|mine)' || true
              ls -d /var/lib/pgherd /run/pgherd 2>/dev/null || true",
        );
        said.lines().map(str::to_owned).collect()
    }
}

/// The differences between the two.
fn difference(before: &BTreeSet<String>, after: &BTreeSet<String>) -> String {
    let gone = before.difference(after).map(|line| format!("- {line}\n"));
    let new = after.difference(before).map(|line| format!("+ {line}\n"));
    gone.chain(new).collect()
}

/// The paths of all files that `render --out` would write, which are those that a run would write.
fn rendered(theirs: &Theirs) -> Vec<String> {
    let out = theirs.dir.path().join("out");
    theirs.pgherd(&["render", "--out", &out.display().to_string()], 0);
    let root = out.join(HOST);
    let mut paths = Vec::new();
    walk(&root, &root, &mut paths);
    paths.retain(|path| path != "/etc/hosts");
    assert!(paths.len() > 15, "{paths:?}");
    paths
}

fn walk(root: &Path, folder: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(root, &path, paths);
        } else {
            let path = path.strip_prefix(root).expect("below it");
            paths.push(format!("/{}", path.display()));
        }
    }
}

#[test]
fn where_everything_is_somebodys_all_of_it_is_named_and_nothing_is_changed() {
    let theirs = Theirs::new("foreign", &prepared_image());
    let paths = rendered(&theirs);
    theirs.on("version=$(ls /usr/lib/postgresql)
        pg_createcluster --port 5499 $version main >/dev/null
        systemctl start postgresql@$version-main");
    let units = [
        "/etc/default/etcd",
        "/etc/haproxy/haproxy.cfg",
        "/etc/systemd/system/patroni.service",
        "/etc/systemd/system/etcd.service.d/pgherd.conf",
        "/etc/systemd/system/haproxy.service.d/pgherd.conf",
    ];
    for path in paths.iter().filter(|path| !units.contains(&path.as_str())) {
        theirs.on(&format!(
            "mkdir -p $(dirname {path}); echo 'nobody = else' >{path}"
        ));
    }
    let taken = r"
        cd /etc/systemd/system
        mkdir -p etcd.service.d haproxy.service.d /srv/pg/main /srv/pg/main.failed /var/lib/etcd/pgherd-theirs/member
        printf '[Service]\nLimitNOFILE=4096\n' | tee etcd.service.d/pgherd.conf haproxy.service.d/pgherd.conf >etcd.service.d/mine.conf
        printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' >patroni.service
        printf 'ETCD_NAME=mine\nETCD_DATA_DIR=/var/lib/etcd/mine\n' >/etc/default/etcd
        printf 'defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\nfrontend site\n  bind *:8080\n' >/etc/haproxy/haproxy.cfg
        echo precious | tee /srv/pg/main/data /srv/pg/main.failed/data >/var/lib/etcd/pgherd-theirs/member/data
        rm /opt/patroni/.pgherd
        mkdir /opt/patroni.old
        printf '#!/bin/sh\nexit 0\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        systemctl daemon-reload
        systemctl enable --quiet --now haproxy etcd patroni
        for port in 5432 8008 5000 5001 7000; do
          systemd-run --quiet --unit=mine-$port /usr/sbin/sshd -D -p $port -o PidFile=none
        done";
    theirs.on(taken);
    let before = theirs.everything();

    for verb in [&["plan"][..], &["up", "--yes"]] {
        let said = theirs.pgherd(verb, 1);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        for path in &paths {
            assert!(said.contains(path), "{verb:?}: {path} is not in\n{said}");
        }
        for what in [
            "/etc/haproxy/haproxy.cfg (haproxy.service is active)",
            "/etc/default/etcd (etcd.service is active)",
            "/etc/systemd/system/etcd.service.d/mine.conf exists",
            "/opt/patroni exists",
            "/opt/patroni.old exists",
            "/var/lib/etcd/pgherd-theirs exists",
            "/srv/pg/main is not empty",
            "/srv/pg/main.failed exists",
            "another PostgreSQL runs here",
            "port 5432 is taken",
            "port 8008 is taken",
            "port 2379 is taken",
            "port 2380 is taken",
            "port 5000 is taken",
            "port 5001 is taken",
            "port 7000 is taken",
        ] {
            assert!(said.contains(what), "{verb:?}: {what} is not in\n{said}");
        }
    }
    let after = theirs.everything();
    assert!(before == after, "{}", difference(&before, &after));
}

#[test]
fn what_packages_came_with_is_given_back_to_the_byte() {
    let theirs = Theirs::new("defaults", &prepared_image());
    theirs.on(r"systemctl enable --quiet --now haproxy
        echo '10.9.9.9 mine' >>/etc/hosts
        mkdir -p /etc/systemd/system/haproxy.service.d
        printf '#!/bin/sh\nexit 0\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d");
    let before = theirs.everything();
    // As left by a run that is killed while it installs packages.
    theirs.on(
        r"cd /usr/sbin
        mv policy-rc.d policy-rc.d.pgherd-saved
        printf '#!/bin/sh\n# pgherd: no service starts while packages are installed\nexit 101\n' >policy-rc.d",
    );
    theirs.pgherd(&["up", "--yes"], 0);
    assert!(theirs.on("cat /usr/sbin/policy-rc.d").contains("exit 0"));
    assert!(theirs.on("cat /etc/haproxy/haproxy.cfg").contains("pgherd"));
    let said = theirs.pgherd(&["up"], 0);
    assert!(said.contains("nothing to do"), "{said}");
    theirs.pgherd(&["down", "--yes"], 0);
    let after = theirs.everything();
    assert!(before == after, "{}", difference(&before, &after));
}

/// A firewall that came later needs a package that pgherd installed, and so does another database.
#[test]
fn soak_packages_that_others_need_stay() {
    let theirs = Theirs::new("needed", &base_image());
    let before = theirs.on("dpkg-query -W -f '${Package}\\n'");
    theirs.pgherd(&["up", "--yes"], 0);
    theirs.on("export DEBIAN_FRONTEND=noninteractive; apt-get install -y -qq --no-install-recommends ufw >/dev/null 2>&1
        pg_createcluster --port 5499 $(ls /usr/lib/postgresql) later >/dev/null
        systemctl start postgresql@$(ls /usr/lib/postgresql)-later");
    let said = theirs.pgherd(&["down", "--yes"], 0);
    assert!(said.contains("needed by") && said.contains("ufw"), "{said}");
    let after = theirs.on("dpkg-query -W -f '${Package} ${db:Status-Status}\\n'");
    for package in ["ufw installed", "python3 installed"] {
        assert!(
            after.lines().any(|line| line == package),
            "{package}\n{after}"
        );
    }
    assert!(
        !after.contains("haproxy installed") && !after.contains("etcd-server installed"),
        "{after}"
    );
    let runs = "su postgres -c 'psql -p 5499 -Atc \"select 40 + 2\"'";
    assert_eq!(theirs.on(runs).trim(), "42");
    // Both have the same ports on this machine.
    drop(theirs);

    // Without them, everything that was installed is removed.
    let theirs = Theirs::new("unneeded", &base_image());
    theirs.pgherd(&["up", "--yes"], 0);
    let said = theirs.pgherd(&["down", "--yes"], 0);
    assert!(!said.contains("stays"), "{said}");
    assert_eq!(theirs.on("dpkg-query -W -f '${Package}\\n'"), before);
}
