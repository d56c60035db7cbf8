//! `pgherd rotate`.

use tokio_util::sync::CancellationToken;

use super::{Global, Rotate, console::Console};
use crate::{
    engine::{
        context::Context,
        rotate::{self, Change, Intent},
    },
    error::Result,
    report::{self, Summary, Terminal},
};

pub(super) async fn run(
    global: &Global,
    what: Rotate,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let (change, yes) = match what {
        Rotate::Certs { prepare, yes } => (Change::Certs { prepare }, yes),
        Rotate::Secrets { users, yes } => (Change::Secrets { users }, yes),
        Rotate::Ssh { host_keys, yes } => (Change::Ssh { host_keys }, yes),
    };
    let console = Console::new(terminal, yes);
    let context = global.existing(&console).await?;
    let result = rotate::run(change, &context, cancel).await;
    let Some(run) = console.ended() else {
        return result;
    };
    let endpoints = match (&result, change) {
        (Err(_), _) | (Ok(()), Change::Ssh { .. }) => Vec::new(),
        (Ok(()), Change::Certs { .. }) => {
            let authority = context.workspace.ca_path();
            vec![("authority", authority.display().to_string())]
        }
        (Ok(()), Change::Secrets { .. }) => {
            let secrets = context.inventory.workspace_dir().join("secrets.yaml");
            vec![("passwords", secrets.display().to_string())]
        }
    };
    let summary = Summary {
        settled: "nothing had to change",
        endpoints: &endpoints,
    };
    report::print_summary(terminal, &run, &summary);
    if result.is_ok() {
        terminal.say(&conclusion(&context, change)?);
    }
    result
}

/// What a change means. It is shown before the question.
pub(super) fn outline(context: &Context, intent: &Intent) -> String {
    let cluster = &context.inventory.cluster;
    let hosts = "every host has new keys";
    match intent {
        Intent::Trust => format!(
            "{cluster} gets a new authority, which all hosts trust beside the old one; certificates stay"
        ),
        Intent::Certs => format!(
            "{cluster} gets a new authority, and every host a new key and certificate; clients that verify \
             need the new pki/ca.crt"
        ),
        Intent::Ssh { own: true } => format!(
            "{cluster} gets a new SSH key: once every host was seen to let it in, the old one goes, sessions \
             that it opened end, and {hosts}"
        ),
        Intent::Ssh { own: false } => format!(
            "{hosts}; everybody else who has the old ones in known_hosts needs the new ones. The key that logs \
             in is yours, and stays"
        ),
        Intent::Secrets { new, given, users } => {
            let mut text = format!("new passwords: {}", new.join(", "));
            if !given.is_empty() {
                text.push_str(&format!(
                    "\nleft as they are, since you set them yourself: {}",
                    given.join(", ")
                ));
            }
            if !users && !context.inventory.postgresql.users.is_empty() {
                text.push_str("\nthe applications' users keep theirs (--users changes them too)");
            }
            text
        }
    }
}

/// What the user must still do.
fn conclusion(context: &Context, change: Change) -> Result<String> {
    Ok(match change {
        Change::Certs { .. } if context.workspace.authority_stage()?.is_some() => format!(
            "both authorities are trusted; give pki/ca.crt to the clients, then: {}",
            context.command("rotate certs")
        ),
        Change::Certs { .. } => "the old authority is gone; no host trusts it any more".to_owned(),
        Change::Ssh { .. } => {
            "every host accepts only the right key, and has new keys of its own".to_owned()
        }
        Change::Secrets { .. } => {
            "the passwords are new, and only in .pgherd: give them to everybody who needs them"
                .to_owned()
        }
    })
}
