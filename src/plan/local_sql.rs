//! SQL as the superuser on a host itself, over the local socket, without a password.

use crate::{
    cluster::Cluster,
    remote::{Script, quote},
    sql::SESSION,
};

/// Goes before every statement that holds a verifier: the server must not log it, and it must not wait for
/// replicas, which may not exist yet.
pub(super) const QUIETLY: &str = "\\set ON_ERROR_STOP on\nset log_statement = 'none';\nset log_min_duration_statement = -1;\n\
     set log_min_error_statement = 'panic';\nset synchronous_commit = 'local';\n";

/// `local_psql PORT …`: psql as the superuser over the local socket, which asks for no password.
pub(super) fn local_psql() -> String {
    format!(
        r#"local_psql() {{
  port=$1
  shift
  psql=$(ls /usr/lib/postgresql/*/bin/psql | sort -V | tail -n 1)
  cd /
  PGOPTIONS={} setpriv --reuid=postgres --regid=postgres --init-groups "$psql" -qX -h /var/run/postgresql -p "$port" -U postgres -d postgres "$@"
}}"#,
        quote(SESSION)
    )
}

/// Makes a script run SQL as the superuser, over standard input.
pub(crate) fn local_sql(script: Script, cluster: &Cluster, sql: &str) -> Script {
    let port = cluster.inventory.postgresql.port;
    script.line(local_psql()).line(format!(
        "printf '%s' {} | local_psql {port} -o /dev/null",
        quote(sql),
    ))
}

/// The same for a query. Its rows go to standard output, one on each line.
pub(crate) fn local_query(script: Script, cluster: &Cluster, sql: &str) -> Script {
    let port = cluster.inventory.postgresql.port;
    script.line(local_psql()).line(format!(
        "printf '%s' {} | local_psql {port} -At",
        quote(sql),
    ))
}
