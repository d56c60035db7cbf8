//! Replaces passwords while the cluster runs.
//!
//! A role has one password. The database, which accepts it, and the members, which send it, cannot change at
//! the same moment. So two other roles stand in for `replicator` and `rewind` during the change:
//!
//! | stage | in the database | members log in as |
//! |---|---|---|
//! | `make` | the interim roles come | the old roles, old passwords |
//! | `use` | | the interim roles |
//! | `change` | all others' passwords change | the interim roles |
//! | `return` | | the old roles, new passwords |
//!
//! Whatever stage a host has reached, the database accepts its login. Without the file there is no change, and
//! the interim roles are removed.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{AuthorityStage, Lapse, PKI, ROTATION, SECRETS, Workspace, files, pki, secrets};
use crate::{
    cluster::Interim,
    error::{Code, Error, Result},
    secret::Secret,
};

/// The stage of a change of the passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretsStage {
    Make,
    Use,
    /// Before this stage, `secrets.yaml` holds the old passwords; from it on, the new ones.
    Change,
    Return,
}

impl SecretsStage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Make => "make",
            Self::Use => "use",
            Self::Change => "change",
            Self::Return => "return",
        }
    }
}

impl Workspace {
    /// The stage of a change of the passwords; `None` if there is none.
    pub fn secrets_stage(&self) -> Result<Option<SecretsStage>> {
        stage(&self.dir.join(ROTATION))
    }

    /// Goes to the next stage of a change of the passwords, or begins one.
    ///
    /// At the stage `Change`, new passwords are made; with `users`, also those of `postgresql.users`.
    ///
    /// # Errors
    /// The user sets all of the passwords: there is nothing to change.
    pub fn advance_secrets(&self, stage: SecretsStage, users: bool) -> Result<()> {
        if stage == SecretsStage::Change {
            let path = self.dir.join(SECRETS);
            secrets::renew(&path, &self.wanted_secrets(), users)?;
        }
        advance(&self.dir.join(ROTATION), stage)
    }

    /// The passwords that `rotate secrets` would change, and those that the user sets.
    pub fn renewable_secrets(&self, users: bool) -> Result<(Vec<String>, Vec<String>)> {
        secrets::renewable(&self.wanted_secrets(), users)
    }

    /// Ends a change of the passwords: the interim roles are not needed any more.
    pub fn end_secrets(&self) -> Result<()> {
        files::remove(&self.dir.join(ROTATION))
    }

    /// The stage of a change of the authority; `None` if there is none.
    pub fn authority_stage(&self) -> Result<Option<AuthorityStage>> {
        pki::rotation::stage(&self.dir.join(PKI))
    }

    /// Goes to a stage of a change of the authority. At the first one, the new authority is made.
    pub fn advance_authority(&self, stage: AuthorityStage) -> Result<()> {
        let pki = self.dir.join(PKI);
        match stage {
            AuthorityStage::Trust => {
                pki::rotation::begin(&pki, &self.inventory.cluster, jiff::Timestamp::now())
            }
            AuthorityStage::Issue | AuthorityStage::Adopt => pki::rotation::advance(&pki, stage),
        }
    }

    /// Why the issuing authority is not valid at `now`; `None` if it is, or there is none.
    pub fn authority_lapse(&self, now: jiff::Timestamp) -> Result<Option<Lapse>> {
        if !self.has_authority() {
            return Ok(None);
        }
        Ok(self.pki()?.lapse(now))
    }

    /// Replaces an authority that is not valid at `now`.
    ///
    /// Afterwards the stage is [`AuthorityStage::Issue`], or there is no change, if only the authority of a
    /// change was not valid.
    pub fn replace_lapsed_authority(&self, now: jiff::Timestamp) -> Result<()> {
        pki::rotation::replace(&self.dir.join(PKI), &self.inventory.cluster, now)
    }

    /// Whether a change is under way that replaces an authority which is not valid at `now`.
    pub fn replaces_lapsed_authority(&self, now: jiff::Timestamp) -> Result<bool> {
        pki::rotation::replaces_lapsed(&self.dir.join(PKI), now)
    }

    /// Ends a change of the authority: the new one replaces the old one.
    pub fn end_authority(&self) -> Result<()> {
        pki::rotation::adopt(&self.dir.join(PKI))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    stage: SecretsStage,
    replication: Secret,
    rewind: Secret,
}

fn read(path: &Path) -> Result<Option<State>> {
    let Some(text) = files::read(path)? else {
        return Ok(None);
    };
    // The parser's message could contain a password.
    serde_json::from_str(&text).map(Some).map_err(|_| {
        Error::new(
            Code::WorkspaceDamaged,
            format!("{} is damaged", files::origin(path).display()),
        )
        .cause("it has the stage of the change of the passwords")
        .hint("restore it from a backup")
        .hint("or remove it: `up` then sets the passwords of secrets.yaml everywhere")
    })
}

pub(super) fn stage(path: &Path) -> Result<Option<SecretsStage>> {
    Ok(read(path)?.map(|state| state.stage))
}

/// The interim roles at present.
pub(super) fn interim(path: &Path) -> Result<Option<Interim>> {
    Ok(read(path)?.map(|state| Interim {
        used: matches!(state.stage, SecretsStage::Use | SecretsStage::Change),
        replication: state.replication,
        rewind: state.rewind,
    }))
}

/// Records that the cluster goes to `stage`. The interim roles' passwords are made at the first one.
pub(super) fn advance(path: &Path, stage: SecretsStage) -> Result<()> {
    let state = match read(path)? {
        Some(state) => State { stage, ..state },
        None => State {
            stage,
            replication: secrets::temporary()?,
            rewind: secrets::temporary()?,
        },
    };
    write(path, &state)
}

/// Records a change of the passwords that was found on hosts: members log in with the interim roles. The other
/// passwords change, or have changed.
pub(super) fn put_back(path: &Path, replication: Secret, rewind: Secret) -> Result<()> {
    let state = State {
        stage: SecretsStage::Change,
        replication,
        rewind,
    };
    write(path, &state)
}

fn write(path: &Path, state: &State) -> Result<()> {
    let written = json!({
        "stage": state.stage,
        "replication": state.replication.expose(),
        "rewind": state.rewind.expose(),
    });
    let text = serde_json::to_string_pretty(&written).map_err(|e| {
        Error::new(
            Code::LocalFileFailed,
            "cannot record the stage of the change",
        )
        .because(e)
    })?;
    files::write(path, files::PRIVATE, format!("{text}\n").as_bytes())
}
