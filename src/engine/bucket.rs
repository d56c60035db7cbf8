//! The bucket for backups, as this machine sees it: asked before hosts get anything, made and removed where the user
//! says so.

use std::collections::BTreeMap;

use super::context::Context;
use crate::{
    bucket::{Bucket, Known, Seen},
    error::{Code, Error, Result},
    event::Events,
    inventory::{Provider, S3},
    plan::Plan,
    provider::{CLUSTER_LABEL, ID_LABEL},
    services::When,
};

impl Context {
    /// Asks what the bucket is like, once in a run; returns what there is to say about it.
    pub(super) async fn ask_bucket(&self) -> Result<Vec<String>> {
        let Some(place) = self.bucket_place() else {
            return Ok(Vec::new());
        };
        if self.bucket.is_asked() {
            return Ok(Vec::new());
        }
        if let Some(profile) = self.inventory.bucket_profile() {
            return Ok(vec![unasked(place, profile)]);
        }
        let bucket = self.bucket(place, &self.secrets()?.cluster_id)?;
        let begun = self.workspace.is_making_bucket(&mark(place))?;
        let seen = match bucket.look(begun, self.inventory.backup.keep_full).await {
            Ok(seen) => seen,
            Err(error) if error.code() == Code::BucketUnreachable => {
                let hints = error.hints().iter().map(|it| format!("; {it}"));
                return Ok(vec![format!(
                    "pgherd knows nothing of the bucket {} from here: {error}; the host with the role `backup` may reach it all the \
                     same{}",
                    place.bucket,
                    hints.collect::<String>()
                )]);
            }
            Err(error) => {
                self.bucket.known().trouble = Some(error);
                return Ok(Vec::new());
            }
        };
        let change = bucket.to_make(&seen).filter(|_| place.create);
        let (notes, trouble) = match seen {
            Seen::Missing if place.create => (Vec::new(), None),
            Seen::Missing => (Vec::new(), Some(bucket.is_missing())),
            // A run that makes it complete says what is left to say.
            Seen::There(found) if change.is_some() => (Vec::new(), found.unsuitable),
            Seen::There(found) => (found.notes, found.unsuitable),
        };
        *self.bucket.known() = Known { trouble, change };
        Ok(notes)
    }

    /// The same before backups begin in it, whatever the hosts have; says what there is to say.
    pub(super) async fn bucket_is_fit(&self) -> Result<()> {
        self.say_of_bucket().await?;
        match self.bucket.known().trouble.as_ref() {
            Some(error) => Err(error.again().left("nothing was changed")),
            None => Ok(()),
        }
    }

    /// Asks, and says what there is to say.
    pub(super) async fn say_of_bucket(&self) -> Result<()> {
        for note in self.ask_bucket().await? {
            self.operator.say(&format!("note: {note}"));
        }
        Ok(())
    }

    /// What [`Context::make_bucket`] would do.
    pub(super) fn bucket_change(&self) -> Option<String> {
        self.bucket.known().change.clone()
    }

    /// Makes the bucket, or completes it, if it was asked for and found necessary.
    pub(super) async fn make_bucket(&self, events: &Events) -> Result<()> {
        let wanted = self
            .bucket_place()
            .filter(|_| self.bucket_change().is_some());
        let Some(place) = wanted else {
            return Ok(());
        };
        let bucket = self.bucket(place, &self.secrets()?.cluster_id)?;
        let begun = self.workspace.is_making_bucket(&mark(place))?;
        let note = async || {
            self.workspace.note_making_bucket(&mark(place))?;
            self.state_is_ready().await
        };
        for unknown in bucket.make(begun, note, events).await? {
            self.operator.say(&format!("note: {unknown}"));
        }
        self.workspace.end_making_bucket()?;
        self.bucket.known().change = None;
        Ok(())
    }

    /// Refuses a plan by which backups would begin in a bucket that is not fit for them. A bucket that has backups
    /// already stops nothing, since the run may repair something else; what is wrong with it is returned.
    pub(super) fn bucket_allows(&self, plan: &Plan) -> Result<Option<String>> {
        match &self.bucket.known().trouble {
            Some(error) if plan.begins_repository() => Err(error.again()),
            Some(error) if !plan.partial => {
                let hints = error.way_forward().join("; ");
                Ok(Some(format!("{error}; {hints}")))
            }
            _ => Ok(None),
        }
    }

    /// The same; says what is wrong, once.
    pub(super) fn tell_of_bucket(&self, plan: &Plan) -> Result<()> {
        if let Some(trouble) = self.bucket_allows(plan)? {
            self.operator.say(&format!("note: {trouble}"));
            self.bucket.known().trouble = None;
        }
        Ok(())
    }

    /// The bucket that holds the backups, if one does.
    fn bucket_place(&self) -> Option<&S3> {
        let place = self.inventory.backup.s3.as_ref();
        place.filter(|_| self.inventory.wants(When::Bucket))
    }

    fn bucket(&self, place: &S3, cluster_id: &str) -> Result<Bucket> {
        let access = self.secrets()?.s3.ok_or_else(|| {
            Error::new(Code::SecretsInvalid, "`s3_key` or `s3_secret` is missing")
        })?;
        let mut tags = match &self.inventory.provider {
            Provider::Aws(settings) => settings.tags.clone(),
            Provider::Docker(_) | Provider::Existing => BTreeMap::new(),
        };
        let ours = [
            (CLUSTER_LABEL, self.inventory.cluster.as_str()),
            (ID_LABEL, cluster_id),
        ];
        tags.extend(ours.map(|(key, value)| (key.to_owned(), value.to_owned())));
        Bucket::new(place, tags, access, self.ca_bundle()?.as_deref())
    }
}

/// The bucket that `down` removes because the user has named it; refused if it must not go.
pub(super) async fn doomed(
    context: &Context,
    named: &str,
    cluster_id: Option<&str>,
) -> Result<Option<Bucket>> {
    let refused =
        |what: String| Error::new(Code::InvalidArguments, what).left("nothing was removed");
    let Some(place) = context.bucket_place() else {
        return Err(refused(
            "the backups of this inventory are in no bucket".into(),
        ));
    };
    if place.bucket != named {
        return Err(refused(format!(
            "the bucket with the backups is {}, not {named}",
            place.bucket
        ))
        .hint(format!(
            "to remove it with all backups: {}",
            context.command(&format!("down --with-bucket {}", place.bucket))
        )));
    }
    if let Some(profile) = context.inventory.bucket_profile() {
        return Err(refused(format!(
            "pgherd has no access key for the bucket: the instance profile {profile} opens it, and only on its host"
        ))
        .hint("remove the bucket by hand, after the cluster"));
    }
    let Some(id) = cluster_id else {
        return Err(refused(
            "the workspace of the cluster is gone, which has its id; the bucket has it too".into(),
        )
        .hint("remove the bucket by hand"));
    };
    let bucket = context.bucket(place, id)?;
    match bucket.may_be_removed().await? {
        true => Ok(Some(bucket)),
        false => Ok(None),
    }
}

/// What is said of a bucket that only the host with the backups can ask.
fn unasked(place: &S3, profile: &str) -> String {
    let mut said = format!(
        "pgherd did not ask what the bucket {} is like: the instance profile {profile} opens it, which only the host with the role \
         `backup` has; see yourself that it keeps versions, and that no lifecycle rule removes or archives what is in it",
        place.bucket
    );
    if !place.is_of_aws() {
        said.push_str(&format!(
            "; {} is not of AWS, and may not know the profile's credentials",
            place.endpoint
        ));
    }
    said
}

/// The bucket's name for the workspace's note.
fn mark(place: &S3) -> String {
    format!("{} {}", place.bucket, place.endpoint)
}
