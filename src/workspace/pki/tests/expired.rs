//! Certificates and authorities that have expired or are not valid yet.

use super::*;

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
    // A certificate that is missing, or is for another name, is issued anyway.
    request.extra.push("another".into());
    assert_ne!(pki.of_host(&request, Renewal::Never, now()).unwrap(), first);
}

/// Requests through SSH also accept a certificate with wrong times, and nothing else that is wrong.
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

        // Interrupted before the stage was recorded, and repeated: the same authority.
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

/// Begun while this machine's clock was ahead: the cluster's present authority is the better one.
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
