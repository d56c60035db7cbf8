//! The moto server, and clients that bypass pgherd.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use aws_sdk_ec2::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
};

pub(crate) const REGION: &str = "eu-central-1";

/// One server for all tests of a run. It ends when its input closes, which happens when this process ends.
pub(crate) fn moto() -> u16 {
    static MOTO: OnceLock<(Child, u16)> = OnceLock::new();
    MOTO.get_or_init(|| {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/moto");
        let child = Command::new(script)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .spawn()
            .expect("scripts/moto runs");
        // The first run installs it.
        let deadline = Instant::now() + Duration::from_secs(300);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "moto does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        wake(port);
        (child, port)
    })
    .1
}

/// Sends a request to each of its services, which loads them. This takes longer than pgherd waits for an answer
/// that it can do without.
fn wake(port: u16) {
    let form = "application/x-www-form-urlencoded";
    let json = "application/x-amz-json-1.1";
    let types = "Action=DescribeInstanceTypes&Version=2016-11-15";
    let caller = "Action=GetCallerIdentity&Version=2011-06-15";
    let balancers = "Action=DescribeLoadBalancers&Version=2015-12-01";
    for (service, target, kind, body) in [
        ("elasticloadbalancing", "", form, balancers),
        ("ec2", "", form, types),
        ("sts", "", form, caller),
        (
            "ssm",
            "AmazonSSM.GetParameter",
            json,
            "{\"Name\": \"/aws\"}",
        ),
    ] {
        let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(
            server,
            "POST / HTTP/1.0\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=lab/20260101/{REGION}/{service}/aws4_request, \
             SignedHeaders=host, Signature=0\r\nX-Amz-Target: {target}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1."), "{service} does not answer");
    }
}

pub(crate) fn client(url: &str) -> Client {
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new("lab", "lab", None, None, "test"))
        .endpoint_url(url)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}
