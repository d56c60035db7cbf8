//! The moto server, and a way to it past pgherd.

use std::{
    net::TcpListener,
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

/// One server for all tests of a run; it ends when its input does, with this process.
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
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "moto does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        (child, port)
    })
    .1
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
