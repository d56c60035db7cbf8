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

/// A connection from `client`'s operator to a host of `server`, asked for by `name`.
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

    // The other way round: a server of ours is shown a certificate of theirs.
    let (ours, theirs) = (ours.open(), theirs.open());
    let intruder = Pki {
        dir: theirs.dir.clone(),
        ca_pem: ours.ca_pem.clone(),
        ca: Parsed::from_pem(&ours.ca_pem).unwrap(),
        issuer: theirs.issuer,
    };
    // Both authorities have the same name, so it is the signature that gives the stranger away.
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

    // As a run leaves it that was killed between the two files.
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
    let breakages: [Breakage<'_>; 5] = [
        ("is missing", &|p| {
            fs::remove_file(p.path("ca.key")).unwrap();
        }),
        ("not a private key", &|p| {
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
        error.to_string().contains("node1.crt is not a certificate"),
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

/// What OpenSSL, and so PostgreSQL, HAProxy and Python, say to it, in their strictest mood.
#[test]
fn openssl_agrees() {
    let place = Place::new();
    let pki = place.open();
    pki.of_host(&request("node1"), Renewal::Due, now()).unwrap();
    pki.of_operator(now()).unwrap();
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command
            .args(arguments)
            .current_dir(place.path(""))
            .stdin(Stdio::null());
        command.output()
    };
    if openssl(&["version"]).is_err() {
        eprintln!("skipped: there is no openssl here");
        return;
    }
    let verify = |extra: &[&str], file: &str| {
        let strict = ["verify", "-x509_strict", "-CAfile", "ca.crt"];
        let arguments: Vec<_> = strict.iter().chain(extra).copied().chain([file]).collect();
        let output = openssl(&arguments).unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(told).unwrap())
    };
    for (extra, file, agrees) in [
        (
            vec!["-purpose", "sslserver", "-verify_hostname", "node1"],
            "node1.crt",
            true,
        ),
        (
            vec!["-purpose", "sslserver", "-verify_ip", "10.0.0.1"],
            "node1.crt",
            true,
        ),
        (vec!["-purpose", "sslclient"], "node1.crt", true),
        (
            vec!["-purpose", "sslserver", "-verify_hostname", "node2"],
            "node1.crt",
            false,
        ),
        (vec!["-purpose", "sslclient"], "operator.crt", true),
        (vec!["-purpose", "sslserver"], "operator.crt", false),
    ] {
        let (agreed, told) = verify(&extra, file);
        assert_eq!(agreed, agrees, "{extra:?} {file}: {told}");
    }
    let output = openssl(&["x509", "-in", "ca.crt", "-noout", "-text"]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "CN = pgherd pg",
        "CA:TRUE, pathlen:0",
        "Certificate Sign",
        "prime256v1",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

/// What a host, or a client, of one stage of a rotation has.
struct Side(Arc<rustls::ClientConfig>, Arc<ServerConfig>);

impl Side {
    fn of(place: &Place) -> Self {
        let pki = Pki::open(&place.path(""), "pg").unwrap();
        Self(pki.rustls_client_config().unwrap(), server_of(&pki))
    }
}

#[tokio::test]
async fn while_the_authority_changes_nobody_refuses_anybody_a_stage_apart() {
    let place = Place::new();
    let dir = place.path("");
    let mut sides = vec![Side::of(&place)];
    let old = fs::read_to_string(place.path("ca.crt")).unwrap();
    rotation::begin(&dir, "pg", now()).unwrap();
    sides.push(Side::of(&place));
    for stage in [AuthorityStage::Issue, AuthorityStage::Adopt] {
        rotation::advance(&dir, stage).unwrap();
        sides.push(Side::of(&place));
    }
    rotation::adopt(&dir).unwrap();
    sides.push(Side::of(&place));
    for (one, Side(client, _)) in sides.iter().enumerate() {
        for (other, Side(_, server)) in sides.iter().enumerate() {
            let met = shake_hands(client.clone(), server.clone(), "node1").await;
            if one.abs_diff(other) <= 1 {
                met.unwrap_or_else(|error| panic!("{one} to {other}: {error}"));
            } else if one.min(other) == 0 {
                assert!(met.is_err(), "{one} to {other}: the old authority alone");
            }
        }
    }
    let new = fs::read_to_string(place.path("ca.crt")).unwrap();
    assert_eq!(new.matches("BEGIN CERTIFICATE").count(), 1);
    assert_ne!(new, old);
    assert!(!rotation::next_dir(&dir).exists());
}

#[test]
fn a_rotation_that_is_cut_off_is_taken_up() {
    let place = Place::new();
    let dir = place.path("");
    let first = |pem: &str| {
        pem.split_inclusive("-----END CERTIFICATE-----")
            .next()
            .unwrap()
            .to_owned()
    };
    let old = place.open().ca().to_owned();
    place
        .open()
        .certificates(&[request("node1")], Renewal::Due)
        .unwrap();
    rotation::begin(&dir, "pg", now()).unwrap();
    let both = Pki::open(&dir, "pg").unwrap().ca().to_owned();
    assert_eq!(both.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(first(&both), first(&old));

    // Cut off before the stage was noted: the same authority, and no third one.
    fs::remove_file(place.path("next/stage")).unwrap();
    rotation::begin(&dir, "pg", now()).unwrap();
    assert_eq!(Pki::open(&dir, "pg").unwrap().ca(), both);

    // Cut off while what is new is copied.
    rotation::advance(&dir, AuthorityStage::Adopt).unwrap();
    let pki = Pki::open(&dir, "pg").unwrap();
    let certificate = pki.certificates(&[request("node1")], Renewal::Due).unwrap();
    fs::copy(place.path("next/ca.key"), place.path("ca.key")).unwrap();
    assert_eq!(Pki::open(&dir, "pg").unwrap().ca(), pki.ca());
    rotation::adopt(&dir).unwrap();
    let adopted = Pki::open(&dir, "pg").unwrap();
    assert_eq!(adopted.ca(), pki.ca());
    assert_eq!(
        adopted
            .certificates(&[request("node1")], Renewal::Due)
            .unwrap(),
        certificate
    );

    // Cut off with leftovers: the next rotation does not take the current authority for a new one.
    fs::create_dir(place.path("next")).unwrap();
    for name in ["ca.crt", "ca.key"] {
        fs::copy(place.path(name), place.path("next").join(name)).unwrap();
    }
    rotation::begin(&dir, "pg", now()).unwrap();
    let third = Pki::open(&dir, "pg").unwrap();
    assert_eq!(third.ca().matches("BEGIN CERTIFICATE").count(), 2);

    fs::write(place.path("next/stage"), "somewhere").unwrap();
    let error = Pki::open(&dir, "pg").unwrap_err().to_string();
    assert!(error.contains("next/stage is damaged"), "{error}");
    remove(&dir, std::iter::once(&HostName::new("node1"))).unwrap();
    assert!(!dir.exists());
}

#[tokio::test]
async fn who_only_serves_gets_a_certificate_that_opens_nothing() {
    let place = Place::new();
    let pki = place.open();
    // As every host had it: server and client.
    let before = pki
        .of_host(&request("haproxy"), Renewal::Due, now())
        .unwrap();
    let wanted = Request {
        usage: Usage::of(&[Role::Haproxy]),
        ..request("haproxy")
    };
    let narrow = pki.of_host(&wanted, Renewal::Due, now()).unwrap();
    assert_ne!(narrow.cert, before.cert, "issued anew");
    assert_eq!(narrow.key, before.key);
    assert_eq!(
        pki.of_host(&wanted, Renewal::Due, now()).unwrap(),
        narrow,
        "only once"
    );
    assert!(certificates_in_words(&narrow.cert).contains("  use: server\n"));

    let shown_by = |certificate: &Certificate| {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(pki.ca().as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let cert = CertificateDer::from_pem_slice(certificate.cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(certificate.key.expose().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![cert], key)
            .unwrap();
        Arc::new(config)
    };
    let server = server_of(&pki);
    shake_hands(shown_by(&before), server.clone(), "node1")
        .await
        .unwrap();
    let refused = shake_hands(shown_by(&narrow), server.clone(), "node1").await;
    let error = refused.unwrap_err();
    assert!(error.contains("for client authentication"), "{error}");
    // It still serves.
    shake_hands(
        pki.rustls_client_config().unwrap(),
        server_config(&pki, &narrow),
        "haproxy",
    )
    .await
    .unwrap();
    for roles in [
        &[Role::Postgres][..],
        &[Role::Etcd],
        &[Role::Haproxy, Role::Etcd],
    ] {
        assert_eq!(Usage::of(roles), Usage::ServerAndClient);
    }
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_issued_anew() {
    let place = Place::new();
    let pki = place.open();
    let request = request("node1");
    let ahead = pki.of_host(&request, Renewal::Due, in_days(40)).unwrap();
    assert_eq!(
        pki.of_host(&request, Renewal::Never, now()).unwrap(),
        ahead,
        "while the clocks differ"
    );
    let anew = pki.of_host(&request, Renewal::Due, now()).unwrap();
    assert_ne!(anew.cert, ahead.cert);
    assert_eq!(anew.key, ahead.key);
    assert!(Parsed::from_pem(&anew.cert).unwrap().not_before <= now());
}

#[test]
fn nothing_is_renewed_by_a_clock_that_the_hosts_do_not_share() {
    let place = Place::new();
    let pki = place.open();
    let mut request = request("node1");
    let first = pki.of_host(&request, Renewal::Due, now()).unwrap();
    let later = in_days(3000);
    assert_eq!(pki.of_host(&request, Renewal::Never, later).unwrap(), first);
    // What is not there, or is for another name, is made all the same.
    request.extra.push("another".into());
    assert_ne!(pki.of_host(&request, Renewal::Never, now()).unwrap(), first);
}

/// What pgherd asks through SSH it also believes of a certificate whose times are wrong, and of nothing
/// else that is wrong.
#[tokio::test]
async fn only_the_times_may_be_wrong() {
    let place = Place::new();
    let begun = now() - Duration::from_secs(900 * DAYS);
    let pki = place.open_at(begun).unwrap();
    let ended = pki.of_host(&request("node1"), Renewal::Due, begun).unwrap();
    let server = server_config(&pki, &ended);
    let strict = pki.rustls_client_config().unwrap();
    let lenient = pki.lenient_client_config().unwrap();
    let refused = shake_hands(strict, server.clone(), "node1")
        .await
        .unwrap_err();
    assert!(refused.contains("expired"), "{refused}");
    shake_hands(lenient.clone(), server.clone(), "node1")
        .await
        .unwrap();
    let refused = shake_hands(lenient.clone(), server, "node2")
        .await
        .unwrap_err();
    assert!(refused.contains("not valid for name"), "{refused}");
    let stranger = Place::new();
    let other = stranger.open_at(begun).unwrap();
    let theirs = other
        .of_host(&request("node1"), Renewal::Due, begun)
        .unwrap();
    let met = shake_hands(lenient, server_config(&pki, &theirs), "node1").await;
    assert!(met.is_err(), "of another authority");
}

#[tokio::test]
async fn an_authority_that_is_not_valid_is_replaced_by_one_that_issues_at_once() {
    for begun in [now() - Duration::from_secs(4000 * DAYS), in_days(30)] {
        let place = Place::new();
        let dir = place.path("");
        let old = place.open_at(begun).unwrap();
        assert!(old.lapse(now()).is_some());
        old.certificates(&[request("node1")], Renewal::Due).unwrap();
        assert!(connect(&old, &old, "node1").await.is_err());

        rotation::replace(&dir, "pg", now()).unwrap();
        assert_eq!(rotation::stage(&dir).unwrap(), Some(AuthorityStage::Issue));
        assert!(rotation::replaces_lapsed(&dir, now()).unwrap());
        let new = Pki::open(&dir, "pg").unwrap();
        assert_eq!(new.lapse(now()), None);
        assert_eq!(new.ca().matches("BEGIN CERTIFICATE").count(), 2);
        connect(&new, &new, "node1").await.unwrap();

        // Cut off before the stage was noted, and repeated: the same authority.
        fs::remove_file(place.path("next/stage")).unwrap();
        rotation::replace(&dir, "pg", now()).unwrap();
        assert_eq!(Pki::open(&dir, "pg").unwrap().ca(), new.ca());

        rotation::advance(&dir, AuthorityStage::Adopt).unwrap();
        rotation::adopt(&dir).unwrap();
        assert!(!rotation::replaces_lapsed(&dir, now()).unwrap());
        let adopted = Pki::open(&dir, "pg").unwrap();
        assert_eq!(adopted.ca().matches("BEGIN CERTIFICATE").count(), 1);
        connect(&adopted, &adopted, "node1").await.unwrap();
    }
}

/// Begun while this machine's clock was ahead: the authority that the cluster has is the better one.
#[test]
fn a_change_to_an_authority_that_is_not_valid_is_undone() {
    let place = Place::new();
    let dir = place.path("");
    let old = place.open().ca().to_owned();
    for stage in [
        AuthorityStage::Trust,
        AuthorityStage::Issue,
        AuthorityStage::Adopt,
    ] {
        rotation::begin(&dir, "pg", in_days(300)).unwrap();
        rotation::advance(&dir, stage).unwrap();
        rotation::replace(&dir, "pg", now()).unwrap();
        let pki = Pki::open(&dir, "pg").unwrap();
        assert_eq!(pki.ca().trim(), old.trim(), "{stage:?}");
        assert_eq!(rotation::stage(&dir).unwrap(), None);
        assert_eq!(pki.lapse(now()), None);
    }
}

#[test]
fn a_change_that_is_under_way_when_the_old_authority_ends_goes_on() {
    let place = Place::new();
    let dir = place.path("");
    place
        .open_at(now() - Duration::from_secs(3651 * DAYS))
        .unwrap();
    rotation::begin(&dir, "pg", now()).unwrap();
    let next = fs::read(place.path("next/ca.crt")).unwrap();
    assert!(Pki::open(&dir, "pg").unwrap().lapse(now()).is_some());
    rotation::replace(&dir, "pg", now()).unwrap();
    assert_eq!(rotation::stage(&dir).unwrap(), Some(AuthorityStage::Issue));
    assert_eq!(fs::read(place.path("next/ca.crt")).unwrap(), next);
}
