//! Compares existing security groups, and the hosts in them, with the inventory.

use aws_sdk_ec2::Client;
use futures_util::future;
use ipnet::Ipv4Net;

use super::{
    groups::{self, Amendment},
    growth::{self, Growth},
    instance::Found,
    membership::{self, Membership},
    profile,
    public_address::PublicAddress,
    removal::{GROUP, INSTANCE},
    rules::Sources,
    survey, together, volumes,
};
use crate::{
    error::{Error, Kind, Result},
    event::{Event, Events, HostState},
    inventory::{Aws, Inventory},
    provider::Part,
};

#[derive(Debug, Default)]
pub(super) struct Drift {
    rules: Vec<Amendment>,
    memberships: Vec<Membership>,
    /// Instances whose data volume would go with them.
    lose_data: Vec<Found>,
    growths: Vec<Growth>,
    profiles: Vec<profile::Change>,
}

impl Drift {
    /// Compares only what exists; a launch creates the rest correctly.
    pub(super) async fn find(
        ec2: &Client,
        inventory: &Inventory,
        settings: &Aws,
        public_address: &PublicAddress,
        balancer: &[Ipv4Net],
        found: &[Found],
    ) -> Result<Self> {
        let loses_data = |it: &&Found| it.own_data_volume().is_some_and(|it| !it.stays);
        let mut drift = Self {
            lose_data: found.iter().filter(loses_data).cloned().collect(),
            growths: growth::find(ec2, settings, found).await?,
            profiles: profile::wrong(inventory, found),
            ..Self::default()
        };
        for (vpc, groups) in groups::find_all(ec2, &inventory.cluster).await? {
            let operators = match survey::operators(ec2, settings, public_address, &vpc).await {
                Ok(operators) => Some(operators),
                // The public address of this machine is unknown. The rules for operators then stay as they are.
                Err(error) if error.kind() == Kind::Input => None,
                Err(error) => return Err(error),
            };
            let sources = Sources {
                operators: operators.as_deref(),
                balancer,
            };
            let rules = groups::amendments(inventory, sources, &groups);
            drift.rules.extend(rules);
            let here = found.iter().filter(|it| it.vpc.as_ref() == Some(&vpc));
            let here: Vec<Found> = here.cloned().collect();
            let memberships = membership::wrong(inventory, &groups, &here);
            drift.memberships.extend(memberships);
        }
        Ok(drift)
    }

    /// One line for each change.
    pub(super) fn into_lines(self) -> Vec<String> {
        let rules = self.rules.into_iter().map(|it| it.line);
        let memberships = self.memberships.into_iter().map(|it| it.line);
        let volumes = self.lose_data.iter().filter_map(|it| {
            let volume = it.own_data_volume()?;
            let (host, id) = (&it.host, &volume.id);
            Some(format!(
                "the data volume {id} of {host} stays when its instance goes"
            ))
        });
        let growths = self.growths.iter().map(|it| it.line.clone());
        let profiles = self.profiles.iter().map(|it| it.line.clone());
        rules
            .chain(memberships)
            .chain(volumes)
            .chain(growths)
            .chain(profiles)
            .collect()
    }

    /// Asks EC2 whether the correction is allowed, and changes nothing. Returns answers that are not about
    /// permissions.
    pub(super) async fn ask(&self, ec2: &Client) -> Result<Vec<String>> {
        let (rules, memberships, growths) = tokio::join!(
            future::join_all(self.rules.iter().map(|it| it.ask(ec2))),
            future::join_all(self.memberships.iter().map(|it| it.ask(ec2))),
            future::join_all(self.growths.iter().map(|it| it.ask(ec2))),
        );
        let (mut doubts, mut refused) = (Vec::new(), Vec::new());
        let answers = rules.into_iter().flatten().chain(memberships);
        for answer in answers.chain(growths) {
            match answer {
                Ok(doubt) => doubts.extend(doubt),
                Err(failure) => refused.push(Error::from(failure).left("nothing was changed")),
            }
        }
        together(refused, |count| format!("{count} things are not allowed"))?;
        Ok(doubts)
    }

    /// Corrects what can be corrected, or only what is missing.
    pub(super) async fn repair(&self, ec2: &Client, part: Part, events: &Events) -> Result<()> {
        let changed = |kind: &str, id: &str, name: &str| {
            events.emit(Event::Resource {
                kind: kind.to_owned(),
                id: id.to_owned(),
                name: name.to_owned(),
                state: HostState::Changed,
            });
        };
        let rules = self.rules.iter().map(|it| async move {
            if it.apply(ec2, part).await? {
                changed(GROUP, &it.id, &it.name);
            }
            Ok(())
        });
        let memberships = self.memberships.iter().map(|it| async move {
            let applied = it.apply(ec2, part).await;
            if applied.map_err(|error| Error::from(error).on(&it.host))? {
                changed(INSTANCE, &it.id, it.host.as_str());
            }
            Ok(())
        });
        let volumes = self.lose_data.iter().map(|it| async move {
            let kept = volumes::keep(ec2, &it.id).await;
            kept.map_err(|failure| Error::from(failure).on(&it.host))?;
            changed(INSTANCE, &it.id, it.host.as_str());
            Ok(())
        });
        let growths = self.growths.iter().map(|it| async move {
            it.apply(ec2).await?;
            changed("volume", &it.id, it.host.as_str());
            Ok(())
        });
        let profiles = self.profiles.iter().map(|it| async move {
            let applied = it.apply(ec2, part).await;
            if applied.map_err(|failure| Error::from(failure).on(&it.host))? {
                changed(INSTANCE, &it.id, it.host.as_str());
            }
            Ok(())
        });
        let (rules, memberships, volumes, growths, profiles) = tokio::join!(
            future::join_all(rules),
            future::join_all(memberships),
            future::join_all(volumes),
            future::join_all(growths),
            future::join_all(profiles),
        );
        let failures = rules.into_iter().chain(memberships).chain(volumes);
        let failures = failures.chain(growths).chain(profiles);
        let failures: Vec<Error> = failures.filter_map(Result::err).collect();
        together(failures, |count| {
            format!("{count} things could not be corrected")
        })
    }
}
