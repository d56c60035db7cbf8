//! The way to a store: TLS, through a proxy if the environment names one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    error::Source,
    http,
    proxy::{self, Proxy},
};

/// How long a store, or the proxy before it, may take to accept a connection. Where a firewall drops everything,
/// this is what each run waits.
const ARRIVAL: Duration = Duration::from_secs(4);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(20);
/// The longest answer of a proxy before it connects.
const HEAD: usize = 8 << 10;

/// The way to one host name of a store.
pub(super) struct Door {
    host: String,
    port: u16,
    tls: Arc<rustls::ClientConfig>,
    proxy: Option<Proxy>,
}

impl Door {
    /// `bundle` has certificates, PEM, that are trusted besides those of this system.
    pub(super) fn new(host: String, port: u16, bundle: Option<&str>) -> Result<Self, Source> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for certificate in CertificateDer::pem_slice_iter(bundle.unwrap_or_default().as_bytes()) {
            roots.add_parsable_certificates([certificate?]);
        }
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let proxy = proxy::of_environment().filter(|it| it.leads_to(&host));
        Ok(Self {
            host,
            port,
            tls: Arc::new(config),
            proxy,
        })
    }

    /// The value of `Host`.
    pub(super) fn authority(&self) -> String {
        match self.port {
            443 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }

    /// # Errors
    /// No answer came.
    pub(super) async fn ask(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Source> {
        let arrived = timeout(ARRIVAL, self.arrive()).await;
        let stream = arrived.map_err(|_| {
            let seconds = ARRIVAL.as_secs();
            format!("it accepted no connection within {seconds} s")
        })??;
        let name = ServerName::try_from(self.host.clone())?;
        let answer = async {
            let connector = TlsConnector::from(self.tls.clone());
            let stream = connector.connect(name, stream).await?;
            http::talk(Box::new(stream), request).await
        };
        let answered = timeout(ANSWER, answer).await;
        answered.map_err(|_| format!("it did not answer within {} s", ANSWER.as_secs()))?
    }

    async fn arrive(&self) -> Result<TcpStream, Source> {
        let Some(proxy) = &self.proxy else {
            return Ok(TcpStream::connect((self.host.as_str(), self.port)).await?);
        };
        let variable = proxy.variable;
        let place = proxy.place().ok_or_else(|| {
            format!("{variable} does not name a proxy such as http://proxy.example.com:3128")
        })?;
        let stream = TcpStream::connect((place.host.as_str(), place.port)).await;
        let mut stream = stream.map_err(|error| format!("the proxy in {variable}: {error}"))?;
        let to = format!("{}:{}", self.host, self.port);
        let mut head = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some(login) = &place.login {
            head.push_str(&format!("Proxy-Authorization: {login}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        // One byte at a time: what comes after the head is the store's.
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n\r\n") && said.len() < HEAD {
            said.push(stream.read_u8().await?);
        }
        let said = String::from_utf8_lossy(&said);
        let first = said.lines().next().unwrap_or_default();
        match first.split(' ').nth(1) {
            Some("200") => Ok(stream),
            _ => Err(format!("the proxy in {variable} answered {first}").into()),
        }
    }
}
