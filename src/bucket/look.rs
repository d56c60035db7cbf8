//! What a bucket is like, and whether backups are safe in it.

use futures_util::future::join_all;

use super::{
    Bucket, Call,
    lifecycle::harmful,
    refusal::{self, Failure},
    setting::Setting,
    xml::Element,
};
use crate::{
    error::{Code, Error, Result},
    inventory::S3,
};

/// What was found where the bucket should be.
#[derive(Debug)]
pub enum Seen {
    Missing,
    There(Found),
}

/// A bucket that is there.
#[derive(Debug, Default)]
pub struct Found {
    /// What its owner should know.
    pub notes: Vec<String>,
    /// Why no backups should begin in it.
    pub unsuitable: Option<Error>,
    /// What a bucket that pgherd makes does not have yet; of other buckets, nothing is missing.
    pub(super) missing: Vec<Setting>,
}

/// A lock of a bucket's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lock {
    None,
    /// Objects have one only where it is asked for.
    Possible,
    /// Every object has one, for so many days.
    Always {
        mode: String,
        days: u32,
    },
}

/// What the store says of a bucket; `None` is what the access key may not ask.
#[derive(Debug)]
struct Nature {
    keeps_versions: Option<bool>,
    lock: Option<Lock>,
    /// Rules that take backups away.
    harmful: Option<Vec<String>>,
}

impl Bucket {
    /// Asks what the bucket is like. `begun` says that a run has begun to make it, and was cut off; `keep_full` is
    /// the number of full backups that are kept.
    ///
    /// # Errors
    /// The store does not answer, or does not let the access key in.
    pub async fn look(&self, begun: bool, keep_full: u32) -> Result<Seen> {
        let folder = self.folder();
        let query = [
            ("list-type", "2"),
            ("max-keys", "1"),
            ("prefix", folder.as_str()),
        ];
        let listed = Call::get("list it (s3:ListBucket)", &query);
        match self.call(&listed).await {
            Ok(body) => super::read(listed.doing, &body).map_err(|it| self.explain(it))?,
            Err(failure) if failure.is(&["NoSuchBucket"]) => return Ok(Seen::Missing),
            Err(failure) => return Err(self.explain(failure)),
        };
        let (nature, missing) = tokio::join!(self.nature(&folder), self.missing(begun));
        let (notes, unsuitable) = judge(&self.place, &nature, keep_full);
        Ok(Seen::There(Found {
            notes,
            unsuitable,
            missing,
        }))
    }

    /// The error about a bucket that is not there.
    pub fn is_missing(&self) -> Error {
        refusal::missing(&self.place)
    }

    /// The folder of the backups, as the store names it.
    pub(super) fn folder(&self) -> String {
        format!("{}/", self.place.path.trim_start_matches('/'))
    }

    async fn nature(&self, folder: &str) -> Nature {
        let (versions, lock, rules) = tokio::join!(
            self.ask("ask whether it keeps versions", &[("versioning", "")]),
            self.ask("ask whether it has a lock", &[("object-lock", "")]),
            self.ask("ask for its rules", &[("lifecycle", "")]),
        );
        let text =
            |it: Option<Element>, name: &str| it.and_then(|it| it.text_of(name).map(str::to_owned));
        Nature {
            keeps_versions: versions
                .ok()
                .map(|it| text(it, "Status").as_deref() == Some("Enabled")),
            lock: lock.ok().map(|it| it.as_ref().map_or(Lock::None, lock_of)),
            harmful: rules
                .ok()
                .map(|it| it.map_or(Vec::new(), |it| harmful(&it, folder))),
        }
    }

    /// What is missing of a bucket that pgherd makes.
    async fn missing(&self, begun: bool) -> Vec<Setting> {
        if !self.place.create {
            return Vec::new();
        }
        match self.is_ours(begun).await {
            Ok(Ours::Yes) => {
                let asked = Setting::ALL.map(async |it| self.lacks(it).await.then_some(it));
                join_all(asked).await.into_iter().flatten().collect()
            }
            Ok(Ours::Begun) => Setting::ALL.to_vec(),
            // Whose bucket is not known is not pgherd's.
            Ok(Ours::No) | Err(_) => Vec::new(),
        }
    }

    pub(super) async fn is_ours(&self, begun: bool) -> Result<Ours, Failure> {
        let asked = self.ask("ask for its tags (s3:GetBucketTagging)", &[("tagging", "")]);
        let set = asked.await?;
        let set = set.as_ref().and_then(|it| it.child("TagSet"));
        let tags = set.into_iter().flat_map(|it| it.all("Tag"));
        let tags = tags
            .filter_map(|it| Some((it.text_of("Key")?.into(), it.text_of("Value")?.into())))
            .collect();
        if self.are_ours(&tags) {
            return Ok(Ours::Yes);
        }
        if !begun || !tags.is_empty() {
            return Ok(Ours::No);
        }
        // Somebody else may have made one of the same name since.
        let query = [("max-keys", "1"), ("versions", "")];
        let listed = self.ask("list it (s3:ListBucketVersions)", &query).await?;
        let is_empty = listed.is_some_and(|it| {
            ["Version", "DeleteMarker"]
                .iter()
                .all(|name| it.child(name).is_none())
        });
        Ok(match is_empty {
            true => Ours::Begun,
            false => Ours::No,
        })
    }
}

/// Whether a bucket is one that pgherd has made for this cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ours {
    Yes,
    /// A run has made it and was cut off before its tags.
    Begun,
    No,
}

fn lock_of(answer: &Element) -> Lock {
    let rule = answer.child("Rule");
    let Some(retention) = rule.and_then(|it| it.child("DefaultRetention")) else {
        return Lock::Possible;
    };
    let number = |name: &str| retention.text_of(name)?.parse::<u32>().ok();
    let years = number("Years").map(|it| it.saturating_mul(365));
    match number("Days").or(years) {
        Some(days) => Lock::Always {
            mode: retention.text_of("Mode").unwrap_or_default().to_owned(),
            days,
        },
        None => Lock::Possible,
    }
}

/// What there is to say about the bucket, and why no backups should begin in it.
fn judge(place: &S3, nature: &Nature, keep_full: u32) -> (Vec<String>, Option<Error>) {
    let bucket = &place.bucket;
    let mut notes = Vec::new();
    let unknown: Vec<&str> = [
        (nature.keeps_versions.is_none(), "keeps versions"),
        (nature.lock.is_none(), "has a lock"),
        (nature.harmful.is_none(), "has rules that remove backups"),
    ]
    .into_iter()
    .filter_map(|(unknown, what)| unknown.then_some(what))
    .collect();
    if !unknown.is_empty() {
        notes.push(format!(
            "pgherd could not ask whether the bucket {bucket} {}; docs/iam-policy-bucket.json lets its access key ask",
            unknown.join(", ")
        ));
    }
    let locked = matches!(nature.lock, Some(Lock::Always { .. }));
    if nature.keeps_versions == Some(false) && !locked {
        notes.push(format!(
            "the bucket {bucket} keeps no versions and has no lock: whoever has its access key can delete all backups; turn on \
             its versioning, or see docs/backups.md"
        ));
    }
    // Full backups are made each week, unless the inventory says otherwise.
    let kept = keep_full.saturating_mul(7);
    if let Some(Lock::Always { mode, days }) = &nature.lock
        && *days > kept
    {
        notes.push(format!(
            "the lock of the bucket {bucket} ({mode}) keeps everything for {days} days, and backup.keep_full about {kept} days of \
             backups: what pgBackRest removes stays in the bucket, and costs, until its lock ends"
        ));
    }
    let harmful = nature.harmful.as_deref().unwrap_or_default();
    let unsuitable = (!harmful.is_empty()).then(|| {
        let error = Error::new(
            Code::BucketUnsuitable,
            format!("the bucket {bucket} takes backups away, which pgBackRest does not know"),
        );
        let error = harmful.iter().fold(error, Error::cause);
        error
            .hint(format!(
                "limit these rules to other folders than {}, or to noncurrent versions; pgBackRest itself removes what backup.keep_full \
                 does not keep",
                place.path
            ))
    });
    (notes, unsuitable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> S3 {
        S3 {
            bucket: "backups".into(),
            region: "eu-central-1".into(),
            endpoint: "s3.eu-central-1.amazonaws.com".into(),
            port: 443,
            path: "/pg".into(),
            path_style: false,
            create: false,
            profile: None,
        }
    }

    fn lock(text: &str) -> Lock {
        let text = format!("<ObjectLockConfiguration>{text}</ObjectLockConfiguration>");
        lock_of(&Element::parse(&text).unwrap())
    }

    #[test]
    fn a_lock_is_read() {
        let rule = |term: &str| {
            lock(&format!(
                "<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode>{term}</DefaultRetention></Rule>"
            ))
        };
        let always = |days| Lock::Always {
            mode: "COMPLIANCE".into(),
            days,
        };
        assert_eq!(rule("<Days>30</Days>"), always(30));
        assert_eq!(rule("<Years>2</Years>"), always(730));
        let enabled = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>";
        assert_eq!(lock(enabled), Lock::Possible);
    }

    #[test]
    fn what_matters_is_said() {
        let always = |days| Lock::Always {
            mode: "GOVERNANCE".into(),
            days,
        };
        for (keeps_versions, lock, harmful, notes, unsuitable) in [
            (Some(true), Some(Lock::None), Some(vec![]), vec![], false),
            (
                Some(true),
                Some(Lock::Possible),
                Some(vec![]),
                vec![],
                false,
            ),
            (
                Some(false),
                Some(Lock::None),
                Some(vec![]),
                vec!["can delete all backups"],
                false,
            ),
            (Some(true), Some(always(14)), Some(vec![]), vec![], false),
            (
                Some(true),
                Some(always(30)),
                Some(vec![]),
                vec!["(GOVERNANCE) keeps everything for 30 days"],
                false,
            ),
            (
                None,
                None,
                None,
                vec!["keeps versions, has a lock, has rules"],
                false,
            ),
            (
                Some(true),
                None,
                Some(vec!["the rule `x` removes".to_owned()]),
                vec!["ask whether the bucket backups has a lock;"],
                true,
            ),
        ] {
            let nature = Nature {
                keeps_versions,
                lock,
                harmful,
            };
            let (said, error) = judge(&place(), &nature, 2);
            assert_eq!(said.len(), notes.len(), "{nature:?}: {said:?}");
            for (said, note) in said.iter().zip(&notes) {
                assert!(said.contains(note), "{said}");
            }
            assert_eq!(error.is_some(), unsuitable, "{nature:?}");
        }
    }
}
