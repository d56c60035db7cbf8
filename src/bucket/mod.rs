//! The bucket that holds the backups, as seen from this machine: what it is like, and one that pgherd makes.
//!
//! The backups themselves go there from the host with the role `backup`, by pgBackRest.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, header};
use jiff::Timestamp;
use md5::{Digest, Md5};
use tokio::time::sleep;

use self::{
    door::Door,
    refusal::{Failure, Refusal},
    sign::{Signer, Unsigned},
    xml::Element,
};
use crate::{
    error::{Code, Error, Result},
    event::{Event, Events, HostState},
    inventory::S3,
    provider::{CLUSTER_LABEL, ID_LABEL},
    secret::Secret,
};

mod door;
mod lifecycle;
mod look;
mod make;
mod news;
mod refusal;
mod removal;
mod setting;
mod sign;
mod xml;

pub use look::{Found, Seen};
pub(crate) use news::{Known, News};

/// How often a call is made whose answer may be another one in a moment.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(300);

/// A bucket, with the access to it.
pub struct Bucket {
    place: S3,
    tags: BTreeMap<String, String>,
    key: Secret,
    secret: Secret,
    door: Door,
    /// The path of the bucket in requests.
    root: String,
}

/// One call. All calls are about the bucket itself.
struct Call<'a> {
    /// Follows "cannot" in messages.
    doing: &'static str,
    method: Method,
    query: &'a [(&'a str, &'a str)],
    body: String,
}

impl<'a> Call<'a> {
    fn get(doing: &'static str, query: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            doing,
            method: Method::GET,
            query,
            body: String::new(),
        }
    }
}

impl Bucket {
    /// `tags` are those of a bucket that is made; the ones with the cluster's name and id are among them.
    /// `bundle` has certificates, PEM, that are trusted besides those of this system.
    pub fn new(
        place: &S3,
        tags: BTreeMap<String, String>,
        (key, secret): (Secret, Secret),
        bundle: Option<&str>,
    ) -> Result<Self> {
        let (host, root) = match place.path_style {
            true => (place.endpoint.clone(), format!("/{}", place.bucket)),
            false => (format!("{}.{}", place.bucket, place.endpoint), "/".into()),
        };
        let door = Door::new(host, place.port, bundle).map_err(|error| {
            Error::new(
                Code::FileUnusable,
                "cannot read the certificates in `ca_bundle`",
            )
            .because(error)
        })?;
        Ok(Self {
            place: place.clone(),
            tags,
            key,
            secret,
            door,
            root,
        })
    }

    pub fn name(&self) -> &str {
        &self.place.bucket
    }

    fn tell(&self, events: &Events, state: HostState) {
        events.emit(Event::Resource {
            kind: "bucket".to_owned(),
            id: self.name().to_owned(),
            name: self.name().to_owned(),
            state,
        });
    }

    /// The bucket for messages.
    fn in_words(&self) -> String {
        format!("bucket {} at {}", self.place.bucket, self.place.endpoint)
    }

    /// Whether tags say that this cluster's pgherd has made the bucket.
    fn are_ours(&self, tags: &BTreeMap<String, String>) -> bool {
        let same = |key| {
            tags.get(key)
                .is_some_and(|it| self.tags.get(key) == Some(it))
        };
        same(CLUSTER_LABEL) && same(ID_LABEL)
    }

    /// Makes a call, again if its answer may be another one in a moment; returns what the answer has.
    async fn call(&self, call: &Call<'_>) -> Result<Bytes, Failure> {
        let mut attempt = 1;
        loop {
            // Several are under way at once.
            let refusal = match Box::pin(self.once(call)).await {
                Err(Failure::Refusal(refusal)) => refusal,
                done => return done,
            };
            if attempt == ATTEMPTS || !refusal.is_passing() {
                return Err(Failure::Refusal(refusal));
            }
            sleep(PAUSE * attempt).await;
            attempt += 1;
        }
    }

    async fn once(&self, call: &Call<'_>) -> Result<Bytes, Failure> {
        let doing = call.doing;
        let silent = |cause| Failure::Silence { doing, cause };
        let host = self.door.authority();
        let mut headers = Vec::new();
        if call.method == Method::PUT || call.method == Method::POST {
            // Of several sums, the one that every store knows.
            let sum = BASE64_STANDARD.encode(Md5::digest(call.body.as_bytes()));
            headers.push(("content-md5", sum));
        }
        let signer = Signer {
            key: &self.key,
            secret: &self.secret,
            region: &self.place.region,
        };
        let unsigned = Unsigned {
            method: call.method.as_str(),
            host: &host,
            path: &self.root,
            query: call.query,
            headers: &headers,
            body: call.body.as_bytes(),
        };
        let signed = signer.sign(&unsigned, Timestamp::now());
        let uri = match call.query {
            [] => self.root.clone(),
            pairs => format!("{}?{}", self.root, sign::query(pairs)),
        };
        let mut request = Request::builder()
            .method(&call.method)
            .uri(uri)
            .header(header::HOST, &host);
        for (name, value) in headers.iter().chain(&signed) {
            request = request.header(*name, value);
        }
        let body = Full::new(Bytes::from(call.body.clone()));
        let request = request.body(body).map_err(|error| silent(error.into()))?;
        let answer = self.door.ask(request).await.map_err(silent)?;
        match answer.status().is_success() {
            true => Ok(answer.into_body()),
            false => Err(Failure::Refusal(Refusal::of(doing, &answer))),
        }
    }

    /// Asks something; `None` if the store has none of it, or does not know such a thing.
    async fn ask(
        &self,
        doing: &'static str,
        query: &[(&str, &str)],
    ) -> Result<Option<Element>, Failure> {
        match self.call(&Call::get(doing, query)).await {
            Ok(body) => Ok(Some(read(doing, &body)?)),
            Err(Failure::Refusal(refusal)) if refusal.is_none_yet() || refusal.is_unknown() => {
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    fn explain(&self, failure: Failure) -> Error {
        failure.into_error(&self.place)
    }
}

/// An answer that must be XML.
fn read(doing: &'static str, body: &[u8]) -> Result<Element, Failure> {
    let text = String::from_utf8_lossy(body);
    Element::parse(&text).ok_or_else(|| Failure::Silence {
        doing,
        cause: "its answer is not one of a store that speaks S3".into(),
    })
}

#[cfg(test)]
mod tests {
    use crate::inventory::S3;

    /// A bucket of AWS's.
    pub(super) fn place() -> S3 {
        S3 {
            bucket: "backups".into(),
            region: "eu-central-1".into(),
            endpoint: "s3.eu-central-1.amazonaws.com".into(),
            port: 443,
            path: "/pg".into(),
            path_style: false,
            create: false,
        }
    }
}
