//! Templates of the user that replace built-in ones.

use std::fs;

use pgherd::{
    error::Kind,
    render::{self, Templates},
};

use crate::fixture::{HOSTS, cluster, file, rendered};

fn overridden(name: &str, text: &str) -> pgherd::error::Error {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    let error = match Templates::with_overrides(dir.path()) {
        Err(error) => error,
        Ok(templates) => render::render(&cluster(&HOSTS, true), &templates).unwrap_err(),
    };
    assert_eq!(error.kind(), Kind::Input);
    error
}

#[test]
fn an_override_replaces_its_template() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("etc")).unwrap();
    fs::write(
        dir.path().join("etc/hosts"),
        "10.9.9.9 {{ node.name | hostname }}\n",
    )
    .unwrap();
    let templates = Templates::with_overrides(dir.path()).unwrap();
    let files = render::render(&cluster(&HOSTS, true), &templates).unwrap();
    assert_eq!(
        file(&files, "node2", "/etc/hosts").content,
        "10.9.9.9 node2\n"
    );
    assert_eq!(
        file(&files, "node2", "/etc/patroni.yml"),
        file(
            &rendered(&cluster(&HOSTS, true)),
            "node2",
            "/etc/patroni.yml"
        )
    );
}

#[test]
fn conditions_compare_values() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("etc")).unwrap();
    let text = "{% if node.name == 'node2' %}a{% elif node.name != \"node3\" %}b{% else %}c{% endif %}\
                {% if 'etcd' in node.roles and node.name | upper == 'NODE4' %}d{% endif %}\
                {% set name = node.name %}{{ name | hostname }}";
    fs::write(dir.path().join("etc/hosts"), text).unwrap();
    let templates = Templates::with_overrides(dir.path()).unwrap();
    let files = render::render(&cluster(&HOSTS, true), &templates).unwrap();
    for (host, expected) in [
        ("node1", "bnode1"),
        ("node2", "anode2"),
        ("node3", "cnode3"),
        ("node4", "bdnode4"),
    ] {
        assert_eq!(file(&files, host, "/etc/hosts").content, expected);
    }
}

#[test]
fn a_template_reads_neither_files_nor_the_environment() {
    for text in [
        "{{ get_env(name='HOME') | line }}",
        "{{ get_env(name='NOT_THERE', default='x') | line }}",
        "{% include '/etc/passwd' %}",
    ] {
        let error = overridden("etc/motd.d/pgherd", text);
        let said = format!("{error} {:?}", error.causes());
        assert!(
            said.contains("cannot read the environment") || said.contains("not found"),
            "{said}"
        );
    }
}

#[test]
fn an_override_of_nothing_is_refused() {
    let error = overridden("etc/patroni.yaml", "");
    assert!(
        error
            .what()
            .ends_with("etc/patroni.yaml replaces no template"),
        "{error}"
    );
    assert_eq!(error.hints(), ["did you mean `etc/patroni.yml`?"]);
}

#[test]
fn a_mistake_in_an_override_is_shown_with_its_line() {
    for (text, line, cause, hint) in [
        ("a\n{{ node.name }\n", 2, "expected", ""),
        ("a\n{% if tls.enabled %}\n", 3, "expected", ""),
        (
            "a\n\n{% if tls.enabeld %}{% endif %}",
            3,
            "unknown variable `tls.enabeld`",
            "did you mean `tls.enabled`?",
        ),
        ("{{ node.name }}", 1, "text is printed without a filter", ""),
        (
            "a\n{% for host in hosts %}\n{{ host.name }}\n{% endfor %}",
            3,
            "text is printed without a filter",
            "",
        ),
        (
            "a\n{{ 'x' ~ node.name }}",
            2,
            "text is printed without a filter",
            "",
        ),
        (
            "a\n{% filter yaml %}{{ node.name }}{% endfilter %}",
            2,
            "printed without a filter",
            "",
        ),
        (
            "a\n{{ cluster | haproxy }}",
            2,
            "a list or a mapping cannot be printed here",
            "",
        ),
        ("a\n{{ ca_bundle | pem }}", 2, "there is no value here", ""),
        ("a\n{{ node.name | hostnam }}", 2, "hostnam", ""),
        (
            "{# \n #}a\n{% for host in hosts %}{{ host.name | address }}{% endfor %}",
            3,
            "this is not an IPv4 address",
            "",
        ),
    ] {
        let error = overridden("etc/hosts", text);
        let error = error.failures().first().unwrap_or(&error);
        assert!(
            error.what().contains(&format!("etc/hosts, line {line}")),
            "{text:?}: {error}"
        );
        assert!(
            error.causes().join("\n").contains(cause),
            "{text:?}: {error}"
        );
        assert!(
            hint.is_empty() || error.hints().contains(&hint.to_owned()),
            "{text:?}: {error:?}"
        );
    }
}

#[test]
fn a_link_is_followed_as_long_as_it_stays_in_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("templates");
    let etcd = folder.join("etc/default/etcd");
    std::fs::create_dir_all(etcd.parent().unwrap()).unwrap();
    std::fs::create_dir_all(folder.join("etc/haproxy")).unwrap();
    std::fs::write(folder.join("etc/haproxy/haproxy.cfg"), "# mine\n").unwrap();
    std::os::unix::fs::symlink("../haproxy/haproxy.cfg", &etcd).unwrap();
    assert!(Templates::with_overrides(&folder).is_ok());

    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    std::fs::remove_file(&etcd).unwrap();
    std::os::unix::fs::symlink("../../../secret", &etcd).unwrap();
    let error = Templates::with_overrides(&folder).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("leads outside of the folder of templates"),
        "{error}"
    );

    // The same for a folder as for a file.
    std::fs::remove_dir_all(folder.join("etc/haproxy")).unwrap();
    std::fs::remove_file(&etcd).unwrap();
    std::os::unix::fs::symlink(dir.path(), folder.join("etc/haproxy")).unwrap();
    let error = Templates::with_overrides(&folder).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("leads outside of the folder of templates"),
        "{error}"
    );
}
