//! The settings of a bucket that pgherd makes.

use super::{
    Bucket, Call,
    refusal::{Failure, Refusal},
    xml::escaped,
};
use crate::inventory::S3;
use hyper::Method;

const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// How many days a version stays that was removed or replaced.
const OLD_VERSIONS: u32 = 30;
/// After how many days an upload is given up that was never completed.
const UPLOADS: u32 = 7;

/// A setting of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    Tags,
    Private,
    TlsOnly,
    Encrypted,
    OldVersions,
    Versions,
}

impl Setting {
    /// In the order in which a new bucket gets them: by its tags, the next run knows that it is pgherd's.
    pub(super) const ALL: [Self; 6] = [
        Self::Tags,
        Self::Private,
        Self::TlsOnly,
        Self::Encrypted,
        Self::OldVersions,
        Self::Versions,
    ];

    /// S3's name for it in a query.
    fn name(self) -> &'static str {
        match self {
            Self::Tags => "tagging",
            Self::Private => "publicAccessBlock",
            Self::TlsOnly => "policy",
            Self::Encrypted => "encryption",
            Self::OldVersions => "lifecycle",
            Self::Versions => "versioning",
        }
    }

    pub(super) fn in_words(self) -> String {
        match self {
            Self::Tags => "tags with the cluster's name and id".into(),
            Self::Private => "never public".into(),
            Self::TlsOnly => "reached by TLS only".into(),
            Self::Encrypted => "encrypted by default".into(),
            Self::OldVersions => format!(
                "what was removed or replaced stays {OLD_VERSIONS} days, an upload that was given up {UPLOADS} days"
            ),
            Self::Versions => "keeps versions".into(),
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Self::Tags => "give it tags (s3:PutBucketTagging)",
            Self::Private => "keep the public out (s3:PutBucketPublicAccessBlock)",
            Self::TlsOnly => "give it a policy (s3:PutBucketPolicy)",
            Self::Encrypted => "encrypt it by default (s3:PutEncryptionConfiguration)",
            Self::OldVersions => "have old versions removed (s3:PutLifecycleConfiguration)",
            Self::Versions => "have it keep versions (s3:PutBucketVersioning)",
        }
    }

    fn body(self, bucket: &Bucket) -> String {
        let (root, inner) = match self {
            Self::TlsOnly => return policy(&bucket.place),
            Self::Tags => {
                let tags = bucket.tags.iter();
                let tags: String = tags
                    .map(|(key, value)| {
                        let (key, value) = (escaped(key), escaped(value));
                        format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>")
                    })
                    .collect();
                ("Tagging", format!("<TagSet>{tags}</TagSet>"))
            }
            Self::Private => (
                "PublicAccessBlockConfiguration",
                "<BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls>\
                 <BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>true</RestrictPublicBuckets>"
                    .into(),
            ),
            Self::Encrypted => (
                "ServerSideEncryptionConfiguration",
                "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>\
                 </ApplyServerSideEncryptionByDefault></Rule>"
                    .into(),
            ),
            Self::OldVersions => (
                "LifecycleConfiguration",
                format!(
                    "<Rule><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>\
                     <ID>pgherd</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status>\
                     <NoncurrentVersionExpiration><NoncurrentDays>{OLD_VERSIONS}</NoncurrentDays></NoncurrentVersionExpiration>\
                     <AbortIncompleteMultipartUpload><DaysAfterInitiation>{UPLOADS}</DaysAfterInitiation>\
                     </AbortIncompleteMultipartUpload></Rule>"
                ),
            ),
            Self::Versions => (
                "VersioningConfiguration",
                "<Status>Enabled</Status>".into(),
            ),
        };
        format!("<{root} xmlns=\"{NAMESPACE}\">{inner}</{root}>")
    }
}

impl Bucket {
    /// Whether the bucket was never told about it. What somebody has set, also to another value, is not missing, and
    /// neither is what the store does not know.
    pub(super) async fn lacks(&self, setting: Setting) -> bool {
        let query = [(setting.name(), "")];
        let asked = self.call(&Call::get("look at its settings", &query)).await;
        match asked {
            Ok(body) => {
                let text = String::from_utf8_lossy(&body);
                setting == Setting::Versions && !text.contains("<Status>")
            }
            Err(failure) => failure.refusal().is_some_and(Refusal::is_none_yet),
        }
    }

    /// Returns the store's own words if it does not know such a setting.
    pub(super) async fn set(&self, setting: Setting) -> Result<Option<String>, Failure> {
        let call = Call {
            doing: setting.doing(),
            method: Method::PUT,
            query: &[(setting.name(), "")],
            body: setting.body(self),
        };
        match self.call(&call).await {
            Ok(_) => Ok(None),
            Err(Failure::Refusal(refusal))
                if refusal.is_unknown() || !self.place.is_of_aws() && refusal.is_malformed() =>
            {
                Ok(Some(refusal.in_short()))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Refuses everybody who comes without TLS.
fn policy(place: &S3) -> String {
    let partition = match place.region.split('-').next() {
        Some("cn") => "aws-cn",
        Some("us") if place.region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    let arn = format!("arn:{partition}:s3:::{}", place.bucket);
    serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, format!("{arn}/*")],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }],
    })
    .to_string()
}
