//! Checks how SSH reaches the hosts.

use indexmap::IndexMap;

use super::{
    super::{
        Connect, Host, HostName, Jump, Provider, Ssh, limits,
        placed::span_of,
        problem::{Problem, quoted},
        schema::{self, Word},
        source::Source,
    },
    Problems, files, ports, seconds,
};
use crate::services;

pub(super) fn check(
    problems: &mut Problems,
    source: &Source<'_>,
    written: Option<&schema::Ssh>,
) -> Ssh {
    let none = schema::Ssh::default();
    let written = written.unwrap_or(&none);
    let agent = written.agent.as_ref();
    let agent = agent.and_then(|word| problems.keep(ssh_agent(word)));
    let identity = written.identity_file.as_ref();
    let config = written.config.as_ref();
    Ssh {
        user: written
            .user
            .as_ref()
            .and_then(|user| problems.keep(ssh_user(user)))
            .unwrap_or_else(|| limits::DEFAULT_SSH_USER.to_owned()),
        port: ports::port(problems, written.port.as_ref(), limits::SSH_PORT),
        identity_file: identity
            .and_then(|file| problems.keep(files::identity(source.path, file, agent.is_some()))),
        proxy_jump: written
            .proxy_jump
            .as_ref()
            .and_then(|word| problems.keep(jumps(word)))
            .unwrap_or_default(),
        config: config.and_then(|file| problems.keep(files::ssh_config(source.path, file))),
        agent,
        connect_timeout: seconds(
            problems,
            "`ssh.connect_timeout`",
            written.connect_timeout.as_ref(),
            limits::CONNECT_TIMEOUT,
        ),
        keep_alive: seconds(
            problems,
            "`ssh.keep_alive`",
            written.keep_alive.as_ref(),
            limits::KEEP_ALIVE,
        ),
    }
}

fn ssh_user(user: &Word) -> Result<String, Problem> {
    let value = user.value.as_str();
    // Nobody logs in with the accounts that packages create for their services.
    if services::all().any(|service| service.has_account(value)) {
        return Err(Problem::new(
            span_of(user),
            format!("`{value}` is the account of a service that pgherd installs"),
        )
        .label("needs a user with sudo"));
    }
    if limits::SSH_USER.fits(value) {
        Ok(value.to_owned())
    } else {
        Err(Problem::new(
            span_of(user),
            format!("{} is not the name of a user", quoted(value)),
        )
        .label("1 to 32 letters, digits, `.`, `_` and `-`, a letter or `_` first"))
    }
}

fn jumps(word: &Word) -> Result<Vec<Jump>, Problem> {
    let value = word.value.as_str();
    let jumps: Option<Vec<Jump>> = match limits::PROXY_JUMP.fits(value) {
        true => value.split(',').map(|it| Jump::parse(it.trim())).collect(),
        false => None,
    };
    let problem = |what: String| Problem::new(span_of(word), what);
    let jumps = jumps.ok_or_else(|| {
        problem(format!("{} names no bastion", quoted(value)))
            .label(limits::PROXY_JUMP.wanted)
            .hint("such as `proxy_jump: admin@bastion.example.com`, as for `ssh -J`")
    })?;
    let mut before = jumps.iter().enumerate();
    let twice = before.find(|(at, jump)| jumps[..*at].iter().any(|it| it.host == jump.host));
    match twice {
        Some((_, jump)) => Err(problem(format!("{} is passed twice", quoted(&jump.host)))),
        None => Ok(jumps),
    }
}

fn ssh_agent(word: &Word) -> Result<String, Problem> {
    let value = word.value.as_str();
    match limits::SSH_AGENT.fits(value) && !limits::SSH_AGENT.is_reserved(value) {
        true => Ok(value.to_owned()),
        false => Err(Problem::new(
            span_of(word),
            format!("{} names no agent", quoted(value)),
        )
        .label(limits::SSH_AGENT.wanted)
        .hint("`agent: SSH_AUTH_SOCK` is the agent of your session: `ssh-add -l` shows its keys")),
    }
}

/// Compares the way with where the hosts are.
pub(super) fn check_way(
    problems: &mut Problems,
    provider: &Provider,
    written: &schema::Ssh,
    ssh: &Ssh,
    hosts: &IndexMap<HostName, Host>,
) {
    let makes_hosts = match provider {
        Provider::Docker(_) | Provider::Aws(_) => true,
        Provider::Existing => false,
    };
    if let (Some(word), None, true) = (&written.agent, &written.identity_file, makes_hosts) {
        problems.add(
            Problem::new(span_of(word), "`ssh.agent` needs `ssh.identity_file`")
                .label("new hosts must be told which key to accept")
                .hint("name the public half of the key that the agent has, such as `identity_file: ~/.ssh/id_ed25519.pub`"),
        );
    }
    let Some(word) = &written.proxy_jump else {
        return;
    };
    let at = span_of(word);
    match provider {
        Provider::Docker(_) => problems.add(
            Problem::new(at.clone(), "containers are reached without a bastion")
                .label("they are on this machine")
                .hint("`proxy_jump` is for the kinds `existing` and `aws`"),
        ),
        Provider::Aws(aws) if aws.connect == Connect::Public && aws.operator_cidrs.is_empty() => {
            problems.add(
                Problem::new(
                    at.clone(),
                    "with a bastion, SSH does not come from this machine's address",
                )
                .label("the hosts would let in only this machine")
                .hint("to reach the hosts at their private addresses: `provider.connect: private`")
                .hint(
                    "or name the bastion's address: `provider.operator_cidrs: [198.51.100.7/32]`",
                ),
            );
        }
        Provider::Aws(_) | Provider::Existing => {}
    }
    let of_cluster = ssh.proxy_jump.iter().find(|jump| {
        let mut names = hosts.keys().map(HostName::as_str);
        names.any(|name| name.eq_ignore_ascii_case(&jump.host))
    });
    if let Some(jump) = of_cluster {
        problems.add(
            Problem::new(at, format!("`{}` is a host of the cluster", jump.host))
                .label("this name is reached through the bastion")
                .hint("if that host is the bastion, name it by the address at which this machine reaches it"),
        );
    }
}
