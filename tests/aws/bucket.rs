//! The bucket for backups: what is said of it, how it is made, and how it goes.

use std::{cell::Cell, collections::BTreeSet};

use pgherd::{
    bucket::{Bucket, Found, Seen},
    error::{Code, Result},
    event::Events,
};
use serde_json::Value;

use crate::{
    server::REGION,
    store::{Store, Verdict},
};

const ID: &str = "0123456789abcdef";

async fn found(bucket: &Bucket) -> Found {
    match bucket.look(false, 2).await.unwrap() {
        Seen::There(found) => found,
        Seen::Missing => panic!("it is missing"),
    }
}

/// Makes it as `up` does, with a note of its own.
async fn make(bucket: &Bucket, begun: &Cell<bool>) -> Result<Vec<String>> {
    let note = async || {
        begun.set(true);
        Ok(())
    };
    bucket.make(begun.get(), note, &Events::channel().0).await
}

/// Somebody makes the bucket, without anything more.
async fn made_by_hand(store: &Store) {
    let body = format!(
        "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
    );
    assert_eq!(store.by_hand("PUT", "", &body).await.0, 200);
}

async fn versions(store: &Store, status: &str) {
    let body =
        format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
    assert_eq!(store.by_hand("PUT", "?versioning", &body).await.0, 200);
}

/// A bucket with everything that a new one gets.
async fn is_complete(store: &Store) {
    for (setting, part) in [
        ("tagging", "<Value>a&lt;b</Value>"),
        ("tagging", ID),
        ("publicAccessBlock", "<BlockPublicPolicy>true"),
        ("policy", "aws:SecureTransport"),
        ("encryption", "AES256"),
        ("lifecycle", "<NoncurrentDays>30"),
        ("lifecycle", "<DaysAfterInitiation>7"),
        ("versioning", "<Status>Enabled"),
    ] {
        let (status, body) = store.by_hand("GET", &format!("?{setting}"), "").await;
        assert!(
            status == 200 && body.contains(part),
            "{setting}: {status} {body}"
        );
    }
}

pub(crate) async fn what_is_wrong_with_it_is_said_with_its_remedy() {
    let store = Store::new("said-of-it").await;
    let bucket = store.client(ID, false);
    assert!(matches!(
        bucket.look(false, 2).await.unwrap(),
        Seen::Missing
    ));
    made_by_hand(&store).await;
    let bare = found(&bucket).await;
    assert!(
        bare.notes.len() == 1 && bare.notes[0].contains("keeps no versions"),
        "{bare:?}"
    );
    assert!(bare.unsuitable.is_none());
    versions(&store, "Enabled").await;
    assert_eq!(found(&bucket).await.notes, [""; 0]);
    let rule = |inner: &str| {
        format!(
            "<LifecycleConfiguration><Rule><ID>tidy</ID><Filter><Prefix>pg/</Prefix></Filter><Status>Enabled</Status>{inner}</Rule></LifecycleConfiguration>"
        )
    };
    for (inner, harmful) in [
        ("<Expiration><Days>30</Days></Expiration>", true),
        (
            "<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>",
            true,
        ),
        (
            "<NoncurrentVersionExpiration><NoncurrentDays>30</NoncurrentDays></NoncurrentVersionExpiration>",
            false,
        ),
    ] {
        assert_eq!(
            store.by_hand("PUT", "?lifecycle", &rule(inner)).await.0,
            200
        );
        let error = found(&bucket).await.unsuitable;
        assert_eq!(error.is_some(), harmful, "{inner}");
        if let Some(error) = error {
            assert_eq!(error.code(), Code::BucketUnsuitable);
            assert!(error.causes()[0].contains("`tidy`"), "{error}");
        }
    }
    // What the key may not ask stops nothing.
    store.judge(|_, call| match call {
        "s3:ListBucket" => Verdict::Pass,
        _ => Verdict::Refuse(403, "AccessDenied"),
    });
    let denied = found(&bucket).await;
    assert!(
        denied.notes.len() == 1 && denied.notes[0].contains("could not ask"),
        "{denied:?}"
    );
    for (status, code, expected) in [
        (403, "AccessDenied", Code::BucketDenied),
        (403, "InvalidAccessKeyId", Code::BucketDenied),
        (301, "PermanentRedirect", Code::BucketUnsuitable),
        (500, "InternalError", Code::BucketFailed),
    ] {
        store.judge(move |_, _| Verdict::Refuse(status, code));
        let error = bucket.look(false, 2).await.unwrap_err();
        assert_eq!(error.code(), expected, "{error}");
    }
    store.judge(|_, _| Verdict::Swallow(false));
    let error = bucket.look(false, 2).await.unwrap_err();
    assert_eq!(error.code(), Code::BucketUnreachable, "{error}");
}

pub(crate) async fn a_lock_that_keeps_too_much_is_told() {
    let store = Store::new("locked-for-years").await;
    let body = format!(
        "<CreateBucketConfiguration><LocationConstraint>{REGION}</LocationConstraint></CreateBucketConfiguration>"
    );
    let lock = "x-amz-bucket-object-lock-enabled: true\r\n";
    assert_eq!(store.by_hand_with(lock, "PUT", "", &body).await.0, 200);
    let rule = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode>\
                <Days>90</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    assert_eq!(store.by_hand("PUT", "?object-lock", rule).await.0, 200);
    let notes = found(&store.client(ID, false)).await.notes;
    assert!(
        notes.len() == 1 && notes[0].contains("(COMPLIANCE) keeps everything for 90 days"),
        "{notes:?}"
    );
}

pub(crate) async fn one_is_made_whatever_call_its_making_is_cut_off_at() {
    for done in [false, true] {
        for number in 0.. {
            let store = Store::new(&format!("made-{number}-{done}")).await;
            let (bucket, begun) = (store.client(ID, true), Cell::new(false));
            store.judge(move |it, _| match it == number {
                true => Verdict::Swallow(done),
                false => Verdict::Pass,
            });
            let cut = make(&bucket, &begun).await;
            store.pass_all();
            let Err(error) = cut else {
                is_complete(&store).await;
                assert!(number > 7, "it was cut off at every call: {number}");
                break;
            };
            assert_eq!(error.code(), Code::BucketUnreachable, "{error}");
            let seen = bucket.look(begun.get(), 2).await.unwrap();
            let planned = bucket.to_make(&seen);
            let unknown = make(&bucket, &begun).await.unwrap();
            assert_eq!(unknown, [""; 0]);
            is_complete(&store).await;
            let seen = bucket.look(false, 2).await.unwrap();
            assert_eq!(bucket.to_make(&seen), None, "{number} {done}: {planned:?}");
        }
    }
}

pub(crate) async fn what_somebody_has_set_stays() {
    let store = Store::new("set-by-somebody").await;
    let (bucket, begun) = (store.client(ID, true), Cell::new(false));
    make(&bucket, &begun).await.unwrap();
    versions(&store, "Suspended").await;
    let seen = bucket.look(false, 2).await.unwrap();
    assert_eq!(bucket.to_make(&seen), None);
    assert!(matches!(&seen, Seen::There(it) if it.notes[0].contains("keeps no versions")));
    // A store that does not know some of it.
    let store = Store::new("simple-store").await;
    let bucket = store.client(ID, true);
    store.judge(|_, call| match call {
        "s3:PutBucketPublicAccessBlock" | "s3:GetBucketPublicAccessBlock" => {
            Verdict::Refuse(501, "NotImplemented")
        }
        "s3:PutBucketPolicy" => Verdict::Refuse(400, "MalformedPolicy"),
        _ => Verdict::Pass,
    });
    let unknown = make(&bucket, &Cell::new(false)).await.unwrap();
    assert!(
        unknown.len() == 2 && unknown[0].contains("NotImplemented"),
        "{unknown:?}"
    );
}

pub(crate) async fn those_of_others_are_never_touched() {
    let store = Store::new("of-others").await;
    made_by_hand(&store).await;
    let bucket = store.client(ID, true);
    let refused = async |bucket: &Bucket, part: &str| {
        store.take();
        for begun in [false, true] {
            let begun = Cell::new(begun);
            assert_eq!(make(bucket, &begun).await.unwrap(), [""; 0]);
        }
        let error = bucket.remove(&Events::channel().0).await.unwrap_err();
        assert_eq!(error.code(), Code::ForeignData, "{error}");
        let told = format!("{error} {:?}", error.excerpts());
        assert!(told.contains(part), "{told}");
        let changes = ["s3:Put", "s3:Create", "s3:Delete"];
        let calls = store.take();
        let changed = calls
            .iter()
            .find(|it| changes.iter().any(|of| it.starts_with(of)));
        assert_eq!(changed, None);
    };
    // A note of a run that was cut off is not about a bucket with something in it.
    store.by_hand("PUT", "/theirs", "x").await;
    refused(&bucket, "tags do not say so").await;
    let own = Store::new("of-another-id").await;
    make(&own.client(ID, true), &Cell::new(false))
        .await
        .unwrap();
    let error = own
        .client("another", true)
        .may_be_removed()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ForeignData);
    // Another cluster keeps its backups there too.
    own.by_hand("PUT", "/pg/archive/1", "ours").await;
    assert!(own.client(ID, true).may_be_removed().await.unwrap());
    own.by_hand("PUT", "/pg2/archive/1", "theirs").await;
    own.take();
    let error = own
        .client(ID, true)
        .remove(&Events::channel().0)
        .await
        .unwrap_err();
    assert!(error.excerpts()[0].text.contains("pg2/"), "{error}");
    assert!(own.take().iter().all(|it| !it.starts_with("s3:Delete")));
}

pub(crate) async fn one_goes_with_all_versions_by_the_policies_in_the_manual() {
    let store = Store::new("comes-and-goes").await;
    let bucket = store.client(ID, true);
    make(&bucket, &Cell::new(false)).await.unwrap();
    for number in 0..3 {
        for text in ["old", "new"] {
            let path = format!("/pg/archive/{number}%20%26");
            assert_eq!(store.by_hand("PUT", &path, text).await.0, 200);
        }
    }
    assert_eq!(
        store.by_hand("DELETE", "/pg/archive/0%20%26", "").await.0,
        204
    );
    let events = Events::channel().0;
    // Cut off in the middle, and a lock.
    store.judge(|_, call| match call {
        "s3:DeleteBucket" => Verdict::Swallow(false),
        _ => Verdict::Pass,
    });
    assert!(bucket.remove(&events).await.is_err());
    let mut calls = store.take();
    store.pass_all();
    bucket.remove(&events).await.unwrap();
    calls.extend(store.take());
    assert_eq!(store.by_hand("GET", "", "").await.0, 404);
    assert!(
        !bucket.may_be_removed().await.unwrap(),
        "it is gone already"
    );
    bucket.remove(&events).await.unwrap();
    let again = Store::new("comes-and-goes-too").await;
    make(&again.client(ID, true), &Cell::new(false))
        .await
        .unwrap();
    found(&again.client(ID, true)).await;
    calls.extend(again.take());
    the_policies_allow(calls.into_iter().collect());
}

/// The policies in the manual allow exactly the calls that were made, and what pgBackRest does.
fn the_policies_allow(mut called: BTreeSet<String>) {
    let read = |text: &str| -> BTreeSet<String> {
        let policy: Value = serde_json::from_str(text).unwrap();
        let statements = policy["Statement"].as_array().unwrap().clone();
        let actions = statements
            .iter()
            .flat_map(|it| it["Action"].as_array().unwrap());
        actions.map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let mut allowed = read(include_str!("../../docs/iam-policy-bucket.json"));
    allowed.extend(read(include_str!(
        "../../docs/iam-policy-bucket-create.json"
    )));
    called.extend(["DeleteObject", "GetObject", "PutObject"].map(|it| format!("s3:{it}")));
    assert_eq!(allowed, called);
}
