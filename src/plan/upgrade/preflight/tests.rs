use super::*;

fn host(name: &str) -> HostName {
    HostName::new(name)
}

/// A member with PostgreSQL 16, whose sources have 18.
fn member() -> Member {
    Member::parse(
        "candidate=18.4-1\ninstalled=\nfree=90000000\nhere=2000000\nversion=16\nmovable=yes\n\
         extension=plpgsql postgresql-18\nextension=pg_trgm postgresql-18\nextension=vector postgresql-18-pgvector\n\
         offered=postgresql-18\n",
    )
}

const SAID: &str = r#"["template","UTF8","C.UTF-8","C.UTF-8","c",""]
["setting","data_checksums","off"]
["setting","max_connections","300"]
["setting","shared_preload_libraries","auto_explain, \"pg_stat_statements\""]
["segment",16]
["prepared",0]
["size",8000000000]
["extension","shop","plpgsql"]
["relations",400]
"#;

fn ground() -> Ground {
    Ground {
        from: 16,
        to: 18,
        host: host("db1"),
        members: BTreeMap::from([(host("db1"), member()), (host("db2"), member())]),
        databases: Databases::parse(SAID),
        configured: BTreeSet::from(["work_mem".into(), "pg_stat_statements.max".into()]),
    }
}

fn told(ground: &Ground) -> String {
    let findings = ground.findings();
    let told: Vec<&str> = findings.iter().map(Error::what).collect();
    told.join("\n")
}

#[test]
fn the_new_database_is_made_as_the_old_one_was() {
    let terms = ground().terms();
    assert_eq!(
        terms.initdb,
        [
            "--username=postgres",
            "--auth-local=peer",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--lc-collate=C.UTF-8",
            "--lc-ctype=C.UTF-8",
            "--locale-provider=libc",
            "--no-data-checksums",
            "--wal-segsize=16",
        ]
    );
    assert_eq!(
        terms.server_options,
        "-c max_connections=300 -c shared_preload_libraries=auto_explain,pg_stat_statements"
    );
    assert_eq!(terms.packages[&host("db2")], ["postgresql-18"]);

    let mut it = ground();
    it.to = 17;
    it.databases = Databases::parse(
        "[\"template\",\"UTF8\",\"C\",\"C\",\"i\",\"de\"]\n[\"setting\",\"data_checksums\",\"on\"]\n",
    );
    let initdb = it.terms().initdb.join(" ");
    assert!(
        initdb.ends_with("--locale-provider=icu --icu-locale=de --data-checksums"),
        "{initdb}"
    );
}

#[test]
fn what_a_member_lacks_stops_it() {
    assert_eq!(told(&ground()), "");
    for (change, expected) in [
        (
            (|it: &mut Member| it.candidate = None) as fn(&mut Member),
            "this host's package sources have no postgresql-18",
        ),
        (|it| it.movable = false, "cannot be moved aside"),
        (|it| it.kept = Some("/x".into()), "from an earlier upgrade"),
        (|it| it.free = 1000, "1000.0 KiB are free beside the data"),
    ] {
        let mut it = ground();
        change(it.members.get_mut(&host("db1")).unwrap());
        let told = told(&it);
        assert!(told.contains(expected), "{told}");
        assert_eq!(it.findings()[0].host(), Some(&host("db1")));
    }
}

#[test]
fn somebody_other_than_the_leader_keeps_the_old_data() {
    let mut it = ground();
    assert_eq!(it.keeper(), Some(&host("db2")));
    it.members.get_mut(&host("db2")).unwrap().free = 2_500_000;
    assert_eq!(it.keeper(), None);
    let told = told(&it);
    assert!(told.contains("no member has room for a copy"), "{told}");
    // Where there is no other member, the data is copied.
    it.members.remove(&host("db2"));
    assert_eq!(it.keeper(), Some(&host("db1")));
}

#[test]
fn an_extension_needs_its_files_in_the_new_version() {
    let mut it = ground();
    let shop = BTreeSet::from(["shop".to_owned()]);
    it.databases
        .extensions
        .insert("vector".into(), shop.clone());
    let found = told(&it);
    assert!(
        found
            .contains("the extension vector needs postgresql-18-pgvector, which no package source"),
        "{found}"
    );
    for member in it.members.values_mut() {
        member.offered.insert("postgresql-18-pgvector".into());
    }
    assert_eq!(told(&it), "");
    let packages = it.terms().packages;
    assert_eq!(
        packages[&host("db1")],
        ["postgresql-18", "postgresql-18-pgvector"]
    );
    // Once the new version is there, its own files tell.
    it.databases.extensions.insert("mine".into(), shop);
    let member = it.members.get_mut(&host("db1")).unwrap();
    member.installed = Some("18.4".into());
    member.has = BTreeSet::from(["plpgsql".into(), "vector".into()]);
    let found = told(&it);
    assert_eq!(found, "PostgreSQL 18 has no extension mine here");
}

#[test]
fn what_pg_upgrade_refuses_is_told_at_once() {
    let mut it = ground();
    it.databases = Databases::parse(&format!(
        "{SAID}[\"prepared\",2]\n[\"slot\",\"feed\"]\n[\"tablespace\",\"fast\"]\n\
         [\"reg\",\"shop\",\"jobs.call\",\"regproc\"]\n"
    ));
    it.configured.insert("old_snapshot_threshold".into());
    let told = told(&it);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 5, "{told}");
    assert!(
        told.contains("2 prepared transactions would be lost"),
        "{told}"
    );
    assert!(told.contains("logical replication slots: feed"), "{told}");
    assert!(told.contains("tablespaces: fast"), "{told}");
    assert!(
        told.contains("does not have these parameters: old_snapshot_threshold"),
        "{told}"
    );
}

#[test]
fn the_new_version_knows_its_parameters_best() {
    let mut it = ground();
    let member = it.members.get_mut(&host("db1")).unwrap();
    member.parameters = BTreeSet::from(["work_mem".into()]);
    assert_eq!(told(&it), "");
    it.configured.insert("strange".into());
    assert_eq!(
        told(&it),
        "PostgreSQL 18 does not have these parameters: strange"
    );
}

/// All scripts of an upgrade are put together from these.
#[test]
fn the_scripts_are_valid() {
    for (name, text) in [
        ("look", LOOK),
        ("common", super::super::COMMON),
        ("check", super::super::CHECK),
        ("stop", super::super::STOP),
        ("upgrade", super::super::UPGRADE),
        ("undo", super::super::back::UNDO),
        ("empty", super::super::EMPTY),
        ("put_back", super::super::back::PUT_BACK),
        ("extensions", super::super::EXTENSIONS),
        ("packages", super::super::back::PACKAGES),
    ] {
        let status = std::process::Command::new("/bin/sh")
            .args(["-n", "-c", text])
            .status()
            .expect("sh runs");
        assert!(status.success(), "{name}");
    }
}
