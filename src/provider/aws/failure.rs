//! Errors of EC2, and what they mean.

use std::{error::Error as _, time::Duration};

use aws_sdk_ec2::{
    error::{ProvideErrorMetadata, SdkError},
    operation::RequestId,
};

use crate::{
    error::{Code, Error},
    poll::{self, Pauses},
};

/// AWS's codes for: not allowed.
const NOT_ALLOWED: [&str; 3] = [
    "UnauthorizedOperation",
    "AccessDenied",
    "AccessDeniedException",
];

/// For: credentials that do not work.
const NOT_TAKEN: [&str; 7] = [
    "AuthFailure",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// For: credentials that have expired.
const EXPIRED: [&str; 3] = ["ExpiredToken", "ExpiredTokenException", "RequestExpired"];

/// For: an account that is not active yet, or not any more.
const NOT_READY: [&str; 3] = ["OptInRequired", "PendingVerification", "Blocked"];

/// For: too many requests.
const THROTTLED: [&str; 3] = ["RequestLimitExceeded", "Throttling", "ThrottlingException"];

/// Codes that leave open whether the call had an effect.
const UNSURE: [&str; 5] = [
    "InternalError",
    "InternalFailure",
    "ServiceUnavailable",
    "Unavailable",
    "an unknown answer",
];

/// A failed call.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    doing: String,
    /// EC2's own code, such as `RequestLimitExceeded`; `None` if there was no answer.
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

    /// Whether the answer is about the call's parameters: not about identity, permissions, the account or
    /// throttling.
    fn is_about_parameters(&self) -> bool {
        self.code.is_some()
            && !self.is(&NOT_ALLOWED)
            && !self.is(&NOT_TAKEN)
            && !self.is(&EXPIRED)
            && !self.is(&NOT_READY)
            && !self.is(&THROTTLED)
    }

    /// Whether EC2 has refused the call itself, so that neither it nor an earlier attempt had an effect.
    pub(super) fn is_final(&self) -> bool {
        self.is_about_parameters() && !self.is(&NOT_YET) && !self.is(&UNSURE)
    }

    /// Whether the account has no instance profile of the name that the call has.
    pub(super) fn is_unknown_profile(&self) -> bool {
        self.code
            .as_deref()
            .is_some_and(|code| is_about_profile(code, &self.causes.join(": ")))
    }

    /// An answer without the expected content.
    pub(super) fn empty(doing: &str) -> Self {
        Self {
            doing: doing.to_owned(),
            code: Some("an empty answer".to_owned()),
            causes: Vec::new(),
            request: None,
        }
    }

    /// For use within a sentence: `AccessDenied: User … is not authorized`.
    pub(super) fn in_short(&self) -> String {
        let code = self.code.clone();
        let parts = code.into_iter().chain(self.causes.iter().cloned());
        parts.collect::<Vec<_>>().join(": ")
    }

    /// The error if there was no answer: AWS could not be reached, or there are no credentials.
    fn unanswered(&self) -> Error {
        let text = self.causes.join(": ");
        if text.contains("credential") || text.contains("identity") || text.contains("SSO") {
            return Error::new(Code::AwsCredentials, format!("cannot {}: no usable AWS credentials", self.doing))
                .hint("give them as to any AWS tool: AWS_PROFILE, `aws configure`, `aws login`, `aws sso login`, an instance role, or provider.profile");
        }
        Error::new(Code::AwsUnreachable, format!("cannot {}: AWS does not answer", self.doing))
            .hint("see whether provider.region is a region that there is, and whether its endpoint can be reached from here")
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let error = match failure.code.as_deref() {
            None => failure.unanswered(),
            Some(code) => answered(code, &failure.doing, &failure.causes.join(": ")),
        };
        let error = match &failure.code {
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

/// What an AWS code means and what to do about it; `said` is AWS's own message.
fn answered(code: &str, doing: &str, said: &str) -> Error {
    let cannot = |kind, why: &str| Error::new(kind, format!("cannot {doing}: {why}"));
    match code {
        code if NOT_ALLOWED.contains(&code) => {
            let error = Error::new(Code::AwsDenied, format!("these credentials may not {doing}"))
                .hint("docs/iam-policy.json is the smallest policy that is enough");
            if doing.contains("load balancer") || doing.contains("target group") {
                error.hint("with provider.load_balancer, docs/iam-policy-load-balancer.json comes in addition")
            } else if doing.contains("instance profile") {
                error.hint("with backup.s3.profile, docs/iam-policy-profile.json comes in addition, with the role of the profile in it")
            } else if doing.contains("data volume") {
                error.hint("with data_volume_gb, docs/iam-policy-data-volume.json comes in addition")
            } else {
                error
            }
        }
        code if NOT_TAKEN.contains(&code) => {
            cannot(Code::AwsCredentials, "AWS does not accept these credentials")
                .hint("log in again (`aws login`, `aws sso login`), or see AWS_PROFILE and provider.profile")
                .hint("a region that needs an opt-in refuses credentials of accounts without it")
        }
        code if EXPIRED.contains(&code) => {
            cannot(Code::AwsCredentials, "the credentials have expired")
                .hint("log in again (`aws login`, `aws sso login`), then run the same command again: it takes up from here")
                .hint("AWS says the same to a machine whose clock is off: compare it with `date -u`")
        }
        "InsufficientInstanceCapacity" => {
            cannot(Code::AwsNoCapacity, "the zone has no capacity for it now")
                .hint("run `up` again: it makes what is missing, and capacity comes and goes within minutes")
                .hint("or give the host another `instance_type`, such as t3.medium for t2.medium, or a `zone` that has a subnet in provider.subnet_ids")
        }
        "VcpuLimitExceeded" => {
            cannot(Code::AwsQuota, "the account's quota of vCPUs in this region is used up")
                .hint("every running instance counts: terminate what is not needed, or use types with fewer vCPUs")
                .hint("ask for more in the Service Quotas console, Amazon EC2, \"Running On-Demand … instances\"; it takes from minutes to days")
        }
        // On the free plan. EC2 reports it only at the launch.
        "InvalidParameterCombination" if said.contains("Free Tier") => {
            cannot(Code::AwsQuota, "the account's free plan does not have this instance type")
                .hint("upgrade the account to the paid plan in the Billing console")
                .hint("or use a type of the plan's: aws ec2 describe-instance-types --filters Name=free-tier-eligible,Values=true --query InstanceTypes[].InstanceType; c7i-flex.large and m7i-flex.large have enough memory")
        }
        code if is_about_profile(code, said) => {
            cannot(Code::ProviderSettingUnusable, "the account has no such instance profile")
                .hint("see which there are: aws iam list-instance-profiles --query InstanceProfiles[].InstanceProfileName")
                .hint("correct backup.s3.profile; one that was made a moment ago is known to EC2 some seconds later")
        }
        "RulesPerSecurityGroupLimitExceeded" => {
            cannot(Code::AwsQuota, "the security group would have more rules than the account's quota")
                .hint("name fewer, larger networks in provider.operator_cidrs and postgresql.allow")
                .hint("or ask for more in the Service Quotas console, Amazon VPC, \"Inbound or outbound rules per security group\"")
        }
        "InsufficientFreeAddressesInSubnet" => {
            cannot(Code::NetworkUnsuitable, "the subnet has no address left")
                .hint("name another subnet in provider.subnet_ids")
        }
        "InstanceLimitExceeded" | "TooManyLoadBalancers" | "TooManyTargetGroups" | "VolumeLimitExceeded" | "SecurityGroupLimitExceeded"
        | "SecurityGroupsPerInterfaceLimitExceeded" | "MaxIOPSLimitExceeded" => {
            cannot(Code::AwsQuota, "the account's quota is used up")
                .hint("request more in the Service Quotas console, or remove what is not needed")
        }
        code if THROTTLED.contains(&code) => {
            cannot(Code::AwsThrottled, "AWS throttles the account")
                .hint("run the same command again: it continues from here")
        }
        code if NOT_READY.contains(&code) => {
            cannot(Code::AwsFailed, "the account is not ready for it")
        }
        _ => Error::new(Code::AwsFailed, format!("cannot {doing}")),
    }
}

/// EC2 has no code of its own for an instance profile that does not exist.
fn is_about_profile(code: &str, said: &str) -> bool {
    let said = said.to_ascii_lowercase().replace(' ', "");
    ["InvalidParameterValue", "NoSuchEntity"].contains(&code) && said.contains("instanceprofile")
}

/// Describes a failed call: `doing` follows "cannot" in the message.
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
                    // An answer without a code did not come from EC2.
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

/// The message without its encrypted part, which only `sts decode-authorization-message` can read.
fn shortened(message: &str) -> String {
    let end = message.find("Encoded authorization failure message");
    message[..end.unwrap_or(message.len())].trim().to_owned()
}

/// A resource that was just created may not be known everywhere in EC2 yet.
pub(super) const NOT_YET: [&str; 5] = [
    "InvalidInstanceID.NotFound",
    "InvalidGroup.NotFound",
    "InvalidGroupId.NotFound",
    "InvalidSecurityGroupID.NotFound",
    "InvalidKeyPair.NotFound",
];

/// Repeats a call, with growing pauses, while EC2 answers with one of `codes`.
pub(super) async fn insist<T, F>(
    codes: &[&str],
    timeout: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let pauses = Pauses::growing(Duration::from_millis(200), Duration::from_secs(5));
    let done = poll::until(timeout, pauses, || {
        let attempt = Box::pin(attempt());
        async {
            match attempt.await {
                Err(failure) if failure.is(codes) => Err(failure),
                done => Ok(done),
            }
        }
    });
    done.await.unwrap_or_else(|over| Err(over.last))
}

/// Evaluates a dry run (`DryRun`): whether the call would be allowed.
///
/// EC2 may check parameters before permissions. Its answer about parameters is only a doubt, returned as a
/// sentence: it may no longer be true when the call is made.
pub(super) fn allowed<T>(asked: Result<T, Failure>) -> Result<Option<String>, Failure> {
    match asked {
        Err(failure) if failure.is(&["DryRunOperation"]) => Ok(None),
        Err(failure) if failure.is_about_parameters() => Ok(Some(format!(
            "asked whether pgherd may {}, EC2 answered {}",
            failure.doing,
            failure.in_short()
        ))),
        Err(failure) => Err(failure),
        Ok(_) => Ok(None),
    }
}
