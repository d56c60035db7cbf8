//! Before a launch: what it would create, and whether it is allowed.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{InstanceStateName as State, ResourceType};

use super::{
    AwsProvider,
    account::Account,
    failure::{Doing, Failure, allowed},
    groups,
    instance::{Found, filter},
    key_pair, quota, request, rules,
    survey::{Place, Survey},
    together,
};
use crate::{
    error::{Error, Result},
    inventory::{HostName, Role},
    prepared::Choice,
    provider::Preflight,
};

impl AwsProvider {
    /// What would be created for missing hosts, or why it could not be.
    pub(super) async fn ask_beforehand(
        &self,
        account: &Account,
        missing: &[HostName],
        alive: &[Found],
        public_key: &str,
    ) -> Result<Preflight> {
        let cluster = &self.inventory.cluster;
        let survey = self.survey(account, missing, alive).await?;
        let to_start: Vec<&Found> = alive.iter().filter(|it| it.is_stopped()).collect();
        let (groups, key, quota, taken) = tokio::try_join!(
            async { Ok::<_, Error>(groups::find(&account.ec2, cluster, &survey.vpc).await?) },
            async { Ok(key_pair::find(&account.ec2, cluster).await?) },
            quota::check(account, &survey.places, &self.settings, &to_start),
            async { Ok(self.taken_addresses(account, &survey).await?) },
        )?;
        key_pair::check(cluster, key.as_ref())?;
        let new_groups: Vec<Role> = rules::needed(&self.inventory)
            .filter(|role| !groups.contains_key(role))
            .collect();
        let new_key = key.is_none().then_some(public_key);
        let asked = self
            .ask_permissions(account, &survey, &taken, new_groups.first(), new_key)
            .await;
        let mut doubts = Vec::from_iter(quota);
        doubts.extend(taken.iter().map(|(host, taken)| taken.in_words(host)));
        let mut refused = Vec::new();
        for answer in asked {
            match answer {
                Ok(doubt) => doubts.extend(doubt),
                Err(failure) => refused.push(Error::from(failure).left("nothing was made")),
            }
        }
        together(refused, |count| format!("{count} things are not allowed"))?;
        let mut made = self.made(&survey, &new_groups, new_key.is_some());
        made.extend(self.balancer_to_make(&survey, alive));
        Ok(Preflight {
            made,
            doubts,
            // A missing image matters more to the user than one that is there.
            prepared: survey
                .prepared
                .iter()
                .find(|choice| matches!(choice, Choice::Missing(_)))
                .or(survey.prepared.first())
                .cloned(),
        })
    }

    /// One line for each thing that would be created.
    fn made(&self, survey: &Survey, groups: &[Role], key_pair: bool) -> Vec<String> {
        let cluster = &self.inventory.cluster;
        let mut lines = Vec::new();
        let mut images: BTreeMap<&str, &str> = BTreeMap::new();
        for (host, place) in &survey.places {
            lines.push(self.instance_in_words(host, place));
            lines.extend(self.data_volume_in_words(host, place));
            images.insert(&place.image.id, &place.image.name);
        }
        lines.extend(
            images
                .iter()
                .map(|(id, name)| format!("of the image {id} ({name})")),
        );
        lines.extend(groups.iter().map(|role| {
            format!(
                "security group {} in {}",
                groups::name(cluster, *role),
                survey.vpc
            )
        }));
        let networks = |networks: &[ipnet::Ipv4Net]| {
            let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
            networks.join(", ")
        };
        lines.push(format!(
            "SSH and the statistics page reachable from {}",
            networks(&survey.operators)
        ));
        lines.push(format!(
            "the ports {} and {} for clients reachable from {}",
            self.inventory.haproxy.write_port,
            self.inventory.haproxy.read_port,
            networks(&self.inventory.postgresql.allow)
        ));
        lines.extend(
            self.inventory
                .pgbouncer
                .as_ref()
                .map(|it| format!("and the pooler's port {}", it.port)),
        );
        if key_pair {
            lines.push(format!("key pair {}", key_pair::name(cluster)));
        }
        lines
    }

    fn instance_in_words(&self, host: &HostName, place: &Place) -> String {
        let own = &self.settings.hosts[host];
        let address = self.inventory.hosts[host].address;
        let address = address.map_or_else(String::new, |it| format!(" as {it}"));
        let volume = match own.iops {
            Some(iops) => format!("{} GiB with {iops} IOPS", place.volume_gb),
            None => format!("{} GiB", place.volume_gb),
        };
        let credits = match self.settings.cpu_credits {
            Some(credits) if place.kind.burstable => format!(" ({} CPU credits)", credits.as_str()),
            _ => String::new(),
        };
        let profile = self.inventory.profile_of(host);
        let profile = profile.map_or_else(String::new, |name| {
            format!(" with the instance profile {name}")
        });
        format!(
            "instance {host}: {}{credits}, {volume}, in {} ({}){address}{profile}",
            own.instance_type, place.subnet.zone, place.subnet.id
        )
    }

    fn data_volume_in_words(&self, host: &HostName, place: &Place) -> Option<String> {
        let wanted = self.settings.hosts[host].data_volume.as_ref()?;
        let at = self.inventory.mount_point();
        Some(match &place.data_volume {
            Some(kept) => format!(
                "{host} gets its data volume {} again, {} GiB, for {at}",
                kept.id, kept.size_gb
            ),
            None => format!(
                "data volume of {host}: {} GiB{}, for {at}; it stays when the instance goes",
                wanted.size_gb,
                wanted
                    .iops
                    .map_or_else(String::new, |it| format!(" with {it} IOPS"))
            ),
        })
    }

    /// Asks EC2 whether the calls of a launch would be allowed, as far as this is possible before anything
    /// exists.
    async fn ask_permissions(
        &self,
        account: &Account,
        survey: &Survey,
        taken: &BTreeMap<&HostName, Taken>,
        new_group: Option<&Role>,
        new_key: Option<&str>,
    ) -> [Result<Option<String>, Failure>; 3] {
        let ec2 = &account.ec2;
        let cluster = &self.inventory.cluster;
        let tags = self.tags();
        let instance = async {
            // Of all hosts, the one that also needs the permission to be given a profile.
            let profile = |host: &HostName| self.inventory.profile_of(host);
            let mut places = survey.places.iter();
            let asked = places.find(|(host, _)| profile(host).is_some());
            let Some((host, place)) = asked.or(survey.places.first_key_value()) else {
                return Ok(None);
            };
            let doing = match profile(host) {
                Some(name) => format!(
                    "launch a host with the instance profile {name} (ec2:RunInstances, ec2:CreateTags, iam:PassRole)"
                ),
                None => "launch instances (ec2:RunInstances, ec2:CreateTags)".to_owned(),
            };
            let spec = self.spec(host, place);
            let mut call = request::run_instance(ec2, &spec, &tags, None);
            // EC2 may answer that the address is in use instead of whether the launch is allowed.
            if taken.contains_key(host) {
                let mut interfaces = call.get_network_interfaces().clone().unwrap_or_default();
                for interface in &mut interfaces {
                    interface.private_ip_address = None;
                }
                call = call.set_network_interfaces(Some(interfaces));
            }
            match call.send().await.doing(doing) {
                // No launch would do better.
                Err(failure) if failure.is_unknown_profile() => Err(failure),
                asked => allowed(asked),
            }
        };
        let group = async {
            let Some(role) = new_group else {
                return Ok(None);
            };
            let asked = ec2
                .create_security_group()
                .group_name(groups::name(cluster, *role))
                .description("pgherd")
                .vpc_id(&survey.vpc)
                .tag_specifications(tags.of(ResourceType::SecurityGroup))
                .dry_run(true)
                .send()
                .await;
            allowed(asked.doing("make security groups (ec2:CreateSecurityGroup, ec2:CreateTags)"))
        };
        let key = async {
            match new_key {
                Some(key) => key_pair::ask(ec2, cluster, key, &tags).await,
                None => Ok(None),
            }
        };
        <[_; 3]>::from(tokio::join!(instance, group, key))
    }

    /// Which of the fixed addresses are in use.
    async fn taken_addresses<'a>(
        &self,
        account: &Account,
        survey: &'a Survey,
    ) -> Result<BTreeMap<&'a HostName, Taken>, Failure> {
        let fixed: BTreeMap<String, (&HostName, &Place)> = survey
            .places
            .iter()
            .filter_map(|(host, place)| {
                let address = self.inventory.hosts[host].address?;
                Some((address.to_string(), (host, place)))
            })
            .collect();
        if fixed.is_empty() {
            return Ok(BTreeMap::new());
        }
        let interfaces = account
            .ec2
            .describe_network_interfaces()
            .filters(filter("vpc-id", [survey.vpc.as_str()]))
            .filters(filter(
                "addresses.private-ip-address",
                fixed.keys().map(String::as_str),
            ))
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>()
            .await
            .doing("see whether the hosts' addresses are free")?;
        let mut taken = BTreeMap::new();
        for interface in &interfaces {
            for address in interface.private_ip_addresses() {
                let address = address.private_ip_address().unwrap_or_default();
                let Some((host, place)) = fixed.get(address) else {
                    continue;
                };
                if interface.subnet_id() == Some(&place.subnet.id) {
                    let by = interface.network_interface_id().unwrap_or_default();
                    let by = match interface.attachment().and_then(|it| it.instance_id()) {
                        Some(instance) => format!("{by} of {instance}"),
                        None => by.to_owned(),
                    };
                    let address = address.to_owned();
                    taken.insert(*host, Taken { address, by });
                }
            }
        }
        Ok(taken)
    }

    /// Asks EC2 whether the stopped instances may be started.
    pub(super) async fn ask_start(
        &self,
        account: &Account,
        alive: &[Found],
    ) -> Result<Option<String>> {
        let all = alive.iter().filter(|it| it.state == State::Stopped);
        let ids: Vec<String> = all.map(|it| it.id.clone()).collect();
        if ids.is_empty() {
            return Ok(None);
        }
        let asked = account
            .ec2
            .start_instances()
            .set_instance_ids(Some(ids))
            .dry_run(true)
            .send()
            .await;
        Ok(allowed(asked.doing(
            "start the stopped instances (ec2:StartInstances)",
        ))?)
    }
}

/// A fixed address that a network interface has already.
struct Taken {
    address: String,
    by: String,
}

impl Taken {
    fn in_words(&self, host: &HostName) -> String {
        let Self { address, by } = self;
        format!(
            "the address {address} of {host} belongs to {by} now; `up` waits some minutes for it"
        )
    }
}
