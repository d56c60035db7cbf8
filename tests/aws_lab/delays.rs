//! Instances that take as long as those of EC2 until they answer.
//!
//! moto's instances run at once, and containers boot in a second. With delays, an instance is `pending` for a
//! while, and its host boots for a while after that. How long each takes depends only on its name, so that runs
//! can be compared.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    ops::RangeInclusive,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{
    proxy::{Call, Verdict},
    server::{REGION, moto},
};

/// `PGHERD_LAB_EC2_DELAYS=15-25,15-30`: seconds to `running`, and from there to the boot.
const VARIABLE: &str = "PGHERD_LAB_EC2_DELAYS";

/// How long instances take, each its own time within these limits, in milliseconds.
#[derive(Debug)]
pub(crate) struct Delays {
    running: RangeInclusive<u64>,
    boot: RangeInclusive<u64>,
    /// Since when each instance exists, and its host's name.
    seen: Mutex<BTreeMap<String, (Instant, String)>>,
}

impl Delays {
    pub(crate) fn new(text: &str) -> Self {
        let bounds = |text: &str| {
            let (from, to) = text.split_once('-').expect("FROM-TO");
            let milliseconds = |it: &str| it.trim().parse::<u64>().expect("seconds") * 1000;
            milliseconds(from)..=milliseconds(to)
        };
        let (running, boot) = text.split_once(',').expect("FROM-TO,FROM-TO");
        Self {
            running: bounds(running),
            boot: bounds(boot),
            seen: Mutex::default(),
        }
    }

    pub(crate) fn from_environment() -> Option<Self> {
        std::env::var(VARIABLE).ok().map(|text| Self::new(&text))
    }

    /// Records that an instance exists; returns whether its host may boot now.
    pub(crate) fn may_boot(&self, id: &str, host: &str) -> bool {
        let mut seen = self.seen.lock().unwrap();
        let known = seen
            .entry(id.to_owned())
            .or_insert_with(|| (Instant::now(), host.to_owned()));
        let (since, host) = &*known;
        let after = within(&self.running, host, "running") + within(&self.boot, host, "boot");
        since.elapsed() >= Duration::from_millis(after)
    }

    fn runs(&self, id: &str) -> bool {
        let seen = self.seen.lock().unwrap();
        seen.get(id).is_some_and(|(since, host)| {
            let after = within(&self.running, host, "running");
            since.elapsed() >= Duration::from_millis(after)
        })
    }

    /// Handles a call: corrects what moto says of instances.
    pub(crate) fn judge(&self, call: &Call, account: &str) -> Verdict {
        match call.is("DescribeInstances") {
            true => Verdict::Answer(self.correct(&ask(&call.body, account))),
            false => Verdict::Pass,
        }
    }

    /// The same answer, in which instances that do not run yet are `pending`.
    fn correct(&self, answer: &str) -> String {
        const ID: &str = "<instanceId>";
        const STATE: &str = "<code>16</code><name>running</name>";
        let mut parts = answer.split(ID);
        let mut corrected = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let id = part.split('<').next().unwrap_or_default();
            corrected.push_str(ID);
            corrected.push_str(&match self.runs(id) {
                true => part.to_owned(),
                // moto breaks lines between elements.
                false => {
                    without_blanks(part).replacen(STATE, "<code>0</code><name>pending</name>", 1)
                }
            });
        }
        corrected
    }
}

/// The same XML without blanks between elements.
fn without_blanks(xml: &str) -> String {
    let pieces: Vec<&str> = xml.split('<').map(str::trim_end).collect();
    pieces.join("<")
}

/// A number within `bounds` that depends only on the words.
fn within(bounds: &RangeInclusive<u64>, host: &str, what: &str) -> u64 {
    let bytes = host.bytes().chain(what.bytes());
    // FNV-1a, and a final mix: names differ only in their last letters.
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let stirred = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33;
    bounds.start() + stirred % (bounds.end() - bounds.start() + 1)
}

/// moto's own answer to a call.
fn ask(body: &str, account: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", moto())).unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: AWS4-HMAC-SHA256 \
         Credential=lab/20260101/{REGION}/ec2/aws4_request, SignedHeaders=host, Signature=0\r\n\
         content-type: application/x-www-form-urlencoded\r\nx-moto-account-id: {account}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, answer) = answer.split_once("\r\n\r\n").unwrap();
    answer.to_owned()
}
