//! Parameters that follow from the size of each host, which changes.

use serde_json::{Value, json};

use crate::support::{Lab, docker, prepared_image, prepared_version};

fn inventory(tuning: &str) -> String {
    format!(
        "provider: {{ kind: docker, image: {} }}\n\
         postgresql: {{ version: {}, tuning: {tuning}, parameters: {{ work_mem: 5MB }} }}\n\
         hosts:\n  one: {{ roles: [postgres, etcd, haproxy] }}\n  two: {{ roles: [postgres] }}\n",
        prepared_image(),
        prepared_version()
    )
}

/// The container's limit is the host's memory.
fn give(lab: &Lab, host: &str, memory: &str) {
    let container = lab.container(host);
    docker(&[
        "update",
        "--memory",
        memory,
        "--memory-swap",
        memory,
        &container,
    ]);
}

fn shown(lab: &Lab, host: &str, parameter: &str) -> String {
    let ask = format!("su postgres -c \"psql -h /var/run/postgresql -Atc 'show {parameter}'\"");
    lab.on(host, &ask).trim().to_owned()
}

/// What a plan says of a parameter of a host.
fn planned(plan: &Value, host: &str, parameter: &str) -> Value {
    let entries = plan["tuning"].as_array().unwrap();
    let of_host = entries
        .iter()
        .filter(|it| it["hosts"].as_array().unwrap().contains(&json!(host)));
    let mut parameters = of_host.flat_map(|it| it["parameters"].as_array().unwrap());
    let found = parameters.find(|it| it["name"] == parameter);
    found.map_or(Value::Null, |it| it["value"].clone())
}

#[test]
fn members_have_what_suits_their_size() {
    let lab = Lab::new("tuning", &inventory("defaults"));
    lab.expect(0, &["up", "--yes"]);
    lab.sql("create table kept as select generate_series(1, 1000)");
    assert_eq!(shown(&lab, "one", "shared_buffers"), "128MB");

    // A container without a limit sees the memory of its machine, which others use too.
    lab.write_inventory(&inventory("auto"));
    assert_eq!(lab.json(&["plan", "--json"])["tuning"], json!([]));

    give(&lab, "one", "2g");
    give(&lab, "two", "4g");
    let plan = lab.json(&["plan", "--json"]);
    assert_eq!(planned(&plan, "one", "shared_buffers"), "256MB");
    assert_eq!(planned(&plan, "two", "shared_buffers"), "896MB");
    assert_eq!(planned(&plan, "two", "max_connections"), "100");
    assert_eq!(
        planned(&plan, "one", "work_mem"),
        Value::Null,
        "the inventory sets it"
    );
    let text = lab.expect(0, &["plan"]).stdout;
    assert!(text.contains("shared_buffers = 896MB (a quarter"), "{text}");
    lab.expect(0, &["up", "--yes"]);
    for (host, memory) in [("one", "256MB"), ("two", "896MB")] {
        assert_eq!(shown(&lab, host, "shared_buffers"), memory);
        assert_eq!(shown(&lab, host, "work_mem"), "5MB");
    }
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["verify"]);

    // Another kernel reports a little less; then the host really becomes smaller.
    give(&lab, "two", "4000m");
    lab.expect(0, &["plan", "--check"]);
    give(&lab, "two", "3g");
    lab.expect(4, &["plan", "--check"]);
    lab.expect(0, &["up", "--yes"]);
    assert_eq!(shown(&lab, "two", "shared_buffers"), "640MB");
    assert_eq!(lab.sql("select count(*) from kept"), "1000");
    lab.expect(0, &["verify"]);
}
