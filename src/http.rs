//! HTTP to a service on a host, through its SSH connection.
//!
//! No port has to be reachable from this machine, and a measurement shows what the host itself sees.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::{
    error::{Code, Error, Result, Source},
    inventory::HostName,
    remote::{self, Connection, Remote},
    secret::Secret,
    services,
    workspace::{Lapse, Validity},
};

/// How long a service may take to answer a question.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a service may take to change something. Patroni answers a restart of PostgreSQL only when it is
/// done.
const CHANGE: Duration = Duration::from_secs(120);

/// The maximum size of an answer, in bytes; the longest one, etcd's metrics, has a hundredth of this.
const LONGEST: usize = 16 << 20;
/// How much of an unreadable answer is shown.
const SHOWN: usize = 200;

/// An answer with any status.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
    host: HostName,
    port: u16,
    path: String,
}

impl Answer {
    /// The answer as JSON. The error says which service gave which answer to which request.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let service = service(self.port);
            let (port, path, status) = (self.port, &self.path, self.status);
            Error::new(Code::AnswerUnusable, format!(
                "{service} (port {port}) answered {status} to {path}, and not with the expected JSON"
            ))
            .on(&self.host)
            .because(error)
            .excerpt(
                format!("the first {SHOWN} characters"),
                self.text().chars().take(SHOWN).collect::<String>(),
            )
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A request to a port.
pub(crate) fn service(port: u16) -> &'static str {
    let service = services::asked_at(port).service();
    service
        .asked()
        .map_or(service.title, |port| port.tells.unwrap_or(service.title))
}

/// A client for the services of one cluster.
#[derive(Clone)]
pub struct Http {
    remote: Arc<dyn Remote>,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// Whether plaintext is allowed beside TLS.
    plaintext: Arc<AtomicBool>,
    /// The services, by port, whose certificate has expired or is not valid yet.
    lapsed: Arc<Mutex<Lapsed>>,
    /// The time limit for changes.
    change: Duration,
}

/// The services, by port, whose certificate has expired or is not valid yet.
pub type Lapsed = BTreeMap<(HostName, u16), Lapse>;

/// User and password for HTTP's basic authentication.
pub type Login<'a> = (&'a str, &'a Secret);

impl Http {
    /// `tls` is set if the services use TLS. It trusts only the cluster's authority.
    pub fn new(remote: Arc<dyn Remote>, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self {
            remote,
            tls,
            plaintext: Arc::default(),
            lapsed: Arc::default(),
            change: CHANGE,
        }
    }

    /// The hosts whose certificate had expired or was not valid yet at the last request.
    pub fn lapsed(&self) -> Lapsed {
        let lapsed = self.lapsed.lock();
        lapsed.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_shown(&self, host: &HostName, port: u16, shown: Option<&[CertificateDer<'_>]>) {
        let validity = shown.and_then(|chain| Validity::of(chain.first()?));
        let lapse = validity.and_then(|validity| validity.lapse(jiff::Timestamp::now()));
        let mut lapsed = self.lapsed.lock().unwrap_or_else(PoisonError::into_inner);
        match lapse {
            Some(lapse) => lapsed.insert((host.clone(), port), lapse),
            None => lapsed.remove(&(host.clone(), port)),
        };
    }

    /// The same client with another time limit for changes.
    #[cfg(test)]
    pub(crate) fn impatient(self, change: Duration) -> Self {
        Self { change, ..self }
    }

    /// From now on plaintext is allowed too, for a cluster that is on its way to TLS or from it. Both go
    /// through SSH.
    pub fn allow_plaintext(&self) {
        self.plaintext.store(true, Ordering::Relaxed);
    }

    pub async fn get(
        &self,
        host: &HostName,
        port: u16,
        path: &str,
        login: Option<Login<'_>>,
    ) -> Result<Answer> {
        self.send(host, port, Method::GET, path, login, None).await
    }

    pub async fn send(
        &self,
        host: &HostName,
        port: u16,
        method: Method,
        path: &str,
        login: Option<Login<'_>>,
        body: Option<&serde_json::Value>,
    ) -> Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{host}:{port}"));
        if let Some((user, password)) = login {
            let pair = BASE64_STANDARD.encode(format!("{user}:{}", password.expose()));
            request = request.header(header::AUTHORIZATION, format!("Basic {pair}"));
        }
        let bytes = match body {
            Some(value) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(value.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(bytes)).map_err(|error| {
            Error::new(Code::InternalError, "cannot ask")
                .on(host)
                .because(error)
        })?;
        let limit = if body.is_some() { self.change } else { ANSWER };
        let (status, body) = timeout(limit, self.exchange(host, port, request))
            .await
            .unwrap_or_else(|_| {
                let seconds = limit.as_secs();
                Err(Error::new(
                    Code::ServiceTimedOut,
                    format!("port {port} did not answer within {seconds} s"),
                )
                .on(host))
            })?;
        Ok(Answer {
            status,
            body,
            host: host.clone(),
            port,
            path: path.to_owned(),
        })
    }

    async fn exchange(
        &self,
        host: &HostName,
        port: u16,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes)> {
        let failed = |error: Source| {
            if let Some(said) = refused_forward(&*error) {
                return remote::no_forwarding(host, &said);
            }
            Error::new(
                Code::ServiceUnreachable,
                format!("port {port} does not answer"),
            )
            .on(host)
            .because(error)
        };
        if self.tls.is_some() && self.plaintext.load(Ordering::Relaxed) {
            // TLS first: a service that expects plaintext might wait for the end of a TLS handshake, while a
            // service that expects TLS refuses plaintext at once.
            let stream = self.remote.dial(host, port).await?;
            match talk(stream, request.clone()).await {
                Ok(answer) if answer.status() != StatusCode::BAD_REQUEST => {
                    return Ok(in_parts(answer));
                }
                _ => {}
            }
        }
        let stream = self.remote.dial(host, port).await?;
        match &self.tls {
            None => talk(stream, request).await.map(in_parts).map_err(failed),
            Some(config) => {
                let name =
                    ServerName::try_from(host.to_string()).map_err(|error| failed(error.into()))?;
                let stream = TlsConnector::from(config.clone())
                    .connect(name, stream)
                    .await
                    .map_err(|error| failed(error.into()))?;
                self.note_shown(host, port, stream.get_ref().1.peer_certificates());
                talk(Box::new(stream), request)
                    .await
                    .map(in_parts)
                    .map_err(failed)
            }
        }
    }
}

/// ssh's message, if the error comes from a forward that sshd refused.
fn refused_forward(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            return Some(error.to_string());
        }
        source = error.source();
    }
    None
}

fn in_parts(answer: Response<Bytes>) -> (StatusCode, Bytes) {
    (answer.status(), answer.into_body())
}

/// Sends one request over a new connection.
pub(crate) async fn talk(
    stream: Box<dyn Connection>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, Source> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let ask = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => format!("its answer is longer than {} MiB", LONGEST >> 20).into(),
            false => error,
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::pin!(ask);
    tokio::select! {
        answer = &mut ask => answer,
        // The server may close the connection before the answer has been read to its end.
        closed = &mut connection => match closed {
            Ok(()) => ask.await,
            Err(error) => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::contract::PATRONI_PORT;

    #[tokio::test]
    async fn an_answer_without_end_is_given_up() {
        for head in ["", "transfer-encoding: chunked\r\n"] {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            let sent = tokio::spawn(async move {
                let mut asked = [0; 1024];
                let _ = far.read(&mut asked).await;
                let begin = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
                far.write_all(begin.as_bytes()).await.unwrap();
                let mut piece = vec![b'x'; 1 << 16];
                if !head.is_empty() {
                    piece = [b"10000\r\n", &piece[..], b"\r\n"].concat();
                }
                let mut sent = 0;
                while far.write_all(&piece).await.is_ok() {
                    sent += piece.len();
                }
                sent
            });
            let request = Request::builder().uri("/").body(Full::new(Bytes::new()));
            let answer = talk(Box::new(near), request.unwrap()).await;
            let error = answer.expect_err("it has no end").to_string();
            assert_eq!(error, "its answer is longer than 16 MiB");
            let sent = sent.await.unwrap();
            assert!(sent < LONGEST + (1 << 20), "{sent}");
        }
    }

    #[test]
    fn an_answer_that_is_no_answer_is_told_with_who_gave_it() {
        let answer = Answer {
            status: StatusCode::BAD_GATEWAY,
            body: Bytes::from(format!("<html>{}", "x".repeat(500))),
            host: HostName::new("node2"),
            port: PATRONI_PORT,
            path: "/patroni".into(),
        };
        let error = answer.json::<serde_json::Value>().unwrap_err();
        for part in ["Patroni", "8008", "/patroni", "502"] {
            assert!(error.what().contains(part), "{part}: {}", error.what());
        }
        assert_eq!(error.host().unwrap().as_str(), "node2");
        let shown = &error.excerpts()[0].text;
        assert!(
            shown.starts_with("<html>") && shown.len() == SHOWN,
            "{shown}"
        );
    }
}
