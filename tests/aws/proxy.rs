//! The proxy between pgherd and the server. It counts calls, and breaks them if a test asks for it.
//!
//! It also adds what EC2 has and moto lacks: a client token launches only once, and a call that AWS's own
//! models do not allow is refused, and fails the test when the proxy is dropped. It sets the account of each
//! call, because moto becomes slow with all that one account ever had.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::{model::mistakes, nature::Nature, xml::Element};

/// One call, as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// `ec2:RunInstances`, `sts:GetCallerIdentity`, …
    pub action: String,
    pub dry_run: bool,
    pub body: String,
    /// The access key that signed it.
    pub signed_by: String,
    /// The number of calls before it.
    pub number: usize,
}

impl Call {
    pub(crate) fn is(&self, action: &str) -> bool {
        self.action == format!("ec2:{action}") && !self.dry_run
    }

    /// The same for the load balancers' service.
    pub(crate) fn is_of_balancers(&self, action: &str) -> bool {
        self.action == format!("elasticloadbalancing:{action}")
    }

    fn speaks_json(&self) -> bool {
        self.action.starts_with("ssm:") || self.action.starts_with("servicequotas:")
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.body.split('&').filter_map(|it| it.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// What happens to a call.
pub(crate) enum Verdict {
    Pass,
    /// It is answered with EC2's error of this code, and not executed.
    Refuse(&'static str),
    /// The same, with EC2's own message.
    Say(&'static str, &'static str),
    /// It is answered with this answer, and not executed.
    Answer(String),
    /// It is not executed and gets no answer, as if the caller had died before the call.
    Swallow,
    /// It is executed and gets no answer, as if the caller had died right after the call.
    DoAndSwallow,
}

type Judge = dyn Fn(&Call) -> Verdict + Send + Sync;

pub(crate) struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

/// State that the threads of all calls share.
struct Shared {
    server: u16,
    account: String,
    /// Whether calls are checked against AWS's models.
    strict: bool,
    calls: Mutex<Vec<Call>>,
    judge: Mutex<Arc<Judge>>,
    /// Set once a call has been swallowed.
    swallowed: AtomicBool,
    /// The maximum number of results on a page.
    page: Mutex<Option<u32>>,
    /// The launches and their answers, by token.
    launched: Mutex<HashMap<String, (String, Vec<u8>)>>,
    mistakes: Mutex<Vec<String>>,
    nature: Nature,
}

impl Proxy {
    /// For pgherd's own calls.
    pub(crate) fn new(server: u16, account: &str) -> Self {
        Self::start(server, account, true)
    }

    /// For the calls of a test itself, which are more kinds than pgherd's.
    pub(crate) fn lenient(server: u16, account: &str) -> Self {
        Self::start(server, account, false)
    }

    fn start(server: u16, account: &str, strict: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            server,
            account: account.to_owned(),
            strict,
            calls: Mutex::default(),
            judge: Mutex::new(Arc::new(|_: &Call| Verdict::Pass)),
            swallowed: AtomicBool::default(),
            page: Mutex::default(),
            launched: Mutex::default(),
            mistakes: Mutex::default(),
            nature: Nature::default(),
        });
        let port = listener.local_addr().unwrap().port();
        let desk = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let desk = desk.clone();
                thread::spawn(move || {
                    let Some((head, body)) = receive(&stream) else {
                        return;
                    };
                    match desk.answer(&head, body) {
                        Some(answer) => drop((&stream).write_all(&answer)),
                        None => hold(&stream),
                    }
                });
            }
        });
        Self { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn judge(&self, judge: impl Fn(&Call) -> Verdict + Send + Sync + 'static) {
        *self.shared.judge.lock().unwrap() = Arc::new(judge);
    }

    pub(crate) fn pass_all(&self) {
        self.judge(|_| Verdict::Pass);
        self.shared.swallowed.store(false, Ordering::SeqCst);
    }

    pub(crate) fn pages_of(&self, most: u32) {
        *self.shared.page.lock().unwrap() = Some(most);
    }

    /// The behaviour of EC2 that is simulated.
    pub(crate) fn nature(&self) -> &Nature {
        &self.shared.nature
    }

    /// The calls since the last time.
    pub(crate) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.shared.calls.lock().unwrap())
    }

    pub(crate) async fn has_swallowed(&self) {
        while !self.shared.swallowed.load(Ordering::SeqCst) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mistakes = std::mem::take(&mut *self.shared.mistakes.lock().unwrap());
        if !thread::panicking() {
            assert!(
                mistakes.is_empty(),
                "AWS would have refused:\n{}",
                mistakes.join("\n")
            );
        }
    }
}

impl Shared {
    /// `None` if the call gets no answer.
    fn answer(&self, head: &[String], body: String) -> Option<Vec<u8>> {
        let call = {
            let mut calls = self.calls.lock().unwrap();
            let call = call(head, &body, calls.len());
            calls.push(call.clone());
            call
        };
        if let Some(mistakes) = self.mistakes_of(&call) {
            return Some(refusal(&call, "InvalidParameterValue", &mistakes));
        }
        if let Some(json) = self.nature.quota_in_json(&call) {
            return Some(response(200, &json));
        }
        let judge = self.judge.lock().unwrap().clone();
        let body = match *self.page.lock().unwrap() {
            Some(most) if call.action.starts_with("ec2:Describe") => smaller(&body, most),
            _ => body,
        };
        match judge(&call) {
            Verdict::Pass => Some(self.pass(&call, head, &body)),
            Verdict::Refuse(code) => Some(refusal(&call, code, "as the test says")),
            Verdict::Say(code, message) => Some(refusal(&call, code, message)),
            Verdict::Answer(xml) => Some(response(200, &xml)),
            Verdict::Swallow => {
                self.swallowed.store(true, Ordering::SeqCst);
                None
            }
            Verdict::DoAndSwallow => {
                self.pass(&call, head, &body);
                self.swallowed.store(true, Ordering::SeqCst);
                None
            }
        }
    }

    fn mistakes_of(&self, call: &Call) -> Option<String> {
        let found = match self.strict {
            true => mistakes(&call.action, &call.body),
            false => return None,
        };
        self.mistakes.lock().unwrap().extend(found.clone());
        (!found.is_empty()).then(|| found.join("; ").replace('<', "&lt;"))
    }

    fn pass(&self, call: &Call, head: &[String], body: &str) -> Vec<u8> {
        let token = call
            .parameter("ClientToken")
            .filter(|_| call.is("RunInstances"));
        if let Some(token) = token
            && let Some((asked, answer)) = self.launched.lock().unwrap().get(token)
        {
            return match asked == body {
                true => answer.clone(),
                false => refusal(call, "IdempotentParameterMismatch", "other parameters"),
            };
        }
        let body = &without_tags_of_snapshots(&self.by_token(body));
        let answer = match self.strict && call.action.starts_with("ec2:") {
            true => self.as_ec2_does(call, head, body),
            false => self.forward(head, body),
        };
        if let Some(token) = token
            && answer.starts_with(b"HTTP/1.1 200")
        {
            let mut launched = self.launched.lock().unwrap();
            launched.insert(token.to_owned(), (body.to_owned(), answer.clone()));
        }
        answer
    }

    /// moto cannot search by token.
    fn by_token(&self, body: &str) -> String {
        let mut pairs = body.split('&');
        let Some(filter) = pairs.find_map(|it| it.strip_suffix(".Name=client-token")) else {
            return body.to_owned();
        };
        let value = format!("{filter}.Value.1=");
        let token = pairs.find_map(|it| it.strip_prefix(&value)).unwrap();
        let launched = self.launched.lock().unwrap();
        let answer = launched.get(token).map(|it| String::from_utf8_lossy(&it.1));
        let id = answer.and_then(|it| {
            let (_, rest) = it.split_once("<instanceId>")?;
            rest.split('<').next().map(str::to_owned)
        });
        let id = id.unwrap_or_else(|| "i-0".into());
        body.replace(
            &format!("{filter}.Name=client-token"),
            &format!("{filter}.Name=instance-id"),
        )
        .replace(&format!("{value}{token}"), &format!("{value}{id}"))
    }

    fn as_ec2_does(&self, call: &Call, head: &[String], body: &str) -> Vec<u8> {
        let call = &Call {
            body: body.to_owned(),
            ..call.clone()
        };
        let read = |body: &str| {
            let answer = self.forward(head, body);
            let text = String::from_utf8_lossy(&answer).into_owned();
            let (head, xml) = text.split_once("\r\n\r\n").unwrap_or_default();
            match head.starts_with("HTTP/1.1 200") {
                true => Ok(Element::parse(xml)),
                false => Err((answer, xml.to_owned())),
            }
        };
        let ask = |query: &str| {
            let query = format!("{query}&Version=2016-11-15");
            read(&query).unwrap_or_else(|(_, xml)| Element::parse(&xml))
        };
        let server = |body: &str| read(body).map_err(|(answer, _)| answer);
        match self.nature.act(call, &ask, &server) {
            Ok(Ok(answer)) => response(200, &answer.write()),
            Ok(Err(answer)) => answer,
            Err((code, said)) => refusal(call, code, &said),
        }
    }

    /// The server's own answer.
    fn forward(&self, head: &[String], body: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.server)).unwrap();
        let mut request = String::new();
        for line in head {
            let lower = line.to_ascii_lowercase();
            if !lower.starts_with("connection:") && !lower.starts_with("content-length:") {
                request.push_str(line);
                request.push_str("\r\n");
            }
        }
        request.push_str(&format!(
            "x-moto-account-id: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            self.account,
            body.len()
        ));
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }
}

/// moto does not tag the snapshots of a new image.
fn without_tags_of_snapshots(body: &str) -> String {
    let mut pairs: Vec<&str> = body.split('&').collect();
    let of_snapshots = pairs.iter().find_map(|it| {
        let (tags, kind) = it.split_once(".ResourceType=")?;
        (kind == "snapshot").then(|| format!("{tags}."))
    });
    if let Some(tags) = of_snapshots {
        pairs.retain(|it| !it.starts_with(&tags));
    }
    pairs.join("&")
}

fn receive(stream: &TcpStream) -> Option<(Vec<String>, String)> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let length = header(&head, "content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).ok()?))
}

fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    head.iter()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

fn call(head: &[String], body: &str, number: usize) -> Call {
    let service = header(head, "authorization")
        .and_then(|it| {
            it.split("/aws4_request")
                .next()?
                .rsplit('/')
                .next()
                .map(str::to_owned)
        })
        .unwrap_or_default();
    let mut call = Call {
        action: String::new(),
        dry_run: body.split('&').any(|it| it == "DryRun=true"),
        body: body.to_owned(),
        signed_by: signer(head).unwrap_or_default(),
        number,
    };
    // SSM uses JSON, and names the action in a header.
    let target = header(head, "x-amz-target").and_then(|it| it.rsplit('.').next());
    let action = target.or(call.parameter("Action")).unwrap_or_default();
    call.action = format!("{service}:{action}");
    call
}

/// The `AKIA…` in `AWS4-HMAC-SHA256 Credential=AKIA…/20260101/…`.
fn signer(head: &[String]) -> Option<String> {
    let (_, credential) = header(head, "authorization")?.split_once("Credential=")?;
    Some(credential.split('/').next()?.to_owned())
}

fn smaller(body: &str, most: u32) -> String {
    let mut pairs: Vec<String> = body
        .split('&')
        .filter(|it| !it.starts_with("MaxResults="))
        .map(str::to_owned)
        .collect();
    pairs.push(format!("MaxResults={most}"));
    pairs.join("&")
}

fn refusal(call: &Call, code: &str, message: &str) -> Vec<u8> {
    if call.speaks_json() {
        let text = format!("{{\"__type\": \"{code}\", \"message\": \"{message}\"}}");
        return response(400, &text);
    }
    if call.action.starts_with("elasticloadbalancing:") {
        let text = format!(
            "<?xml version=\"1.0\"?><ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}\
             </Message></Error><RequestId>0f0f</RequestId></ErrorResponse>"
        );
        return response(400, &text);
    }
    let status = if code == "RequestLimitExceeded" {
        503
    } else {
        400
    };
    response(
        status,
        &format!(
            "<?xml version=\"1.0\"?><Response><Errors><Error><Code>{code}</Code><Message>{message}\
             </Message></Error></Errors><RequestID>0f0f</RequestID></Response>"
        ),
    )
}

fn response(status: u16, xml: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} x\r\ncontent-type: text/xml\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{xml}",
        xml.len()
    )
    .into_bytes()
}

/// Waits until the caller closes the connection.
fn hold(mut stream: &TcpStream) {
    let _ = stream.read(&mut [0]);
}
