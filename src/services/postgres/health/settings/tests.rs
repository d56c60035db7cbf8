use super::*;
use crate::plan::tests::world::{FIVE, cluster};

fn expected(parameters: &str) -> Expected {
    let extra = format!("postgresql: {{ version: 16, parameters: {{ {parameters} }} }}");
    let cluster = cluster(&extra, FIVE);
    Expected::of(&cluster, &cluster.nodes[0])
}

fn data_dir() -> String {
    cluster("", FIVE).inventory.postgresql.data_dir
}

fn row(name: &str, value: &str, unit: &str, source: &str, kind: &str) -> Setting {
    Setting {
        name: name.into(),
        value: value.into(),
        unit: unit.into(),
        source: source.into(),
        kind: kind.into(),
        built_in: "4096".into(),
        shown: format!("{value}{unit}"),
        ..Setting::default()
    }
}

fn in_file(setting: Setting, file: &str) -> Setting {
    Setting {
        source: "configuration file".into(),
        file: format!("{}/{file}", data_dir()),
        ..setting
    }
}

#[test]
fn the_same_value_may_be_written_in_many_ways() {
    for (wanted, value, unit, kind) in [
        ("64MB", "65536", "kB", "integer"),
        ("1GB", "131072", "8kB", "integer"),
        ("0.5GB", "65536", "8kB", "integer"),
        ("100kB", "13", "8kB", "integer"),
        ("2min", "120", "s", "integer"),
        ("0640", "0640", "", "integer"),
        ("416", "0640", "", "integer"),
        ("1.1", "1.1", "", "real"),
        ("0.10", "0.1", "", "real"),
        ("yes", "on", "", "bool"),
        ("1", "on", "", "bool"),
        ("TRUE", "on", "", "enum"),
        ("hot_standby", "replica", "", "enum"),
        ("%m [%p] ", "%m [%p] ", "", "string"),
    ] {
        let setting = row("x", value, unit, "configuration file", kind);
        assert!(agree(&setting, wanted), "{wanted} {value}{unit}");
    }
    let style = row("DateStyle", "ISO, DMY", "", "configuration file", "string");
    assert!(agree(&style, "iso, dmy") && agree(&style, "ISO"));
    for (wanted, value, unit, kind) in [
        ("64MB", "65537", "kB", "integer"),
        ("off", "on", "", "bool"),
        ("a", "A", "", "string"),
        ("minimal", "replica", "", "enum"),
        ("megs", "64", "kB", "integer"),
    ] {
        let setting = row("x", value, unit, "configuration file", kind);
        assert!(!agree(&setting, wanted), "{wanted} {value}{unit}");
    }
}

#[test]
fn every_source_of_another_value_is_found_and_named() {
    let none = expected("");
    let work_mem = || row("work_mem", "65536", "kB", "", "integer");
    let auto = in_file(work_mem(), "postgresql.auto.conf");
    let said = difference(&none, &auto).expect("ALTER SYSTEM");
    assert!(
        said.contains("work_mem is 65536kB, not PostgreSQL's own 4096kB")
            && said.contains("alter system reset work_mem"),
        "{said}"
    );
    let include = in_file(work_mem(), "conf.d/mine.conf");
    assert!(
        difference(&none, &include)
            .unwrap()
            .contains("conf.d/mine.conf")
    );
    for (source, word) in [
        ("user", "alter role postgres reset"),
        ("database", "alter database postgres reset"),
        ("database user", "in database postgres reset"),
        ("global", "alter role all reset"),
        ("command line", "command line"),
        ("environment variable", "environment variable"),
    ] {
        let setting = Setting {
            source: source.into(),
            ..work_mem()
        };
        let said = difference(&none, &setting).expect(source);
        assert!(said.contains(word), "{said}");
    }
    // Also in Patroni's own files: somebody wrote something there that is not in the inventory.
    for file in ["postgresql.conf", "postgresql.base.conf"] {
        assert!(
            difference(&none, &in_file(work_mem(), file)).is_some(),
            "{file}"
        );
    }
    for source in ["client", "session", "default", "override"] {
        let setting = Setting {
            source: source.into(),
            ..work_mem()
        };
        assert!(difference(&none, &setting).is_none(), "{source}");
    }
    let same = Setting {
        value: "4096".into(),
        ..auto
    };
    assert!(difference(&none, &same).is_none(), "it makes no difference");
}

#[test]
fn what_the_inventory_has_must_be_what_runs() {
    let asked = expected("work_mem: 64MB, max_connections: 200");
    let right = in_file(
        row("work_mem", "65536", "kB", "", "integer"),
        "postgresql.conf",
    );
    assert!(difference(&asked, &right).is_none());
    let not_reloaded = row("work_mem", "4096", "kB", "default", "integer");
    let said = difference(&asked, &not_reloaded).unwrap();
    assert!(
        said.contains("work_mem is 4096kB, not 64MB (its own default)"),
        "{said}"
    );
    let not_restarted = row("max_connections", "100", "", "command line", "integer");
    assert!(difference(&asked, &not_restarted).is_some());
    let none = expected("");
    assert!(
        difference(&none, &not_restarted).is_none(),
        "Patroni's own default"
    );
    let automatic = row("wal_buffers", "512", "8kB", "override", "integer");
    assert!(difference(&expected("wal_buffers: -1"), &automatic).is_none());
}

#[test]
fn what_patroni_and_initdb_set_is_nobodys_mistake() {
    let none = expected("");
    for (name, file) in [
        ("primary_conninfo", "postgresql.conf"),
        ("recovery_target_timeline", "postgresql.conf"),
        ("lc_messages", "postgresql.base.conf"),
        ("TimeZone", "postgresql.base.conf"),
    ] {
        let setting = in_file(row(name, "x", "", "", "string"), file);
        assert!(difference(&none, &setting).is_none(), "{name}");
        let alter = in_file(setting, "postgresql.auto.conf");
        assert!(difference(&none, &alter).is_some(), "{name}");
    }
    for name in ["cluster_name", "listen_addresses", "hot_standby"] {
        let setting = row(name, "x", "", "command line", "string");
        assert!(difference(&none, &setting).is_none(), "{name}");
    }
}

#[test]
fn a_value_that_may_hold_a_password_is_not_shown() {
    let setting = Setting {
        shown: "curl -u me:s3cret".into(),
        value: "curl -u me:s3cret".into(),
        ..in_file(
            row("archive_command", "", "", "", "string"),
            "postgresql.auto.conf",
        )
    };
    let said = difference(&expected(""), &setting).unwrap();
    assert!(
        !said.contains("s3cret") && said.contains("archive_command"),
        "{said}"
    );
}

#[test]
fn what_a_file_holds_and_nobody_has_read_is_told() {
    let none = expected("");
    let running = [row("work_mem", "4096", "kB", "default", "integer")];
    let line = |value: &str, applied, error: &str| Written {
        name: "work_mem".into(),
        value: value.into(),
        file: format!("{}/postgresql.auto.conf", data_dir()),
        line: "3".into(),
        applied,
        error: error.into(),
    };
    let said = unread(&none, &running, &line("64MB", true, "")).unwrap();
    assert!(said.contains("work_mem will be 64MB"), "{said}");
    assert!(unread(&none, &running, &line("4MB", true, "")).is_none());
    assert!(
        unread(&none, &running, &line("64MB", false, "")).is_none(),
        "a later line counts"
    );
    let waits = unread(
        &none,
        &running,
        &line("64MB", false, "setting could not be applied"),
    );
    assert!(waits.is_some());
    let broken = Written {
        name: String::new(),
        error: "syntax error".into(),
        file: "/data/x.conf".into(),
        ..line("", false, "")
    };
    let said = unread(&none, &running, &broken).unwrap();
    assert!(said.contains("/data/x.conf line 3: syntax error"), "{said}");
    // On a promoted replica (PostgreSQL 15).
    let gone = Written {
        name: "recovery_target_xid".into(),
        file: String::new(),
        line: String::new(),
        error: "parameter \"recovery_target_xid\" cannot be changed without restarting the server"
            .into(),
        ..line("", false, "")
    };
    assert!(unread(&none, &running, &gone).is_none());
}
