//! A user's own templates, with the same content as the built-in ones and another layout.

use crate::support::{Lab, prepared_image, prepared_version};

#[path = "../laid_out/mod.rs"]
mod laid_out;

const SUBNET: &str = "10.84.24";

/// All services, on two hosts.
fn inventory(tls: bool, second: u8) -> String {
    format!(
        "provider: {{ kind: docker, image: {}, subnet: {SUBNET}.0/24 }}\n\
         postgresql: {{ version: {} }}\ntls: {{ enabled: {tls} }}\nhosts:\n  \
         one: {{ roles: [postgres, etcd, haproxy], address: {SUBNET}.11 }}\n  \
         two: {{ roles: [postgres], address: {SUBNET}.{second} }}\n",
        prepared_image(),
        prepared_version()
    )
}

/// `pgherd` with these templates, which every run must be given.
fn with<'a>(words: &[&'a str]) -> Vec<&'a str> {
    [&["--templates", "mine"], words].concat()
}

#[test]
fn a_cluster_is_known_again_however_its_files_are_laid_out() {
    let lab = Lab::new("overrides", &inventory(true, 12));
    let mine = lab.dir.path().join("mine");
    assert!(laid_out::write(&mine).len() > 20);
    let nothing_to_do = || {
        let said = lab.expect(0, &with(&["plan", "--check"]));
        assert!(!said.stdout.contains("TLS is turned"), "{}", said.stdout);
    };

    lab.expect(0, &with(&["up", "--yes"]));
    assert!(
        lab.on("two", "cat /etc/patroni.yml")
            .contains("\n        - ")
    );
    nothing_to_do();
    assert_eq!(lab.sql("show ssl"), "on");

    for (tls, word) in [(false, "TLS is turned off"), (true, "TLS is turned on")] {
        lab.write_inventory(&inventory(tls, 12));
        let said = lab.expect(4, &with(&["plan", "--check"]));
        assert!(said.stdout.contains(word), "{}", said.stdout);
        lab.expect(0, &with(&["up", "--yes"]));
        assert!(!lab.workspace().join("tls").exists(), "it came to its end");
        nothing_to_do();
        assert_eq!(lab.sql("show ssl"), if tls { "on" } else { "off" });
    }

    // Reloads make another address known, and replication connects again: nothing waits for a timeout.
    lab.write_inventory(&inventory(true, 13));
    let said = lab.expect(0, &with(&["render", "--yes", "--json"]));
    let steps: Vec<String> = said
        .events()
        .iter()
        .filter(|event| event["event"] == "step_finished")
        .map(|event| format!("{} {}", event["host"], event["name"]).replace('"', ""))
        .collect();
    assert!(steps.contains(&"two reconnect-replica".into()), "{steps:?}");
    let anew = |step: &String| step.contains("restart-");
    assert!(!steps.iter().any(anew), "{steps:?}");
    nothing_to_do();

    lab.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "", "its hosts are known by their mark");
}
