//! `scripts/aws-acceptance`, which is for a real account, against the lab's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    ACCOUNT, give_credentials,
    hypervisor::{Down, Hypervisor},
    make_subnet,
    proxy::Proxy,
    server::{REGION, moto},
    support::{Lab, image, prepared_version},
    tagged,
};

const NETWORK: &str = "10.84.13.0/24";
/// Made from the botocore of tests/data/aws-models.json.
const CLI: [&str; 2] = ["awscli==1.46.3", "botocore==1.44.8"];

/// The AWS CLI, from PyPI; returns the folder with its command.
fn cli() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_pgherd"));
    let venv = built.parent().unwrap().with_file_name("awscli");
    let bin = venv.join("bin");
    if !venv.join("made").exists() {
        let run = |program: &Path, words: &[&str]| {
            let status = Command::new(program).args(words).status().unwrap();
            assert!(status.success(), "{} {words:?}", program.display());
        };
        run(
            Path::new("python3"),
            &["-m", "venv", venv.to_str().unwrap()],
        );
        let install = [
            "install",
            "--quiet",
            "--disable-pip-version-check",
            CLI[0],
            CLI[1],
        ];
        run(&bin.join("pip"), &install);
        fs::write(venv.join("made"), "").unwrap();
    }
    bin
}

fn accept(lab: &Lab, proxy: &Proxy, words: &[&str]) -> Command {
    let path = std::env::var("PATH").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/aws-acceptance");
    // What a shell starts in the background ignores Ctrl-C, and so would the script.
    let mut command = Command::new("env");
    command
        .arg("--default-signal=INT")
        .arg(script)
        .args([
            "--region",
            REGION,
            "--inventory",
            "pgherd.yaml",
            "--price",
            "0.05",
        ])
        .args(words)
        .current_dir(lab.dir.path())
        .env("HOME", lab.dir.path())
        .env("TMPDIR", lab.dir.path())
        .env_remove("XDG_RUNTIME_DIR")
        .env("PATH", format!("{}:{path}", cli().display()))
        .env("PGHERD", env!("CARGO_BIN_EXE_pgherd"))
        .env("AWS_ENDPOINT_URL", proxy.url())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdin(Stdio::null());
    command
}

#[test]
fn soak_the_acceptance_script_lives_a_whole_life() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let subnet = runtime.block_on(make_subnet(NETWORK));
    let trusted = std::env::var("SSL_CERT_FILE");
    let trusted = trusted.unwrap_or_else(|_| "/etc/ssl/certs/ca-certificates.crt".into());
    let proxy = Proxy::new(moto(), ACCOUNT);
    let inventory = format!(
        "provider:\n  kind: aws\n  region: {REGION}\n  endpoint_url: {}\n  connect: private\n  \
         image: ubuntu-24.04\n  subnet_id: {subnet}\nca_bundle: {trusted}\n\
         postgresql: {{ version: {} }}\nhosts:\n  node1: {{ roles: [postgres] }}\n  \
         node2: {{ roles: [postgres] }}\n  node3: {{ roles: [postgres] }}\n  node4: {{ roles: [etcd] }}\n  \
         haproxy: {{ roles: [haproxy] }}\n",
        proxy.url(),
        prepared_version()
    );
    let lab = Lab::new("ec2-accept", &inventory);
    give_credentials(lab.dir.path());
    let hypervisor = Hypervisor::start(&proxy, &lab.name, &image("ec2"), NETWORK);

    // Nobody has agreed.
    let asked = accept(&lab, &proxy, &[]).output().unwrap();
    assert_eq!(asked.status.code(), Some(2), "{asked:?}");
    let said = String::from_utf8_lossy(&asked.stdout);
    assert!(said.contains("It costs at most 0.70 US dollars."), "{said}");
    assert_eq!(hypervisor.hosts(), [""; 0]);

    let lived = accept(&lab, &proxy, &["--yes"]).output().unwrap();
    let said = String::from_utf8_lossy(&lived.stdout);
    println!("{said}\n{}", String::from_utf8_lossy(&lived.stderr));
    assert_eq!(lived.status.code(), Some(0));
    assert!(
        said.contains("all steps passed, and nothing is left"),
        "{said}"
    );
    hypervisor.settle();
    assert_eq!(hypervisor.hosts(), [""; 0]);
    let downs = hypervisor.downs();
    assert_eq!(downs[..3], [Down::InOrder, Down::InOrder, Down::AtOnce]);
    let left = runtime.block_on(tagged(&lab.name));
    assert!(left.values().all(|count| *count == 0), "{left:?}");

    // Ctrl-C in the middle of it.
    let interrupted = accept(&lab, &proxy, &["--yes"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    while hypervisor.hosts().len() < 3 {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let pid = interrupted.id().to_string();
    let killed = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(killed.success());
    let lived = interrupted.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&lived.stdout);
    println!("{said}");
    assert_eq!(lived.status.code(), Some(130), "{said}");
    assert!(said.contains("nothing is left; what was said"), "{said}");
    hypervisor.settle();
    assert_eq!(hypervisor.hosts(), [""; 0]);
    let left = runtime.block_on(tagged(&lab.name));
    assert!(left.values().all(|count| *count == 0), "{left:?}");
}
