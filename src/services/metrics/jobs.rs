//! What can be read through the door of a host.

use super::Role;

/// One set of metrics of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    /// Its name in the door's list, and Prometheus' label `job`.
    pub(crate) name: &'static str,
    /// The hosts with this role have it.
    pub(crate) role: Role,
    /// What one line begins with if all is well.
    pub(crate) sign: &'static str,
}

const fn job(name: &'static str, role: Role, sign: &'static str) -> Job {
    Job { name, role, sign }
}

pub(super) static JOBS: [Job; 5] = [
    job(
        "node",
        Role::NodeExporter,
        "pgherd_metrics_written_seconds ",
    ),
    job("postgres", Role::PostgresExporter, "pg_up 1"),
    job("patroni", Role::Postgres, "patroni_postgres_running{"),
    job("etcd", Role::Etcd, "etcd_server_has_leader "),
    job("haproxy", Role::Haproxy, "haproxy_process_uptime_seconds "),
];

/// The jobs of a host with these roles, in the table's order.
pub(crate) fn of(roles: &[Role]) -> impl Iterator<Item = &'static Job> {
    JOBS.iter().filter(move |job| roles.contains(&job.role))
}

/// Where the door shows a job's metrics.
pub(crate) fn path(job: &Job) -> String {
    format!("/proxy?module={}", job.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_jobs_of_its_roles() {
        let names = |roles: &[Role]| -> Vec<&str> { of(roles).map(|job| job.name).collect() };
        let database = [
            Role::Postgres,
            Role::NodeExporter,
            Role::PostgresExporter,
            Role::Metrics,
        ];
        assert_eq!(names(&database), ["node", "postgres", "patroni"]);
        assert_eq!(names(&[Role::Metrics]), Vec::<&str>::new());
    }
}
