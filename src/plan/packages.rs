//! Which packages a host needs, and how they are installed.

use std::{collections::BTreeSet, time::Duration};

use super::{Action, Change, Found, Plan, Step, StepId, belongings, pending::note_pending};
use crate::{
    cluster::{Cluster, Node},
    facts::Facts,
    inventory::{PatroniSource, Role},
    quantity::agree,
    remote::{Script, quote},
    render::{Effect, File},
    services::When,
};

/// The step that installs all packages of a host, except those that [`INSTALL_PYTHON`] installs.
pub(super) const INSTALL: &str = "install-packages";
/// The step that installs the few packages from which Patroni's venv is made.
pub(super) const INSTALL_PYTHON: &str = "install-python";
/// The step that makes Patroni's venv.
pub(super) const INSTALL_PATRONI: &str = "install-patroni";

/// Steps that keep a core busy for seconds.
pub(super) const HEAVY: [&str; 3] = [INSTALL, INSTALL_PYTHON, INSTALL_PATRONI];

/// Shell functions that wait for dpkg's and apt's locks. They go before every command that takes these locks.
pub(crate) const LOCKS: &str = include_str!("locks.sh");
/// What comes before every call of apt, which is the shell function `apt` from then on.
pub(super) const APT: &str = include_str!("apt.sh");
const PACKAGES: &str = include_str!("packages.sh");
const VENV: &str = include_str!("patroni.sh");
const PINNED: &str = include_str!("../../templates/opt/patroni/requirements.txt");
const BACKEND: &str = include_str!("build_meta.py");

/// Packages that are requested by name, unlike their dependencies.
const NOTE_ASKED: &str = r"mkdir -p /var/lib/pgherd
printf '%s\n' $PACKAGES ${PGDG:+postgresql-common ca-certificates} >>/var/lib/pgherd/packages.asked";

/// Restores the previous `policy-rc.d`, or removes pgherd's.
pub(super) const RESTORE_POLICY: &str = r#"policy=/usr/sbin/policy-rc.d
if [ -e "$policy.pgherd-saved" ] || [ -L "$policy.pgherd-saved" ]; then
  mv -f "$policy.pgherd-saved" "$policy"
elif grep -qs '^# pgherd: no service starts' "$policy"; then
  rm -f "$policy"
fi"#;

/// The file whose digest shows which Patroni is in `/opt/patroni`.
pub(super) use crate::contract::REQUIREMENTS;

/// The packages that `node` must have, in the order of its roles.
pub(super) fn wanted(cluster: &Cluster, node: &Node) -> Vec<String> {
    let services = node.roles.iter().map(|role| role.service());
    let all = services.flat_map(|service| service.packages);
    let here = all.filter(|package| cluster.wants(package.when));
    let mut packages: Vec<String> = here
        .filter_map(|package| package.on(node.postgresql))
        .collect();
    let mut seen = BTreeSet::new();
    packages.retain(|package| seen.insert(package.clone()));
    packages
}

/// Those of them that the host lacks.
pub(super) fn missing(cluster: &Cluster, node: &Node, facts: &Facts) -> Vec<String> {
    let there = |package: &String| facts.packages.contains_key(package);
    let mut wanted = wanted(cluster, node);
    wanted.retain(|package| !there(package));
    wanted
}

/// The steps after which packages are installed, if such steps are planned.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Installed {
    /// All of them.
    pub all: Option<StepId>,
    /// Those from which Patroni's venv is made.
    pub python: Option<StepId>,
}

/// Plans what is missing.
///
/// On a host with two cores of its own, Patroni's venv is made while apt installs PostgreSQL. So the few packages
/// that the venv needs are installed first, in a step of their own, because only one apt can run at a time. Two calls
/// of apt cost more than one, so without a core to spare, all packages are installed together.
pub(super) fn install(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    facts: &Facts,
    after: Vec<StepId>,
) -> Installed {
    let wanted = wanted(cluster, node);
    let missing = missing(cluster, node, facts);
    if missing.is_empty() {
        plan.skip(
            &node.name,
            INSTALL,
            format!(
                "{} {} installed",
                wanted.join(", "),
                agree(wanted.len(), "is", "are")
            ),
        );
        let restored = facts
            .belongings
            .policy_left
            .then(|| restore_policy(plan, node, after));
        return Installed {
            all: restored,
            python: restored,
        };
    }
    let of_venv = for_the_venv(node);
    let (python, others): (Vec<String>, Vec<String>) = missing
        .iter()
        .cloned()
        .partition(|package| of_venv.contains(package));
    let beside = own_cores(cluster, facts) > 1
        && belongings::takes_venv(cluster, node)
        && !others.is_empty();
    if !beside {
        let all = Some(push(plan, cluster, node, INSTALL, missing, after));
        return Installed { all, python: all };
    }
    let first = (!python.is_empty())
        .then(|| push(plan, cluster, node, INSTALL_PYTHON, python, after.clone()));
    let after = first.map_or(after, |first| vec![first]);
    Installed {
        all: Some(push(plan, cluster, node, INSTALL, others, after)),
        python: first,
    }
}

/// How many cores a host has for itself, while all hosts are busy.
fn own_cores(cluster: &Cluster, facts: &Facts) -> usize {
    match cluster.inventory.provider.shares_a_machine() {
        true => facts.cores / cluster.nodes.len().max(1),
        false => facts.cores,
    }
}

/// How many steps that keep a core busy may run at once, where the hosts share a machine.
///
/// One more than there are cores, because each also waits, for the disk and for packages. More at once would only slow
/// each other down, so that no host is ready before the last one.
pub(super) fn at_once(cluster: &Cluster, found: &Found) -> Option<usize> {
    let cores = found.facts.values().map(|facts| facts.cores).max()?;
    (cluster.inventory.provider.shares_a_machine() && cores > 0).then_some(cores + 1)
}

/// The packages from which Patroni's venv is made.
fn for_the_venv(node: &Node) -> Vec<String> {
    let services = node.roles.iter().map(|role| role.service());
    let all = services.flat_map(|service| service.packages);
    let needed = all.filter(|package| package.when == When::PatroniFromPypi);
    needed
        .filter_map(|package| package.on(node.postgresql))
        .collect()
}

/// Plans packages beside those that the cluster's services need.
pub(super) fn install_beside(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    packages: Vec<String>,
) {
    push(plan, cluster, node, INSTALL, packages, Vec::new());
}

/// Plans one call of apt for `packages`.
fn push(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    name: &'static str,
    packages: Vec<String>,
    after: Vec<StepId>,
) -> StepId {
    // The packages for Python always come from the distribution.
    let pgdg = name == INSTALL && !belongings::sources(cluster, node).is_empty();
    let own_boot = cluster.wants(When::Ec2);
    let yes = |it| if it { "yes" } else { "" };
    let script = Script::new()
        .alone(INSTALL)
        .line(format!("PACKAGES={}", quote(&packages.join(" "))))
        .line(format!("PGDG={}", yes(pgdg)))
        .line(format!("OWN_BOOT={}", yes(own_boot)))
        .line(LOCKS)
        .line(NOTE_ASKED)
        .line(APT)
        .line(PACKAGES);
    plan.push(Step {
        host: node.name.clone(),
        name,
        why: format!("not installed: {}", packages.join(", ")),
        after,
        changes: packages.into_iter().map(Change::Package).collect(),
        action: Action::Run(script),
        // Another process may hold dpkg's lock for ten minutes of this.
        limit: Duration::from_secs(1800),
        units: Vec::new(),
    })
}

/// Plans that services may start again when packages are installed.
fn restore_policy(plan: &mut Plan, node: &Node, after: Vec<StepId>) -> StepId {
    plan.push(Step {
        host: node.name.clone(),
        name: "restore-policy",
        why: "an earlier run was cut off while it installed packages".into(),
        after,
        changes: vec![Change::Other(
            "/usr/sbin/policy-rc.d is as it was before pgherd".into(),
        )],
        // An installation that is still running needs it.
        action: Action::Run(Script::new().alone(INSTALL).line(RESTORE_POLICY)),
        limit: Duration::from_secs(700),
        units: Vec::new(),
    })
}

/// Plans Patroni's venv; returns the step after which it exists, if there is one.
pub(super) fn install_patroni(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    facts: &Facts,
    files: &[File],
    after: Vec<StepId>,
) -> Option<StepId> {
    if cluster.inventory.patroni.source != PatroniSource::Pypi {
        return None;
    }
    let requirements = files.iter().find(|file| file.path == REQUIREMENTS)?;
    let stamp = digest(&requirements.content);
    if facts.patroni_stamp.as_deref() == Some(stamp.as_str()) {
        plan.skip(
            &node.name,
            INSTALL_PATRONI,
            "/opt/patroni has the pinned versions",
        );
        return None;
    }
    let why = match facts.patroni_stamp {
        None => "/opt/patroni is missing",
        Some(_) => "/opt/patroni has other versions",
    };
    let bundle = cluster.ca_bundle.as_ref().map_or("", |_| CA_BUNDLE);
    // Patroni keeps running with what it has loaded until it is restarted.
    let script = Script::new().alone(INSTALL_PATRONI);
    let script = script.line(belongings::note_tree(belongings::VENV));
    let script = note_pending(script, Role::Postgres, Effect::Restart)
        .line(format!("STAMP={stamp}"))
        .line(format!("CA_BUNDLE={bundle}"))
        .line(format!("REQUIREMENTS={REQUIREMENTS}"))
        .line(format!("BACKEND={}", quote(backend(&requirements.content))))
        .line(VENV);
    Some(plan.push(Step {
        host: node.name.clone(),
        name: INSTALL_PATRONI,
        why: why.into(),
        after,
        changes: vec![Change::Other(
            "Patroni and what it needs, in /opt/patroni".into(),
        )],
        action: Action::Run(script),
        limit: Duration::from_secs(600),
        units: Vec::new(),
    }))
}

/// The program by which pip builds what is published as source only; empty where that is setuptools.
///
/// Only of pgherd's own list is known what is in it.
fn backend(requirements: &str) -> &'static str {
    match requirements == PINNED {
        true => BACKEND,
        false => "",
    }
}

/// The path of the user's `ca_bundle` on the hosts.
pub(super) const CA_BUNDLE: &str = "/etc/pgherd/ca-bundle.crt";

pub(super) fn digest(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Output},
        time::Instant,
    };

    use super::{BACKEND, LOCKS, PINNED, backend};

    #[test]
    fn only_pgherds_own_list_is_built_without_setuptools() {
        assert_eq!(backend(PINNED), BACKEND);
        assert_eq!(backend(&format!("{PINNED}\nmine==1.0\n")), "");
        for name in ["python-etcd==", "ydiff=="] {
            assert!(PINNED.contains(&format!("\n{name}")), "{name}");
        }
    }

    /// The two ways in which a source lies: below `src`, and beside its notes.
    #[test]
    fn a_wheel_has_the_modules_and_what_pip_reads_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("tools/setuptools/__init__.py", "");
        put("tools/setuptools/build_meta.py", BACKEND);
        put(
            "e/PKG-INFO",
            "Name: python-etcd\nVersion: 0.4.5\n\nName: other\n",
        );
        put("e/setup.py", "raise SystemExit('nobody runs this')\n");
        put("e/src/etcd/__init__.py", "from .part import one\n");
        put("e/src/etcd/part/__init__.py", "one = 1\n");
        put("e/src/etcd/tests/__init__.py", "");
        put("e/src/python_etcd.egg-info/top_level.txt", "etcd\n");
        put("y/PKG-INFO", "Name: ydiff\nVersion: 1.4.2\n");
        put("y/ydiff.py", "two = 2\n");
        put("y/ydiff.egg-info/top_level.txt", "ydiff\n");
        put(
            "y/ydiff.egg-info/entry_points.txt",
            "[console_scripts]\nydiff = ydiff:_main\n",
        );
        put("z/PKG-INFO", "Name: other\nVersion: 1\n");
        put("z/other.egg-info/top_level.txt", "other\n");
        let build = |project: &str| {
            let lines = "import setuptools.build_meta as m, sys, zipfile\n\
                b = m.__legacy__\nassert b.get_requires_for_build_wheel() == []\n\
                print(b.prepare_metadata_for_build_wheel('..'))\nw = b.build_wheel('..')\n\
                names = zipfile.ZipFile('../' + w).namelist()\nprint(w, *names)\n\
                sys.path.insert(0, '../' + w)\n\
                import importlib\nprint(importlib.import_module(names[0].split('/')[0].split('.')[0]).__name__)\n";
            Command::new("python3")
                .args(["-B", "-c", lines])
                .env("PYTHONPATH", dir.path().join("tools"))
                .current_dir(dir.path().join(project))
                .output()
                .unwrap()
        };
        let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
        let info = "python_etcd-0.4.5.dist-info";
        let (etcd, ydiff, other) = (build("e"), build("y"), build("z"));
        assert_eq!(
            said(&etcd),
            format!(
                "{info}\npython_etcd-0.4.5-py3-none-any.whl etcd/__init__.py etcd/part/__init__.py \
                 {info}/METADATA {info}/WHEEL {info}/top_level.txt {info}/RECORD\netcd\n"
            ),
            "{etcd:?}"
        );
        assert!(
            said(&ydiff).contains("ydiff.py ydiff-1.4.2.dist-info/METADATA"),
            "{ydiff:?}"
        );
        assert!(said(&ydiff).contains("entry_points.txt"), "{ydiff:?}");
        assert!(!other.status.success());
        assert!(String::from_utf8_lossy(&other.stderr).contains("pgherd builds no other"));
    }

    /// Runs lines of shell with its own lock file, which is held for `held` seconds.
    fn with_a_lock(held: &str, wait: u32, lines: &str) -> (Output, f64) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lock-frontend").display().to_string();
        let mut holder = Command::new("flock")
            .args([file.as_str(), "sleep", held])
            .spawn()
            .unwrap();
        while !std::path::Path::new(&file).exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        let script = format!("set -eu\nLOCK_WAIT={wait}\n{LOCKS}\nlock_files={file}\n{lines}");
        let begin = Instant::now();
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let seconds = begin.elapsed().as_secs_f64();
        holder.kill().unwrap();
        holder.wait().unwrap();
        (output, seconds)
    }

    #[test]
    fn a_lock_is_waited_for_and_its_holder_is_named() {
        let (output, seconds) = with_a_lock("2", 60, "with_locks echo done");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(said.contains("lock, held by flock (pid "), "{said}");
        assert!(said.ends_with("done\n"), "{said}");
        assert!(seconds > 1.0, "{seconds}");
    }

    #[test]
    fn a_lock_that_is_never_free_ends_the_script_with_its_holder() {
        let (output, _) = with_a_lock("30", 1, "with_locks echo done");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(75), "{output:?}");
        assert!(
            said.contains("held by flock") && said.contains("not free within 1 s"),
            "{said}"
        );
        assert!(said.contains("pgherd-hint: "), "{said}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("done"));
    }

    #[test]
    fn who_was_faster_is_waited_for_and_another_failure_is_not_repeated() {
        // The command once finds the lock taken again.
        let lines = "try() { echo tried; [ -e $lock_files.again ] || { : >$lock_files.again; \
                     echo 'E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)' >&2; return 100; }; }\n\
                     with_locks try; with_locks sh -c 'echo broken >&2; exit 3' || echo \"code $?\"";
        let (output, _) = with_a_lock("0", 60, lines);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.ends_with("tried\ntried\ncode 3\n"), "{output:?}");
    }
}
