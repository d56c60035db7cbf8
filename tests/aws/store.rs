//! S3 as moto has it, behind TLS, and a desk before it that counts calls and breaks them if a test asks for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use pgherd::{bucket::Bucket, inventory::S3, secret::Secret};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::server::{REGION, moto};

/// The name in its certificate.
const NAME: &str = "localhost";

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// It is answered with this status and S3's error of this code, and not executed.
    Refuse(u16, &'static str),
    /// It gets no answer; whether it is executed.
    Swallow(bool),
}

type Judge = dyn Fn(usize, &str) -> Verdict + Send + Sync;

/// One bucket's store.
pub(crate) struct Store {
    port: u16,
    certificate: String,
    desk: Arc<Desk>,
    pub bucket: String,
}

struct Desk {
    server: u16,
    account: String,
    /// The permissions that the calls need, such as `s3:ListBucket`.
    calls: Mutex<Vec<String>>,
    judge: Mutex<Arc<Judge>>,
    /// The bucket's policy. moto would refuse everything by it, since it does not look at conditions.
    policy: Mutex<Option<String>>,
}

impl Store {
    /// `name` is of this test alone: one server has all buckets.
    pub(crate) async fn new(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let desk = Arc::new(Desk {
            server: moto(),
            account: "200000000000".into(),
            calls: Mutex::default(),
            judge: Mutex::new(Arc::new(|_, _| Verdict::Pass)),
            policy: Mutex::default(),
        });
        let serving = desk.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, desk) = (acceptor.clone(), serving.clone());
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.ok()?;
                    let request = receive(&mut stream).await?;
                    let answer = desk.answer(&request).await?;
                    stream.write_all(&answer).await.ok()?;
                    stream.shutdown().await.ok()
                });
            }
        });
        Self {
            port,
            certificate: made.cert.pem(),
            desk,
            bucket: name.to_owned(),
        }
    }

    /// The bucket as the cluster `pg` with this id has it.
    pub(crate) fn client(&self, id: &str, create: bool) -> Bucket {
        let place = S3 {
            bucket: self.bucket.clone(),
            region: REGION.into(),
            endpoint: NAME.into(),
            port: self.port,
            path: "/pg".into(),
            path_style: true,
            create,
            profile: None,
        };
        let tags = [("pgherd:cluster", "pg"), ("pgherd:id", id), ("team", "a<b")];
        let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let access = (Secret::new("lab"), Secret::new("lab"));
        Bucket::new(
            &place,
            BTreeMap::from(tags),
            access,
            Some(&self.certificate),
        )
        .unwrap()
    }

    pub(crate) fn judge(&self, judge: impl Fn(usize, &str) -> Verdict + Send + Sync + 'static) {
        self.desk.calls.lock().unwrap().clear();
        *self.desk.judge.lock().unwrap() = Arc::new(judge);
    }

    pub(crate) fn pass_all(&self) {
        self.judge(|_, _| Verdict::Pass);
    }

    /// The calls since the last time.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.desk.calls.lock().unwrap())
    }

    /// Somebody else's call, which nothing checks: status and body.
    pub(crate) async fn by_hand(&self, method: &str, rest: &str, body: &str) -> (u16, String) {
        self.by_hand_with("", method, rest, body).await
    }

    /// The same with a line of headers.
    pub(crate) async fn by_hand_with(
        &self,
        line: &str,
        method: &str,
        rest: &str,
        body: &str,
    ) -> (u16, String) {
        let head = format!(
            "{method} /{}{rest} HTTP/1.1\r\n{line}Host: {NAME}\r\nAuthorization: AWS4-HMAC-SHA256 Credential=lab/20260101/{REGION}/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\nContent-Length: {}",
            self.bucket,
            body.len()
        );
        let answer = self.desk.forward(&head, body.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer[9..12].parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, body.to_owned())
    }
}

/// A request's head, without the empty line, and its body.
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Desk {
    async fn answer(&self, request: &Request) -> Option<Vec<u8>> {
        let permission = permission(&request.head);
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(permission.clone());
            calls.len() - 1
        };
        let judge = self.judge.lock().unwrap().clone();
        match judge(number, &permission) {
            Verdict::Pass => Some(self.forward(&request.head, &request.body).await),
            Verdict::Swallow(done) => {
                if done {
                    self.forward(&request.head, &request.body).await;
                }
                None
            }
            Verdict::Refuse(status, code) => Some(refusal(status, code)),
        }
    }

    async fn forward(&self, head: &str, body: &[u8]) -> Vec<u8> {
        if head.lines().next().is_some_and(|it| it.contains("?policy")) {
            return self.policy(head, body);
        }
        let mut server = TcpStream::connect(("127.0.0.1", self.server))
            .await
            .unwrap();
        let account = &self.account;
        let head = format!("{head}\r\nx-moto-account-id: {account}\r\nConnection: close\r\n\r\n");
        server.write_all(head.as_bytes()).await.unwrap();
        server.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await.unwrap();
        answer
    }

    fn policy(&self, head: &str, body: &[u8]) -> Vec<u8> {
        let mut policy = self.policy.lock().unwrap();
        if head.starts_with("PUT") {
            *policy = Some(String::from_utf8_lossy(body).into_owned());
            return response(204, "");
        }
        match &*policy {
            Some(policy) => response(200, policy),
            None => refusal(404, "NoSuchBucketPolicy"),
        }
    }
}

fn refusal(status: u16, code: &str) -> Vec<u8> {
    let body = format!("<Error><Code>{code}</Code><Message>as the test says</Message></Error>");
    response(status, &body)
}

fn response(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let head = head.trim_end().to_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { head, body })
}

/// The permission that a call needs: AWS names some of them otherwise than the call.
fn permission(head: &str) -> String {
    let mut words = head.split(' ');
    let (method, uri) = (words.next().unwrap(), words.next().unwrap());
    let query = uri.split_once('?').map_or("", |it| it.1);
    let has = |name: &str| {
        query
            .split('&')
            .any(|it| it.split('=').next() == Some(name))
    };
    let what = [
        ("versioning", "BucketVersioning"),
        ("object-lock", "BucketObjectLockConfiguration"),
        ("lifecycle", "LifecycleConfiguration"),
        ("tagging", "BucketTagging"),
        ("publicAccessBlock", "BucketPublicAccessBlock"),
        ("policy", "BucketPolicy"),
        ("encryption", "EncryptionConfiguration"),
    ];
    let setting = what.iter().find(|(name, _)| has(name)).map(|it| it.1);
    let action = match (method, setting) {
        ("GET", Some(setting)) => format!("Get{setting}"),
        ("PUT", Some(setting)) => format!("Put{setting}"),
        ("GET", None) if has("versions") => "ListBucketVersions".into(),
        ("GET", None) if has("list-type") => "ListBucket".into(),
        ("PUT", None) => "CreateBucket".into(),
        ("POST", None) if has("delete") => "DeleteObjectVersion".into(),
        ("DELETE", None) => "DeleteBucket".into(),
        _ => panic!("a call that no test knows: {method} {uri}"),
    };
    format!("s3:{action}")
}
