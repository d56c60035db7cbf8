//! PostgreSQL's parameters by the size of its host (`postgresql.tuning: auto`).
//!
//! The rules are in docs/tuning.md, with their sources. Pure: the same size gives the same values.

use serde::{Deserialize, Serialize};

/// Stays for the system and Patroni, in MiB.
const SYSTEM: u64 = 512;
/// Stays for each other service on the host, in MiB.
const SERVICE: u64 = 256;

/// What a host has for its services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub memory_mib: u64,
    pub cores: u64,
    /// The filesystem of the data directory.
    pub disk_gib: u64,
    /// Whether that disk rotates; `None` if the system does not say.
    pub rotates: Option<bool>,
}

impl Size {
    /// Whether this is the size `noted`, as another kernel or a reformatted disk may report it. Without this, values
    /// could change back and forth, each time with a restart.
    pub fn is_about(&self, noted: &Self) -> bool {
        let near =
            |one: u64, other: u64, percent: u64| one.abs_diff(other) * 100 <= other * percent;
        near(self.memory_mib, noted.memory_mib, 3)
            && near(self.disk_gib, noted.disk_gib, 10)
            && self.cores == noted.cores
            && self.rotates == noted.rotates
    }
}

/// A host with a database: its size, and how many other services it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub size: Size,
    pub others: u64,
}

impl Place {
    /// The memory that is PostgreSQL's, in MiB; at least half of the host's.
    fn memory(&self) -> u64 {
        let all = self.size.memory_mib;
        let left = all.saturating_sub(SYSTEM + SERVICE * self.others);
        left.max(all / 2)
    }
}

/// A parameter, and the reason of its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tuned {
    pub name: &'static str,
    pub value: String,
    pub why: String,
}

/// What must be the same on every member: a standby with less than its leader does not start. `places` are all of them.
pub fn agreed(places: &[Place]) -> Vec<Tuned> {
    let Some(cores) = places.iter().map(|it| it.size.cores).min() else {
        return Vec::new();
    };
    let memory = places.iter().map(Place::memory).min().unwrap_or_default();
    // A connection takes up to ten MiB when it is in use, and the leader may change.
    let connections = (50 * cores).min(memory / 16).clamp(100, 500);
    let tuned = [
        (
            "max_connections",
            connections,
            "50 for each core, one for each 16 MiB, 100 to 500",
        ),
        (
            "max_worker_processes",
            cores.max(8),
            "one for each core, 8 at least",
        ),
    ];
    let on_all = if places.len() > 1 {
        ", of the smallest member"
    } else {
        ""
    };
    tuned
        .map(|(name, value, why)| Tuned {
            name,
            value: value.to_string(),
            why: format!("{why}{on_all}"),
        })
        .into()
}

/// What may differ from member to member. `connections` is `max_connections`.
pub fn of_host(place: &Place, connections: u64) -> Vec<Tuned> {
    let Size {
        cores,
        disk_gib,
        rotates,
        ..
    } = place.size;
    let memory = place.memory();
    let shared = down(memory / 4, 32).clamp(128, 16 * 1024);
    let of_memory = |part: &str| format!("{part} of the {memory} MiB that are PostgreSQL's");
    let mut tuned = Vec::new();
    let mut add = |name: &'static str, value: String, why: String| {
        tuned.push(Tuned { name, value, why });
    };
    add("shared_buffers", mb(shared), of_memory("a quarter"));
    add(
        "effective_cache_size",
        mb(down(memory * 3 / 4, 32)),
        of_memory("three quarters"),
    );
    add(
        "maintenance_work_mem",
        mb((memory / 16).clamp(64, 2048)),
        of_memory("a sixteenth"),
    );
    // A query may use it several times.
    let work = memory.saturating_sub(shared) / (3 * connections.max(1));
    add(
        "work_mem",
        mb(work.clamp(4, 256)),
        format!("a third of what is left, by max_connections ({connections})"),
    );
    // On fewer cores, PostgreSQL's defaults serve a single query better: measured with benches/tuning.
    if cores >= 4 {
        add(
            "max_parallel_workers",
            cores.to_string(),
            "one for each core".into(),
        );
        for name in [
            "max_parallel_workers_per_gather",
            "max_parallel_maintenance_workers",
        ] {
            let half = (cores / 2).min(4).to_string();
            add(name, half, "half of the cores, 4 at most".into());
        }
    }
    let wal = (disk_gib / 20).clamp(1, 16);
    add(
        "max_wal_size",
        format!("{wal}GB"),
        format!("a twentieth of the disk of {disk_gib} GiB, 1 to 16 GB"),
    );
    add(
        "min_wal_size",
        mb(wal * 1024 / 4),
        "a quarter of max_wal_size".into(),
    );
    if rotates == Some(false) {
        add(
            "random_page_cost",
            "1.1".into(),
            "the disk does not rotate".into(),
        );
        add(
            "effective_io_concurrency",
            "200".into(),
            "the disk does not rotate".into(),
        );
    }
    tuned
}

fn down(number: u64, step: u64) -> u64 {
    number / step * step
}

fn mb(mebibytes: u64) -> String {
    format!("{mebibytes}MB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(memory_mib: u64, cores: u64, disk_gib: u64, others: u64) -> Place {
        let size = Size {
            memory_mib,
            cores,
            disk_gib,
            rotates: Some(false),
        };
        Place { size, others }
    }

    fn told(tuned: &[Tuned]) -> String {
        let lines = tuned.iter().map(|it| format!("{} {}\n", it.name, it.value));
        lines.collect()
    }

    #[test]
    fn a_t2_medium_gets_what_the_documentation_says() {
        let it = place(3915, 2, 8, 0);
        insta::assert_snapshot!(told(&agreed(&[it])) + &told(&of_host(&it, 100)), @r"
        max_connections 100
        max_worker_processes 8
        shared_buffers 832MB
        effective_cache_size 2528MB
        maintenance_work_mem 212MB
        work_mem 8MB
        max_wal_size 1GB
        min_wal_size 256MB
        random_page_cost 1.1
        effective_io_concurrency 200
        ");
    }

    #[test]
    fn a_large_host_gets_more_and_a_small_one_never_less_than_the_defaults() {
        let large = place(256 * 1024, 32, 2000, 0);
        insta::assert_snapshot!(told(&agreed(&[large])) + &told(&of_host(&large, 500)), @r"
        max_connections 500
        max_worker_processes 32
        shared_buffers 16384MB
        effective_cache_size 196224MB
        maintenance_work_mem 2048MB
        work_mem 163MB
        max_parallel_workers 32
        max_parallel_workers_per_gather 4
        max_parallel_maintenance_workers 4
        max_wal_size 16GB
        min_wal_size 4096MB
        random_page_cost 1.1
        effective_io_concurrency 200
        ");
        let small = place(480, 1, 4, 2);
        let mut tuned = told(&agreed(&[small]));
        tuned += &told(&of_host(&small, 100));
        for least in [
            "max_connections 100\n",
            "max_worker_processes 8\n",
            "shared_buffers 128MB\n",
            "maintenance_work_mem 64MB\n",
            "work_mem 4MB\n",
            "max_wal_size 1GB\n",
        ] {
            assert!(tuned.contains(least), "{least} in {tuned}");
        }
    }

    #[test]
    fn members_agree_on_what_the_smallest_can_do() {
        let members = [place(65536, 16, 500, 0), place(8192, 4, 100, 2)];
        let tuned = agreed(&members);
        assert_eq!(
            told(&tuned),
            "max_connections 200\nmax_worker_processes 8\n"
        );
        assert!(tuned[0].why.contains("smallest"), "{}", tuned[0].why);
        assert_eq!(agreed(&[]), []);
    }

    #[test]
    fn all_that_a_host_gets_fits_into_its_memory() {
        for memory in [256, 512, 1024, 2048, 4096, 65536, 1 << 20] {
            for (cores, others) in [(1, 2), (2, 0), (64, 1)] {
                let it = place(memory, cores, 100, others);
                let number = |name: &str| -> u64 {
                    let tuned = [agreed(&[it]), of_host(&it, 100)].concat();
                    let value = &tuned.iter().find(|it| it.name == name).unwrap().value;
                    value.trim_end_matches("MB").parse().unwrap()
                };
                let shared = number("shared_buffers");
                assert!(shared <= memory / 2, "{shared} of {memory}");
                // The defaults of PostgreSQL are the least: on a tiny host they are more than these shares.
                if memory >= 2048 {
                    let used =
                        shared + 100 * number("work_mem") + 3 * number("maintenance_work_mem");
                    assert!(used <= memory, "{used} of {memory}");
                }
            }
        }
    }

    #[test]
    fn a_disk_of_which_nothing_is_known_keeps_the_planners_costs() {
        let mut it = place(4096, 2, 8, 0);
        for rotates in [None, Some(true)] {
            it.size.rotates = rotates;
            assert!(!told(&of_host(&it, 100)).contains("page_cost"));
        }
    }

    #[test]
    fn a_size_that_is_read_a_little_differently_is_the_same() {
        let noted = place(4096, 2, 100, 0).size;
        let read = |memory_mib, cores, disk_gib| place(memory_mib, cores, disk_gib, 0).size;
        assert!(read(4096, 2, 100).is_about(&noted) && read(4000, 2, 92).is_about(&noted));
        for other in [read(3800, 2, 100), read(4096, 4, 100), read(4096, 2, 50)] {
            assert!(!other.is_about(&noted), "{other:?}");
        }
        assert!(
            !Size {
                rotates: None,
                ..noted
            }
            .is_about(&noted)
        );
    }
}
