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

#[tokio::test]
async fn an_authority_whose_key_is_lost_is_used_as_it_is_and_replaced_in_the_same_stages() {
    let place = Place::new();
    let dir = place.path("");
    let asked = [request("node1")];
    let before = place.open().certificates(&asked, Renewal::Due).unwrap();
    let old = place.open().ca().to_owned();
    let put_back = || {
        let hosts = before.clone().into_iter().collect::<Vec<_>>();
        stored::put_back(&dir, &old, &hosts, &hosts[0].1).unwrap();
    };
    fs::remove_dir_all(&dir).unwrap();
    fs::create_dir_all(dir.parent().unwrap()).unwrap();
    put_back();
    assert!(key_is_lost(&dir));

    // It issues nothing, whatever is asked for, and what it issued stays.
    let mut moved = request("node1");
    moved.address = Some(Ipv4Addr::new(10, 0, 0, 77));
    for request in [asked[0].clone(), moved] {
        let again = place.open().certificates(&[request], Renewal::Due);
        assert_eq!(again.unwrap(), before);
    }
    let new = place.open().certificates(&[request("node9")], Renewal::Due);
    let error = new.unwrap_err();
    assert!(error.to_string().contains("key of the authority is lost"));
    assert!(error.hints().iter().any(|it| it.contains("rotate certs")));
    assert!(key_is_lost(&dir), "no other key was made");

    let mut sides = vec![Side::of(&place)];
    for _ in 0..2 {
        // A run may be cut off before the stage is noted.
        rotation::begin(&dir, "pg", now()).unwrap();
        let trusted = fs::read_to_string(place.path("ca.crt")).unwrap();
        assert_eq!(trusted.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(trusted.starts_with(old.trim()));
    }
    assert_eq!(
        place.open().certificates(&asked, Renewal::Due).unwrap(),
        before
    );
    sides.push(Side::of(&place));
    for stage in [AuthorityStage::Issue, AuthorityStage::Adopt] {
        rotation::advance(&dir, stage).unwrap();
        sides.push(Side::of(&place));
    }
    rotation::adopt(&dir).unwrap();
    sides.push(Side::of(&place));
    for pair in sides.windows(2) {
        for (Side(client, _), Side(_, server)) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            shake_hands(client.clone(), server.clone(), "node1")
                .await
                .unwrap();
        }
    }
    assert!(!key_is_lost(&dir));
    let after = place.open().certificates(&asked, Renewal::Due).unwrap();
    assert_ne!(after, before);
}

#[test]
fn a_certificate_that_is_not_its_keys_is_not_put_back() {
    let (place, other) = (Place::new(), Place::new());
    let of = |place: &Place| {
        let all = place.open().certificates(&[request("node1")], Renewal::Due);
        all.unwrap().remove(&HostName::new("node1")).unwrap()
    };
    let mut mixed = of(&place);
    mixed.key = of(&other).key;
    let target = Place::new();
    let hosts = [(HostName::new("node1"), mixed.clone())];
    let put = stored::put_back(&target.path(""), place.open().ca(), &hosts, &mixed);
    assert!(put.unwrap_err().to_string().contains("does not belong"));
}
