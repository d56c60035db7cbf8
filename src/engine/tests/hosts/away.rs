//! Hosts that do not answer: some refuse at once, and dead ones say nothing at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Duration,
};

use tokio::time::sleep;

use super::Hosts;
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    plan::tests::world::bare,
};

/// How long a question to a dead host takes.
const IN_VAIN: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct Away {
    silent: Mutex<BTreeSet<HostName>>,
    /// How often each dead host was asked.
    dead: Mutex<BTreeMap<HostName, usize>>,
}

impl Away {
    /// An error, after a while, if the host is dead.
    pub(super) async fn reaches(&self, host: &HostName) -> Result<()> {
        let is_dead = {
            let mut dead = self.dead.lock().unwrap();
            dead.get_mut(host).map(|asked| *asked += 1).is_some()
        };
        if !is_dead {
            return Ok(());
        }
        sleep(IN_VAIN).await;
        Err(no_answer(host))
    }

    /// An error if none of `hosts` could have given the lease.
    pub(super) fn leases(&self, hosts: &[HostName]) -> Result<()> {
        let silent = self.silent.lock().unwrap();
        match hosts.iter().all(|host| silent.contains(host)) {
            true => Err(Error::new(Code::LeaseNotTaken, "the lease is on no host")),
            false => Ok(()),
        }
    }

    /// An error if the host does not answer.
    pub(super) async fn answers(&self, host: &HostName) -> Result<()> {
        self.reaches(host).await?;
        match self.silent.lock().unwrap().contains(host) {
            true => Err(no_answer(host)),
            false => Ok(()),
        }
    }
}

fn no_answer(host: &HostName) -> Error {
    Error::new(Code::SshUnreachable, "it does not answer").on(host)
}

impl Hosts {
    /// Makes `host` answer nothing any more.
    pub(in crate::engine::tests) fn silence(&self, host: &HostName) {
        self.away.silent.lock().unwrap().insert(host.clone());
    }

    /// Makes every question to `host` wait in vain.
    pub(in crate::engine::tests) fn kill(&self, host: &str) {
        self.away
            .dead
            .lock()
            .unwrap()
            .insert(HostName::new(host), 0);
    }

    /// How often a dead host was asked since the last call.
    pub(in crate::engine::tests) fn take_asked_in_vain(&self, host: &str) -> usize {
        let mut dead = self.away.dead.lock().unwrap();
        std::mem::take(dead.get_mut(&HostName::new(host)).expect("it is dead"))
    }

    /// Puts a new, empty machine in the place of `host`.
    pub(in crate::engine::tests) fn make_anew(&self, host: &str) {
        self.meddle(|world| {
            world.found.facts.insert(HostName::new(host), bare());
        });
    }
}
