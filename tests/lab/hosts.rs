//! Hosts changed by hardening guides and by time: what pgherd needs is checked first, what it does not need
//! makes no difference, and what it made is corrected.

use crate::support::{Lab, base_image, docker, prepared_image};

/// What a login on such a host does before a command: another umask, output on both streams, and variables that
/// change what commands do; what sudo adds to it; and a name that does not resolve.
const LOGIN: &str = r#"cat >/usr/local/bin/noisy <<'SH'
#!/bin/sh
umask 077
echo 'Welcome to a hardened host'
printf 'without an end of line' >&2
TMPDIR=/nowhere CDPATH=/etc:/var LC_ALL=de_DE.UTF-8 PGOPTIONS='-c nonsense=1' PYTHONHOME=/nowhere
export TMPDIR CDPATH LC_ALL PGOPTIONS PYTHONHOME
exec /bin/bash "$@"
SH
chmod 755 /usr/local/bin/noisy
usermod -s /usr/local/bin/noisy ubuntu
cat >/etc/sudoers.d/zz-odd <<'SUDO'
Defaults umask=0077, umask_override
Defaults use_pty
Defaults env_keep += "TMPDIR CDPATH LC_ALL PGOPTIONS PYTHONHOME"
Defaults secure_path=/nowhere:/usr/bin:/bin
SUDO
chmod 440 /etc/sudoers.d/zz-odd
printf 'Defaults fqdn\n' >>/etc/sudoers.d/zz-odd
sed -i 's/ myhostname//' /etc/nsswitch.conf
hostname a-name-that-nobody-knows
mount -t tmpfs -o noexec tmpfs /tmp"#;

fn inventory(image: &str) -> String {
    format!(
        "provider: {{ kind: docker, image: \"{image}\" }}\npostgresql: {{ version: distro }}\n\
         patroni: {{ ttl: 20, loop_wait: 2, retry_timeout: 5 }}\nhosts:\n  \
         one: {{ roles: [postgres, etcd, haproxy] }}\n  two: {{ roles: [postgres] }}\n"
    )
}

/// Runs a shell line as root on a host, not over SSH.
fn on(lab: &Lab, host: &str, line: &str) -> String {
    docker(&["exec", &lab.container(host), "sh", "-ec", line])
}

fn on_both(lab: &Lab, line: &str) {
    for host in ["one", "two"] {
        on(lab, host, line);
    }
}

#[test]
fn hardened_hosts_are_refused_with_every_finding_and_served_once_they_can_be() {
    let lab = Lab::new("hosts", &inventory(&prepared_image()));
    // The hosts are created, and nothing is done on them: data of somebody else stops the run.
    let stop = "mkdir -p /data/patroni && echo mine >/data/patroni/mine";
    let image = format!("{}:hardened", lab.name);
    let container = docker(&[
        "create",
        "--entrypoint",
        "sh",
        &prepared_image(),
        "-c",
        stop,
    ]);
    let container = container.trim();
    docker(&["start", "-a", container]);
    docker(&[
        "commit",
        "--change",
        "ENTRYPOINT [\"/sbin/pgherd-init\"]",
        "--change",
        "CMD []",
        container,
        &image,
    ]);
    docker(&["rm", container]);
    lab.write_inventory(&inventory(&image));
    let said = lab.expect(1, &["up", "--yes"]).stderr;
    assert!(said.contains("/data/patroni is not empty"), "{said}");
    docker(&["exec", &lab.container("one"), "rm", "-r", "/data"]);
    docker(&[
        "exec",
        &lab.container("two"),
        "sh",
        "-c",
        "rm -r /data/patroni; chmod 700 /data",
    ]);

    on_both(&lab, LOGIN);
    let warned = on(&lab, "one", "su ubuntu -c 'sudo -n true' 2>&1");
    assert!(warned.contains("unable to resolve host"), "{warned}");
    on(
        &lab,
        "one",
        "echo 'AllowTcpForwarding no' >>/etc/ssh/sshd_config; systemctl reload ssh",
    );
    for verb in [&["plan"][..], &["up", "--yes"][..]] {
        let said = lab.expect(1, verb).stderr;
        for part in [
            "sshd refuses to forward connections",
            "administratively prohibited",
            "AllowTcpForwarding",
            "/data does not let postgres pass (root:root 0700)",
        ] {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
    }
    on_both(&lab, "test ! -e /etc/pgherd");

    on(
        &lab,
        "one",
        "sed -i /AllowTcpForwarding/d /etc/ssh/sshd_config; systemctl reload ssh",
    );
    on(&lab, "two", "chmod 755 /data");
    lab.expect(0, &["up", "--yes"]);
    let said = lab.expect(0, &["up", "--yes"]).stderr;
    assert!(said.contains("nothing to do"), "{said}");

    folders_are_put_right(&lab);
    clocks_and_disks_are_part_of_the_proof(&lab);
    drop(lab);
    docker(&["rmi", &image]);
}

fn folders_are_put_right(lab: &Lab) {
    on_both(
        lab,
        "chmod 750 /etc/pgherd /etc/pgherd/tls/postgres; chmod 700 /opt/patroni/lib /data; chmod 755 /data/patroni",
    );
    lab.expect(4, &["plan", "--check"]);
    let said = lab.expect(3, &["verify"]).stdout;
    assert!(said.contains("/etc/pgherd/tls/postgres on "), "{said}");
    lab.expect(0, &["up", "--yes"]);
    let modes = "stat -c '%a %U' /etc/pgherd /etc/pgherd/tls/postgres /opt/patroni/lib /data/patroni; setpriv --reuid=postgres --regid=postgres --init-groups test -x /data && echo passable";
    for host in ["one", "two"] {
        assert_eq!(
            on(lab, host, modes),
            "755 root\n755 root\n755 root\n700 postgres\npassable\n"
        );
    }
    lab.expect(0, &["plan", "--check"]);
}

fn clocks_and_disks_are_part_of_the_proof(lab: &Lab) {
    // The containers share a clock, so only the output of one host's `date` is wrong.
    on(
        lab,
        "two",
        "printf '#!/bin/sh\\nexec /usr/bin/date -d \"+5 min\" \"$@\"\\n' >/usr/local/bin/date; chmod 755 /usr/local/bin/date",
    );
    on(
        lab,
        "one",
        "mount -t tmpfs -o size=80m tmpfs /var/log; head -c 30000000 /dev/zero >/var/log/fill",
    );
    let said = lab.expect(3, &["verify"]);
    let said = format!("{}{}", said.stdout, said.stderr);
    assert!(said.contains("two's clock is 5 min ahead"), "{said}");
    assert!(said.contains("/var/log on one is nearly full"), "{said}");
    on(lab, "two", "sed -i 's/5 min/3 days/' /usr/local/bin/date");
    let said = lab.expect(1, &["plan"]).stderr;
    assert!(
        said.contains("its clock is") && said.contains("days ahead"),
        "{said}"
    );
    on(lab, "two", "rm /usr/local/bin/date");
    on(lab, "one", "umount /var/log");
    lab.expect(0, &["verify"]);
}

/// Bare hosts on which another process uses apt and dpkg, and one of whose package sources is dead.
#[test]
fn soak_packages_come_although_somebody_else_is_at_work() {
    let lab = Lab::new("apt", &inventory(&base_image()));
    lab.write_inventory(&format!(
        "ca_bundle: /etc/ssl/certs/ca-certificates.crt\n{}",
        inventory(&base_image())
    ));
    // A first run that is killed when the hosts exist. For apt, a source whose name does not resolve is a
    // temporary problem and only a warning; a source that does not exist is an error.
    assert!(lab.kill_up(|event| event["event"] == "planned"));
    on(
        &lab,
        "one",
        "echo 'deb [trusted=yes] file:/no/such/repository bookworm main' >/etc/apt/sources.list.d/dead.list",
    );
    // A package of somebody else whose installation fails, and what an interrupted dpkg leaves.
    on(
        &lab,
        "two",
        "mkdir -p /root/acme/DEBIAN; cd /root/acme/DEBIAN; \
         printf 'Package: acme\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b.c>\\nDescription: x\\n' >control; \
         printf '#!/bin/sh\\necho no licence >&2; exit 1\\n' >postinst; chmod 755 postinst; \
         dpkg-deb -b /root/acme /root/acme.deb >/dev/null; dpkg -i /root/acme.deb || true; \
         touch /var/lib/dpkg/updates/0000",
    );
    for (host, lock, seconds) in [
        ("one", "/var/lib/apt/lists/lock", "20"),
        ("one", "/var/cache/apt/archives/lock", "35"),
        ("two", "/var/lib/dpkg/lock-frontend", "20"),
        ("two", "/var/lib/dpkg/lock", "35"),
    ] {
        docker(&[
            "exec",
            "-d",
            &lab.container(host),
            "flock",
            lock,
            "sleep",
            seconds,
        ]);
    }
    let said = lab.expect(0, &["up", "--yes"]);
    let logs = format!("{}{}", said.stderr, lab.logs());
    for part in [
        "waiting for apt's lock, held by flock",
        "waiting for dpkg's lock, held by flock",
        "not every package source can be used",
        "dpkg cannot configure every package that is there",
        "apt has failed for acme",
    ] {
        assert!(logs.contains(part), "{part} is not in\n{logs}");
    }
}
