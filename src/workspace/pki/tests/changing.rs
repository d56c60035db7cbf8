//! A new authority replaces the old one while the cluster runs.

use super::*;

/// What a host or a client has at one stage of a rotation.
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

    // Interrupted before the stage was recorded: the same authority, and no third one.
    fs::remove_file(place.path("next/stage")).unwrap();
    rotation::begin(&dir, "pg", now()).unwrap();
    assert_eq!(Pki::open(&dir, "pg").unwrap().ca(), both);

    // Interrupted during the copy of the new files.
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

    // Interrupted with leftovers: the next rotation must not take the current authority for a new one.
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
