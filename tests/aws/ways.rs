//! Connections to AWS that the environment configures; each test needs its own process.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::Lab;

const INVENTORY: &str = "cluster: ways\nprovider: { kind: aws, region: eu-central-1 }\nhosts:\n  \
                         n1: { roles: [postgres, etcd, haproxy] }\n";

fn pgherd(dir: &Path, words: &[&str]) -> Command {
    fs::write(dir.join("pgherd.yaml"), INVENTORY).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.args(words).current_dir(dir).env("HOME", dir);
    command
}

/// What `aws login` leaves: a profile that names a session, and the session's token in a file named by the
/// session's hash (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-login-credentials.html>).
pub(crate) async fn a_profile_of_aws_login_is_taken() {
    const SESSION: &str = "arn:aws:iam::012345678901:user/anna";
    // SHA-256 of it.
    const HASH: &str = "03dee0e56a1ea4fb522ea6d0a14194561f38a2eb7b744d72421fbd8a4cca7ddb";
    let lab = Lab::new("login").await;
    lab.five("");
    let home = lab.dir.path();
    let cache = home.join(".aws/login/cache");
    fs::create_dir_all(&cache).unwrap();
    let config = home.join(".aws/config");
    fs::write(&config, format!("[default]\nlogin_session = {SESSION}\n")).unwrap();
    let token = serde_json::json!({
        "accessToken": {
            "accessKeyId": "ASIALOGIN",
            "secretAccessKey": "secret",
            "sessionToken": "session",
            "accountId": "012345678901",
            "expiresAt": "2199-12-25T21:30:00Z",
        },
        "tokenType": "aws_sigv4",
        "refreshToken": "refresh",
        "clientId": "aws:signin:::cli/same-device",
        "dpopKey": "not needed while the token is valid",
    });
    fs::write(cache.join(HASH).with_extension("json"), token.to_string()).unwrap();
    lab.proxy.take();
    let run = Command::new(env!("CARGO_BIN_EXE_pgherd"))
        .arg("plan")
        .current_dir(home)
        .env("HOME", home)
        .env("AWS_CONFIG_FILE", &config)
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let calls = lab.proxy.take();
    assert!(!calls.is_empty());
    for call in calls {
        assert_eq!(call.signed_by, "ASIALOGIN", "{}", call.action);
    }
}

/// The first request goes to the proxy, which need not know its purpose.
pub(crate) async fn a_proxy_is_asked_for_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let mut run = pgherd(dir.path(), &["plan"])
        .env("HTTPS_PROXY", url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (stream, _) = proxy.accept().unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(
        line.starts_with("CONNECT ec2.eu-central-1.amazonaws.com:443 "),
        "{line}"
    );
}

pub(crate) async fn what_is_no_proxy_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = pgherd(dir.path(), &["plan"]);
    let run = run.env("HTTPS_PROXY", "http://[").output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{said}");
    assert!(said.contains("HTTPS_PROXY does not name a proxy"), "{said}");
}
