//! Where the hosts come from.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde_yaml::Spanned;

use super::{
    super::{
        Aws, AwsHost, Connect, Docker, HostName, Provider, keys,
        problem::{Problem, Span, alternatives, quoted, span_of},
        schema::{self, Number, Word},
    },
    Problems, net, one_of,
};

/// Judges the section by its kind; nothing where the kind itself is unknown.
pub(super) fn check(
    problems: &mut Problems,
    start: &Span,
    document: &schema::Document,
) -> Option<Provider> {
    let kinds = keys::PROVIDERS.map(|(kind, _)| kind);
    let Some(written) = &document.provider else {
        problems.add(
            Problem::new(start.clone(), "the inventory has no `provider`")
                .hint("add `provider: {kind: docker}`, or another kind")
                .hint(format!("valid kinds: {}", alternatives(kinds))),
        );
        return None;
    };
    let section = &written.value;
    let Some(kind) = &section.kind else {
        problems.add(
            Problem::new(span_of(written), "`provider` has no `kind`")
                .hint(format!("add `kind:` with one of {}", alternatives(kinds))),
        );
        return None;
    };
    if !kinds.contains(&kind.value.as_str()) {
        problems.add(
            Problem::new(
                span_of(kind),
                format!("{} is not a kind of provider", quoted(&kind.value)),
            )
            .did_you_mean(keys::nearest(&kind.value, kinds))
            .hint(format!("valid here: {}", alternatives(kinds))),
        );
        return None;
    }
    for (key, at) in given(section) {
        if !keys::of_provider(&kind.value).contains(&key) {
            problems.add(misplaced(kind, key, at));
        }
    }
    if kind.value != "aws" {
        refuse_instances(problems, kind, document);
    }
    Some(match kind.value.as_str() {
        "docker" => {
            let hosts = document.hosts.as_ref().map_or(0, |hosts| hosts.value.len());
            Provider::Docker(docker(problems, section, hosts))
        }
        "aws" => Provider::Aws(Box::new(aws(problems, section, document))),
        _ => Provider::Existing,
    })
}

/// The keys that the section has, beside its kind.
fn given(section: &schema::Provider) -> impl Iterator<Item = (&'static str, Span)> {
    // All fields by name, so that a new one is not forgotten here.
    let schema::Provider {
        kind: _,
        image,
        subnet,
        region,
        profile,
        endpoint_url,
        instance_type,
        volume_gb,
        iops,
        subnet_id,
        subnet_ids,
        connect,
        operator_cidrs,
        tags,
    } = section;
    let words = [
        ("image", image),
        ("subnet", subnet),
        ("region", region),
        ("profile", profile),
        ("endpoint_url", endpoint_url),
        ("instance_type", instance_type),
        ("subnet_id", subnet_id),
        ("connect", connect),
    ]
    .map(|(key, word)| (key, word.as_ref().map(span_of)));
    let others = [
        ("volume_gb", volume_gb.as_ref().map(span_of)),
        ("iops", iops.as_ref().map(span_of)),
        ("subnet_ids", subnet_ids.as_ref().map(span_of)),
        ("operator_cidrs", operator_cidrs.as_ref().map(span_of)),
        ("tags", tags.as_ref().map(span_of)),
    ];
    words
        .into_iter()
        .chain(others)
        .filter_map(|(key, at)| Some((key, at?)))
}

fn misplaced(kind: &Word, key: &str, at: Span) -> Problem {
    let takers = keys::PROVIDERS
        .iter()
        .filter(|(_, keys)| keys.contains(&key))
        .map(|(taker, _)| *taker);
    let here = keys::of_provider(&kind.value);
    let problem = Problem::new(
        at,
        format!("`{key}` is not a key of `kind: {}`", kind.value),
    )
    .also(span_of(kind), "the kind");
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
            format!("`{}` takes no further keys", kind.value)
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
    }
}

fn container_image(image: &Word) -> Result<String, Problem> {
    let value = image.value.as_str();
    let legal = value.starts_with(|c: char| c.is_ascii_alphanumeric())
        && value.len() <= 255
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-/:@".contains(c));
    if legal {
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
    let optional =
        |problems: &mut Problems, word: &Option<Word>, check: fn(&str) -> bool, wanted| {
            let word = word.as_ref()?;
            problems.keep(shaped(word, check, wanted))
        };
    Aws {
        region: optional(
            problems,
            &section.region,
            is_region,
            "a region, such as `eu-central-1`",
        ),
        profile: optional(
            problems,
            &section.profile,
            |value| !value.is_empty() && !value.chars().any(char::is_control),
            "the name of a profile in the AWS configuration",
        ),
        endpoint_url: optional(
            problems,
            &section.endpoint_url,
            is_url,
            "a URL, such as `http://127.0.0.1:5000`",
        ),
        image: optional(
            problems,
            &section.image,
            |value| {
                matches!(value, "ubuntu-24.04" | "ubuntu-24.04-minimal") || is_id("ami-", value)
            },
            "`ubuntu-24.04`, `ubuntu-24.04-minimal` or an id, such as `ami-0123456789abcdef0`",
        )
        .unwrap_or_else(|| "ubuntu-24.04-minimal".to_owned()),
        subnet_ids: subnets(problems, section),
        connect: section
            .connect
            .as_ref()
            .and_then(|word| {
                let choices = [("public", Connect::Public), ("private", Connect::Private)];
                problems.keep(one_of(word, "a way to connect", choices))
            })
            .unwrap_or(Connect::Public),
        operator_cidrs: section
            .operator_cidrs
            .iter()
            .flat_map(|list| &list.value)
            .filter_map(|word| problems.keep(net::cidr(word)))
            .collect(),
        tags: tags(problems, section.tags.as_ref()),
        hosts: instances(problems, section, document),
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
        .filter_map(|word| {
            problems.keep(shaped(
                word,
                |value| is_id("subnet-", value),
                "a subnet's id, such as `subnet-0123456789abcdef0`",
            ))
        })
        .collect()
}

/// What each host is to be: its own word, or the provider's, or the default.
fn instances(
    problems: &mut Problems,
    section: &schema::Provider,
    document: &schema::Document,
) -> IndexMap<HostName, AwsHost> {
    let instance_type = |problems: &mut Problems, word: &Option<Word>| {
        let word = word.as_ref()?;
        let wanted = "an instance type, such as `t2.medium`";
        problems.keep(shaped(word, is_instance_type, wanted))
    };
    let all = AwsHost {
        zone: None,
        instance_type: instance_type(problems, &section.instance_type)
            .unwrap_or_else(|| "t2.medium".to_owned()),
        volume_gb: volume(problems, section.volume_gb.as_ref()).unwrap_or(20),
        iops: iops(problems, section.iops.as_ref()),
    };
    let none = schema::Host::default();
    let written = document.hosts.iter().flat_map(|hosts| &hosts.value);
    written
        .map(|(name, host)| {
            let host = host.as_ref().unwrap_or(&none);
            let zone = host.zone.as_ref().and_then(|word| {
                let wanted = "an availability zone, such as `eu-central-1a`";
                problems.keep(shaped(word, is_zone, wanted))
            });
            let own = AwsHost {
                zone,
                instance_type: instance_type(problems, &host.instance_type)
                    .unwrap_or_else(|| all.instance_type.clone()),
                volume_gb: volume(problems, host.volume_gb.as_ref()).unwrap_or(all.volume_gb),
                iops: iops(problems, host.iops.as_ref()).or(all.iops),
            };
            (HostName::new(name.value.clone()), own)
        })
        .collect()
}

/// Hosts of another kind are what they are.
fn refuse_instances(problems: &mut Problems, kind: &Word, document: &schema::Document) {
    let written = document.hosts.iter().flat_map(|hosts| &hosts.value);
    for host in written.filter_map(|(_, host)| host.as_ref()) {
        let given = [
            ("zone", host.zone.as_ref().map(span_of)),
            ("instance_type", host.instance_type.as_ref().map(span_of)),
            ("volume_gb", host.volume_gb.as_ref().map(span_of)),
            ("iops", host.iops.as_ref().map(span_of)),
        ];
        for (key, at) in given {
            if let Some(at) = at {
                problems.add(
                    Problem::new(
                        at,
                        format!("`{key}` is nothing that `kind: {}` gives", kind.value),
                    )
                    .also(span_of(kind), "the kind")
                    .hint("only hosts of the kind `aws` are made to measure"),
                );
            }
        }
    }
}

/// A root volume that holds the system and some data, and that gp3 can be.
fn volume(problems: &mut Problems, number: Option<&Number>) -> Option<u32> {
    bounded(problems, number?, "a size in GiB", 10, 16_384)
}

fn iops(problems: &mut Problems, number: Option<&Number>) -> Option<u32> {
    bounded(problems, number?, "a number of IOPS of gp3", 3_000, 16_000)
}

fn bounded(
    problems: &mut Problems,
    number: &Number,
    noun: &str,
    least: u32,
    most: u32,
) -> Option<u32> {
    let value = u32::try_from(number.value).ok();
    let value = value.filter(|value| (least..=most).contains(value));
    if value.is_none() {
        problems.add(
            Problem::new(span_of(number), format!("{} is not {noun}", number.value))
                .label(format!("{least} to {most}")),
        );
    }
    value
}

fn shaped(word: &Word, check: fn(&str) -> bool, wanted: &str) -> Result<String, Problem> {
    if check(&word.value) {
        return Ok(word.value.clone());
    }
    Err(Problem::new(
        span_of(word),
        format!("{} is not {wanted}", quoted(&word.value)),
    ))
}

fn is_region(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    let Some((number, words)) = parts.split_last() else {
        return false;
    };
    words.len() >= 2
        && words
            .iter()
            .all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase()))
        && !number.is_empty()
        && number.chars().all(|c| c.is_ascii_digit())
}

/// A region with a letter, or a local zone's longer name.
fn is_zone(value: &str) -> bool {
    let name = value.trim_end_matches(|c: char| c.is_ascii_lowercase());
    name.len() < value.len()
        && name.ends_with(|c: char| c.is_ascii_digit())
        && value.split('-').count() >= 3
        && value
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_instance_type(value: &str) -> bool {
    let legal = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    value
        .split_once('.')
        .is_some_and(|(family, size)| legal(family) && legal(size))
}

fn is_id(prefix: &str, value: &str) -> bool {
    value.strip_prefix(prefix).is_some_and(|digits| {
        (8..=17).contains(&digits.len())
            && digits
                .chars()
                .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    })
}

fn is_url(value: &str) -> bool {
    let host = value
        .strip_prefix("http://")
        .or_else(|| value.strip_prefix("https://"));
    host.is_some_and(|host| host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['))
        && value.chars().all(|c| c.is_ascii_graphic())
}

/// Tags within EC2's limits, none of them one that pgherd tells its own resources by.
fn tags(
    problems: &mut Problems,
    written: Option<&Spanned<IndexMap<Word, Word>>>,
) -> BTreeMap<String, String> {
    /// EC2 takes fifty a resource; pgherd needs some for itself.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_of_aws_are_known() {
        for region in ["eu-central-1", "us-gov-west-1", "ap-southeast-12"] {
            assert!(is_region(region), "{region}");
        }
        for region in [
            "",
            "eu",
            "eu-central",
            "eu-central-1a",
            "EU-central-1",
            "-1",
        ] {
            assert!(!is_region(region), "{region}");
        }
        assert!(is_zone("eu-central-1a") && is_zone("us-west-2-lax-1b"));
        assert!(!is_zone("eu-central-1") && !is_zone("a") && !is_zone("EU-central-1a"));
        assert!(is_instance_type("t2.medium") && is_instance_type("u-6tb1.56xlarge"));
        assert!(!is_instance_type("t2-medium") && !is_instance_type("t2."));
        assert!(is_id("ami-", "ami-0123456789abcdef0") && !is_id("ami-", "ami-xyz"));
        assert!(is_url("http://127.0.0.1:5000") && is_url("https://[::1]:80/x"));
        assert!(!is_url("127.0.0.1:5000") && !is_url("http://") && !is_url("http://a b"));
    }
}
