//! The shared state: the workspace's secrets, keys and known hosts at a place that several machines reach.
//!
//! The files of the workspace stay where they are, as this machine's copy. A run that changes something reads the shared
//! state before it decides anything, and writes it before anything new reaches a host. So the hosts never have what the
//! shared state lacks, and a change that was never written may be given up. docs/decisions/0015 has the reasons.

use std::{fs, path::Path};

use rand::{TryRngCore as _, rngs::OsRng};
use tokio::sync::Mutex;

use self::{
    directory::Directory,
    document::{Document, Written},
    local::{Base, Files, Local},
};
use super::{LOCK, Workspace, files, lock, secrets, trust};
use crate::{
    error::{Code, Error, Result},
    holder::Holder,
    inventory::{Inventory, State},
    seal::{self, Identity},
};

mod directory;
mod document;
mod local;
mod outlook;
mod trouble;

pub(super) use local::remove;
pub(crate) use outlook::{Generation, Outlook};

/// The shared state of one cluster, as this process knows it.
#[derive(Debug)]
pub(crate) struct Shared {
    cluster: String,
    settings: State,
    place: Directory,
    local: Local,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What the place had when it was last looked at.
    newest: Option<Newest>,
    /// The run that may write; none in verbs that only look.
    writer: Option<Holder>,
    /// Whether no other run can be at work: this one has a lease, or has written.
    is_alone: bool,
    /// What the local files were when they were last compared.
    stamp: Option<Stamp>,
}

type Stamp = Vec<(String, Option<std::time::SystemTime>, u64)>;

#[derive(Debug, Clone)]
struct Newest {
    generation: u64,
    line: Vec<String>,
}

impl Newest {
    fn of(document: &Document) -> Self {
        Self {
            generation: document.generation,
            line: document.line(),
        }
    }
}

/// What has to be done so that this machine has the shared state.
enum Step {
    Nothing,
    /// The files are the same; only the note is missing.
    Note,
    /// The files are replaced; the named ones were changed here.
    Take(Vec<String>),
}

impl Shared {
    /// The shared state that the inventory asks for.
    pub(crate) fn of(inventory: &Inventory) -> Result<Option<Self>> {
        let Some(settings) = inventory.state.clone() else {
            return Ok(None);
        };
        Ok(Some(Self {
            cluster: inventory.cluster.clone(),
            place: Directory::new(&settings.directory, &inventory.cluster),
            settings,
            local: Local {
                dir: Workspace::path_of(inventory)?,
            },
            known: Mutex::default(),
        }))
    }

    /// Whether this machine has a workspace, whatever the shared state has.
    pub(crate) fn has_copy(&self) -> bool {
        self.local.is_there()
    }

    /// Brings this machine's copy up to date; returns what the user should know.
    ///
    /// # Errors
    /// The place cannot be reached or read, or its state and the copy have parted. Nothing is changed then.
    pub(crate) async fn refresh(&self) -> Result<Vec<String>> {
        let mut known = self.known.lock().await;
        self.refreshed(&mut known).await
    }

    async fn refreshed(&self, known: &mut Known) -> Result<Vec<String>> {
        trust::check(&self.local.dir)?;
        let document = self.read().await?;
        known.newest = document.as_ref().map(Newest::of);
        let step = self.step(document.as_ref())?;
        let Some(document) = document else {
            return Ok(Vec::new());
        };
        if matches!(step, Step::Nothing) {
            return Ok(Vec::new());
        }
        let another = lock::tenant(&self.local.dir.join(LOCK));
        if another.is_some_and(|it| known.writer.as_ref() != Some(&it)) {
            // Another run of this folder has it, and writes what it changes.
            return Ok(Vec::new());
        }
        let kept = match step {
            Step::Take(kept) => kept,
            _ => Vec::new(),
        };
        let _alone = self.alone()?;
        self.local.take(&self.place.shown(), &document, &kept)?;
        let Written { by, at, .. } = &document.written;
        Ok(match kept.is_empty() {
            true => Vec::new(),
            false => vec![format!(
                "{} was changed here and never used; meanwhile {by} wrote the shared state ({}), which counts. What was here is in {}",
                kept.join(", "),
                moment(*at),
                self.local.dir.join(local::SUPERSEDED).display(),
            )],
        })
    }

    /// Keeps other processes from replacing the same files.
    fn alone(&self) -> Result<fs::File> {
        let all = self.local.dir.parent().unwrap_or(Path::new("/"));
        files::private_dir(all)?;
        fs::File::open(all)
            .and_then(|dir| dir.lock().map(|()| dir))
            .map_err(|e| files::failed("cannot lock", all, e))
    }

    async fn read(&self) -> Result<Option<Document>> {
        let Some((number, sealed)) = self.place.newest().await? else {
            return Ok(None);
        };
        let at_place = |error: Error| error.cause(format!("it is at {}", self.place.shown()));
        let identity = Identity::find(self.settings.identity.as_deref())?;
        let text = identity.open(&sealed).map_err(at_place)?;
        let document = Document::parse(&text).map_err(at_place)?;
        if document.generation != number || document.cluster != self.cluster {
            return Err(at_place(
                Error::new(
                    Code::StateDamaged,
                    "the shared state is not what its place says",
                )
                .cause(format!(
                    "it is generation {} of the cluster {}",
                    document.generation, document.cluster
                )),
            ));
        }
        Ok(Some(document))
    }

    fn step(&self, document: Option<&Document>) -> Result<Step> {
        let place = self.place.shown();
        let base = self.local.base(&place)?;
        let Some(document) = document else {
            return match (base, self.local.is_there()) {
                (Some(base), _) => Err(self.is_gone(&base)),
                (None, true) => Err(self.is_not_shared_yet()),
                (None, false) => Ok(Step::Nothing),
            };
        };
        let Some(base) = base else {
            return self.first_step(document);
        };
        if document.generation < base.generation {
            return Err(self.is_older(document, &base));
        }
        if document.has_parted_from(base.generation, &base.id) {
            return Err(self.has_parted(document, &base));
        }
        if document.generation > base.generation {
            return Ok(Step::Take(self.local.unsent(&base)?));
        }
        // A workspace that was removed by hand comes back.
        let is_lost = document.cluster_id.is_some() && !self.local.is_there();
        Ok(match is_lost {
            true => Step::Take(Vec::new()),
            false => Step::Nothing,
        })
    }

    /// The same on a machine that never had the shared state.
    fn first_step(&self, document: &Document) -> Result<Step> {
        if !self.local.is_there() {
            return Ok(match document.cluster_id {
                Some(_) => Step::Take(Vec::new()),
                None => Step::Nothing,
            });
        }
        let ours = secrets::cluster_id(&self.local.dir.join(super::SECRETS))?;
        if ours != document.cluster_id {
            return Err(self.is_of_another(document, ours.as_deref()));
        }
        let theirs = Base::of("", document).files;
        let mut names = local::differing(&self.local.digests()?, &theirs);
        names.retain(|name| name != super::KNOWN_HOSTS);
        match names.is_empty() {
            true => Ok(Step::Note),
            false => Err(self.differs(document, &names)),
        }
    }

    /// Begins a run that changes something: nothing is decided before this has returned.
    pub(crate) async fn begin(&self, writer: &Holder) -> Result<Vec<String>> {
        let mut known = self.known.lock().await;
        known.writer = Some(writer.clone());
        let notes = self.refreshed(&mut known).await;
        if notes.is_err() {
            known.writer = None;
        }
        notes.map_err(|error| error.left("nothing was changed"))
    }

    /// Returns when the shared state has all that a host may get next: what was made or changed here is written first.
    pub(crate) async fn ready(&self) -> Result<()> {
        let mut known = self.known.lock().await;
        if known.writer.is_none() {
            return Ok(());
        }
        let stamp = self.local.stamp();
        if known.stamp.as_ref() == Some(&stamp) {
            return Ok(());
        }
        self.stored(&mut known).await?;
        known.stamp = Some(stamp);
        Ok(())
    }

    /// Writes what was changed here, at the end of a run. One that was refused, because another one is at work, writes
    /// nothing.
    pub(crate) async fn store(&self) -> Result<()> {
        let mut known = self.known.lock().await;
        match known.is_alone {
            true => self.stored(&mut known).await,
            false => Ok(()),
        }
    }

    async fn stored(&self, known: &mut Known) -> Result<()> {
        let Some(writer) = known.writer.clone().filter(|_| self.local.is_there()) else {
            return Ok(());
        };
        let files = self.local.files()?;
        let base = self.local.base(&self.place.shown())?;
        let document = self.next(known, &writer, files)?;
        let now = Base::of("", &document);
        let is_there = |base: &Base| {
            let newest = known.newest.as_ref();
            newest.is_some_and(|it| it.generation == base.generation)
                && base.files == now.files
                && base.recipients == now.recipients
        };
        if base.as_ref().is_some_and(is_there) {
            return Ok(());
        }
        self.write(known, &document).await
    }

    /// The next generation, with these files.
    fn next(&self, known: &Known, writer: &Holder, files: Files) -> Result<Document> {
        let mut id = [0; 8];
        OsRng.try_fill_bytes(&mut id).map_err(|e| {
            Error::new(
                Code::LocalSystemFailed,
                "the operating system has no source of random numbers",
            )
            .because(e)
        })?;
        let newest = known.newest.clone();
        let cluster_id = match files.is_empty() {
            true => None,
            false => secrets::cluster_id(&self.local.dir.join(super::SECRETS))?,
        };
        Ok(Document {
            cluster: self.cluster.clone(),
            cluster_id,
            generation: newest.as_ref().map_or(0, |it| it.generation) + 1,
            written: Written {
                id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
                at: jiff::Timestamp::now(),
                by: writer.by.clone(),
                verb: writer.verb.clone(),
            },
            before: newest.map(|it| it.line).unwrap_or_default(),
            recipients: self.settings.recipients.clone(),
            files,
        })
    }

    async fn write(&self, known: &mut Known, document: &Document) -> Result<()> {
        let sealed = seal::seal(&document.text(), &self.settings.recipients)?;
        // Whoever writes what they cannot read locks themselves out.
        let identity = Identity::find(self.settings.identity.as_deref())?;
        identity
            .open(&sealed)
            .map_err(|_| Self::excludes_writer(&identity))?;
        if !self.place.put(document.generation - 1, sealed).await? {
            return Err(self.was_overtaken(document.generation));
        }
        if self.local.dir.exists() {
            self.local.note(&Base::of(&self.place.shown(), document))?;
        }
        known.newest = Some(Newest::of(document));
        known.is_alone = true;
        Ok(())
    }

    /// An error if another run has written since this one began. For a run that has a lease on a host by now.
    pub(crate) async fn is_still_newest(&self) -> Result<()> {
        let mut known = self.known.lock().await;
        if known.writer.is_none() {
            return Ok(());
        }
        let ours = known.newest.as_ref().map_or(0, |it| it.generation);
        let there = self.place.newest().await?.map_or(0, |(number, _)| number);
        known.is_alone |= there == ours;
        match there == ours {
            true => Ok(()),
            false => Err(self.was_overtaken(ours + 1).left("nothing was changed")),
        }
    }

    /// Notes that there is no cluster any more: the next generation has no files.
    pub(crate) async fn end(&self) -> Result<()> {
        let mut known = self.known.lock().await;
        let Some(writer) = known.writer.clone() else {
            return Ok(());
        };
        if known.newest.is_none() {
            return Ok(());
        }
        let document = self.next(&known, &writer, Files::new())?;
        self.write(&mut known, &document).await
    }

    /// Puts this machine's workspace into a place that has none; returns its generation.
    pub(crate) async fn init(&self, writer: &Holder) -> Result<u64> {
        let mut known = self.known.lock().await;
        if let Some(document) = self.read().await?
            && document.cluster_id.is_some()
        {
            let Written { by, at, .. } = &document.written;
            return Err(Error::new(
                Code::StateExists,
                format!("{} has a shared state of this cluster", self.place.shown()),
            )
            .cause(format!(
                "generation {}, by {by}, {}",
                document.generation,
                moment(*at)
            ))
            .left("nothing was changed"));
        }
        self.overwrite(&mut known, writer).await
    }

    /// Makes this machine's workspace the next generation, whatever is there; returns its number.
    pub(crate) async fn push(&self, writer: &Holder) -> Result<u64> {
        let mut known = self.known.lock().await;
        self.overwrite(&mut known, writer).await
    }

    async fn overwrite(&self, known: &mut Known, writer: &Holder) -> Result<u64> {
        if !self.local.is_there() {
            return Err(Error::new(
                Code::WorkspaceMissing,
                format!("{} has no workspace", self.local.dir.display()),
            )
            .left("nothing was changed")
            .hint("have it from the shared state: pgherd state pull; or from the hosts: pgherd recover"));
        }
        // What is there may be unreadable, which is one reason to write it anew.
        let number = self.place.newest().await?.map(|(number, _)| number);
        let readable = self.read().await.ok().flatten();
        known.newest = match readable {
            Some(document) => Some(Newest::of(&document)),
            None => number.map(|generation| Newest {
                generation,
                line: Vec::new(),
            }),
        };
        let document = self.next(known, writer, self.local.files()?)?;
        self.write(known, &document).await?;
        Ok(document.generation)
    }

    /// Replaces this machine's copy by what is there, and puts aside what differs; returns the generation and those
    /// files.
    pub(crate) async fn pull(&self) -> Result<(u64, Vec<String>)> {
        let mut known = self.known.lock().await;
        trust::check(&self.local.dir)?;
        let Some(document) = self.read().await? else {
            return Err(self.has_nothing());
        };
        known.newest = Some(Newest::of(&document));
        let theirs = Base::of("", &document).files;
        let mut kept = match self.local.is_there() {
            true => local::differing(&self.local.digests()?, &theirs),
            false => Vec::new(),
        };
        kept.retain(|name| name != super::KNOWN_HOSTS);
        let _alone = self.alone()?;
        self.local.take(&self.place.shown(), &document, &kept)?;
        Ok((document.generation, kept))
    }

    /// Looks at the place and at this machine's copy; changes nothing.
    pub(crate) async fn look(&self) -> Result<Outlook> {
        let place = self.place.shown();
        let base = self.local.base(&place)?;
        let (there, trouble) = match self.read().await {
            Ok(document) => (
                document.as_ref().map(Generation::of),
                self.step(document.as_ref()).err(),
            ),
            Err(error) => (None, Some(error)),
        };
        Ok(Outlook {
            recipients: self.settings.recipients.clone(),
            there,
            here: base.as_ref().map(|it| it.generation),
            unsent: match (&base, self.local.is_there()) {
                (Some(base), true) => self.local.unsent(base)?,
                _ => Vec::new(),
            },
            trouble,
            place,
        })
    }
}

fn moment(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests;
