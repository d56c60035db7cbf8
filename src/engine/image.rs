//! Prepared images: `image build`, `list` and `remove`, and what `plan`, `status` and `down` say of them.
//!
//! An image is made from a host of its own, in a cluster of its own, with a name that no inventory can have. So
//! everything of a build is found by its label, whatever its result, and nothing of the real cluster ever gets
//! into an image.

use std::{cell::Cell, time::Duration};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    context::{Context, Source},
    operator::{Question, consent},
    run::Run,
    taken::{Leftovers, Taken},
};
use crate::{
    error::{Code, Error, Result},
    event::Events,
    facts::Facts,
    inventory::{Host, HostName, Inventory, Provider, Role, SecretsSource},
    machine::Machine,
    plan,
    prepared::{self, Choice, Contents, Prepared, Recipe},
    provider::{Access, Resource},
    services::When,
    workspace::Workspace,
};

/// The host that becomes an image.
const BUILDER: &str = "builder";
/// How long the removal of a build's resources may take after the user wants to stop.
pub(crate) const CLEARANCE: Duration = Duration::from_secs(600);

/// An image, and whether the inventory's hosts would be created from it.
pub(crate) struct Listed {
    pub image: Prepared,
    pub used_next: bool,
}

/// What exists, and what is missing.
pub(crate) struct List {
    pub images: Vec<Listed>,
    /// What the inventory's hosts need and no image holds.
    pub missing: Vec<Recipe>,
    /// Whether the inventory asks for a prepared image.
    pub asked_for: bool,
}

/// The context of a build: the host that becomes an image, and nothing of the cluster.
pub(crate) fn context(source: Source<'_>) -> Result<Context> {
    let inventory = builder(&source.inventory);
    let context = Context::new(
        Source {
            inventory,
            ..source
        },
        Workspace::open,
    )?;
    keeps_images(&context)?;
    Ok(context)
}

fn keeps_images(context: &Context) -> Result<()> {
    match context.provider.keeps_images() {
        true => Ok(()),
        false => Err(Error::new(
            Code::Unsupported,
            "there are no prepared images for hosts that are there already",
        )
        .hint("they are for `kind: docker` and `kind: aws`: docs/images.md")),
    }
}

/// An inventory of one host that holds what any host of the cluster may need, and nothing of the cluster
/// itself.
fn builder(inventory: &Inventory) -> Inventory {
    let mut builder = inventory.clone();
    // No cluster has such a name: an inventory's name has no dot.
    builder.cluster = format!("image.{}", inventory.cluster);
    builder.secrets = SecretsSource::default();
    // It is no cluster, and nothing of it is shared.
    builder.state = None;
    builder.ssh.identity_file = None;
    // It has the user's key, and this host accepts one of its own.
    builder.ssh.agent = None;
    builder.ssh.keep_alive = 0;
    builder.tls.enabled = false;
    builder.postgresql.allow.clear();
    builder.postgresql.users.clear();
    builder.postgresql.databases.clear();
    builder.postgresql.parameters.clear();
    // Nothing on it opens the bucket with the backups.
    builder.backup.s3 = None;
    let name = HostName::new(BUILDER);
    let host = Host {
        roles: inventory
            .roles()
            .filter(|role| *role != Role::Backup || inventory.wants(When::Backups))
            .filter(|role| *role != Role::Monitoring || inventory.wants(When::Monitoring))
            .collect(),
        address: None,
    };
    builder.hosts = [(name.clone(), host)].into_iter().collect();
    builder.provider = match &inventory.provider {
        Provider::Docker(settings) => Provider::Docker(settings.of_builder()),
        Provider::Aws(settings) => Provider::Aws(Box::new(settings.of_builder(&name))),
        Provider::Existing => Provider::Existing,
    };
    builder
}

/// Makes an image of what the inventory's hosts need.
pub(crate) async fn build(context: &Context, cancel: &CancellationToken) -> Result<Prepared> {
    let taken = Taken::by(context, "image build", Leftovers::Leave, cancel).await?;
    // Made now, because everything that is created for the build has the id.
    context.secrets()?;
    let cleared = Cell::new(false);
    let built = taken
        .run(async |run| {
            let cleared = &cleared;
            Build { run, cleared }.all().await
        })
        .await;
    // Unless something is left that has the id in there.
    if cleared.get() {
        context.workspace.remove(taken.lock(), false)?;
    }
    built
}

struct Build<'a> {
    run: &'a Run<'a>,
    /// Whether nothing of the build is left.
    cleared: &'a Cell<bool>,
}

impl Build<'_> {
    async fn all(&self) -> Result<Prepared> {
        let Run {
            context, cancel, ..
        } = self.run;
        let left = self.resources().await?;
        if !left.is_empty() {
            let names = in_words(&left);
            context.operator.say(&format!(
                "note: an earlier build left {names}: removed first"
            ));
            context.provider.remove(&left, &self.run.events).await?;
        }
        self.cleared.set(true);
        let hosts = [HostName::new(BUILDER)];
        let key = context.workspace.identity()?.public_key;
        let preflight = tokio::select! {
            preflight = context.provider.preflight(&hosts, &key) => preflight?,
            () = cancel.cancelled() => return Err(Error::interrupted().left("nothing was made")),
        };
        let recipes = context.provider.recipes().await?;
        let question = Question::Prepare {
            recipes: &recipes,
            preflight: &preflight,
        };
        consent(context.operator.as_ref(), question).await?;
        self.cleared.set(false);
        let made = tokio::select! {
            made = self.make(&hosts, key) => made,
            () = cancel.cancelled() => Err(Error::interrupted().left("no image was made")),
        };
        // In any case, everything that was created for it is removed.
        context.connections.close(false).await;
        let cleared = async {
            let made_for_it = self.resources().await?;
            context
                .provider
                .remove(&made_for_it, &self.run.events)
                .await?;
            self.cleared.set(true);
            Ok::<(), Error>(())
        };
        match (made, cleared.await) {
            (made, Ok(())) => made,
            (Ok(image), Err(error)) => Err(error
                .left(format!("the image {} was made", image.id))
                .hint("run `pgherd image build` again: it removes the rest first")),
            (Err(error), Err(second)) => Err(Error::several(
                "no image was made, and what was made for it is still there",
                vec![error, second],
            )
            .hint("run `pgherd image build` again: it removes the rest first")),
        }
    }

    async fn make(&self, hosts: &[HostName], public_key: String) -> Result<Prepared> {
        let Run {
            context, events, ..
        } = self.run;
        let access = Access {
            user: context.inventory.ssh.user.clone(),
            public_key,
            cluster_id: context.secrets()?.cluster_id,
            holder: context.connections.holder(),
        };
        let machines = context.provider.launch(hosts, &access, events).await?;
        let facts = self.provision(&machines).await?;
        // The lease is given back while its host still exists.
        context.connections.close(false).await;
        let [machine] = &machines[..] else {
            return Err(Error::new(
                Code::InternalError,
                "an image is made of one host",
            ));
        };
        let os = &facts.os;
        let requirements = context.templates.text(prepared::REQUIREMENTS);
        let contents = Contents {
            digest: Recipe::of(&context.inventory, os, requirements).digest(),
            system: os.pretty.clone(),
            architecture: os.arch.clone(),
            versions: facts.software(),
            made: Timestamp::now(),
        };
        context.provider.capture(machine, &contents, events).await
    }

    /// Installs everything that an image holds; returns its contents. Nobody can log in afterwards.
    async fn provision(&self, machines: &[Machine]) -> Result<Facts> {
        let Run {
            context,
            events,
            cancel,
            ..
        } = self.run;
        context
            .on(machines, events, async |connected| {
                let observed = connected.look().await?.whole()?;
                let plan = plan::image(&observed.cluster, &observed.files, &observed.found)?;
                connected.announce(&plan);
                connected.carry_out(plan, &observed.cluster, cancel).await?;
                let mut observed = connected.look().await?.whole()?;
                let (cluster, files) = (&observed.cluster, &observed.files);
                let clean = plan::clean_for_image(cluster, files, &observed.found);
                connected.carry_out(clean, cluster, cancel).await?;
                let facts = observed.found.facts.remove(&HostName::new(BUILDER));
                facts.ok_or_else(|| {
                    Error::new(
                        Code::InternalError,
                        "the host of the image was not looked at",
                    )
                })
            })
            .await
    }

    /// Everything of this or an earlier build from this folder.
    async fn resources(&self) -> Result<Vec<Resource>> {
        let context = self.run.context;
        let ours = context.workspace.cluster_id()?;
        let (own, others): (Vec<_>, Vec<_>) = context
            .provider
            .resources()
            .await?
            .into_iter()
            .partition(|it| it.cluster_id.is_none() || it.cluster_id == ours);
        if others.is_empty() {
            return Ok(own);
        }
        Err(Error::new(
            Code::HostOfAnotherCluster,
            "a build of such an image is at work elsewhere, or was killed there",
        )
        .cause(format!("made from another folder: {}", in_words(&others)))
        .left("nothing was made")
        .hint("wait until it has ended; one that was killed is cleared by `pgherd image build` in its own folder")
        .hint("if that folder is lost, remove what is named here by hand"))
    }
}

fn in_words(resources: &[Resource]) -> String {
    let words = resources.iter();
    let words: Vec<String> = words
        .map(|it| format!("{} {} ({})", it.kind, it.name, it.id))
        .collect();
    words.join(", ")
}

/// The existing images, and which of them the inventory's hosts would be created from.
pub(crate) async fn list(context: &Context) -> Result<List> {
    keeps_images(context)?;
    let (images, recipes) =
        tokio::try_join!(context.provider.images(), context.provider.recipes())?;
    let taken: Vec<Option<&Prepared>> = recipes
        .iter()
        .map(|recipe| prepared::newest(&images, recipe))
        .collect();
    let missing = recipes.iter().zip(&taken);
    let missing = missing
        .filter(|(_, taken)| taken.is_none())
        .map(|(recipe, _)| recipe.clone())
        .collect();
    let is_taken = |image: &Prepared| taken.iter().flatten().any(|it| it.id == image.id);
    let listed = images.iter().map(|image| Listed {
        image: image.clone(),
        used_next: is_taken(image),
    });
    Ok(List {
        images: listed.collect(),
        missing,
        asked_for: context.inventory.provider.is_prepared(),
    })
}

/// Removes an image that pgherd has made and that no host was created from.
pub(crate) async fn remove(
    context: &Context,
    id: &str,
    cancel: &CancellationToken,
) -> Result<Prepared> {
    keeps_images(context)?;
    let images = context.provider.images().await?;
    let image = named(&images, id)?;
    if !image.used_by.is_empty() {
        return Err(Error::new(
            Code::ImageInUse,
            format!("the image {} is in use", image.id),
        )
        .cause(format!("hosts made from it: {}", image.used_by.join(", ")))
        .left("nothing was removed"));
    }
    consent(context.operator.as_ref(), Question::Discard { image }).await?;
    let (events, _quiet) = Events::channel();
    tokio::select! {
        removed = context.provider.discard(image, &events) => removed?,
        () = cancel.cancelled() => return Err(Error::interrupted()
            .left("some of it may be gone already")
            .hint("run the same command again: it removes the rest")),
    }
    let left = context.provider.images().await?;
    match left.iter().any(|it| it.id == image.id) {
        true => Err(Error::new(
            Code::LeftoversRemain,
            format!("the image {} is still there", image.id),
        )),
        false => Ok(image.clone()),
    }
}

/// The image with this id or name, or whose id begins with it.
fn named<'a>(images: &'a [Prepared], id: &str) -> Result<&'a Prepared> {
    let exact = images.iter().find(|it| it.id == id || it.name == id);
    let bare = id.trim_start_matches("sha256:");
    let begins =
        |it: &&Prepared| bare.len() >= 4 && (it.id.starts_with(bare) || bare.starts_with(&it.id));
    let near: Vec<&Prepared> = images.iter().filter(begins).collect();
    match (exact, &near[..]) {
        (Some(image), _) => Ok(image),
        (None, [image]) => Ok(image),
        (None, several) => {
            let error = Error::new(
                Code::ImageUnknown,
                match several {
                    [] => format!("there is no prepared image {id}"),
                    _ => format!("several images begin with {id}"),
                },
            )
            .left("nothing was removed");
            let ids: Vec<&str> = images.iter().map(|it| it.id.as_str()).collect();
            Err(match ids.is_empty() {
                true => error.cause("pgherd has made no image here"),
                false => error.cause(format!("those that pgherd has made: {}", ids.join(", "))),
            })
        }
    }
}

/// What `plan` says of the image for new hosts: which one it is, and what to know about it.
pub(super) fn told(context: &Context, choice: &Choice) -> (Option<String>, Vec<String>) {
    let build = context.command("image build");
    match choice {
        Choice::Found(image) => {
            let note = format!(
                "hosts are made from the prepared image {} of {} ({})",
                image.id,
                image.date(),
                image.holds
            );
            (Some(note), aged(image, &build))
        }
        Choice::Missing(recipe) => {
            let doubt = format!(
                "no prepared image holds {}; hosts are made from the base image; make one: {build}",
                recipe.in_words()
            );
            (None, vec![doubt])
        }
    }
}

fn aged(image: &Prepared, build: &str) -> Vec<String> {
    let reasons = image.aged(Timestamp::now()).into_iter();
    reasons
        .map(|reason| {
            format!(
                "the prepared image {} has aged: {reason}; make another: {build}",
                image.id
            )
        })
        .collect()
}

/// The image that hosts would be made from next; none where the inventory asks for none, or where images cannot be
/// looked at now.
pub(crate) async fn next(context: &Context) -> Option<Choice> {
    if !context.inventory.provider.is_prepared() {
        return None;
    }
    let list = list(context).await.ok()?;
    let mut listed = list.images.into_iter();
    let found = listed.find(|listed| listed.used_next);
    let found = found.map(|listed| Choice::Found(listed.image));
    found.or_else(|| list.missing.into_iter().next().map(Choice::Missing))
}

/// What `status` says of the image for the next hosts; `None` if it is not too old, or if images cannot be
/// looked at now.
pub(crate) async fn notes(context: &Context) -> Vec<String> {
    if !context.inventory.provider.is_prepared() {
        return Vec::new();
    }
    let Ok(list) = list(context).await else {
        return Vec::new();
    };
    let build = context.command("image build");
    let next = list.images.iter().filter(|listed| listed.used_next);
    next.flat_map(|listed| aged(&listed.image, &build))
        .collect()
}

/// What `down` says of images that stay; `None` if there are none, or if they cannot be looked at.
pub(crate) async fn stays(context: &Context) -> Option<String> {
    if !context.provider.keeps_images() {
        return None;
    }
    let images = context.provider.images().await.ok()?;
    let ids: Vec<&str> = images.iter().map(|image| image.id.as_str()).collect();
    let what = match ids.len() {
        0 => return None,
        1 => format!("the prepared image {}", ids[0]),
        _ => format!("the prepared images {}", ids.join(", ")),
    };
    let list = context.command("image list");
    Some(format!("{what}, for any cluster; see: {list}"))
}

#[cfg(test)]
mod tests {
    use crate::{
        inventory::Role,
        plan::tests::world::{cluster, cluster_of},
        render::{Templates, render},
    };

    #[test]
    fn the_files_of_a_builder_can_be_rendered_with_a_vip_and_without() {
        let hosts = "\n  a: { roles: [haproxy, postgres, etcd], address: 192.0.2.1 }\
                     \n  b: { roles: [haproxy], address: 192.0.2.2 }";
        for (extra, moves) in [("", false), ("haproxy: { vip: 192.0.2.9 }", true)] {
            let mut cluster = cluster_of(super::builder(&cluster(extra, hosts).inventory));
            cluster.secrets.vrrp = cluster.secrets.vrrp.filter(|_| moves);
            let has = cluster.with_role(Role::Keepalived).count();
            assert_eq!(has, usize::from(moves), "{extra}");
            render(&cluster, &Templates::embedded().unwrap()).unwrap();
        }
    }
}
