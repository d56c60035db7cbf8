//! Ways to AWS that the environment names: these take a process of their own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

const INVENTORY: &str = "cluster: ways\nprovider: { kind: aws, region: eu-central-1 }\nhosts:\n  \
                         n1: { roles: [postgres, etcd, haproxy] }\n";

fn pgherd(dir: &Path, words: &[&str]) -> Command {
    fs::write(dir.join("pgherd.yaml"), INVENTORY).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.args(words).current_dir(dir).env("HOME", dir);
    command
}

/// Its first words are to the proxy, which need not know what they are about.
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
