//! The script that restores the cluster's names after something has rewritten `/etc/hosts`.

use std::{fs, path::Path, process::Command};

use crate::fixture::{HOSTS, cluster, file, rendered};

/// Runs the script on an `/etc/hosts` with this content; returns whether it succeeded, and the file after it.
fn put_back(hosts: &str) -> (bool, String) {
    let files = rendered(&cluster(&HOSTS, true));
    let script = file(&files, "node4", "/etc/pgherd/put-hosts");
    let copy = file(&files, "node4", "/etc/pgherd/hosts");
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("hosts"), hosts).unwrap();
    fs::write(at("copy"), copy.content.as_str()).unwrap();
    let moved = |text: &str, from: &str, to: &Path| {
        let (from, to) = (format!("={from}\n"), format!("={}\n", to.display()));
        assert!(text.contains(&from));
        text.replace(&from, &to)
    };
    let script = moved(&script.content, "/etc/hosts", &at("hosts"));
    let script = moved(&script, "/etc/pgherd/hosts", &at("copy"));
    fs::write(at("script"), script).unwrap();
    let run = || Command::new("/bin/sh").arg(at("script")).output().unwrap();
    let output = run();
    let after = fs::read_to_string(at("hosts")).unwrap();
    run();
    let again = fs::read_to_string(at("hosts")).unwrap();
    assert_eq!(again, after, "a second run changes nothing");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "it leaves nothing beside the file");
    (output.status.success(), after)
}

#[test]
fn names_that_are_gone_come_back_and_other_lines_stay() {
    let files = rendered(&cluster(&HOSTS, true));
    let block = file(&files, "node4", "/etc/pgherd/hosts").content.as_str();
    let begin = block.lines().next().unwrap();
    let mine = "127.0.0.1 localhost\n10.9.9.9 mine\n";
    for (what, hosts) in [
        ("written anew", mine.to_owned()),
        ("without a line's end", mine.trim_end().to_owned()),
        ("as it should be", format!("{mine}{block}")),
        (
            "with other addresses",
            format!(
                "127.0.0.1 localhost\n{}10.9.9.9 mine\n",
                block.replace("  node", " not-node")
            ),
        ),
    ] {
        let (well, after) = put_back(&hosts);
        assert!(well, "{what}");
        assert_eq!(after, format!("{mine}{block}"), "{what}");
    }
    let torn = format!("{begin}\n10.9.9.9 mine\n");
    assert_eq!(put_back(&torn), (false, torn), "whose lines are whose?");
}

#[test]
fn the_copy_is_what_the_run_puts_into_the_file() {
    let cluster = cluster(&HOSTS, true);
    let files = rendered(&cluster);
    let block = file(&files, "node4", "/etc/hosts");
    let merged = pgherd::render::merge_block("", &block.content, cluster.name()).unwrap();
    assert_eq!(
        file(&files, "node4", "/etc/pgherd/hosts").content.as_str(),
        merged
    );
    let unit = file(
        &files,
        "node4",
        "/etc/systemd/system/etcd.service.d/pgherd.conf",
    );
    assert!(
        unit.content
            .contains("ExecStartPre=+-/bin/sh /etc/pgherd/put-hosts")
    );
}
