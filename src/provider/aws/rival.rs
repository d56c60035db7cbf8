//! Two runs that launch the same hosts at once, from copies of a workspace.
//!
//! Until a host answers, there is no place for a lease, and EC2 would launch as many instances of a name as it
//! is asked for. So each run looks, while its instances start, for other instances of the same hosts. The run
//! that launched the first of all of them continues, and the others terminate theirs.

use std::collections::BTreeMap;

use super::instance::Found;
use crate::{
    error::{Code, Error},
    holder::AT_WORK,
    inventory::HostName,
};

/// The instance that was launched before all of `mine`, if another run launches the same hosts.
pub(super) fn ahead<'a>(
    found: &'a [Found],
    mine: &BTreeMap<HostName, String>,
) -> Option<&'a Found> {
    let of_mine = found
        .iter()
        .filter(|it| it.is_alive() && mine.contains_key(&it.host));
    let is_mine = |it: &Found| mine.get(&it.host) == Some(&it.id);
    // Every run compares the same instances, so all come to the same result.
    let first = of_mine.min_by_key(|it| (it.launched, &it.id))?;
    (!is_mine(first)).then_some(first)
}

pub(super) fn refused(cluster: &str, first: &Found) -> Error {
    let by = first.by.as_deref().unwrap_or("somebody");
    let at = jiff::Timestamp::from_second(first.launched).unwrap_or_default();
    let at = at.strftime("%Y-%m-%d %H:%M:%S UTC");
    Error::new(Code::LeaseHeld, format!("{AT_WORK} `{cluster}`"))
        .cause(format!(
            "EC2 says: {by} launched {} for {} before this run did, at {at}",
            first.id, first.host
        ))
        .hint("wait until it has ended; then this command finds its hosts")
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::InstanceStateName as State;

    use super::*;

    fn found(id: &str, host: &str, launched: i64, state: State) -> Found {
        Found {
            id: id.into(),
            host: HostName::new(host),
            state,
            private: None,
            public: None,
            zone: String::new(),
            image_id: String::new(),
            image: None,
            architecture: String::new(),
            host_key: None,
            cluster_id: None,
            key_name: None,
            vpc: None,
            subnet: None,
            interface: None,
            groups: Vec::new(),
            profile: None,
            launched,
            by: Some("anna@laptop".into()),
            vcpus: 2,
            reason: None,
            has_data_volume: false,
            data_volume: None,
        }
    }

    #[test]
    fn of_two_runs_exactly_one_goes_on() {
        let alice = BTreeMap::from([
            (HostName::new("node1"), "i-3".to_owned()),
            (HostName::new("node2"), "i-1".to_owned()),
        ]);
        let bob = BTreeMap::from([
            (HostName::new("node1"), "i-2".to_owned()),
            (HostName::new("node2"), "i-4".to_owned()),
        ]);
        let mut all = vec![
            found("i-3", "node1", 11, State::Pending),
            found("i-1", "node2", 10, State::Pending),
            found("i-9", "node9", 1, State::Running),
        ];
        assert!(ahead(&all, &alice).is_none(), "nobody else is there");
        all.push(found("i-2", "node1", 10, State::Pending));
        all.push(found("i-4", "node2", 12, State::Running));
        assert!(ahead(&all, &alice).is_none());
        let first = ahead(&all, &bob).unwrap();
        assert_eq!(first.id, "i-1");
        let said = refused("pg", first).to_string();
        assert!(
            said.contains(AT_WORK) && said.contains("anna@laptop"),
            "{said}"
        );
        // An instance that is being terminated does not count.
        let ended: Vec<Found> = all
            .into_iter()
            .map(|mut it| {
                if it.id == "i-1" || it.id == "i-3" {
                    it.state = State::ShuttingDown;
                }
                it
            })
            .collect();
        assert!(ahead(&ended, &bob).is_none());
    }
}
