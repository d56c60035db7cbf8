//! Removes a bucket that pgherd made, with all versions of everything in it.

use hyper::Method;

use super::{
    Bucket, Call,
    refusal::Failure,
    xml::{Element, escaped},
};
use crate::{
    error::{Code, Error, Result},
    event::{Events, HostState},
    quantity::count,
};

/// What stands for one version of an object in a list.
const ENTRIES: [&str; 2] = ["Version", "DeleteMarker"];
const LIST: &str = "list what is in it (s3:ListBucketVersions)";
/// How many refusals are shown.
const SHOWN: usize = 5;

impl Bucket {
    /// Refuses a bucket that [`Bucket::remove`] must not touch; false if there is none.
    pub async fn may_be_removed(&self) -> Result<bool> {
        let name = self.name();
        let refused = |what: String| {
            Error::new(Code::ForeignData, what)
                .left("nothing was removed")
                .hint("remove the bucket by hand, once nobody needs what is in it")
        };
        match self.is_of_this_cluster().await {
            Err(error) if error.code() == Code::BucketMissing => return Ok(false),
            Err(error) => return Err(error.left("nothing was removed")),
            Ok(true) => {}
            Ok(false) => {
                return Err(refused(format!(
                    "pgherd has not made the bucket {name} for this cluster: its tags do not say so"
                )));
            }
        }
        let strange = self.strangers().await.map_err(|it| self.explain(it))?;
        match strange.is_empty() {
            true => Ok(true),
            false => Err(refused(format!(
                "the bucket {name} has more than the backups of this cluster"
            ))
            .excerpt("also in it", strange.join("\n"))),
        }
    }

    /// Removes the bucket. It is no error if it has gone already; a removal that was cut off goes on.
    pub async fn remove(&self, events: &Events) -> Result<()> {
        if !self.may_be_removed().await? {
            return Ok(());
        }
        self.tell(events, HostState::Removing);
        let left = |error: Error| {
            error.left(format!(
                "the bucket {} is there, and some of what was in it may be gone",
                self.name()
            ))
        };
        self.empty().await.map_err(left)?;
        let call = Call {
            doing: "remove it (s3:DeleteBucket)",
            method: Method::DELETE,
            query: &[],
            body: String::new(),
        };
        match self.call(&call).await {
            Err(failure) if !failure.is(&["NoSuchBucket"]) => {
                return Err(left(self.explain(failure)));
            }
            _ => {}
        }
        self.tell(events, HostState::Removed);
        Ok(())
    }

    /// The folders and objects on the way to this cluster's folder that do not lead there.
    async fn strangers(&self) -> Result<Vec<String>, Failure> {
        let folder = self.folder();
        let mut found = Vec::new();
        let mut above = String::new();
        for part in folder.split_inclusive('/') {
            let ours = format!("{above}{part}");
            let query = [
                ("delimiter", "/"),
                ("prefix", above.as_str()),
                ("versions", ""),
            ];
            let listed = self.list(&query).await?;
            let folders = listed.all("CommonPrefixes");
            let names = folders.filter_map(|it| it.text_of("Prefix"));
            let objects = entries(&listed).filter_map(|it| it.text_of("Key"));
            let all = names.chain(objects).filter(|name| *name != ours);
            found.extend(all.map(str::to_owned));
            above = ours;
        }
        found.dedup();
        found.truncate(SHOWN);
        Ok(found)
    }

    async fn empty(&self) -> Result<()> {
        loop {
            let listed = self.list(&[("versions", "")]).await;
            let listed = match listed {
                Err(failure) if failure.is(&["NoSuchBucket"]) => return Ok(()),
                listed => listed.map_err(|it| self.explain(it))?,
            };
            let objects: Vec<String> = entries(&listed).filter_map(named).collect();
            if objects.is_empty() {
                return Ok(());
            }
            self.delete(&objects).await?;
        }
    }

    /// The first thousand of what there is.
    async fn list(&self, query: &[(&str, &str)]) -> Result<Element, Failure> {
        let body = self.call(&Call::get(LIST, query)).await?;
        super::read(LIST, &body)
    }

    async fn delete(&self, objects: &[String]) -> Result<()> {
        let call = Call {
            doing: "remove what is in it (s3:DeleteObjectVersion)",
            method: Method::POST,
            query: &[("delete", "")],
            body: format!(
                "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}<Quiet>true</Quiet></Delete>",
                objects.concat()
            ),
        };
        let body = self.call(&call).await.map_err(|it| self.explain(it))?;
        let answer = super::read(call.doing, &body).map_err(|it| self.explain(it))?;
        let refused: Vec<String> = answer
            .all("Error")
            .map(|it| {
                let part = |name| it.text_of(name).unwrap_or_default();
                format!("{}: {} {}", part("Key"), part("Code"), part("Message"))
            })
            .collect();
        if refused.is_empty() {
            return Ok(());
        }
        let what = format!(
            "{} of the bucket {} could not be removed",
            count(refused.len(), "object"),
            self.name()
        );
        Err(Error::new(Code::BucketDenied, what)
            .excerpt("the store says", refused[..refused.len().min(SHOWN)].join("\n"))
            .hint("if a lock keeps them, wait for its end, or end it in the store's console; then run the same command again"))
    }
}

fn entries(listed: &Element) -> impl Iterator<Item = &Element> {
    ENTRIES.iter().flat_map(|name| listed.all(name))
}

/// The version as it is named to be removed.
fn named(entry: &Element) -> Option<String> {
    let key = escaped(entry.text_of("Key")?);
    let version = escaped(entry.text_of("VersionId").unwrap_or("null"));
    Some(format!(
        "<Object><Key>{key}</Key><VersionId>{version}</VersionId></Object>"
    ))
}
