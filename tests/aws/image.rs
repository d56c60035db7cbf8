//! Which image hosts are made from.

use pgherd::provider;

use crate::{
    proxy::{Call, Verdict},
    support::{FIVE, KEY, Lab, hosts, launch},
};

const OLDER: &str = "ami-0aaaaaaaaaaaaaaa1";
const NEWEST: &str = "ami-0aaaaaaaaaaaaaaa2";

/// Canonical's parameter comes first. moto has none, so the other tests here list images.
pub(crate) async fn what_canonical_publishes_is_taken() {
    let lab = Lab::new("published").await;
    let provider = || provider::from_inventory(&lab.five("  image: ubuntu-24.04\n")).unwrap();
    let says = |id: &'static str| {
        move |call: &Call| match call.action == "ssm:GetParameter" {
            true => Verdict::Answer(format!(
                r#"{{"Parameter":{{"Type":"String","Value":"{id}"}}}}"#
            )),
            false => Verdict::Pass,
        }
    };
    lab.proxy.judge(says(OLDER));
    let lines = provider()
        .preflight(&hosts(), KEY)
        .await
        .unwrap()
        .made
        .join("\n");
    assert!(
        lines.contains(&format!("of the image {OLDER} (ubuntu/images/hvm-ssd-gp3/")),
        "{lines}"
    );
    let calls = lab.proxy.take();
    let asked: Vec<&Call> = calls
        .iter()
        .filter(|it| it.action == "ssm:GetParameter")
        .collect();
    assert_eq!(asked.len(), 1, "once for all hosts");
    let name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id";
    assert!(asked[0].body.contains(name), "{}", asked[0].body);

    // It names a missing image, may not be read, or is missing itself.
    lab.proxy.judge(says("ami-0123456789abcdef0"));
    let lines = provider()
        .preflight(&hosts(), KEY)
        .await
        .unwrap()
        .made
        .join("\n");
    assert!(lines.contains(NEWEST), "{lines}");
    lab.proxy
        .judge(|call| match call.action == "ssm:GetParameter" {
            true => Verdict::Refuse("AccessDeniedException"),
            false => Verdict::Pass,
        });
    let lines = provider()
        .preflight(&hosts(), KEY)
        .await
        .unwrap()
        .made
        .join("\n");
    assert!(lines.contains(NEWEST), "{lines}");
    lab.proxy.pass_all();
    let lines = provider()
        .preflight(&hosts(), KEY)
        .await
        .unwrap()
        .made
        .join("\n");
    assert!(lines.contains(NEWEST), "{lines}");
    assert_eq!(lab.left().await, [""; 0]);
}

/// A host that is created later has the image of the others, even if there is a newer one.
pub(crate) async fn the_image_is_kept() {
    let lab = Lab::new("image").await;
    let mine = [("pgherd:cluster", "image"), ("pgherd:host", "node1")];
    let image = ("pgherd:image", "ubuntu-24.04");
    lab.stray(OLDER, &[mine[0], mine[1], image]).await;
    let inventory = lab.five("  image: ubuntu-24.04\n");
    let provider = provider::from_inventory(&inventory).unwrap();
    launch(&*provider, &FIVE[1..3], &lab.events).await.unwrap();
    assert!(
        lab.instances()
            .await
            .iter()
            .all(|it| it.image_id() == Some(OLDER))
    );
    lab.remove().await.unwrap();
    let provider = provider::from_inventory(&inventory).unwrap();
    launch(&*provider, &FIVE[1..2], &lab.events).await.unwrap();
    assert!(
        lab.instances()
            .await
            .iter()
            .all(|it| it.image_id() == Some(NEWEST))
    );
    lab.remove().await.unwrap();
}
