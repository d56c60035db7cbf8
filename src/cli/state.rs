//! `pgherd state`: where the workspace's secrets are shared, and with whom.

use serde_json::{Value, json};

use super::{Global, State, console::Console};
use crate::{
    engine::state,
    error::{Error, Result},
    inventory::Inventory,
    quantity::count,
    report::Terminal,
    seal::{self, Identity},
    workspace::StateOutlook,
};

pub(super) async fn run(global: &Global, what: Option<State>, terminal: &Terminal) -> Result<()> {
    match what {
        None => show(global, terminal).await,
        Some(State::Init) => {
            let generation = state::init(&global.load()?).await?;
            written(generation, terminal);
            Ok(())
        }
        Some(State::Push { yes }) => {
            let console = Console::new(terminal, yes);
            let generation = state::push(&global.source(&console)?).await?;
            written(generation, terminal);
            Ok(())
        }
        Some(State::Pull { yes }) => {
            let console = Console::new(terminal, yes);
            let (generation, aside) = state::pull(&global.source(&console)?).await?;
            if terminal.json {
                terminal.print_json(&json!({"generation": generation, "put_aside": aside}));
                return Ok(());
            }
            terminal.say(&format!(
                "this machine has generation {generation} of the shared state"
            ));
            if !aside.is_empty() {
                terminal.say(&format!(
                    "what differed here is in the workspace's folder `superseded`: {}",
                    aside.join(", ")
                ));
            }
            Ok(())
        }
        Some(State::Identity { new }) => identity(global, new, terminal),
    }
}

fn written(generation: u64, terminal: &Terminal) {
    match terminal.json {
        true => terminal.print_json(&json!({"generation": generation})),
        false => terminal.say(&format!(
            "this machine's workspace is generation {generation} of the shared state"
        )),
    }
}

async fn show(global: &Global, terminal: &Terminal) -> Result<()> {
    let inventory = global.load()?;
    let outlook = state::look(&inventory).await?;
    if terminal.json {
        let mut document = document(&outlook);
        document["cluster"] = json!(inventory.cluster);
        terminal.print_json(&document);
    } else {
        for line in lines(&outlook, &inventory) {
            terminal.say(&line);
        }
    }
    outlook.trouble.map_or(Ok(()), Err)
}

fn lines(outlook: &StateOutlook, inventory: &Inventory) -> Vec<String> {
    let mut lines = vec![format!("place       {}", outlook.place)];
    lines.push(match &outlook.there {
        None => "there       no generation that can be read".to_owned(),
        Some(it) => {
            let removed = match it.cluster_id {
                Some(_) => "",
                None => "; the cluster was removed",
            };
            format!(
                "there       generation {}, by {} ({}), {}{removed}",
                it.number,
                it.by,
                it.verb,
                it.at.strftime("%Y-%m-%d %H:%M:%S UTC")
            )
        }
    });
    lines.push(match outlook.here {
        None => "here        no generation of it".to_owned(),
        Some(number) => format!("here        generation {number}"),
    });
    if !outlook.unsent.is_empty() {
        lines.push(format!(
            "changed     {}; the next run that changes something writes it, before it uses it",
            outlook.unsent.join(", ")
        ));
    }
    lines.push(format!(
        "recipients  {}",
        count(outlook.recipients.len(), "public key")
    ));
    for recipient in &outlook.recipients {
        lines.push(format!("            {recipient}"));
    }
    if let Some(there) = &outlook.there
        && there.recipients != outlook.recipients
    {
        lines.push(format!(
            "! what is there is encrypted to other recipients than the inventory's; the next run that changes something \
             writes it to these, or at once: {}",
            inventory.command("state push")
        ));
    }
    lines
}

fn document(outlook: &StateOutlook) -> Value {
    let there = outlook.there.as_ref().map(|it| {
        json!({
            "generation": it.number,
            "at": it.at,
            "by": it.by,
            "verb": it.verb,
            "cluster_id": it.cluster_id,
            "recipients": it.recipients,
            "files": it.files,
        })
    });
    json!({
        "place": outlook.place,
        "there": there,
        "here": outlook.here,
        "changed_here": outlook.unsent,
        "recipients": outlook.recipients,
        "trouble": outlook.trouble.as_ref().map(Error::code),
    })
}

/// Shows the user's own public key, which others put under `recipients`.
fn identity(global: &Global, new: bool, terminal: &Terminal) -> Result<()> {
    // The inventory may be incomplete: it lacks just this key.
    let inventory = global.load().ok();
    let named = inventory.and_then(|it| it.state?.identity);
    let path = match new {
        true => Some(seal::make(named.as_deref())?),
        false => named,
    };
    let identity = Identity::find(path.as_deref())?;
    let public = identity.public();
    match terminal.json {
        true => terminal.print_json(&json!({"identity": identity.path, "recipient": public})),
        false => {
            terminal.say(&format!("private key  {}", identity.path.display()));
            terminal.say(&format!("recipient    {public}"));
        }
    }
    Ok(())
}

/// What is lost if this machine's workspace is written over the shared state.
pub(super) fn over_there(outlook: &StateOutlook) -> String {
    let mut text = format!(
        "This machine's workspace replaces the shared state at {}.\n",
        outlook.place
    );
    if let Some(it) = &outlook.there {
        text.push_str(&format!(
            "What is there is generation {}, by {} ({}), {}; it stays beside the new one.\n",
            it.number,
            it.by,
            it.verb,
            it.at.strftime("%Y-%m-%d %H:%M:%S UTC")
        ));
    }
    text.push_str("If the hosts have passwords or keys of that one, this machine does not know them; the plan shows what differs.\n");
    text
}

/// What is lost if the shared state replaces this machine's workspace.
pub(super) fn over_here(outlook: &StateOutlook) -> String {
    let changed = match outlook.unsent.is_empty() {
        true => String::new(),
        false => format!(
            "Changed here and not written: {}.\n",
            outlook.unsent.join(", ")
        ),
    };
    format!(
        "The shared state at {} replaces this machine's workspace.\n{changed}Files that differ are put aside, into the workspace's folder `superseded`.\n",
        outlook.place
    )
}
