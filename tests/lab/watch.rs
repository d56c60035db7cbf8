//! What happens while a test does something else: writes that must not be lost, and every process's arguments.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A thread that runs until it is asked for what it has seen.
struct Watch<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Watch<T> {
    fn start(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || work(&seen));
        Self { stop, thread }
    }

    fn end(self) -> T {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it ends well")
    }
}

/// Reads `/proc/*/cmdline` again and again. The lab's hosts are containers, so their processes are included.
pub(crate) struct Arguments(Watch<BTreeSet<String>>);

impl Arguments {
    pub(crate) fn watch() -> Self {
        Self(Watch::start(|stop| {
            let mut seen = BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                let processes = fs::read_dir("/proc").expect("/proc").flatten();
                for process in processes {
                    // A process that has ended meanwhile has none.
                    if let Ok(line) = fs::read(process.path().join("cmdline"))
                        && !line.is_empty()
                    {
                        seen.insert(String::from_utf8_lossy(&line).replace('\0', " "));
                    }
                }
                std::thread::sleep(Duration::from_millis(40));
            }
            seen
        }))
    }

    /// Every command line that was seen, one on each line.
    pub(crate) fn end(self) -> String {
        let seen = self.0.end();
        seen.into_iter().collect::<Vec<_>>().join("\n")
    }
}

/// Where numbered rows are written: what `psql` needs for it.
#[derive(Clone)]
pub(crate) struct Door {
    pub conninfo: String,
    pub password: String,
}

impl Door {
    pub(crate) fn psql(&self, statement: &str) -> std::process::Output {
        Command::new("psql")
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.conninfo])
            .args(["-c", statement])
            .env("PGPASSWORD", &self.password)
            .env("PGCONNECT_TIMEOUT", "3")
            .output()
            .expect("psql runs")
    }

    /// The result of a statement, which must succeed.
    pub(crate) fn ask(&self, statement: &str) -> String {
        let output = self.psql(statement);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}: {told}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// Writes numbered rows, with a connection for each, and notes which of them were acknowledged.
pub(crate) struct Writer {
    door: Door,
    watch: Watch<Written>,
}

/// The result of the writes.
pub(crate) struct Written {
    pub acknowledged: Vec<u32>,
    /// The errors that clients got for writes that were not acknowledged.
    pub refused: Vec<String>,
    /// Between two acknowledged writes.
    pub longest_gap: Duration,
}

impl Writer {
    pub(crate) fn start(door: &Door) -> Self {
        door.ask("drop table if exists written; create table written (id int primary key)");
        let to = door.clone();
        let watch = Watch::start(move |stop| {
            let mut written = Written {
                acknowledged: Vec::new(),
                refused: Vec::new(),
                longest_gap: Duration::ZERO,
            };
            let mut last = Instant::now();
            for id in 1.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let output = to.psql(&format!("insert into written values ({id})"));
                if output.status.success() {
                    written.acknowledged.push(id);
                    written.longest_gap = written.longest_gap.max(last.elapsed());
                    last = Instant::now();
                } else {
                    let told = String::from_utf8_lossy(&output.stderr);
                    written.refused.push(told.into_owned());
                }
                // Without a pause, it would use a whole processor that other tests need.
                std::thread::sleep(Duration::from_millis(50));
            }
            written
        });
        Self {
            door: door.clone(),
            watch,
        }
    }

    /// Stops, and fails if an acknowledged write is missing.
    pub(crate) fn end(self) -> Written {
        let written = self.watch.end();
        let there = self.door.ask("select id from written order by id");
        let there: BTreeSet<u32> = there.lines().filter_map(|id| id.parse().ok()).collect();
        let lost: Vec<&u32> = written
            .acknowledged
            .iter()
            .filter(|id| !there.contains(id))
            .collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert!(written.acknowledged.len() > 10, "hardly anything written");
        self.door.ask("drop table written");
        written
    }
}
