//! The exercise's health: whether it answers.

use async_trait::async_trait;
use futures_util::future::join_all;

use super::PORT;
use crate::{
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    services::health::{Check, Health, Look, Seen, Shown, Ways, silent, units},
};

pub(crate) const HEALTH: &dyn Health = &Answers;

struct Answers;

#[async_trait]
impl Health for Answers {
    fn role(&self) -> Role {
        Role::Exercise
    }

    async fn ready(&self, host: &HostName, ways: &Ways<'_>) -> Seen {
        match ask(host, ways).await {
            Ok(()) => Seen::Met,
            Err(error) => Seen::Not(silent("the exercise", &error)),
        }
    }

    async fn shown(&self, look: &Look<'_>) -> Shown {
        let mut rows = units(self.role(), look);
        for row in rows.iter_mut().filter(|row| row.active) {
            let answer = ask(&HostName::new(&row.host), &look.ways).await;
            row.state.push_str(match answer {
                Ok(()) => ", answers",
                Err(_) => ", does not answer",
            });
        }
        Shown {
            units: rows,
            ..Shown::default()
        }
    }

    async fn checks(&self, look: &Look<'_>) -> Vec<Check> {
        let hosts = look.ways.cluster.with_role(self.role());
        let asked = hosts.map(async |node| {
            let facts = look.found.facts.get(&node.name);
            let runs = facts.is_some_and(|it| it.unit(self.role().unit()).is_active());
            match ask(&node.name, &look.ways).await {
                Ok(()) if runs => None,
                Ok(()) => Some(format!(
                    "something other than the exercise answers on {}: its unit does not run",
                    node.name
                )),
                Err(error) => Some(error.to_string()),
            }
        });
        let wrong = join_all(asked).await.into_iter().flatten().collect();
        vec![Check::of("exercise", wrong, "the exercise answers".into())]
    }
}

async fn ask(host: &HostName, ways: &Ways<'_>) -> Result<()> {
    let answer = ways.http.get(host, PORT, "/", None).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    let what = format!("the exercise answered {}", answer.status);
    Err(Error::new(Code::ServiceRefused, what).on(host))
}
