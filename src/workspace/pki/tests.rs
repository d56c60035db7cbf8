use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, ServerName},
    server::WebPkiClientVerifier,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

mod changing;
mod expired;
mod usage;

const DAYS: u64 = 24 * 60 * 60;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("pki").join(name)
    }

    fn open(&self) -> Pki {
        self.open_at(now()).unwrap()
    }

    fn open_at(&self, now: jiff::Timestamp) -> Result<Pki> {
        Pki::open_at(&self.path(""), &rotation::name("pg"), now)
    }
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

fn in_days(days: u64) -> jiff::Timestamp {
    now() + Duration::from_secs(days * DAYS)
}

fn request(host: &str) -> Request {
    Request {
        host: HostName::new(host),
        address: Some(Ipv4Addr::new(10, 0, 0, 1)),
        extra: ["haproxy", "10.0.0.9", "localhost", "127.0.0.1"]
            .map(str::to_owned)
            .into(),
        whole: true,
        usage: Usage::ServerAndClient,
    }
}

fn server_config(pki: &Pki, certificate: &Certificate) -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    for trusted in CertificateDer::pem_slice_iter(pki.ca().as_bytes()) {
        roots.add(trusted.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let cert = CertificateDer::from_pem_slice(certificate.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(certificate.key.expose().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![cert], key)
        .unwrap();
    Arc::new(config)
}

/// A connection from `client`'s operator to a host of `server`, requested by `name`.
async fn connect(client: &Pki, server: &Pki, name: &'static str) -> Result<(), String> {
    let client = client.rustls_client_config().unwrap();
    shake_hands(client, server_of(server), name).await
}

fn server_of(pki: &Pki) -> Arc<ServerConfig> {
    let certificate =
        &pki.certificates(&[request("node1")], Renewal::Due).unwrap()[&HostName::new("node1")];
    server_config(pki, certificate)
}

async fn shake_hands(
    client: Arc<rustls::ClientConfig>,
    server: Arc<ServerConfig>,
    name: &'static str,
) -> Result<(), String> {
    let acceptor = TlsAcceptor::from(server);
    let connector = TlsConnector::from(client);
    let (near, far) = tokio::io::duplex(16 * 1024);
    let serving = tokio::spawn(async move {
        let mut stream = acceptor
            .accept(far)
            .await
            .map_err(|e| format!("server: {e}"))?;
        stream.write_all(b"x").await.map_err(|e| e.to_string())?;
        stream.shutdown().await.map_err(|e| e.to_string())
    });
    let name = ServerName::try_from(name).unwrap();
    let connected = connector.connect(name, near).await;
    let mut stream = connected.map_err(|e| format!("client: {e}"))?;
    let read = stream.read_u8().await.map_err(|e| format!("client: {e}"));
    serving.await.unwrap()?;
    read.map(|byte| assert_eq!(byte, b'x'))
}

#[tokio::test]
async fn the_operator_and_a_host_know_each_other() {
    let place = Place::new();
    let pki = place.open();
    for name in [
        "node1",
        "NODE1",
        "10.0.0.1",
        "haproxy",
        "10.0.0.9",
        "localhost",
        "127.0.0.1",
    ] {
        connect(&pki, &pki, name).await.unwrap();
    }
    for name in ["node2", "10.0.0.2", "pg"] {
        let error = connect(&pki, &pki, name).await.unwrap_err();
        assert!(error.contains("not valid for name"), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_cluster_of_the_same_name_is_a_stranger() {
    let (ours, theirs) = (Place::new(), Place::new());
    let error = connect(&ours.open(), &theirs.open(), "node1")
        .await
        .unwrap_err();
    assert!(
        error.starts_with("client: invalid peer certificate"),
        "{error}"
    );

    // The other direction: a server of the cluster gets another authority's certificate.
    let (ours, theirs) = (ours.open(), theirs.open());
    let intruder = Pki {
        dir: theirs.dir.clone(),
        ca_pem: ours.ca_pem.clone(),
        ca: Parsed::from_pem(&ours.ca_pem).unwrap(),
        issuer: theirs.issuer,
    };
    // Both authorities have the same name, so only the signature shows the difference.
    let error = connect(&intruder, &ours, "node1").await.unwrap_err();
    assert_eq!(error, "server: invalid peer certificate: BadSignature");
}

#[test]
fn what_was_issued_stays_as_long_as_it_will_do() {
    let place = Place::new();
    let pki = place.open();
    let wanted = request("node1");
    let first = pki.of_host(&wanted, Renewal::Due, now()).unwrap();
    let same =
        |request: &Request, at| pki.of_host(request, Renewal::Due, at).unwrap().cert == first.cert;

    assert!(same(&wanted, in_days(0)));
    let mut reordered = wanted.clone();
    reordered.extra.reverse();
    reordered.extra.push("HAProxy".to_owned());
    assert!(
        same(&reordered, in_days(0)),
        "neither order nor case matters"
    );
    assert!(same(&wanted, in_days(825 - 31)));

    let renewed = pki
        .of_host(&wanted, Renewal::Due, in_days(825 - 29))
        .unwrap();
    assert_ne!(renewed.cert, first.cert);
    assert_eq!(renewed.key, first.key);
    assert_ne!(serial(&renewed.cert), serial(&first.cert));
}

fn serial(pem: &str) -> String {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
    cert.raw_serial_as_string()
}

#[test]
fn a_changed_address_a_foreign_authority_or_another_key_need_a_new_one() {
    let place = Place::new();
    let pki = place.open();
    let issue = |address: [u8; 4]| {
        let mut request = request("node1");
        request.address = Some(address.into());
        pki.of_host(&request, Renewal::Due, now()).unwrap()
    };
    let first = issue([10, 0, 0, 1]);
    let moved = issue([10, 0, 0, 2]);
    assert_ne!(moved.cert, first.cert);
    assert_eq!(moved.key, first.key);
    let ips = Parsed::from_pem(&moved.cert).unwrap().sans;
    assert!(ips.contains(&San::of("10.0.0.2")) && !ips.contains(&San::of("10.0.0.1")));

    let foreign = Place::new();
    foreign
        .open()
        .of_host(&request("node1"), Renewal::Due, now())
        .unwrap();
    for name in ["node1.crt", "node1.key"] {
        fs::copy(foreign.path(name), place.path(name)).unwrap();
    }
    let ours = pki.of_host(&request("node1"), Renewal::Due, now()).unwrap();
    assert!(Parsed::from_pem(&ours.cert).unwrap().is_signed_by(&pki.ca));

    // As left by a run that was killed between the two files.
    fs::remove_file(place.path("node1.key")).unwrap();
    let rekeyed = pki.of_host(&request("node1"), Renewal::Due, now()).unwrap();
    assert_ne!(rekeyed.key, ours.key);
    server_config(&pki, &rekeyed);
}

#[test]
fn a_host_that_is_down_keeps_its_certificate() {
    let place = Place::new();
    let pki = place.open();
    let first = pki.of_host(&request("node1"), Renewal::Due, now()).unwrap();
    let mut down = request("node1");
    down.address = None;
    assert_eq!(pki.of_host(&down, Renewal::Due, now()).unwrap(), first);
    assert_eq!(
        pki.of_host(&request("node1"), Renewal::Due, now()).unwrap(),
        first
    );
}

#[test]
fn a_front_door_that_is_down_changes_nobodys_certificate() {
    let place = Place::new();
    let pki = place.open();
    let issue = |request: &Request| pki.of_host(request, Renewal::Due, now()).unwrap();
    let mut request = request("node1");
    request.extra.push("lb.example".to_owned());
    let first = issue(&request);
    // Neither the address of the front door is known now, nor the name of what is before it.
    request.extra = ["haproxy", "localhost", "127.0.0.1"]
        .map(str::to_owned)
        .into();
    request.whole = false;
    assert_eq!(issue(&request), first);
    // A name that is new is in it all the same.
    request.extra.push("10.0.0.8".to_owned());
    let more = Parsed::from_pem(&issue(&request).cert).unwrap().sans;
    assert!(more.contains(&San::of("10.0.0.8")) && more.contains(&San::of("10.0.0.9")));
    request.whole = true;
    let known = Parsed::from_pem(&issue(&request).cert).unwrap().sans;
    assert!(!known.contains(&San::of("10.0.0.9")) && !known.contains(&San::of("lb.example")));
}

#[test]
fn nothing_outlives_the_authority() {
    let place = Place::new();
    place
        .open_at(now() - Duration::from_secs((3650 - 20) * DAYS))
        .unwrap();
    let pki = place.open();
    let first = pki.of_host(&request("node1"), Renewal::Due, now()).unwrap();
    assert_eq!(expires(&first.cert).unwrap(), pki.ca.not_after);
    assert_eq!(
        pki.of_host(&request("node1"), Renewal::Due, now()).unwrap(),
        first,
        "issued once, not always"
    );
    let later = place.open_at(in_days(21)).unwrap();
    assert_eq!(
        later.lapse(in_days(21)),
        Some(Lapse::Ended(pki.ca.not_after))
    );
    assert_eq!(
        later
            .of_host(&request("node1"), Renewal::Due, in_days(21))
            .unwrap(),
        first,
        "another one of the same authority would be no better"
    );
}

#[test]
fn expiries_are_told_without_making_anything() {
    let place = Place::new();
    let hosts = ["node1", "node2"].map(HostName::new);
    assert!(expiries(&place.path(""), hosts.iter()).unwrap().is_empty());
    let pki = place.open();
    let cert = pki.of_host(&request("node1"), Renewal::Due, now()).unwrap();
    let told = expiries(&place.path(""), hosts.iter()).unwrap();
    let names: Vec<_> = told.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["ca", "node1"]);
    assert_eq!(told[1].expires, expires(&cert.cert).unwrap());
    let days = (told[1].expires - now()).total(jiff::Unit::Hour).unwrap() / 24.0;
    assert!((824.9..825.1).contains(&days), "{days}");
}

#[test]
fn a_broken_authority_is_never_replaced() {
    type Breakage<'a> = (&'a str, &'a dyn Fn(&Place));
    let breakages: [Breakage<'_>; 4] = [
        ("no longer a private key", &|p| {
            fs::write(p.path("ca.key"), "x").unwrap();
        }),
        ("not a certificate", &|p| {
            fs::write(p.path("ca.crt"), "").unwrap();
        }),
        ("not belong to ca.key", &|p| {
            let other = Place::new();
            other.open();
            fs::copy(other.path("ca.key"), p.path("ca.key")).unwrap();
        }),
        ("not the certificate of an authority", &|p| {
            let pki = p.open();
            pki.of_host(&request("node1"), Renewal::Due, now()).unwrap();
            fs::copy(p.path("node1.crt"), p.path("ca.crt")).unwrap();
        }),
    ];
    for (part, breakage) in breakages {
        let place = Place::new();
        place.open();
        breakage(&place);
        let before = fs::read(place.path("ca.crt")).unwrap();
        let error = place.open_at(now()).unwrap_err();
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert!(
            error.hints().iter().any(|h| h.contains("backup")),
            "{error:?}"
        );
        assert_eq!(fs::read(place.path("ca.crt")).unwrap(), before);
    }
}

#[test]
fn an_interrupted_making_is_taken_up_with_the_same_key() {
    let place = Place::new();
    let pki = place.open();
    let cert = pki.of_host(&request("node1"), Renewal::Due, now()).unwrap();
    fs::remove_file(place.path("ca.crt")).unwrap();
    let again = place.open();
    assert_eq!(again.ca.public_key, pki.ca.public_key);
    assert_eq!(
        again
            .of_host(&request("node1"), Renewal::Due, now())
            .unwrap(),
        cert
    );
}

#[test]
fn processes_at_the_same_time_agree_on_one_authority() {
    let place = Place::new();
    let keys: BTreeSet<_> = std::thread::scope(|scope| {
        let open = || place.open_at(now()).map(|pki| pki.ca_pem);
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap().unwrap())
            .collect()
    });
    assert_eq!(keys.len(), 1);
}

#[test]
fn a_broken_leaf_is_named() {
    let place = Place::new();
    let pki = place.open();
    pki.of_host(&request("node1"), Renewal::Due, now()).unwrap();
    fs::write(place.path("node1.crt"), "half").unwrap();
    let error = pki
        .certificates(&[request("node1")], Renewal::Due)
        .unwrap_err();
    assert_eq!(error.host(), Some(&HostName::new("node1")));
    assert!(
        error
            .to_string()
            .contains("node1.crt is no longer a certificate"),
        "{error}"
    );
    assert!(error.hints()[0].contains("remove it"));
}

#[test]
fn hosts_may_have_the_names_of_our_own_files() {
    let place = Place::new();
    let pki = place.open();
    let ca = pki.ca().to_owned();
    pki.certificates(&[request("ca"), request("operator")], Renewal::Due)
        .unwrap();
    pki.of_operator(now()).unwrap();
    assert_eq!(place.open().ca(), ca);
    let hosts = ["ca", "operator"].map(HostName::new);
    remove(&place.path(""), hosts.iter()).unwrap();
    assert!(!place.path("").exists());
}

#[test]
fn keys_are_closed_and_unseen() {
    let place = Place::new();
    let pki = place.open();
    let certificate = pki.of_host(&request("node1"), Renewal::Due, now()).unwrap();
    pki.of_operator(now()).unwrap();
    for name in ["ca.key", "node1.key", "operator.key"] {
        let mode = fs::metadata(place.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    let shown = format!("{pki:?} {certificate:?}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn names_that_no_certificate_can_hold_are_refused() {
    let place = Place::new();
    let mut request = request("node1");
    request.extra.push("münchen".to_owned());
    let error = place
        .open()
        .certificates(&[request], Renewal::Due)
        .unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Input);
}
