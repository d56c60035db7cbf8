//! Checks what docs/architecture.md says about modules: which may use which, read from the sources.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use pgherd::services::{self, Caller, Number};
use reader::{CLIENTS, HEALTH, cycle, files_by_module, layer, modules, sources};

#[path = "architecture/commands.rs"]
mod commands;
#[path = "architecture/counts.rs"]
mod counts;
#[path = "architecture/providers.rs"]
mod providers;
#[path = "architecture/reader.rs"]
mod reader;

/// A module and those that it names.
type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_module_needs_one_that_needs_it() {
    let graph = modules();
    assert!(graph.len() > 25, "the sources were read: {graph:?}");
    assert!(graph["engine"].contains("plan") && graph["cli"].contains("engine"));
    assert_eq!(cycle(&graph), None);
}

/// Files that their neighbours need, and that need their neighbours: the names in such a file do not count.
const KNOTS: [(&str, &str, &str); 3] = [
    (
        "engine",
        "operator",
        "a question is about what a verb does, and says so by the verb's own types",
    ),
    (
        "engine",
        "taken",
        "what a killed drill has left is put right before any verb, which is a drill's run",
    ),
    (
        "inventory",
        "types",
        "the schema says which values there are, and the checks have the lists of them",
    ),
];

#[test]
fn no_files_of_a_module_need_each_other() {
    let mut graphs = files_by_module();
    assert!(graphs.len() > 15 && graphs["engine"]["apply"].contains("settle"));
    assert!(
        graphs["inventory"]["check"].contains("schema"),
        "{graphs:?}"
    );
    for (module, file, _) in KNOTS {
        graphs
            .get_mut(module)
            .unwrap()
            .insert(file.to_owned(), BTreeSet::new());
    }
    for (module, graph) in &graphs {
        assert_eq!(cycle(graph), None, "in {module}");
    }
}

#[test]
fn each_knot_is_one() {
    for (module, file, _) in KNOTS {
        let mut graphs = files_by_module();
        for (other, loose, _) in KNOTS
            .into_iter()
            .filter(|it| (it.0, it.1) != (module, file))
        {
            graphs
                .get_mut(other)
                .unwrap()
                .insert(loose.to_owned(), BTreeSet::new());
        }
        let tied = cycle(&graphs[module]);
        assert!(
            tied.is_some(),
            "{module}: {file} needs nobody who needs it any more"
        );
    }
}

/// Code that shows something must not know how it is done, and code that does something must not know how it is
/// shown.
#[test]
fn the_command_line_and_the_engine_meet_at_the_operator() {
    let graph = modules();
    for hidden in [
        "execute", "facts", "http", "provider", "relay", "remote", "render",
    ] {
        assert!(!graph["cli"].contains(hidden), "cli uses {hidden}");
    }
    let clients = |module: &&String| module.starts_with(CLIENTS);
    assert_eq!(graph["cli"].iter().find(clients), None, "cli uses a client");
    for shown in ["cli", "report"] {
        assert!(!graph["engine"].contains(shown), "engine uses {shown}");
    }
    for (module, names) in &graph {
        let may = matches!(module.as_str(), "main" | "lib" | "cli");
        assert!(may || !names.contains("cli"), "{module} uses cli");
        let may = may || module == "report";
        assert!(may || !names.contains("report"), "{module} uses report");
        let may = matches!(module.as_str(), "cli" | "engine");
        assert!(may || !names.contains("engine"), "{module} uses engine");
    }
}

/// Everything uses the table of services, so the table must need none of its users. Planning uses the clients,
/// and a service's health uses the plan.
#[test]
fn a_service_has_three_layers() {
    let graph = modules();
    assert!(graph.keys().filter(|it| it.starts_with(CLIENTS)).count() >= 4);
    let allowed = ["configs", "contract"].map(str::to_owned);
    assert!(graph["services"].is_subset(&BTreeSet::from(allowed)));
    assert!(graph[HEALTH].contains("plan") && graph["plan"].contains("services::etcd"));
    for asks in ["verify", "engine", "execute"] {
        assert!(graph[asks].contains(HEALTH), "{asks}");
    }
    for (file, text) in sources() {
        let below = file[0] == "services" && layer(&file) != HEALTH;
        assert!(!(below && text.contains("health::")), "{file:?}");
    }
}

#[test]
fn only_who_may_does_it() {
    let words: [(&[&str], &[&str]); 3] = [
        (
            &["println!(", "print!(", "io::stdout", "io::stderr"],
            &["report", "main"],
        ),
        (&["openssh::"], &["remote"]),
        (&["tera::"], &["render"]),
    ];
    for (file, text) in sources() {
        for (what, who) in words {
            for word in what {
                let does = text.contains(word);
                assert!(!does || who.contains(&file[0].as_str()), "{file:?}: {word}");
            }
        }
        if matches!(file[0].as_str(), "plan") {
            for word in ["tokio::", "std::fs", "TcpStream", "SystemTime"] {
                assert!(
                    !text.contains(word),
                    "{file:?} has {word}: planning is pure"
                );
            }
        }
    }
}

/// A failure is identified by its code. Its text is for people, and no code may depend on it.
#[test]
fn nothing_is_decided_by_an_errors_text() {
    for bad in [
        "if error.what() == BROKEN {",
        "let unreachable = [BROKEN, UNREACHABLE].contains(&error.what());",
        "error\n    .causes()\n    .iter()\n    .any(|cause| cause.contains(\"denied\"))",
        "Err(error) if error\n    .what()\n    .contains(AT_WORK) => {}",
        "matches!(error.what(), MIXED_UP)",
    ] {
        assert!(decides_by_text(bad).is_some(), "{bad}");
    }
    for (file, text) in sources() {
        assert_eq!(decides_by_text(&text), None, "{file:?}: ask for its code()");
        // If another step looks for a step, the name is a constant.
        let step = [".name == \"", ".name != \""].map(|it| text.contains(it));
        assert!(file[0] != "plan" || step == [false, false], "{file:?}");
    }
}

fn decides_by_text(text: &str) -> Option<&'static str> {
    const WAYS: [&str; 19] = [
        ".what()==",
        ".what()!=",
        ".what().contains(",
        ".what().starts_with(",
        ".what().ends_with(",
        ".what().eq(",
        ".contains(&error.what())",
        ".contains(error.what())",
        "==error.what()",
        "!=error.what()",
        "matcherror.what()",
        "matches!(error.what()",
        ".causes().iter().any(",
        ".causes().contains(",
        ".hints().iter().any(",
        ".hints().contains(",
        ".failed_step()==",
        "cause.contains(",
        "cause.starts_with(",
    ];
    let text: String = text.split_whitespace().collect();
    WAYS.into_iter().find(|way| text.contains(way))
}

/// `UPDATE_DOCS=1 cargo test --test architecture` writes the tables of ports anew.
#[test]
fn the_docs_have_every_port_of_every_service() {
    let name = |number: Number, listener: &str| match number {
        Number::Fixed(number) => format!("{number} ({listener})"),
        Number::Set(setting) => format!("`{}`", setting.key()),
    };
    let (mut all, mut open) = (Vec::new(), Vec::new());
    open.push("| all | `ssh.port` | `operator_cidrs` |".to_owned());
    for service in services::all() {
        for port in service.ports {
            let number = name(port.number, port.listener);
            let callers: Vec<String> = port.from.iter().copied().map(caller).collect();
            let callers = callers.join(", ");
            let row = |callers: &str| format!("| `{}` | {number} | {callers} |", service.name);
            match port.from {
                [] => all.push(row("nobody: it is on loopback")),
                from => {
                    all.push(row(&callers));
                    // A security group distinguishes hosts by their groups.
                    let groups: Vec<String> = from.iter().copied().map(group).collect();
                    open.push(row(&groups.join(", ")));
                }
            }
        }
    }
    assert!(open.len() > 7 && open.len() <= all.len(), "{open:?}");
    assert_table(
        "docs/security.md",
        "| hosts with | port | who connects |",
        &all,
    );
    assert_table("docs/aws.md", "| hosts with | port | let in |", &open);
}

fn caller(caller: Caller) -> String {
    match caller {
        Caller::Hosts(role) => format!("hosts with `{}`", role.as_str()),
        Caller::Clients => "`postgresql.allow`".to_owned(),
        Caller::Operators => "`operator_cidrs`".to_owned(),
        Caller::Scrapers => "`monitoring.allow`".to_owned(),
    }
}

fn group(it: Caller) -> String {
    match it {
        Caller::Hosts(role) => format!("the group of `{}`", role.as_str()),
        other => caller(other),
    }
}

/// The table of a page that begins with `head` has these rows; with `UPDATE_DOCS`, they are written first.
fn assert_table(page: &str, head: &str, rows: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(&path).unwrap();
    let head = format!("{head}\n|---|---|---|\n");
    let (before, rest) = text.split_once(&head).expect(page);
    let table: Vec<&str> = rest.lines().take_while(|it| it.starts_with('|')).collect();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let length: usize = table.iter().map(|row| row.len() + 1).sum();
        let rows = rows.join("\n");
        fs::write(&path, format!("{before}{head}{rows}\n{}", &rest[length..])).unwrap();
        return;
    }
    assert_eq!(table, rows, "{page}; UPDATE_DOCS=1 writes it anew");
}
