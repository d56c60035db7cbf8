//! How old a host's software is: which updates there are, what runs although its files were replaced, and whether a
//! reboot is due. Only the verbs that bring updates or reboot ask for it: apt takes a second or two.

use std::collections::BTreeMap;

use crate::{
    cluster::Node,
    error::{Code, Error, Result},
    inventory::{Inventory, Role},
    remote::{Script, quote},
};

const BOOT: &str = include_str!("boot.sh");
/// A shell function: `replaced PID`.
pub(crate) const REPLACED: &str = include_str!("replaced.sh");
const PROBE: &str = include_str!("upkeep.sh");
/// The word by which [`Process::unit`] names PostgreSQL itself, which Patroni's unit runs.
pub const POSTGRESQL: &str = "postgresql";
/// The first process of the host, as [`Process::unit`] names it.
pub const INIT: &str = "systemd";

/// An installed package of the cluster's own software.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The source package that it was built from.
    pub source: String,
    pub version: String,
    /// When it was installed, in seconds since 1970.
    pub since: Option<i64>,
    /// dpkg is told to leave it as it is (`apt-mark hold`).
    pub held: bool,
}

/// A newer version of a package, or a package that an upgrade brings along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    pub package: String,
    /// `None` if it is not installed yet.
    pub from: Option<String>,
    pub to: String,
    /// As apt names it: `Debian-Security:12/stable-security`.
    pub origin: String,
}

impl Update {
    /// Whether it comes from a source of security updates.
    pub fn is_security(&self) -> bool {
        self.origin.to_ascii_lowercase().contains("security")
    }
}

/// A running program of the cluster's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its unit, [`POSTGRESQL`] or [`INIT`].
    pub unit: String,
    /// When it started, in seconds since 1970.
    pub since: Option<i64>,
    /// The program or library that was replaced after its start.
    pub replaced: Option<String>,
}

/// What a host says of the age of its software.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Identifies the running system until it boots again.
    pub boot: String,
    /// Seconds since its boot.
    pub up: u64,
    /// The kernel that runs and the newest one that is installed; `None` in a container, which has its machine's.
    pub kernel: Option<(String, String)>,
    /// The packages that ask for a reboot; empty if one is due and nobody says why.
    pub reboot: Option<Vec<String>>,
    /// The age of apt's lists of packages in seconds; `None` if there are none.
    pub lists: Option<u64>,
    /// Why the lists could not be brought up to date.
    pub stale: Option<String>,
    pub packages: BTreeMap<String, Installed>,
    pub updates: Vec<Update>,
    pub processes: Vec<Process>,
}

impl Upkeep {
    /// Why the host should boot again, one reason each.
    pub fn reboot_reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some((runs, newest)) = &self.kernel
            && !newest.is_empty()
            && runs != newest
        {
            reasons.push(format!("the kernel {newest} waits; {runs} runs"));
        }
        match self.reboot.as_deref() {
            None => {}
            Some([]) => reasons.push("/run/reboot-required is there".to_owned()),
            Some(packages) => {
                reasons.push(format!("{} asks for it", packages.join(", ")));
            }
        }
        if let Some(what) = self
            .processes
            .iter()
            .filter(|it| it.unit == INIT)
            .find_map(|it| it.replaced.as_ref())
        {
            reasons.push(format!("systemd still uses {what}, which was replaced"));
        }
        reasons
    }

    /// The programs of the cluster that run although their files were replaced.
    pub fn outdated(&self) -> impl Iterator<Item = &Process> {
        let ours = self.processes.iter().filter(|it| it.unit != INIT);
        ours.filter(|it| it.replaced.is_some())
    }

    /// The updates of packages that belong to the cluster's own software.
    pub fn own_updates(&self) -> impl Iterator<Item = &Update> {
        let own = |it: &&Update| self.packages.contains_key(&it.package);
        self.updates.iter().filter(own)
    }

    /// The other updates.
    pub fn other_updates(&self) -> impl Iterator<Item = &Update> {
        let own = |it: &&Update| !self.packages.contains_key(&it.package);
        self.updates.iter().filter(own)
    }
}

/// How much a host is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What runs, and whether a reboot waits.
    Running,
    /// Which updates there are, too, after apt has fetched its lists of packages.
    Refreshed,
}

/// The script that asks a host. `locks` are the shell functions that wait for apt's locks.
pub fn upkeep(inventory: &Inventory, node: &Node, depth: Depth, locks: &str) -> Script {
    let services = node.roles.iter().map(|role| role.service());
    let serving = services.clone().flat_map(|service| service.packages);
    let serving: Vec<String> = serving
        .filter(|package| package.serves && inventory.wants(package.when))
        .filter_map(|package| package.on(node.postgresql))
        .collect();
    let units: Vec<&str> = services.map(|service| service.unit.name).collect();
    let data_dir = match node.roles.contains(&Role::Postgres) {
        true => inventory.postgresql.data_dir.as_str(),
        false => "",
    };
    Script::probe("")
        .line(format!("SERVES={}", quote(&serving.join(" "))))
        .line(format!("UNITS={}", quote(&units.join(" "))))
        .line(format!("DATA_DIR={}", quote(data_dir)))
        .line(match depth {
            Depth::Running => "DEPTH=running".to_owned(),
            Depth::Refreshed => format!("DEPTH=refreshed LOCK_WAIT=60\n{locks}"),
        })
        .line(BOOT)
        .line(REPLACED)
        .line(PROBE)
}

/// The script that prints what identifies the running system until it boots again ([`Upkeep::boot`]), and nothing else.
pub(crate) fn boot() -> Script {
    Script::probe(BOOT).line("echo \"$boot\"")
}

/// Reads the answer to [`upkeep`].
pub fn parse_upkeep(text: &str) -> Result<Upkeep> {
    let mut upkeep = Upkeep::default();
    let mut complete = false;
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["boot", boot] => boot.clone_into(&mut upkeep.boot),
            ["up", seconds] => upkeep.up = seconds.parse().unwrap_or_default(),
            ["kernel", runs, newest] => upkeep.kernel = Some((runs.into(), newest.into())),
            ["reboot", packages] => {
                let packages = packages.split_whitespace().map(str::to_owned);
                upkeep.reboot = Some(packages.collect());
            }
            ["lists", seconds] => upkeep.lists = seconds.parse().ok(),
            ["stale", why] => upkeep.stale = Some(why.trim().to_owned()),
            ["package", name, source, version, since, want] => {
                let installed = Installed {
                    source: source.into(),
                    version: version.into(),
                    since: since.parse().ok(),
                    held: want == "hold",
                };
                upkeep.packages.insert(name.into(), installed);
            }
            ["update", package, from, to, origin] => upkeep.updates.push(Update {
                package: package.into(),
                from: (!from.is_empty()).then(|| from.to_owned()),
                to: to.into(),
                origin: origin.into(),
            }),
            ["process", unit, since, "current"] => upkeep.processes.push(Process {
                unit: unit.into(),
                since: since.parse().ok(),
                replaced: None,
            }),
            ["process", unit, since, "replaced", what] => upkeep.processes.push(Process {
                unit: unit.into(),
                since: since.parse().ok(),
                replaced: Some(what.into()),
            }),
            ["end"] => complete = true,
            _ => {}
        }
    }
    if complete && !upkeep.boot.is_empty() {
        return Ok(upkeep);
    }
    Err(Error::new(
        Code::AnswerUnusable,
        "the host does not say how old its software is",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "boot\tid-7\nup\t3600\nkernel\t6.1.0-28-amd64\t6.1.0-30-amd64\n\
        reboot\tlinux-image-6.1.0-30-amd64 libc6 \nlists\t12\n\
        package\tpostgresql-15\tpostgresql-15\t15.13-0+deb12u1\t1700000000\tinstall\n\
        package\tlibpq5\tpostgresql-15\t15.13-0+deb12u1\t1700000000\thold\n\
        update\tlibpq5\t15.13-0+deb12u1\t15.14-0+deb12u1\tDebian-Security:12/stable-security\n\
        update\topenssl\t3.0.15\t3.0.16\tDebian:12.11/stable\n\
        update\tlinux-image-6.1.0-31-amd64\t\t6.1.140\tDebian:12.11/stable\n\
        process\tetcd\t1700000000\tcurrent\n\
        process\tpostgresql\t1700000000\treplaced\t/usr/lib/postgresql/15/bin/postgres\nend\n";

    #[test]
    fn a_host_says_what_is_old() {
        let upkeep = parse_upkeep(SAID).unwrap();
        assert_eq!(
            upkeep.reboot_reasons(),
            [
                "the kernel 6.1.0-30-amd64 waits; 6.1.0-28-amd64 runs",
                "linux-image-6.1.0-30-amd64, libc6 asks for it"
            ]
        );
        let own: Vec<_> = upkeep.own_updates().collect();
        assert_eq!(own.len(), 1);
        assert!(own[0].is_security());
        assert!(upkeep.packages["libpq5"].held);
        let others: Vec<_> = upkeep.other_updates().map(|it| it.from.is_some()).collect();
        assert_eq!(others, [true, false]);
        let outdated: Vec<_> = upkeep.outdated().map(|it| it.unit.as_str()).collect();
        assert_eq!(outdated, [POSTGRESQL]);
        assert!(parse_upkeep("boot\tid\n").is_err(), "it was cut off");
    }

    /// On this machine, which has apt: the script comes to its end, and knows the running system.
    #[test]
    fn the_script_comes_to_its_end() {
        let script = format!("SERVES=apt UNITS= DATA_DIR= DEPTH=updates\n{BOOT}{REPLACED}{PROBE}");
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let upkeep = parse_upkeep(&said).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        assert!(upkeep.boot.contains('-'), "{said}");
        assert!(upkeep.processes.iter().any(|it| it.unit == INIT), "{said}");
    }
}
