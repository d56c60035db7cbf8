//! What EC2 says when it does not do what it was asked, and what that means.

use std::{error::Error as _, time::Duration};

use aws_sdk_ec2::{
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};
use tokio::time::{Instant, sleep};

use crate::error::{Code, Error};

/// A call that did not go well.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    doing: String,
    /// EC2's own word, such as `RequestLimitExceeded`; nothing where there was no answer.
    pub(super) code: Option<String>,
    causes: Vec<String>,
    request: Option<String>,
}

impl Failure {
    pub(super) fn is(&self, codes: &[&str]) -> bool {
        self.code
            .as_deref()
            .is_some_and(|code| codes.contains(&code))
    }

    /// The words for what has no answer: no way there, or nobody to sign as.
    fn unanswered(&self) -> Error {
        let text = self.causes.join(": ");
        if text.contains("credential") || text.contains("identity") || text.contains("SSO") {
            return Error::new(Code::AwsCredentials, format!("cannot {}: no usable AWS credentials", self.doing))
                .hint("give them as to any AWS tool: AWS_PROFILE, `aws configure`, `aws sso login`, an instance role, or provider.profile");
        }
        Error::new(Code::AwsUnreachable, format!("cannot {}: AWS does not answer", self.doing))
            .hint("see whether provider.region is a region that there is, and whether its endpoint can be reached from here")
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let doing = &failure.doing;
        let code = failure.code.as_deref();
        let error = match code {
            None => failure.unanswered(),
            Some("UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException") => {
                Error::new(Code::AwsDenied, format!("these credentials may not {doing}"))
                    .hint("docs/iam-policy.json is the smallest policy that suffices")
            }
            Some(
                "AuthFailure" | "InvalidClientTokenId" | "SignatureDoesNotMatch" | "ExpiredToken"
                | "RequestExpired" | "InvalidAccessKeyId",
            ) => Error::new(Code::AwsCredentials, format!("cannot {doing}: AWS does not take these credentials"))
                .hint("log in again (`aws sso login`), or see AWS_PROFILE and provider.profile")
                .hint("a region that must be opted into refuses the credentials of accounts that have not"),
            Some("InsufficientInstanceCapacity") => {
                Error::new(Code::AwsNoCapacity, format!("cannot {doing}: the zone has no room for it now"))
                    .hint("run `up` again later; or give the host another `zone` or `instance_type`")
            }
            Some("InstanceLimitExceeded" | "VcpuLimitExceeded" | "VolumeLimitExceeded"
                | "SecurityGroupLimitExceeded" | "MaxIOPSLimitExceeded") => {
                Error::new(Code::AwsQuota, format!("cannot {doing}: the account's quota is used up"))
                    .hint("ask for more in the Service Quotas console, or remove what is not needed")
            }
            Some("RequestLimitExceeded" | "Throttling" | "ThrottlingException") => {
                Error::new(Code::AwsThrottled, format!("cannot {doing}: AWS throttles the account"))
                    .hint("run the same command again: it takes up from here")
            }
            Some("OptInRequired" | "PendingVerification" | "Blocked") => {
                Error::new(Code::AwsFailed, format!("cannot {doing}: the account is not ready for it"))
            }
            Some(_) => Error::new(Code::AwsFailed, format!("cannot {doing}")),
        };
        let error = match code {
            Some(code) => error.cause(format!("{code}: {}", failure.causes.join(": "))),
            None => failure
                .causes
                .iter()
                .fold(error, |error, cause| error.cause(cause.clone())),
        };
        match failure.request {
            Some(request) => error.cause(format!("AWS's number for the call: {request}")),
            None => error,
        }
    }
}

/// Gives a call's failure a name: `doing` goes behind "cannot".
pub(super) trait Doing<T> {
    fn doing(self, doing: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E, R> Doing<T> for Result<T, SdkError<E, R>>
where
    E: ProvideErrorMetadata + RequestId + std::error::Error + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    fn doing(self, doing: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| {
            let doing = doing.into();
            if let Some(service) = error.as_service_error() {
                return Failure {
                    doing,
                    // Without one, something answered that is not EC2.
                    code: Some(service.code().unwrap_or("an unknown answer").to_owned()),
                    causes: service.message().map(shortened).into_iter().collect(),
                    request: service.request_id().map(str::to_owned),
                };
            }
            let mut causes = vec![error.to_string()];
            let mut source = error.source();
            while let Some(inner) = source {
                let text = inner.to_string();
                if causes.last() != Some(&text) {
                    causes.push(text);
                }
                source = inner.source();
            }
            Failure {
                doing,
                code: None,
                causes,
                request: None,
            }
        })
    }
}

/// Without the message's encrypted half, which only `sts decode-authorization-message` can read.
fn shortened(message: &str) -> String {
    let end = message.find("Encoded authorization failure message");
    message[..end.unwrap_or(message.len())].trim().to_owned()
}

/// What was made a moment ago may not be known everywhere yet.
pub(super) const NOT_YET: [&str; 4] = [
    "InvalidInstanceID.NotFound",
    "InvalidGroup.NotFound",
    "InvalidGroupId.NotFound",
    "InvalidKeyPair.NotFound",
];

/// Tries again, ever more slowly, while EC2 answers with one of `codes`.
pub(super) async fn insist<T, F>(
    codes: &[&str],
    timeout: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(200);
    loop {
        match attempt().await {
            Err(failure) if failure.is(codes) && Instant::now() + pause < deadline => {
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            result => return result,
        }
    }
}

/// Whether a call that was only asked about (`DryRun`) would be allowed.
pub(super) fn allowed<T>(asked: Result<T, Failure>) -> Result<(), Failure> {
    match asked {
        Err(failure) if !failure.is(&["DryRunOperation"]) => Err(failure),
        _ => Ok(()),
    }
}
