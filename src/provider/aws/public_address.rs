//! This machine's public address.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, sync::OnceCell, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    error::{Code, Error, Result},
    inventory::Aws,
};

/// Amazon's own service for this question; it answers only with the address.
const ASKED: &str = "checkip.amazonaws.com";

/// How long it may take; the inventory can give the answer too.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The answer, when there is one: a run asks only once.
#[derive(Debug, Default)]
pub(super) struct PublicAddress(OnceCell<Ipv4Addr>);

impl PublicAddress {
    /// # Errors
    /// The address is unknown. It is not guessed, because a wrong one would open the port to others.
    pub(super) async fn address(&self, settings: &Aws) -> Result<Ipv4Addr> {
        self.0.get_or_try_init(|| address(settings)).await.copied()
    }
}

async fn address(settings: &Aws) -> Result<Ipv4Addr> {
    let failed = |cause: String| {
        Error::new(
            Code::ProviderSettingUnusable,
            "pgherd could not find this machine's public address, from which it will reach the hosts",
        )
        .cause(cause)
        .left("nothing was made")
        .hint("write it into the inventory, such as provider.operator_cidrs: [203.0.113.7/32]")
        .hint("if this machine is in the VPC, or can reach its private addresses: provider.connect: private")
    };
    if let Some(endpoint) = &settings.endpoint_url {
        return Err(failed(format!(
            "{endpoint} is not AWS, so its hosts are not on AWS's internet"
        )));
    }
    let answer = timeout(TIMEOUT, ask()).await;
    let answer = answer.map_err(|_| failed(format!("{ASKED} does not answer")))?;
    let text = answer.map_err(|cause| failed(format!("{ASKED}: {cause}")))?;
    let address: Ipv4Addr = text
        .trim()
        .parse()
        .map_err(|_| failed(format!("{ASKED} answered with no IPv4 address")))?;
    Ok(address)
}

/// Over TLS: an attacker who could forge the answer would get access.
async fn ask() -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(roots)
    .with_no_client_auth();
    let stream = TcpStream::connect((ASKED, 443)).await?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(ASKED)?, stream)
        .await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/")
        .header(header::HOST, ASKED)
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let body = Limited::new(answer.into_body(), 256)
        .collect()
        .await?
        .to_bytes();
    connection.abort();
    Ok(String::from_utf8_lossy(&body).into_owned())
}
