//! What a bucket that is not fit for backups stops, and what it does not.

use super::people::Scene;
use crate::{
    error::{Code, Error},
    plan::tests::world::{FIVE, World},
};

#[test]
fn a_bucket_that_is_not_fit_stops_only_backups_that_begin_in_it() {
    let scene = Scene::new();
    let context = scene.context();
    let trouble = || Error::new(Code::BucketMissing, "there is none").hint("make one");
    context.bucket.known().trouble = Some(trouble());
    let keeper = format!("{FIVE}  keeper: {{ roles: [backup], address: 192.0.2.6 }}\n");
    let begins = World::bare(&keeper).plan();
    let error = context.tell_of_bucket(&begins).unwrap_err();
    assert_eq!(error.code(), Code::BucketMissing);

    // Another round of the same run comes after it, which may begin them.
    let mut plan = World::settled(&keeper).plan();
    plan.partial = true;
    context.tell_of_bucket(&plan).unwrap();
    plan.partial = false;
    let shown = context.bucket_allows(&plan).unwrap();
    assert_eq!(shown.as_deref(), Some("there is none; make one"));
    for _ in 0..2 {
        context.tell_of_bucket(&plan).unwrap();
    }
    let said = scene.somebody.said.lock().unwrap().clone();
    assert_eq!(said, ["note: there is none; make one"], "it is said once");
}
