//! The way to AWS: region, credentials, clients.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::tls::{Provider as Tls, rustls_provider::CryptoMode};

use super::failure::Doing;
use crate::{
    error::{Code, Error, Result},
    inventory,
};

/// Long enough for minutes of throttling, short enough for somebody who waits.
const ATTEMPTS: u32 = 8;

pub(super) struct Account {
    pub(super) ec2: aws_sdk_ec2::Client,
    pub(super) ssm: aws_sdk_ssm::Client,
    sts: aws_sdk_sts::Client,
    pub(super) region: String,
}

impl Account {
    pub(super) async fn connect(settings: &inventory::Aws) -> Result<Self> {
        // The crate's own default would bring a second cryptography library.
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Tls::Rustls(CryptoMode::Ring))
            .build_https();
        let retry = RetryConfig::adaptive()
            .with_max_attempts(ATTEMPTS)
            .with_initial_backoff(Duration::from_millis(300))
            .with_max_backoff(Duration::from_secs(10));
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(5))
            .operation_attempt_timeout(Duration::from_secs(60))
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(retry)
            .timeout_config(timeouts);
        if let Some(region) = &settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &settings.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(url) = &settings.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        let config = loader.load().await;
        let region = config.region().map(ToString::to_string).ok_or_else(|| {
            Error::new(
                Code::ProviderSettingUnusable,
                "no AWS region is named anywhere",
            )
            .hint("write provider.region, or set AWS_REGION, or `aws configure set region …`")
        })?;
        // Nothing depends on what it answers, and many private networks have no way to it.
        let ssm = aws_sdk_ssm::config::Builder::from(&config)
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_timeout(Duration::from_secs(6))
                    .connect_timeout(Duration::from_secs(3))
                    .build(),
            )
            .build();
        Ok(Self {
            ec2: aws_sdk_ec2::Client::new(&config),
            ssm: aws_sdk_ssm::Client::from_conf(ssm),
            sts: aws_sdk_sts::Client::new(&config),
            region,
        })
    }

    /// Account and identity, in AWS's own words.
    pub(super) async fn who(&self) -> Result<(String, String)> {
        let identity = self.sts.get_caller_identity().send().await;
        let identity = identity.doing("ask AWS who we are")?;
        Ok((
            identity.account.unwrap_or_default(),
            identity.arn.unwrap_or_default(),
        ))
    }
}
