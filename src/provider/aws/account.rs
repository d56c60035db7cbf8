//! Access to AWS: region, credentials, clients.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_ec2::config::RuntimeComponents;
use aws_sdk_servicequotas::types::ServiceQuota;
use aws_smithy_http_client::{
    Connector,
    proxy::ProxyConfig,
    tls::{Provider as Tls, rustls_provider::CryptoMode},
};

use super::failure::{Doing, Failure};
use crate::{
    error::{Code, Error, Result},
    inventory,
    proxy::{self, Proxy},
};

/// Enough for minutes of throttling, and not too long for the person who waits.
const ATTEMPTS: u32 = 8;

/// The proxy that the environment names for HTTPS.
///
/// The HTTP endpoints of AWS (the metadata service, a container's credentials) are on the host itself, so they
/// are never asked through a proxy.
fn proxy_config() -> Result<Option<ProxyConfig>> {
    let Some(Proxy {
        variable,
        url,
        except,
    }) = proxy::of_environment()
    else {
        return Ok(None);
    };
    let config = ProxyConfig::https(url).map_err(|error| {
        Error::new(
            Code::ProviderSettingUnusable,
            format!("{variable} does not name a proxy"),
        )
        .cause(error.to_string())
        .hint(format!(
            "set it to a URL, such as {variable}=http://proxy.example.com:3128"
        ))
    })?;
    Ok(Some(match except {
        Some(hosts) => config.no_proxy(hosts),
        None => config,
    }))
}

/// For requests that pgherd can do without.
fn impatient() -> (RetryConfig, TimeoutConfig) {
    let timeouts = TimeoutConfig::builder()
        .operation_timeout(Duration::from_secs(6))
        .connect_timeout(Duration::from_secs(3))
        .build();
    (RetryConfig::standard().with_max_attempts(2), timeouts)
}

pub(super) struct Account {
    pub(super) ec2: aws_sdk_ec2::Client,
    pub(super) elb: aws_sdk_elasticloadbalancingv2::Client,
    /// To find a load balancer that the inventory does not have.
    pub(super) elb_in_passing: aws_sdk_elasticloadbalancingv2::Client,
    pub(super) ssm: aws_sdk_ssm::Client,
    sts: aws_sdk_sts::Client,
    quotas: aws_sdk_servicequotas::Client,
    pub(super) region: String,
}

impl Account {
    pub(super) async fn connect(settings: &inventory::Aws) -> Result<Self> {
        let proxy = proxy_config()?;
        // The crate's default client brings a second cryptography library, and ignores proxies.
        let http = aws_smithy_http_client::Builder::new().build_with_connector_fn(
            move |settings, components| {
                let mut connector = Connector::builder();
                connector.set_connector_settings(settings.cloned());
                connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
                connector.set_proxy_config(proxy.clone());
                connector
                    .tls_provider(Tls::Rustls(CryptoMode::Ring))
                    .build()
            },
        );
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
            Error::new(Code::ProviderSettingUnusable, "no AWS region is configured")
                .hint("write provider.region, or set AWS_REGION, or `aws configure set region …`")
        })?;
        // pgherd can do without these answers, and many private networks cannot reach these services.
        let (retry, timeouts) = impatient();
        let (retry_in_passing, timeouts_in_passing) = (retry.clone(), timeouts.clone());
        let ssm = aws_sdk_ssm::config::Builder::from(&config)
            .retry_config(retry.clone())
            .timeout_config(timeouts.clone())
            .build();
        let quotas = aws_sdk_servicequotas::config::Builder::from(&config)
            .retry_config(retry)
            .timeout_config(timeouts)
            .build();
        let elb = aws_sdk_elasticloadbalancingv2::config::Builder::from(&config)
            .retry_config(retry_in_passing)
            .timeout_config(timeouts_in_passing)
            .build();
        Ok(Self {
            ec2: aws_sdk_ec2::Client::new(&config),
            elb: aws_sdk_elasticloadbalancingv2::Client::new(&config),
            elb_in_passing: aws_sdk_elasticloadbalancingv2::Client::from_conf(elb),
            ssm: aws_sdk_ssm::Client::from_conf(ssm),
            sts: aws_sdk_sts::Client::new(&config),
            quotas: aws_sdk_servicequotas::Client::from_conf(quotas),
            region,
        })
    }

    /// The value of a quota of this account in this region.
    pub(super) async fn quota(&self, service: &str, code: &str) -> Result<f64, Failure> {
        let answer = self
            .quotas
            .get_service_quota()
            .service_code(service)
            .quota_code(code)
            .send()
            .await
            .doing("ask for a quota (servicequotas:GetServiceQuota)")?;
        let value = answer.quota().and_then(ServiceQuota::value);
        value.ok_or_else(|| Failure::empty("ask for a quota (servicequotas:GetServiceQuota)"))
    }

    /// Account and identity, as AWS returns them.
    pub(super) async fn who(&self) -> Result<(String, String)> {
        let identity = self.sts.get_caller_identity().send().await;
        let identity = identity.doing("ask AWS who we are")?;
        Ok((
            identity.account.unwrap_or_default(),
            identity.arn.unwrap_or_default(),
        ))
    }
}
