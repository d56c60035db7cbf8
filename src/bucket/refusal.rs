//! What it means that a store does not do what it is asked, and what to do about it.

use bytes::Bytes;
use hyper::{Response, StatusCode};

use super::xml::Element;
use crate::{
    error::{Code, Error, Source},
    inventory::S3,
};

/// How much of an answer is shown that is none of a store's.
const SHOWN: usize = 200;

/// Why a question got no good answer. `doing` follows "cannot" in messages.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer came.
    Silence {
        doing: &'static str,
        cause: Source,
    },
    Refusal(Refusal),
}

/// A store's answer that is no success.
#[derive(Debug)]
pub(super) struct Refusal {
    doing: &'static str,
    status: StatusCode,
    /// The store's word for it; empty if something else has answered.
    code: String,
    message: String,
    /// Where the bucket really is.
    region: Option<String>,
    /// The begin of what was answered.
    shown: String,
}

impl Refusal {
    pub(super) fn of(doing: &'static str, answer: &Response<Bytes>) -> Self {
        let text = String::from_utf8_lossy(answer.body());
        let error = Element::parse(&text).filter(|it| it.name() == "Error");
        let field = |name: &str| {
            let error = error.as_ref()?;
            error.text_of(name).map(str::to_owned)
        };
        let header = answer.headers().get("x-amz-bucket-region");
        let header = header.and_then(|it| it.to_str().ok()).map(str::to_owned);
        Self {
            doing,
            status: answer.status(),
            code: field("Code").unwrap_or_default(),
            message: field("Message").unwrap_or_default(),
            region: header.or_else(|| field("Region")),
            shown: text.chars().take(SHOWN).collect(),
        }
    }

    pub(super) fn is(&self, codes: &[&str]) -> bool {
        codes.contains(&self.code.as_str())
    }

    /// Whether it may be answered otherwise in a moment.
    pub(super) fn is_passing(&self) -> bool {
        self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED
            || self.is(&["SlowDown", "OperationAborted", "RequestTimeout"])
    }

    /// Whether the bucket was never told what it was asked about.
    pub(super) fn is_none_yet(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && !self.is(&["NoSuchBucket"])
    }

    /// Whether the store does not know such a thing.
    pub(super) fn is_unknown(&self) -> bool {
        let unknown = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
        unknown.contains(&self.status) || self.is(&["NotImplemented", "MethodNotAllowed"])
    }

    /// Whether the store knows it in another form.
    pub(super) fn is_malformed(&self) -> bool {
        self.status == StatusCode::BAD_REQUEST
    }

    pub(super) fn is_denial(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
    }

    /// The store's own words.
    pub(super) fn in_short(&self) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", _) => self.status.to_string(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        }
    }

    fn explained(&self, place: &S3) -> Error {
        let S3 {
            bucket, endpoint, ..
        } = place;
        let (doing, denied) = (self.doing, Code::BucketDenied);
        match self.code.as_str() {
            "NoSuchBucket" => missing(place),
            "InvalidAccessKeyId" | "InvalidToken" | "ExpiredToken" => {
                Error::new(denied, format!("{endpoint} does not know the access key, or not any more"))
                    .hint("it is `s3_key` among the secrets: make a new one at the store, or correct it (docs/inventory.md, under `secrets`)")
                    .hint("a key of one store, or of one partition of AWS, is unknown to another: compare backup.s3.endpoint and backup.s3.region")
            }
            "SignatureDoesNotMatch" => {
                Error::new(denied, format!("the secret of the access key is not the one that {endpoint} knows"))
                    .hint("it is `s3_secret` among the secrets: copy it again, to its last character")
            }
            "RequestTimeTooSkewed" => {
                Error::new(denied, format!("this machine's clock is more than a few minutes from the clock of {endpoint}"))
                    .hint("set this machine's clock: timedatectl; hosts have their own, which `verify` checks")
            }
            "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" | "InvalidRegion"
                if self.region.as_ref().is_none_or(|it| *it != place.region) =>
            {
                self.elsewhere(place)
            }
            "BucketAlreadyExists" => {
                Error::new(Code::NameTaken, format!("somebody else has a bucket with the name {bucket} at {endpoint}"))
                    .hint("choose another name: backup.s3.bucket; on AWS, names are unique among all accounts")
            }
            "TooManyBuckets" => {
                Error::new(Code::BucketFailed, format!("cannot {doing}: the account has as many buckets as it may"))
                    .hint("remove one that nobody needs, or ask the store for a higher quota")
            }
            _ if self.status.is_redirection() && self.region.is_some() => self.elsewhere(place),
            "" => {
                Error::new(Code::BucketFailed, format!("{endpoint} does not answer as a store that speaks S3 does"))
                    .excerpt(format!("{}, and the first {SHOWN} characters", self.status), self.shown.clone())
                    .hint("check backup.s3.endpoint: it is the host name of the store's S3 interface, not of its console; if it wants the bucket in the path, add path_style: true")
            }
            _ if self.is_denial() => {
                Error::new(denied, format!("the access key of the bucket {bucket} may not {doing}"))
                    .hint("docs/iam-policy-bucket.json is the smallest policy for the key, and with `create`, docs/iam-policy-bucket-create.json comes in addition")
                    .hint("or the bucket belongs to another account, or its own policy lets nobody in from here")
            }
            _ => Error::new(Code::BucketFailed, format!("cannot {doing} in {endpoint}")),
        }
    }

    fn elsewhere(&self, place: &S3) -> Error {
        let S3 { bucket, region, .. } = place;
        let code = Code::BucketUnsuitable;
        match &self.region {
            Some(real) => Error::new(
                code,
                format!("the bucket {bucket} is in the region {real}, not in {region}"),
            )
            .hint(format!(
                "write it into the inventory: backup.s3.region: {real}"
            )),
            None => Error::new(
                code,
                format!("the bucket {bucket} is not in the region {region}"),
            )
            .hint("correct backup.s3.region; the store's console shows the region of the bucket"),
        }
    }
}

/// There is no such bucket.
pub(super) fn missing(place: &S3) -> Error {
    let S3 {
        bucket, endpoint, ..
    } = place;
    Error::new(Code::BucketMissing, format!("{endpoint} has no bucket {bucket}"))
        .hint("make it there, or have `up` make it: backup: { s3: { …, create: true } }")
        .hint("if it should be there, compare backup.s3.bucket and backup.s3.endpoint with the store's console")
}

impl Failure {
    /// The refusal, if an answer came.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refusal(refusal) => Some(refusal),
            Self::Silence { .. } => None,
        }
    }

    pub(super) fn is(&self, codes: &[&str]) -> bool {
        self.refusal().is_some_and(|it| it.is(codes))
    }

    pub(super) fn into_error(self, place: &S3) -> Error {
        match self {
            Self::Refusal(refusal) => {
                let error = refusal.explained(place);
                match refusal.code.is_empty() {
                    true => error,
                    false => error.cause(refusal.in_short()),
                }
            }
            Self::Silence { doing, cause } => {
                let what = format!("cannot {doing}: {} does not answer", place.endpoint);
                let error = Error::new(Code::BucketUnreachable, what).because(cause);
                match place.is_of_aws() || place.path_style {
                    true => error,
                    false => error.hint("many stores want the bucket in the path instead of the host name: backup: { s3: { …, path_style: true } }"),
                }
            }
        }
    }
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

    fn answer(status: u16, region: Option<&str>, body: &str) -> Response<Bytes> {
        let mut answer = Response::builder().status(status);
        if let Some(region) = region {
            answer = answer.header("x-amz-bucket-region", region);
        }
        answer
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap()
    }

    /// Answers of S3, each with its code and what the message, a cause or a hint must have.
    #[test]
    fn each_refusal_has_its_remedy() {
        for (status, header, code, rest, expected, says) in [
            (
                404,
                None,
                "NoSuchBucket",
                "",
                Code::BucketMissing,
                "create: true",
            ),
            (
                403,
                None,
                "InvalidAccessKeyId",
                "",
                Code::BucketDenied,
                "s3_key",
            ),
            (
                403,
                None,
                "SignatureDoesNotMatch",
                "",
                Code::BucketDenied,
                "s3_secret",
            ),
            (
                403,
                None,
                "RequestTimeTooSkewed",
                "",
                Code::BucketDenied,
                "timedatectl",
            ),
            (
                403,
                None,
                "AccessDenied",
                "",
                Code::BucketDenied,
                "iam-policy-bucket.json",
            ),
            (
                301,
                Some("eu-west-1"),
                "PermanentRedirect",
                "",
                Code::BucketUnsuitable,
                "backup.s3.region: eu-west-1",
            ),
            (
                301,
                None,
                "PermanentRedirect",
                "",
                Code::BucketUnsuitable,
                "backup.s3.region",
            ),
            (
                400,
                None,
                "AuthorizationHeaderMalformed",
                "<Region>us-east-1</Region>",
                Code::BucketUnsuitable,
                "us-east-1",
            ),
            (
                409,
                None,
                "BucketAlreadyExists",
                "",
                Code::NameTaken,
                "another name",
            ),
            (400, None, "TooManyBuckets", "", Code::BucketFailed, "quota"),
            (503, None, "SlowDown", "", Code::BucketFailed, "SlowDown"),
        ] {
            let body =
                format!("<Error><Code>{code}</Code><Message>it says</Message>{rest}</Error>");
            let refusal = Refusal::of("list it", &answer(status, header, &body));
            assert_eq!(refusal.is_passing(), status == 503, "{code}");
            let error = Failure::Refusal(refusal).into_error(&place());
            assert_eq!(error.code(), expected, "{code}");
            let told = format!("{error} {}", error.way_forward().join(" "));
            assert!(told.contains(says), "{code}: {told}");
            assert!(told.contains(&format!("{code}: it says")), "{told}");
        }
    }

    #[test]
    fn what_is_no_store_is_shown() {
        let refusal = Refusal::of("list it", &answer(403, None, "<html>Forbidden</html>"));
        let error = Failure::Refusal(refusal).into_error(&place());
        assert_eq!(error.code(), Code::BucketFailed);
        assert!(error.excerpts()[0].text.contains("Forbidden"));
        let moved = Refusal::of("list it", &answer(307, Some("eu-west-1"), ""));
        let error = Failure::Refusal(moved).into_error(&place());
        assert_eq!(error.code(), Code::BucketUnsuitable);
    }

    #[test]
    fn silence_is_told_with_its_reason() {
        let silence = |place: &S3| {
            let cause = "it did not answer within 20 s".into();
            Failure::Silence {
                doing: "list it",
                cause,
            }
            .into_error(place)
        };
        let error = silence(&place());
        assert_eq!(error.code(), Code::BucketUnreachable);
        assert!(error.to_string().ends_with("within 20 s") && error.hints().is_empty());
        let other = S3 {
            endpoint: "minio.example.com".into(),
            ..place()
        };
        assert!(silence(&other).hints()[0].contains("path_style"));
    }
}
