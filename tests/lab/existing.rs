//! Existing hosts of the user, with things on them that are not pgherd's.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, path::PathBuf, process::Command};

use pgherd::{
    event::Events,
    inventory::{HostName, Inventory},
    provider::{self, Access, Machine},
};

use crate::support::{Lab, base_image, docker, prepared_image};

const HOSTS: [&str; 4] = ["alpha", "beta", "gamma", "door"];

/// Bare hosts as a colleague would provide them: addresses, a key that opens them, and their own keys to
/// compare.
pub(crate) fn bare_hosts(
    lab: &Lab,
    key: &std::path::Path,
    names: &[&str],
) -> BTreeMap<HostName, Machine> {
    if !key.exists() {
        let status = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(key)
            .status()
            .expect("ssh-keygen runs");
        assert!(status.success());
    }
    let inventory = Inventory::load(&lab.inventory()).expect("a right inventory");
    let provider = provider::from_inventory(&inventory).expect("a provider");
    let access = Access {
        user: "ubuntu".into(),
        public_key: fs::read_to_string(key.with_extension("pub")).expect("a key"),
        cluster_id: "0a1b2c3d4e5f".into(),
        holder: pgherd::holder::Holder::now("up"),
    };
    let hosts: Vec<HostName> = names.iter().copied().map(HostName::new).collect();
    let (events, _quiet) = Events::channel();
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(provider.launch(&hosts, &access, &events))
        .expect("hosts")
        .into_iter()
        .map(|machine| (machine.host.clone(), machine))
        .collect()
}

/// The same hosts as existing ones, in a folder that knows nothing of the engine.
struct Own<'a> {
    lab: &'a Lab,
    dir: tempfile::TempDir,
    key: PathBuf,
    addresses: BTreeMap<&'static str, Ipv4Addr>,
}

impl<'a> Own<'a> {
    fn new(lab: &'a Lab, key: PathBuf, machines: &BTreeMap<HostName, Machine>) -> Self {
        let address = |host| machines[&HostName::new(host)].address.expect("an address");
        let own = Self {
            lab,
            dir: tempfile::tempdir().expect("a folder"),
            key,
            addresses: HOSTS
                .into_iter()
                .map(|host| (host, address(host)))
                .collect(),
        };
        own.write(&own.addresses);
        own
    }

    fn write(&self, addresses: &BTreeMap<&str, Ipv4Addr>) {
        let mut text = format!(
            "cluster: own\nprovider: {{ kind: existing }}\nssh: {{ identity_file: {} }}\n\
             ca_bundle: /etc/ssl/certs/ca-certificates.crt\n\
             postgresql: {{ version: distro, data_dir: /srv/pg/main }}\nhosts:\n",
            self.key.display()
        );
        for (host, address) in addresses {
            let roles = if *host == "door" {
                "haproxy"
            } else {
                "postgres, etcd"
            };
            text.push_str(&format!(
                "  {host}: {{ roles: [{roles}], address: {address} }}\n"
            ));
        }
        fs::write(self.dir.path().join("pgherd.yaml"), text).expect("an inventory");
    }

    fn pgherd(&self, words: &[&str], code: i32) -> String {
        let mut command = self.lab.command(words);
        let output = self.here(&mut command).output().expect("pgherd runs");
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "pgherd {words:?}\n{said}");
        said
    }

    fn here<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
    }

    /// Types lines into the user's own shell.
    fn shell(&self, lines: &str) {
        let mut shell = Command::new("sh");
        let output = self.here(shell.args(["-ec", lines])).output();
        let output = output.expect("sh runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{lines}\n{said}");
    }

    /// Runs a shell line as root on a host, as a person would.
    fn on(&self, host: &str, line: &str) -> String {
        self.pgherd(&["ssh", host, "--", &format!("sudo sh -c '{line}'")], 0)
    }

    /// The same with the hosts' own keys, for when those of the cluster are gone.
    fn past_pgherd(&self, host: &str, line: &str) -> String {
        let mut command = Command::new("ssh");
        command
            .args(["-F", "none", "-o", "UserKnownHostsFile=.ssh/known_hosts"])
            .args(["-o", "BatchMode=yes", "-i"])
            .arg(&self.key)
            .arg(format!("ubuntu@{}", self.addresses[host]))
            .arg(line);
        let output = self.here(&mut command).output().expect("ssh runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn what_was_there_is_respected_and_what_was_put_there_goes_again() {
    let roles = "hosts:\n  alpha: { roles: [postgres, etcd] }\n  beta: { roles: [postgres, etcd] }\n  \
                 gamma: { roles: [postgres, etcd] }\n  door: { roles: [haproxy] }\n";
    let on = |image: &str| format!("provider: {{ kind: docker, image: '{image}' }}\n{roles}");
    let lab = Lab::new("own", &on(&prepared_image()));
    let key = lab.dir.path().join("handed-over");
    let mut machines = bare_hosts(&lab, &key, &HOSTS[1..]);
    // Packages are installed and removed on only one host, because each takes half a minute.
    lab.write_inventory(&on(&base_image()));
    machines.extend(bare_hosts(&lab, &key, &HOSTS[..1]));

    let mut own = Own::new(&lab, key, &machines);

    // A host whose key is not trusted is refused, and the error says what to do.
    let said = own.pgherd(&["up", "--yes"], 1);
    assert!(said.contains("ssh-keyscan"), "{said}");
    fs::create_dir_all(own.dir.path().join(".ssh")).expect("a folder");
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
    fs::write(own.dir.path().join(".ssh/known_hosts"), known).expect("known hosts");

    // Data and a process of somebody else stop the run before it changes anything.
    own.pgherd(&["plan"], 0);
    own.pgherd(&["up"], 2);
    own.on(
        "beta",
        "mkdir -p /srv/pg/main && echo precious >/srv/pg/main/data",
    );
    let said = own.pgherd(&["up", "--yes"], 1);
    assert!(
        said.contains("/srv/pg/main is not empty") && said.contains("beta"),
        "{said}"
    );
    assert!(own.on("beta", "cat /srv/pg/main/data").contains("precious"));
    assert!(
        own.on("alpha", "ls /etc/pgherd 2>/dev/null || echo untouched")
            .contains("untouched")
    );
    own.on("beta", "rm -r /srv/pg/main");
    own.on(
        "gamma",
        "systemd-run --quiet --unit=squatter /usr/sbin/sshd -D -p 5432 -o PidFile=none",
    );
    let said = own.pgherd(&["up", "--yes"], 1);
    assert!(
        said.contains("port 5432 is taken") && said.contains("squatter.service"),
        "{said}"
    );
    own.on("gamma", "systemctl stop squatter");
    own.on("alpha", "echo \"10.9.9.9 mine\" >>/etc/hosts");

    own.pgherd(&["up", "--yes"], 0);
    let said = own.pgherd(&["up"], 0);
    assert!(said.contains("nothing to do"), "{said}");
    assert!(own.on("alpha", "cat /etc/hosts").contains("10.9.9.9 mine"));

    hosts_are_known_by_their_keys(&own);
    addresses_change(&mut own, &["gamma"]);

    let before = own.on(
        "alpha",
        "ls /opt /var/lib/etcd; command -v haproxy etcd || true",
    );
    assert!(before.contains("patroni"), "{before}");
    own.pgherd(&["down", "--yes"], 0);
    // pgherd's knowledge of the hosts' keys was removed with the cluster; the user's own ssh knows the hosts at
    // their earlier addresses.
    let addresses: Vec<String> = own.addresses.values().map(Ipv4Addr::to_string).collect();
    own.shell(&format!(
        "ssh-keyscan -t ed25519 {} >>~/.ssh/known_hosts",
        addresses.join(" ")
    ));
    own.pgherd(&["down", "--yes"], 0);
    // The hosts still exist; the cluster's keys are gone, so this uses the hosts' own.
    let left = own.past_pgherd(
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

/// Wrong addresses in the inventory, and a host that was installed anew: named, and nothing is touched.
fn hosts_are_known_by_their_keys(own: &Own<'_>) {
    let (alpha, beta) = (own.addresses["alpha"], own.addresses["beta"]);
    let files = |host| {
        own.on(
            host,
            "cat /etc/hosts /etc/patroni.yml /etc/haproxy/haproxy.cfg || true",
        )
    };
    let before = ["gamma", "door"].map(files);
    let mut swapped = own.addresses.clone();
    swapped.insert("alpha", beta);
    swapped.insert("beta", alpha);
    own.write(&swapped);
    let verbs: [&[&str]; 6] = [
        &["render", "--yes"],
        &["render", "--check"],
        &["up", "--yes"],
        &["plan"],
        &["verify"],
        &["ssh", "alpha", "--", "true"],
    ];
    for verb in verbs {
        let said = own.pgherd(verb, 1);
        let named = format!("at {beta} beta answers, not alpha");
        assert!(said.contains(&named), "{verb:?}\n{said}");
        let other = format!("at {alpha} alpha answers, not beta");
        assert!(
            verb[0] == "ssh" || said.contains(&other),
            "{verb:?}\n{said}"
        );
    }
    own.write(&own.addresses);
    assert_eq!(["gamma", "door"].map(files), before);
    // The workspace has issued certificates for those addresses meanwhile, and issues them again.
    own.pgherd(&["render", "--yes"], 0);
    own.pgherd(&["render", "--check"], 0);

    let fingerprint = "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d\" \" -f2";
    let before = own.on("door", fingerprint);
    let after = own.on(
        "door",
        &format!("rm /etc/ssh/ssh_host_*; ssh-keygen -A >/dev/null 2>&1; {fingerprint}; systemctl restart ssh"),
    );
    // An earlier connection continues: it does lead to the host whose key was pinned.
    own.pgherd(&["verify"], 0);
    own.pgherd(&["ssh", "--close"], 0);
    let said = own.pgherd(&["verify"], 1);
    assert!(
        said.contains(before.trim()) && said.contains(after.trim()) && before != after,
        "{before}{after}{said}"
    );
    // The commands from the error, typed.
    let lines = said.lines().map(str::trim);
    let advice: Vec<&str> = lines.filter(|line| line.contains("known_hosts")).collect();
    assert_eq!(advice.len(), 3, "{said}");
    own.shell(&advice.join("\n"));
    own.pgherd(&["verify"], 0);
}

/// Somebody gives hosts other addresses, and writes them into the inventory.
fn addresses_change(own: &mut Own<'_>, moving: &[&'static str]) {
    const STARTED: &str = "sed -n 3p /srv/pg/main/postmaster.pid";
    const ENTERED: &str = "systemctl show -P ActiveEnterTimestampMonotonic haproxy";
    let started = |own: &Own<'_>| {
        let databases = ["alpha", "beta", "gamma"].map(|host| own.on(host, STARTED));
        (databases, own.on("door", ENTERED))
    };
    let begun = started(own);
    for host in moving {
        let [a, b, c, d] = own.addresses[host].octets();
        let to = Ipv4Addr::new(a, b, c, d + 100);
        own.addresses.insert(host, to);
        let network = format!("{}-net", own.lab.name);
        let container = own.lab.container(host);
        docker(&["network", "disconnect", &network, &container]);
        docker(&[
            "network",
            "connect",
            "--ip",
            &to.to_string(),
            &network,
            &container,
        ]);
    }
    own.write(&own.addresses);
    let said = own.pgherd(&["render", "--check"], 4);
    for host in moving {
        let address = own.addresses[host];
        for shown in [
            format!("certificate: {host}"),
            format!("+  address: {address}"),
            format!("+{address}  {host}"),
        ] {
            assert!(said.contains(&shown), "{shown} is not in\n{said}");
        }
    }
    assert!(!said.contains("BEGIN CERTIFICATE"), "{said}");
    own.pgherd(&["render", "--yes"], 0);
    own.pgherd(&["render", "--check"], 0);
    own.pgherd(&["verify"], 0);
    assert_eq!(started(own), begun, "what need not start anew did not");
}
