//! The forms in which programs take a connection's settings.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Endpoint;

/// How a program is told where to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// libpq's connection string: `psql "…"`
    Libpq,
    /// A URI, as `DATABASE_URL` often has it
    Uri,
    /// Variables of the environment: `PGHOST`, `PGUSER`, …
    Env,
    /// A section for `~/.pg_service.conf`
    Service,
    /// Lines for `~/.pgpass`
    Pgpass,
    /// A URL for JDBC
    Jdbc,
}

impl Format {
    pub(crate) const ALL: [Format; 6] = [
        Format::Libpq,
        Format::Uri,
        Format::Env,
        Format::Service,
        Format::Pgpass,
        Format::Jdbc,
    ];

    /// Whether this is a place for secrets.
    pub(crate) fn holds_password(self) -> bool {
        matches!(self, Format::Uri | Format::Env | Format::Pgpass)
    }

    /// The text, with a newline at its end. The password is in it only if the format holds one and the caller wants it.
    pub(crate) fn text(self, endpoint: &Endpoint, with_password: bool) -> String {
        let password = (with_password && self.holds_password()).then(|| endpoint.password.expose());
        match self {
            Format::Libpq => libpq(endpoint) + "\n",
            Format::Uri => uri(endpoint, password) + "\n",
            Format::Env => env(endpoint, password),
            Format::Service => service(endpoint),
            Format::Pgpass => pgpass(endpoint, password.unwrap_or_default()),
            Format::Jdbc => jdbc(endpoint) + "\n",
        }
    }
}

/// All forms without the password.
pub(crate) fn document(endpoint: &Endpoint) -> Value {
    json!({
        "hosts": endpoint.hosts,
        "port": endpoint.port,
        "user": endpoint.user,
        "database": endpoint.database,
        "read": endpoint.read,
        "pooled": endpoint.pooled,
        "sslmode": sslmode(endpoint),
        "sslrootcert": endpoint.authority,
        "target_session_attrs": endpoint.finds_leader.then_some("read-write"),
        "connect_timeout": endpoint.each(),
        "libpq": libpq(endpoint),
        "uri": uri(endpoint, None),
        "jdbc": jdbc(endpoint),
    })
}

fn sslmode(endpoint: &Endpoint) -> &'static str {
    match endpoint.authority {
        Some(_) => "verify-full",
        None => "disable",
    }
}

/// libpq's names and values, but for the user's password.
///
/// Source: PostgreSQL's documentation, 34.1.2.
fn settings(endpoint: &Endpoint) -> Vec<(&'static str, String)> {
    let ports = vec![endpoint.port.to_string(); endpoint.hosts.len()];
    let mut settings = vec![
        ("host", endpoint.hosts.join(",")),
        ("port", ports.join(",")),
        ("dbname", endpoint.database.clone()),
        ("user", endpoint.user.clone()),
        ("sslmode", sslmode(endpoint).to_owned()),
    ];
    settings.extend(endpoint.authority.clone().map(|it| ("sslrootcert", it)));
    if endpoint.finds_leader {
        settings.push(("target_session_attrs", "read-write".to_owned()));
    }
    settings.extend(
        endpoint
            .each()
            .map(|it| ("connect_timeout", it.to_string())),
    );
    settings
}

fn libpq(endpoint: &Endpoint) -> String {
    let plain = |value: &str| {
        !value.is_empty()
            && !value.contains(|it: char| it.is_whitespace() || it == '\'' || it == '\\')
    };
    let setting = |(name, value): (&str, String)| match plain(&value) {
        true => format!("{name}={value}"),
        false => format!(
            "{name}='{}'",
            value.replace('\\', "\\\\").replace('\'', "\\'")
        ),
    };
    let all: Vec<String> = settings(endpoint).into_iter().map(setting).collect();
    all.join(" ")
}

/// A part of a URI: everything but letters, digits, and four signs is escaped.
///
/// Source: RFC 3986, 2.3.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            byte => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

fn hosts_with_ports(endpoint: &Endpoint) -> String {
    let each = endpoint.hosts.iter();
    let each: Vec<String> = each
        .map(|host| format!("{host}:{}", endpoint.port))
        .collect();
    each.join(",")
}

fn uri(endpoint: &Endpoint, password: Option<&str>) -> String {
    let password = password.map_or_else(String::new, |it| format!(":{}", escaped(it)));
    let rest = settings(endpoint).into_iter();
    let rest = rest.filter(|(name, _)| !["host", "port", "dbname", "user"].contains(name));
    let rest: Vec<String> = rest
        .map(|(name, value)| format!("{name}={}", escaped(&value)))
        .collect();
    format!(
        "postgresql://{}{password}@{}/{}?{}",
        escaped(&endpoint.user),
        hosts_with_ports(endpoint),
        escaped(&endpoint.database),
        rest.join("&")
    )
}

/// As shells and systemd read it; values are quoted only if they need it, because other readers take quotes as they are.
fn env(endpoint: &Endpoint, password: Option<&str>) -> String {
    let name_of = |name: &str| match name {
        "dbname" => "PGDATABASE".to_owned(),
        "target_session_attrs" => "PGTARGETSESSIONATTRS".to_owned(),
        name => format!("PG{}", name.to_uppercase().replace('_', "")),
    };
    let mut lines: Vec<(String, String)> = settings(endpoint)
        .into_iter()
        .map(|(name, value)| match name {
            "connect_timeout" => ("PGCONNECT_TIMEOUT".to_owned(), value),
            name => (name_of(name), value),
        })
        .collect();
    lines.extend(password.map(|it| ("PGPASSWORD".to_owned(), it.to_owned())));
    let plain = |value: &str| {
        value
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || "-_./:,@+=%".contains(it))
    };
    let line = |(name, value): (String, String)| match plain(&value) {
        true => format!("{name}={value}\n"),
        false => format!("{name}='{}'\n", value.replace('\'', "'\\''")),
    };
    lines.into_iter().map(line).collect()
}

fn service(endpoint: &Endpoint) -> String {
    let mut text = format!("[{}]\n", endpoint.cluster);
    for (name, value) in settings(endpoint) {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

/// Source: PostgreSQL's documentation, 34.16.
fn pgpass(endpoint: &Endpoint, password: &str) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let line = |host: &String| {
        format!(
            "{}:{}:{}:{}:{}\n",
            escaped(host),
            endpoint.port,
            escaped(&endpoint.database),
            escaped(&endpoint.user),
            escaped(password)
        )
    };
    endpoint.hosts.iter().map(line).collect()
}

/// Source: pgJDBC's documentation, "Initializing the Driver".
fn jdbc(endpoint: &Endpoint) -> String {
    let mut rest = vec![
        ("user", endpoint.user.clone()),
        ("sslmode", sslmode(endpoint).to_owned()),
    ];
    rest.extend(endpoint.authority.clone().map(|it| ("sslrootcert", it)));
    if endpoint.finds_leader {
        rest.push(("targetServerType", "primary".to_owned()));
    }
    rest.extend(endpoint.each().map(|it| ("connectTimeout", it.to_string())));
    if endpoint.pooled {
        // Statements that the server prepares do not outlive a transaction there.
        rest.push(("prepareThreshold", "0".to_owned()));
    }
    let rest: Vec<String> = rest
        .into_iter()
        .map(|(name, value)| format!("{name}={}", escaped(&value)))
        .collect();
    format!(
        "jdbc:postgresql://{}/{}?{}",
        hosts_with_ports(endpoint),
        escaped(&endpoint.database),
        rest.join("&")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn endpoint(hosts: &[&str], user: &str) -> Endpoint {
        Endpoint {
            cluster: "pg".into(),
            hosts: hosts.iter().map(|it| (*it).to_owned()).collect(),
            port: 5000,
            user: user.into(),
            database: "my shop".into(),
            password: Secret::new("a'b:c#d\\"),
            authority: Some("/home/me/a b/ca.crt".into()),
            finds_leader: hosts.len() > 1,
            pooled: false,
            read: false,
        }
    }

    #[test]
    fn values_are_quoted_as_each_reader_wants_it() {
        let one = endpoint(&["192.0.2.1"], "shop");
        assert_eq!(
            Format::Libpq.text(&one, true),
            "host=192.0.2.1 port=5000 dbname='my shop' user=shop sslmode=verify-full \
             sslrootcert='/home/me/a b/ca.crt'\n"
        );
        assert_eq!(
            Format::Uri.text(&one, true),
            "postgresql://shop:a%27b%3Ac%23d%5C@192.0.2.1:5000/my%20shop?sslmode=verify-full\
             &sslrootcert=%2Fhome%2Fme%2Fa%20b%2Fca.crt\n"
        );
        assert_eq!(
            Format::Pgpass.text(&one, true),
            "192.0.2.1:5000:my shop:shop:a'b\\:c#d\\\\\n"
        );
        let env = Format::Env.text(&one, true);
        assert!(env.contains("PGDATABASE='my shop'\n"), "{env}");
        assert!(env.contains("PGPASSWORD='a'\\''b:c#d\\'\n"), "{env}");
    }

    #[test]
    fn several_hosts_are_tried_one_after_the_other() {
        let two = endpoint(&["192.0.2.1", "192.0.2.2"], "shop");
        let text = Format::Libpq.text(&two, false);
        for part in [
            "host=192.0.2.1,192.0.2.2 port=5000,5000 ",
            "target_session_attrs=read-write connect_timeout=3",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let text = Format::Jdbc.text(&two, false);
        let begin = "jdbc:postgresql://192.0.2.1:5000,192.0.2.2:5000/my%20shop?user=shop&";
        assert!(text.starts_with(begin), "{text}");
        assert!(text.contains("targetServerType=primary&connectTimeout=3"));
        let env = Format::Env.text(&two, false);
        assert!(
            env.contains("PGTARGETSESSIONATTRS=read-write\nPGCONNECT_TIMEOUT=3\n"),
            "{env}"
        );
        assert_eq!(Format::Pgpass.text(&two, true).lines().count(), 2);
    }

    #[test]
    fn a_password_shows_only_where_secrets_belong() {
        let one = endpoint(&["192.0.2.1"], "shop");
        for format in [Format::Libpq, Format::Service, Format::Jdbc] {
            assert!(!format.text(&one, true).contains("c#d"), "{format:?}");
        }
        for format in [Format::Uri, Format::Env] {
            assert!(!format.text(&one, false).contains("c#d"), "{format:?}");
        }
        assert!(!document(&one).to_string().contains("c#d"));
    }
}
