//! Whether the load balancer leads clients to every front door.

use super::Check;
use crate::{error::Error, provider::Balancer};

/// The state in which it serves clients.
const ACTIVE: &str = "active";
/// The state in which its provider still makes it.
const PROVISIONING: &str = "provisioning";

/// Whether it, or what it leads to, is still being made.
pub(crate) fn is_coming(balancer: &Balancer) -> bool {
    balancer.state == PROVISIONING || balancer.targets.iter().any(|it| it.coming)
}

/// The check where the provider does not answer.
pub(super) fn unknown(error: &Error) -> Check {
    let wrong = format!("whether it leads to the front doors is not known: {error}");
    Check::of("load-balancer", vec![wrong], String::new())
}

/// `up` is the command that puts right what is missing.
pub(super) fn load_balancer(balancer: &Balancer, up: &str) -> Check {
    let Balancer { name, state, .. } = balancer;
    let mut wrong = Vec::new();
    match &balancer.address {
        None => wrong.push(format!("there is no load balancer {name}: `{up}` makes it")),
        Some(_) if state != ACTIVE => wrong.push(format!("{name} is {state}")),
        Some(_) if balancer.targets.is_empty() => {
            wrong.push(format!(
                "{name} leads to no front door: `{up}` puts that right"
            ));
        }
        Some(_) => {}
    }
    let ill = balancer.targets.iter().filter(|it| !it.healthy);
    wrong.extend(ill.map(|it| {
        let why = it.why.as_ref();
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        format!(
            "{name} leads no client to {}:{}, which it calls {}{why}",
            it.host, it.port, it.state
        )
    }));
    let mut doors: Vec<&str> = balancer.targets.iter().map(|it| it.host.as_str()).collect();
    doors.sort_unstable();
    doors.dedup();
    let right = format!("{name} leads to {}", doors.join(", "));
    Check::of("load-balancer", wrong, right)
}

#[cfg(test)]
mod tests {
    use super::{super::Proof, *};
    use crate::{error::Code, provider::Target};

    fn target(host: &str, port: u16, state: &str) -> Target {
        Target {
            host: host.into(),
            port,
            state: state.into(),
            healthy: state == "healthy",
            coming: state == "initial",
            why: (state == "unhealthy").then(|| "Health checks failed".into()),
        }
    }

    fn balancer(state: &str, targets: Vec<Target>) -> Balancer {
        Balancer {
            name: "pgherd-pg".into(),
            address: (state != "missing").then(|| "pg.elb.example".into()),
            state: state.into(),
            targets,
        }
    }

    #[test]
    fn every_front_door_must_be_healthy_behind_both_ports() {
        let well = || {
            vec![
                target("door1", 5000, "healthy"),
                target("door1", 5001, "healthy"),
            ]
        };
        let check = load_balancer(&balancer("active", well()), "pgherd up");
        assert!(check.passed);
        assert_eq!(check.detail, "pgherd-pg leads to door1");
        let mut ill = well();
        ill.push(target("door2", 5001, "unhealthy"));
        for (balancer, detail) in [
            (
                balancer("missing", Vec::new()),
                "there is no load balancer pgherd-pg: `pgherd up` makes it",
            ),
            (
                balancer("provisioning", well()),
                "pgherd-pg is provisioning",
            ),
            (
                balancer("active", Vec::new()),
                "pgherd-pg leads to no front door: `pgherd up` puts that right",
            ),
            (
                balancer("active", ill),
                "pgherd-pg leads no client to door2:5001, which it calls unhealthy (Health checks failed)",
            ),
        ] {
            let check = load_balancer(&balancer, "pgherd up");
            assert!(!check.passed);
            assert_eq!(check.detail, detail);
        }
    }

    /// What the hosts say is told all the same.
    #[test]
    fn a_provider_that_does_not_answer_costs_one_check() {
        let units = Check::of("units", Vec::new(), "all are active".into());
        let proof = Proof::of(vec![units.clone()]);
        let none = proof.clone().with_balancer(&Ok(None), "pgherd up");
        assert!(none.passed);
        let denied = Error::new(Code::AwsUnreachable, "AWS did not answer");
        let proof = proof.with_balancer(&Err(denied), "pgherd up");
        assert!(!proof.passed && proof.checks[0] == units);
        assert_eq!(
            proof.checks[1].detail,
            "whether it leads to the front doors is not known: AWS did not answer"
        );
    }

    #[test]
    fn what_is_still_being_made_is_waited_for() {
        assert!(is_coming(&balancer("provisioning", Vec::new())));
        assert!(is_coming(&balancer(
            "active",
            vec![target("door1", 5000, "initial")]
        )));
        assert!(!is_coming(&balancer(
            "active",
            vec![target("door1", 5000, "unhealthy")]
        )));
        assert!(!is_coming(&balancer("missing", Vec::new())));
    }
}
