//! Prepared images: made of an instance, found by their tags, used, and removed with their snapshots.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::Tag;
use pgherd::{
    inventory::HostName,
    prepared::{Choice, Contents, Size},
    provider,
};

use crate::{
    proxy::Verdict,
    support::{FIVE, KEY, Lab, hosts, launch, tag},
};

const NEWEST_MINIMAL: &str = "ami-0bbbbbbbbbbbbbbb2";

#[expect(
    clippy::too_many_lines,
    reason = "it is one story, told from its begin to its end"
)]
pub(crate) async fn an_image_comes_and_goes_with_its_snapshot() {
    let lab = Lab::new("images").await;
    let provider = || provider::from_inventory(&lab.five("  image: prepared\n")).unwrap();

    // If there is none, the base is used, and the missing contents are reported.
    let outlook = provider().preflight(&hosts(), KEY).await.unwrap();
    let Some(Choice::Missing(recipe)) = outlook.prepared else {
        panic!("{outlook:?}");
    };
    assert_eq!(recipe.architecture(), "x86_64");
    assert_eq!(
        provider().recipes().await.unwrap(),
        std::slice::from_ref(&recipe)
    );
    assert!(outlook.made.join("\n").contains(NEWEST_MINIMAL));
    assert_eq!(provider().images().await.unwrap(), []);

    let machines = lab.launch(&["node1"]).await.unwrap();
    let contents = Contents {
        digest: recipe.digest(),
        system: "Ubuntu 24.04.3 LTS".into(),
        architecture: "x86_64".into(),
        versions: BTreeMap::from([("postgresql-16".into(), "16.11".into())]),
        made: "2026-11-27T03:04:05Z".parse().unwrap(),
    };
    lab.proxy.take();
    let image = provider()
        .capture(&machines[0], &contents, &lab.events)
        .await
        .unwrap();
    let calls = lab.proxy.take();
    let stop = calls.iter().find(|it| it.is("StopInstances")).unwrap();
    assert_eq!(stop.parameter("SkipOsShutdown"), None, "it writes all out");
    assert_eq!(
        image.base,
        format!("ubuntu-24.04-minimal ({NEWEST_MINIMAL})")
    );
    assert_eq!(image.holds, "postgresql-16 16.11");
    assert!(
        matches!(image.size, Size::Snapshot(gib) if gib > 0),
        "{image:?}"
    );
    assert_eq!((&image.unfit, &image.superseded_by), (&None, &None));

    // The host that it was made from is removed, and the image stays.
    lab.remove().await.unwrap();
    assert_eq!(
        provider().images().await.unwrap(),
        std::slice::from_ref(&image)
    );
    let found = lab
        .ec2
        .describe_images()
        .image_ids(&image.id)
        .send()
        .await
        .unwrap();
    let ami = &found.images()[0];
    assert_eq!(tag(ami.tags(), "pgherd:prepared"), recipe.digest());
    assert_eq!(tag(ami.tags(), "pgherd:cluster"), "", "it is no cluster's");
    let volume = ami.block_device_mappings()[0].ebs().unwrap();
    let snapshot = volume.snapshot_id().unwrap().to_owned();

    let outlook = provider().preflight(&hosts(), KEY).await.unwrap();
    assert_eq!(outlook.prepared, Some(Choice::Found(image.clone())));
    launch(&*provider(), &FIVE, &lab.events).await.unwrap();
    for instance in lab.instances().await {
        assert_eq!(instance.image_id(), Some(image.id.as_str()));
    }
    let used = provider().images().await.unwrap().remove(0).used_by;
    assert_eq!(used.len(), 5);
    assert!(
        used.iter().any(|it| it.starts_with("images-node1 (i-")),
        "{used:?}"
    );
    lab.remove().await.unwrap();

    // A removal that is interrupted leaves a snapshot, which is named and can be removed by its own id. EC2
    // tags it with the image, moto does not.
    let tags = ami.tags().iter().map(|tag| {
        let (key, value) = (tag.key().unwrap(), tag.value().unwrap());
        Tag::builder().key(key).value(value).build()
    });
    lab.ec2
        .create_tags()
        .resources(&snapshot)
        .set_tags(Some(tags.collect()))
        .send()
        .await
        .unwrap();
    assert_eq!(
        provider().images().await.unwrap(),
        std::slice::from_ref(&image)
    );
    lab.proxy.judge(|call| match call.is("DeleteSnapshot") {
        true => Verdict::Refuse("UnauthorizedOperation"),
        false => Verdict::Pass,
    });
    let error = provider().discard(&image, &lab.events).await.unwrap_err();
    assert!(
        error.left_behind().unwrap().contains(&snapshot),
        "{error:?}"
    );
    lab.proxy.pass_all();
    let left = provider().images().await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].id, snapshot);
    assert!(left[0].unfit.is_some());
    let outlook = provider().preflight(&[HostName::new("node1")], KEY).await;
    assert!(matches!(
        outlook.unwrap().prepared,
        Some(Choice::Missing(_))
    ));
    provider().discard(&left[0], &lab.events).await.unwrap();
    assert_eq!(provider().images().await.unwrap(), []);
    let gone = lab.ec2.describe_snapshots().snapshot_ids(&snapshot);
    assert!(gone.send().await.is_err(), "{snapshot} is still there");
}
