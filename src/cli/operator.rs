//! The engine's operator at a terminal: shows reports, and words the questions.

use async_trait::async_trait;

use super::{
    apply, clone, console::Console, down, drill, image, operate, reboot, restore, retire, rotate,
    state, switchover, update, upgrade,
};
use crate::{
    cluster::Cluster,
    drill::OtherClient,
    engine::drill::play::Request,
    engine::operator::{Answer, Begun, Operator, Question},
    error::{Error, Result},
    report::Expected,
    secret::Secret,
};

#[async_trait]
impl Operator for Console {
    fn conceal(&self, secrets: &[&Secret]) {
        self.terminal.conceal(secrets.iter().copied());
    }

    fn say(&self, line: &str) {
        self.terminal.say(line);
    }

    fn explain(&self, prose: &str) {
        self.terminal.explain(prose);
    }

    async fn agree(&self, question: Question<'_>) -> Result<Answer> {
        if self.yes {
            if let Question::Break {
                request,
                other_clients,
                ..
            } = &question
            {
                drill::agreed_beforehand(request, other_clients)?;
            }
            return Ok(Answer::Beforehand);
        }
        Ok(match put(self, question).await? {
            true => Answer::Yes,
            false => Answer::No,
        })
    }

    fn begin(&self, run: Begun) -> Result<()> {
        Console::begin(self, run)
    }

    async fn end(&self, error: Option<&Error>) {
        Console::end(self, error).await;
    }
}

const THIS: &str = "Do this?";

/// Shows what would be done, and asks whether to do it.
async fn agreed(console: &Console, text: &str) -> Result<bool> {
    console
        .ask(|it| it.explain(text), THIS, Expected::Yes)
        .await
}

/// Puts a question into words, and takes the answer.
async fn put(console: &Console, question: Question<'_>) -> Result<bool> {
    match question {
        Question::Apply {
            verb,
            context,
            preview,
        } => {
            let text = apply::outline(verb, context, preview, &console.terminal);
            agreed(console, &text).await
        }
        Question::Authority(note) => agreed(console, note).await,
        Question::Rotate { context, intent } => {
            let text = rotate::outline(context, intent);
            agreed(console, &text).await
        }
        Question::Operate {
            operation,
            host,
            seen,
        } => {
            let text = operate::outline(operation, host, seen);
            let (question, expected) = operate::question(operation, host);
            console
                .ask(|it| it.explain(&text), &question, expected)
                .await
        }
        Question::HandOver { context, handover } => {
            let text = switchover::outline(context, handover);
            agreed(console, &text).await
        }
        Question::Retire { cluster, farewell } => {
            let text = retire::outline(cluster, farewell);
            let question = retire::question(farewell);
            let name = Expected::Word(farewell.host.as_str());
            console.ask(|it| it.explain(&text), &question, name).await
        }
        Question::Restore { cluster, outlook } => {
            let text = restore::outline(cluster, outlook);
            let question = format!("Restore {cluster} to {}?", outlook.to);
            named(console, &text, &question, cluster).await
        }
        Question::Clone { outlook } => agreed(console, &clone::outline(outlook)).await,
        Question::Upgrade { cluster, outlook } => {
            let text = upgrade::outline(cluster, outlook);
            let question = format!("Upgrade {cluster} to PostgreSQL {}?", outlook.ground.to);
            named(console, &text, &question, cluster).await
        }
        Question::UpgradeBack { cluster, loss } => {
            let text = upgrade::cost(cluster, loss);
            let question = format!("Go back to PostgreSQL {}?", loss.upgrading.from);
            named(console, &text, &question, cluster).await
        }
        Question::UpgradeAccept { cluster, upgrading } => {
            let text = upgrade::removal(cluster, upgrading);
            named(console, &text, THIS, cluster).await
        }
        Question::Reboot { cluster, outlook } => {
            agreed(console, &reboot::outline(cluster, outlook)).await
        }
        Question::Update { cluster, outlook } => {
            agreed(console, &update::outline(cluster, outlook)).await
        }
        Question::Remove {
            context,
            what,
            keep_secrets,
        } => {
            let name = &context.inventory.cluster;
            let text = down::outline(name, what, keep_secrets);
            let question = format!("Remove {name} for good?");
            console
                .ask(|it| it.say(&text), &question, Expected::Word(name))
                .await
        }
        Question::Prepare { recipes, preflight } => {
            let text = image::outline(recipes, &preflight.made, &preflight.doubts);
            console.ask(|it| it.say(&text), THIS, Expected::Yes).await
        }
        Question::PushState { outlook } => agreed(console, &state::over_there(outlook)).await,
        Question::PullState { outlook } => agreed(console, &state::over_here(outlook)).await,
        Question::Discard { image } => {
            let text = image::removal(image);
            let question = format!("Remove the image {} for good?", image.id);
            console
                .ask(|it| it.say(&text), &question, Expected::Word(&image.id))
                .await
        }
        Question::Break {
            cluster,
            request,
            other_clients,
        } => may_break(console, cluster, request, other_clients).await,
        Question::Repair => {
            console
                .ask(|_| (), "Repair that first?", Expected::Yes)
                .await
        }
    }
}

/// Asks for the name of what is at stake.
async fn named(console: &Console, text: &str, question: &str, name: &str) -> Result<bool> {
    console
        .ask(|it| it.explain(text), question, Expected::Word(name))
        .await
}

/// Asks for a drill, and again if it breaks off other clients.
async fn may_break(
    console: &Console,
    cluster: &Cluster,
    request: &Request,
    other_clients: &[OtherClient],
) -> Result<bool> {
    let name = cluster.name();
    let text = drill::outline(cluster, request);
    let question = format!("Break {name} on purpose?");
    let agreed = console
        .ask(|it| it.explain(&text), &question, Expected::Word(name))
        .await?;
    let Some(text) = drill::others(request, other_clients).filter(|_| agreed) else {
        return Ok(agreed);
    };
    let clients = Expected::Word("clients");
    console
        .ask(|it| it.explain(&text), "Break them off?", clients)
        .await
}
