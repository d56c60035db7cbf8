//! `status --watch` while another run begins and ends.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::apply::brought_up;
use crate::{
    engine::watch::{self, Watcher},
    holder::{Holder, Tenant},
};

async fn until(watcher: &Watcher<'_>, is_at_work: bool) -> Option<String> {
    let look = async {
        loop {
            let picture = watcher.picture();
            if picture.at_work.is_some() == is_at_work {
                return picture.at_work.map(|work| work.to_string());
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), look)
        .await
        .expect("it is seen")
}

#[tokio::test]
async fn who_watches_sees_a_run_come_and_go() {
    let scene = brought_up().await;
    let context = scene.context();
    let hosts = context.host_status().await.unwrap();
    let is_held = |tenant: Option<Tenant>| {
        scene
            .hosts
            .meddle(|world| world.facts("node2").tenant = tenant);
    };
    let watched = watch::watch(&context, &hosts, async |watcher| {
        assert_eq!(watcher.picture().at_work, None);
        is_held(Some(Tenant {
            holder: Holder::now("rotate"),
            silent: 1,
        }));
        let told = until(watcher, true).await.unwrap_or_default();
        assert!(told.contains("`rotate` by "), "{told}");
        let seen = serde_json::to_value(watcher.picture()).unwrap();
        assert_eq!(seen["at_work"]["hosts"], serde_json::json!(["node2"]));
        is_held(None);
        until(watcher, false).await;
    });
    watched.await.unwrap();
}
