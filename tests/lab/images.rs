//! Prepared images: made, inspected, used for a bring-up, and removed.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{Lab, docker, prepared_image};

/// What must not be in an image, as far as a shell can find it: one line for each.
const TRACES: &str = r#"
find /etc/ssh -name 'ssh_host_*'
find / -xdev -name authorized_keys -not -path '/proc/*'
find /etc /home /root /var /opt /srv -xdev -type f -exec grep -lE 'BEGIN ([A-Z]+ )?PRIVATE KEY' {} + 2>/dev/null |
  grep -v '\.py$'
[ ! -s /etc/machine-id ] || echo 'a machine-id'
for path in /var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/lib/pgherd /etc/pgherd /var/lib/cloud/instance \
  /etc/apt/apt.conf.d/90pgherd /usr/sbin/policy-rc.d; do
  [ ! -e "$path" ] || echo "$path"
done
find /var/log -type f
grep -rlsF "$NAME" /etc /home /root /var /opt
ls -A /var/lib/etcd /etc/systemd/system/multi-user.target.wants 2>/dev/null | grep -E 'member|etcd.service|haproxy'
true"#;

fn inventory(image: &str) -> String {
    format!(
        "provider: {{ kind: docker, image: \"{image}\" }}\npostgresql: {{ version: distro }}\n\
         hosts:\n  all: {{ roles: [postgres, etcd, haproxy] }}\n"
    )
}

/// Removes an image when the test ends in any way.
struct Made(String);

impl Drop for Made {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

#[test]
fn an_image_holds_nothing_of_a_cluster_and_a_cluster_comes_up_from_it() {
    // Its base has the packages already: other tests show their installation on bare hosts.
    let lab = Lab::new("images", &inventory(&prepared_image()));
    let builder = format!("image.{}-builder", lab.name);
    let there = || {
        let named = format!("name=^{builder}$");
        docker(&["ps", "-aq", "--filter", &named])
    };

    // A build that is killed leaves its host, which the next build removes.
    let mut killed = lab
        .command(&["image", "build", "--yes"])
        .spawn()
        .expect("pgherd runs");
    let limit = Instant::now() + Duration::from_secs(60);
    while there().trim().is_empty() && Instant::now() < limit {
        std::thread::sleep(Duration::from_millis(50));
    }
    killed.kill().expect("it is killed");
    killed.wait().expect("it has ended");
    assert!(!there().trim().is_empty(), "it has left its host");
    let said = lab.expect(0, &["image", "build", "--yes"]);
    let all = format!("{}{}", said.stdout, said.stderr);
    assert!(all.contains("an earlier build left container"), "{all}");
    assert_eq!(there().trim(), "", "what was made for the build is gone");

    let listed = |lab: &Lab| lab.json(&["image", "list", "--json"]);
    let list = listed(&lab);
    let next = list["images"]
        .as_array()
        .expect("images")
        .iter()
        .find(|image| image["used_next"] == true)
        .expect("one fits")
        .clone();
    let id = next["id"].as_str().expect("an id").to_owned();
    let _made = Made(id.clone());
    let holds = next["holds"].as_str().expect("versions");
    for part in ["postgresql-", "etcd-server ", "haproxy ", "patroni "] {
        assert!(holds.contains(part), "{holds}");
    }
    assert!(next["bytes"].as_u64() > Some(100_000_000), "{next}");
    assert_eq!(next["aged"].as_array().map(Vec::len), Some(0));
    assert_eq!(list["asked_for"], false);

    let name = format!("NAME={}", lab.name);
    let traces = docker(&[
        "run",
        "--rm",
        "-e",
        &name,
        "--entrypoint",
        "sh",
        &id,
        "-c",
        TRACES,
    ]);
    assert_eq!(traces.trim(), "", "traces in the image");

    lab.write_inventory(&inventory("prepared"));
    let plan = lab.expect(0, &["plan"]).stdout;
    assert!(plan.contains(&format!("the prepared image {id}")), "{plan}");
    assert!(!plan.contains("install-packages"), "{plan}");
    let events = lab.expect(0, &["up", "--yes", "--json"]).events();
    let installs = events.iter().filter(|event| {
        event["event"] == "step_started"
            && ["install-packages", "install-patroni"]
                .contains(&event["name"].as_str().unwrap_or(""))
    });
    assert_eq!(installs.count(), 0);
    assert_eq!(lab.sql("select 1"), "1");

    let said = lab.expect(1, &["image", "remove", &id, "--yes"]);
    assert!(said.stderr.contains("-all"), "{}", said.stderr);
    let said = lab.expect(0, &["down", "--yes"]);
    assert!(
        format!("{}{}", said.stdout, said.stderr).contains(&id),
        "down says what stays: {}",
        said.stdout
    );
    let base = docker(&["image", "inspect", "--format", "{{.Id}}", &prepared_image()]);
    let base = base.trim().trim_start_matches("sha256:");
    lab.expect(2, &["image", "remove", &base[..12], "--yes"]);
    lab.expect(0, &["image", "remove", &id[..8], "--yes"]);
    let left = listed(&lab);
    let images = left["images"].as_array().expect("images");
    assert!(images.iter().all(|image| image["id"] != id.as_str()));
}
