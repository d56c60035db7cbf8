//! Checks who may read the metrics, and whom alerts reach.

use indexmap::IndexMap;

use super::{
    super::{
        Email, Host, HostName, Monitoring, Role, limits,
        placed::span_of,
        problem::Problem,
        schema::{self, Document},
    },
    Problems, bounded, files, net, shaped,
};

/// A host with the role `monitoring` means the section with its defaults.
pub(super) fn check(
    problems: &mut Problems,
    path: &std::path::Path,
    document: &Document,
    hosts: &IndexMap<HostName, Host>,
) -> Option<Monitoring> {
    let default = Monitoring::default();
    let Some(section) = document.monitoring.as_ref() else {
        let mut hosts = hosts.values();
        return hosts
            .any(|host| host.roles.contains(&Role::Monitoring))
            .then_some(default);
    };
    let written = &section.value;
    let keep_days = written.keep_days.as_ref();
    let keep_days = keep_days.and_then(|number| {
        bounded(
            problems,
            number,
            "a number of days",
            limits::KEEP_DAYS.bounds,
        )
    });
    let allow = written.allow.iter().flatten();
    Some(Monitoring {
        allow: allow
            .filter_map(|word| problems.keep(net::cidr(word)))
            .collect(),
        keep_days: keep_days.unwrap_or(default.keep_days),
        webhook_file: written
            .webhook_file
            .as_ref()
            .and_then(|word| problems.keep(files::webhook(path, word))),
        email: email(problems, written),
    })
}

/// All of it, or nothing.
fn email(problems: &mut Problems, written: &schema::Monitoring) -> Option<Email> {
    let all = [
        ("email_to", &written.email_to),
        ("email_from", &written.email_from),
        ("smarthost", &written.smarthost),
    ];
    if let Some(there) = all.iter().find_map(|(_, word)| word.as_ref()) {
        for (name, _) in all.iter().filter(|(_, word)| word.is_none()) {
            let what = format!("mail with alerts needs `{name}` too");
            problems.add(Problem::new(span_of(there), what));
        }
    }
    let to = shaped(problems, written.email_to.as_ref(), limits::EMAIL);
    let from = shaped(problems, written.email_from.as_ref(), limits::EMAIL);
    let smarthost = shaped(problems, written.smarthost.as_ref(), limits::SMARTHOST);
    Some(Email {
        to: to?,
        from: from?,
        smarthost: smarthost?,
    })
}
