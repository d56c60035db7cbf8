//! Checks the provider's settings.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::{
    super::{
        Aws, AwsHost, Docker, HostName, LoadBalancer, Provider, ProviderKind, Scheme,
        choice::Choice as _,
        keys, limits,
        placed::{Placed, Span, span_of},
        problem::{Problem, alternatives, quoted},
        schema::{self, Number, Word},
    },
    Problems, bounded, net, one_of, shaped,
    volume::Volumes,
};

/// Checks the section for its kind; returns nothing if the kind itself is unknown.
pub(super) fn check(
    problems: &mut Problems,
    start: &Span,
    document: &schema::Document,
) -> Option<Provider> {
    let kinds = ProviderKind::words();
    let Some(written) = &document.provider else {
        problems.add(
            Problem::new(start.clone(), "the inventory has no `provider`")
                .hint("add `provider: {kind: docker}`, or another kind")
                .hint(format!("valid kinds: {}", alternatives(kinds))),
        );
        return None;
    };
    let section = &written.value;
    let Some(word) = &section.kind else {
        problems.add(
            Problem::new(span_of(written), "`provider` has no `kind`")
                .hint(format!("add `kind:` with one of {}", alternatives(kinds))),
        );
        return None;
    };
    let kind: ProviderKind = problems.keep(one_of(word))?;
    let takes = keys::of_kind(keys::PROVIDER, kind);
    for (key, at) in schema::written(section) {
        if !takes.contains(&key.as_str()) {
            problems.add(misplaced(kind, word, &key, at));
        }
    }
    refuse_instances(problems, kind, word, document);
    Some(match kind {
        ProviderKind::Docker => {
            let hosts = document.hosts.as_ref().map_or(0, |hosts| hosts.value.len());
            Provider::Docker(docker(problems, section, hosts))
        }
        ProviderKind::Aws => Provider::Aws(Box::new(aws(problems, section, document))),
        ProviderKind::Existing => Provider::Existing,
    })
}

fn misplaced(kind: ProviderKind, word: &Word, key: &str, at: Span) -> Problem {
    let takers = ProviderKind::ALL
        .iter()
        .filter(|taker| keys::of_kind(keys::PROVIDER, **taker).contains(&key))
        .map(|taker| taker.as_str());
    let mut here = keys::of_kind(keys::PROVIDER, kind);
    here.retain(|key| *key != "kind");
    let problem = Problem::new(
        at,
        format!("`{key}` is not a key of `kind: {}`", kind.as_str()),
    )
    .also(span_of(word), "the kind");
    let problem = match keys::nearest(key, here.iter().copied()) {
        Some(nearest) => problem.label(format!("did you mean `{nearest}`?")),
        None => problem,
    };
    problem
        .hint(format!(
            "`{key}` belongs to the kind {}",
            alternatives(takers)
        ))
        .hint(if here.is_empty() {
            format!("`{}` takes no further keys", kind.as_str())
        } else {
            format!("valid here: {}", alternatives(here.iter().copied()))
        })
}

fn docker(problems: &mut Problems, section: &schema::Provider, hosts: usize) -> Docker {
    Docker {
        image: section
            .image
            .as_ref()
            .and_then(|image| problems.keep(container_image(image))),
        subnet: section
            .subnet
            .as_ref()
            .and_then(|subnet| problems.keep(net::subnet(subnet, hosts))),
        unpublished: false,
    }
}

fn container_image(image: &Word) -> Result<String, Problem> {
    let value = image.value.as_str();
    if limits::CONTAINER_IMAGE.fits(value) {
        Ok(value.to_owned())
    } else {
        Err(Problem::new(
            span_of(image),
            format!("{} is not the name of an image", quoted(value)),
        )
        .label("such as `debian:12`"))
    }
}

fn aws(problems: &mut Problems, section: &schema::Provider, document: &schema::Document) -> Aws {
    Aws {
        region: shaped(problems, section.region.as_ref(), limits::REGION),
        profile: shaped(problems, section.profile.as_ref(), limits::PROFILE),
        endpoint_url: shaped(problems, section.endpoint_url.as_ref(), limits::URL),
        cpu_credits: section
            .cpu_credits
            .as_ref()
            .and_then(|word| problems.keep(one_of(word))),
        image: shaped(problems, section.image.as_ref(), limits::AMI)
            .unwrap_or_else(|| limits::AWS_IMAGE.to_owned()),
        subnet_ids: subnets(problems, section),
        connect: section
            .connect
            .as_ref()
            .and_then(|word| problems.keep(one_of(word)))
            .unwrap_or(limits::CONNECT),
        operator_cidrs: section
            .operator_cidrs
            .iter()
            .flat_map(|list| &list.value)
            .filter_map(|word| problems.keep(net::cidr(word)))
            .collect(),
        tags: tags(problems, section.tags.as_ref()),
        load_balancer: load_balancer(problems, section),
        hosts: instances(problems, section, document),
    }
}

/// The scheme, where there is to be a load balancer.
fn load_balancer(problems: &mut Problems, section: &schema::Provider) -> Option<Scheme> {
    let scheme = section.load_balancer_scheme.as_ref();
    let Some(word) = &section.load_balancer else {
        if let Some(scheme) = scheme {
            problems.add(
                Problem::new(
                    span_of(scheme),
                    "`load_balancer_scheme` belongs to `load_balancer`, which is not there",
                )
                .hint("add `load_balancer: network`, or leave this key out"),
            );
        }
        return None;
    };
    let LoadBalancer::Network = problems.keep(one_of(word))?;
    match scheme {
        Some(word) => problems.keep(one_of(word)),
        None => Some(limits::SCHEME),
    }
}

/// One subnet for all hosts, or several to spread them over.
fn subnets(problems: &mut Problems, section: &schema::Provider) -> Vec<String> {
    if let (Some(one), Some(several)) = (&section.subnet_id, &section.subnet_ids) {
        problems.add(
            Problem::new(
                span_of(several),
                "`subnet_id` and `subnet_ids` say the same thing twice",
            )
            .also(span_of(one), "the one")
            .hint("name all of them in `subnet_ids`"),
        );
    }
    let several = section.subnet_ids.iter().flat_map(|list| &list.value);
    section
        .subnet_id
        .iter()
        .chain(several)
        .filter_map(|word| shaped(problems, Some(word), limits::SUBNET_ID))
        .collect()
}

/// The settings of each host: its own, or the provider's, or the default.
fn instances(
    problems: &mut Problems,
    section: &schema::Provider,
    document: &schema::Document,
) -> IndexMap<HostName, AwsHost> {
    let instance_type = |problems: &mut Problems, word: &Option<Word>| {
        shaped(problems, word.as_ref(), limits::INSTANCE_TYPE)
    };
    let all = AwsHost {
        zone: None,
        instance_type: instance_type(problems, &section.instance_type)
            .unwrap_or_else(|| limits::DEFAULT_INSTANCE_TYPE.to_owned()),
        volume_gb: volume(problems, section.volume_gb.as_ref())
            .unwrap_or(limits::DEFAULT_VOLUME_GB),
        volume_grows: false,
        iops: iops(problems, section.iops.as_ref()),
        data_volume: None,
    };
    let mut volumes = Volumes::new(problems, section);
    let none = schema::Host::default();
    let mut for_all_told = false;
    let written = document.hosts.iter().flat_map(|hosts| &hosts.value);
    let hosts = written
        .map(|(name, host)| {
            let host = host.as_ref().unwrap_or(&none);
            let own = AwsHost {
                zone: shaped(problems, host.zone.as_ref(), limits::ZONE),
                instance_type: instance_type(problems, &host.instance_type)
                    .unwrap_or_else(|| all.instance_type.clone()),
                volume_gb: volume(problems, host.volume_gb.as_ref()).unwrap_or(all.volume_gb),
                volume_grows: false,
                iops: iops(problems, host.iops.as_ref()).or(all.iops),
                data_volume: volumes.of_host(problems, &name.value, host),
            };
            let key = host.iops.as_ref().or(host.volume_gb.as_ref());
            if let Some(problem) = too_many_iops(&own, key.or(section.iops.as_ref()))
                && !(key.is_none() && std::mem::replace(&mut for_all_told, true))
            {
                problems.add(problem);
            }
            (HostName::new(name.value.clone()), own)
        })
        .collect();
    volumes.end(problems);
    hosts
}

/// For other kinds, there is nothing to set.
fn refuse_instances(
    problems: &mut Problems,
    kind: ProviderKind,
    word: &Word,
    document: &schema::Document,
) {
    let takes = keys::of_kind(keys::HOST, kind);
    let written = document.hosts.iter().flat_map(|hosts| &hosts.value);
    for host in written.filter_map(|(_, host)| host.as_ref()) {
        for (key, at) in schema::written(host) {
            if !takes.contains(&key.as_str()) {
                problems.add(
                    Problem::new(at, format!("`kind: {}` has no `{key}`", kind.as_str()))
                        .also(span_of(word), "the kind")
                        .hint("only hosts of the kind `aws` are made to measure"),
                );
            }
        }
    }
}

fn volume(problems: &mut Problems, number: Option<&Number>) -> Option<u32> {
    bounded(problems, number?, "a size in GiB", limits::VOLUME_GB)
}

fn iops(problems: &mut Problems, number: Option<&Number>) -> Option<u32> {
    bounded(problems, number?, "a number of IOPS of gp3", limits::IOPS)
}

/// More than EC2 allows for a volume of that size; `key` is where it was set.
fn too_many_iops(own: &AwsHost, key: Option<&Number>) -> Option<Problem> {
    let least = own.iops?.div_ceil(limits::IOPS_PER_GB);
    (least > own.volume_gb).then_some(())?;
    Some(
        Problem::new(
            span_of(key?),
            format!("{} IOPS are too many for {} GiB", own.iops?, own.volume_gb),
        )
        .label(format!(
            "gp3 has at most {} for each GiB",
            limits::IOPS_PER_GB
        ))
        .hint(format!("`volume_gb: {least}`, or fewer `iops`")),
    )
}

/// Tags within EC2's limits, and none that pgherd uses for its own resources.
fn tags(
    problems: &mut Problems,
    written: Option<&Placed<IndexMap<Word, Word>>>,
) -> BTreeMap<String, String> {
    /// EC2 allows fifty tags for a resource, and pgherd needs some for itself.
    const MOST: usize = 40;
    let Some(written) = written else {
        return BTreeMap::new();
    };
    if written.value.len() > MOST {
        problems.add(Problem::new(
            span_of(written),
            format!(
                "{} tags are more than the {MOST} that fit",
                written.value.len()
            ),
        ));
    }
    let mut tags = BTreeMap::new();
    for (key, value) in &written.value {
        let reserved = ["aws:", "pgherd:"]
            .into_iter()
            .find(|prefix| key.value.to_ascii_lowercase().starts_with(prefix));
        if let Some(prefix) = reserved {
            problems.add(
                Problem::new(
                    span_of(key),
                    format!("{} cannot be a tag", quoted(&key.value)),
                )
                .label(format!("`{prefix}` is reserved")),
            );
        } else if key.value.is_empty() || !is_tag(&key.value, 128) {
            problems.add(
                Problem::new(
                    span_of(key),
                    format!("{} cannot be a tag", quoted(&key.value)),
                )
                .label("1 to 128 letters, digits, spaces and `+ - = . _ : / @`"),
            );
        } else if !is_tag(&value.value, 256) {
            problems.add(
                Problem::new(
                    span_of(value),
                    format!("{} cannot be the value of a tag", quoted(&value.value)),
                )
                .label("up to 256 letters, digits, spaces and `+ - = . _ : / @`"),
            );
        } else {
            tags.insert(key.value.clone(), value.value.clone());
        }
    }
    tags
}

fn is_tag(text: &str, longest: usize) -> bool {
    text.chars().count() <= longest
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || " +-=._:/@".contains(c))
}
