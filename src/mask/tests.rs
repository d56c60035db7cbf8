use super::*;

fn masks(secrets: &[&str]) -> Masks {
    let masks = Masks::default();
    let secrets: Vec<Secret> = secrets.iter().copied().map(Secret::new).collect();
    masks.add(&secrets);
    masks
}

fn secrets(value: &str) -> Secrets {
    Secrets {
        cluster_id: "c0ffee".into(),
        superuser: Secret::new(value),
        replication: Secret::new("replication-password"),
        rewind: Secret::new("rewind-password"),
        rest_api: Secret::new("rest-password"),
        stats: Secret::new("stats-password"),
        vrrp: None,
        backup: None,
        s3: None,
        pooler: None,
        webhook: None,
        users: std::collections::BTreeMap::new(),
        interim: None,
    }
}

#[test]
fn every_occurrence_goes_and_the_longest_first() {
    let masks = masks(&["hunter2", "hunter2-and-more"]);
    assert_eq!(
        masks.replace("a hunter2 b hunter2-and-more c hunter2"),
        "a *** b *** c ***"
    );
}

#[test]
fn too_short_a_secret_would_mask_everything() {
    assert_eq!(masks(&["abc", ""]).replace("abcdef"), "abcdef");
}

#[test]
fn quoted_forms_are_known() {
    let masks = masks(&["it's\"so"]);
    assert_eq!(masks.replace(r#"password 'it''s"so'"#), "password '***'");
    assert_eq!(masks.replace(r#"{"p":"it's\"so"}"#), r#"{"p":"***"}"#);
    assert_eq!(masks.replace(r#"echo 'it'\''s"so'"#), "echo '***'");
}

#[test]
fn a_key_is_masked_line_by_line_without_its_frame() {
    let masks = masks(&[
        "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqGSM49AwEHBG0w\n-----END PRIVATE KEY-----\n",
    ]);
    assert_eq!(masks.replace("> MIGHAgEAMBMGByqGSM49"), "> ***");
    assert_eq!(
        masks.replace("-----BEGIN PRIVATE KEY-----"),
        "-----BEGIN PRIVATE KEY-----"
    );
}

#[test]
fn clones_learn_of_later_secrets() {
    let first = Masks::default();
    let second = first.clone();
    first.add(&[Secret::new("later on")]);
    assert_eq!(second.replace("not later on"), "not ***");
}

#[test]
fn debug_output_holds_no_value() {
    assert_eq!(format!("{:?}", masks(&["hunter2"])), "Masks");
}

#[test]
fn known_values_are_masked_in_every_form() {
    let secrets = secrets("it's \"é\" $x");
    for text in [
        "it's \"é\" $x".to_owned(),
        r#"password: "it's \"\xE9\" $x""#.into(),
        r#"stats auth pgherd:'it'\''s "é" $x'"#.into(),
        serde_json::to_string("it's \"é\" $x").unwrap(),
        format!(
            "Authorization: Basic {}",
            BASE64_STANDARD.encode("pgherd:stats-password")
        ),
    ] {
        let masked = file(&text, &secrets);
        assert!(masked.contains(MASK), "{masked}");
        assert!(
            !masked.contains("x\"") && !masked.contains("$x"),
            "{masked}"
        );
    }
}

#[test]
fn both_sides_of_a_diff_look_alike() {
    let secrets = secrets("known");
    let new = "    superuser:\n      username: \"postgres\"\n      password: \"known\"\n      sslmode: verify-full\n";
    let old = new.replace("known", "who knows");
    assert_eq!(file(new, &secrets), file(&old, &secrets));
    assert_eq!(file(new, &secrets), new.replace("\"known\"", MASK));
}

#[test]
fn what_stands_where_a_secret_belongs_is_masked() {
    let secrets = secrets("known");
    for (text, masked) in [
        (
            "   password:     A1qaz # x\n   next: 1\n",
            "   password:     ***\n   next: 1\n",
        ),
        (
            "password: |\n  two\n  lines\nnext: 1\n",
            "password: ***\nnext: 1\n",
        ),
        (
            "a: 1\npassword: \"two\n  lines\"\nb: 2\n",
            "a: 1\npassword: ***\nb: 2\n",
        ),
        (
            "{\"password\": \"a\\\"b\", \"user\": \"u\"}",
            "{\"password\": ***, \"user\": \"u\"}",
        ),
        (
            "ETCD_ROOT_PASSWORD=\"x\"\nETCD_NAME=n\n",
            "ETCD_ROOT_PASSWORD=***\nETCD_NAME=n\n",
        ),
        (
            "conninfo = 'user=a password=b host=c'",
            "conninfo = 'user=a password=*** host=c'",
        ),
        (
            "    stats auth admin:pass word\n",
            "    stats auth admin:***\n",
        ),
        (
            "  user bob insecure-password x y",
            "  user bob insecure-password ***",
        ),
        (
            "etcd: http://root:pw@etcd1:2379/x",
            "etcd: http://root:***@etcd1:2379/x",
        ),
        ("restapi:\n  auth: 'a:b'\n", "restapi:\n  auth: ***\n"),
        (
            "password_encryption: md5\n- auth-local: peer\n",
            "password_encryption: md5\n- auth-local: peer\n",
        ),
        (
            "x\n-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\ny\n",
            "x\n***\ny\n",
        ),
    ] {
        assert_eq!(file(text, &secrets), masked);
    }
}

#[test]
fn a_file_shows_no_secret_however_short_and_output_none_in_any_form() {
    let secrets = secrets("abc");
    assert_eq!(file("# abc is it\n", &secrets), "# *** is it\n");
    let login = BASE64_STANDARD.encode("pgherd:hunter2");
    assert_eq!(masks(&["hunter2"]).replace(&*login), MASK);
    assert_eq!(
        masks(&["h\u{e9}ter"]).replace(r#"password: "h\xE9ter""#),
        "password: \"***\""
    );
}
