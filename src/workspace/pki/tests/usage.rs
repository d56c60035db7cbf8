//! The allowed usage of certificates, also according to OpenSSL.

use super::*;

/// What OpenSSL says in its strictest mode, and so PostgreSQL, HAProxy and Python.
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
    // It is still valid as a server certificate.
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
