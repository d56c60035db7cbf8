//! Builds a host image from a distribution's container image, for machines without debootstrap or without
//! root: the engine has root.

use std::{collections::HashMap, env, time::Duration};

use bollard::{
    container::LogOutput,
    models::{ContainerConfig, ContainerCreateBody, HostConfig},
    query_parameters::{
        CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, LogsOptionsBuilder,
        StartContainerOptions,
    },
};
use futures_util::StreamExt;

use super::{
    build::{BUILD_TIMEOUT, PROXY_VARIABLES, Progress, SCRIPT},
    container,
    engine::{self, Engine},
};
use crate::{
    error::{Code, Error, Result},
    event::Events,
    poll,
};

/// The script's last line when it is executed; without this line it is a library.
const START: &str = "main \"$@\"";
const CONVERT: &str = include_str!("convert.sh");

/// How long a container may run after the end of its log.
const ENDING: Duration = Duration::from_secs(30);

/// Makes the image `tag` from `base`, which the engine has.
pub(super) async fn convert(engine: &Engine, tag: &str, base: &str, events: &Events) -> Result<()> {
    let name = tag.replace(':', "-");
    // Left by an interrupted build.
    if container::exists(engine, &name).await? {
        container::remove(engine, &name, &name).await?;
    }
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    engine::call(
        &format!("create the container {name}"),
        engine.api().create_container(Some(options), body(base)),
    )
    .await?;
    let made = tokio::time::timeout(BUILD_TIMEOUT, run(engine, tag, &name, events)).await;
    let made = made.unwrap_or_else(|_| {
        let minutes = BUILD_TIMEOUT.as_secs() / 60;
        Err(failed(tag).cause(format!("it was not complete after {minutes} minutes")))
    });
    let removed = container::remove(engine, &name, &name).await;
    made.and(removed)
}

async fn run(engine: &Engine, tag: &str, name: &str, events: &Events) -> Result<()> {
    engine::call(
        &format!("start the container {name}"),
        engine
            .api()
            .start_container(name, None::<StartContainerOptions>),
    )
    .await?;
    let mut progress = Progress::new(tag, events);
    let options = LogsOptionsBuilder::default()
        .follow(true)
        .stdout(true)
        .stderr(true)
        .build();
    let mut log = engine.streaming(BUILD_TIMEOUT).logs(name, Some(options));
    // The log ends when the container does.
    while let Some(output) = log.next().await {
        match output {
            Ok(LogOutput::StdErr { message } | LogOutput::StdOut { message }) => {
                for line in String::from_utf8_lossy(&message).lines() {
                    progress.line(line);
                }
            }
            Ok(_) => {}
            Err(error) => return Err(failed(tag).cause(engine::message(&error))),
        }
    }
    let code = exit_code(engine, name).await?;
    if code != 0 {
        return Err(failed(tag)
            .cause(format!("its script ended with code {code}"))
            .excerpt("the end of its output", progress.tail())
            .hint("see whether containers reach the package mirrors: docker run --rm debian:12 apt-get update"));
    }
    let (repository, version) = tag.split_once(':').unwrap_or((tag, "latest"));
    let options = CommitContainerOptionsBuilder::default()
        .container(name)
        .repo(repository)
        .tag(version)
        .build();
    // The name is given with the complete image, never before.
    let config = ContainerConfig {
        entrypoint: Some(vec![container::INIT.to_owned()]),
        cmd: Some(Vec::new()),
        ..Default::default()
    };
    let client = engine.streaming(BUILD_TIMEOUT);
    client
        .commit_container(options, config)
        .await
        .map_err(|error| engine::could_not(&format!("make the image {tag}"), &error))?;
    Ok(())
}

/// The exit code of a container whose log has ended.
async fn exit_code(engine: &Engine, name: &str) -> Result<i64> {
    let ended = poll::until_found(ENDING, Duration::from_millis(100), || async {
        let described = container::describe(engine, name).await?;
        let state = described.state.unwrap_or_default();
        let code = state.exit_code.unwrap_or(-1);
        Ok::<_, Error>((state.running != Some(true)).then_some(code))
    });
    ended.await?.ok_or_else(|| {
        let seconds = ENDING.as_secs();
        Error::new(
            Code::EngineFailed,
            format!("the container {name} has closed its log, and still runs after {seconds} s"),
        )
        .hint("see whether `docker ps` answers; if not, restart the engine")
    })
}

fn body(base: &str) -> ContainerCreateBody {
    let variables = PROXY_VARIABLES
        .iter()
        .filter_map(|name| Some(format!("{name}={}", env::var(name).ok()?)));
    ContainerCreateBody {
        image: Some(base.to_owned()),
        user: Some("root".into()),
        entrypoint: Some(vec!["bash".into(), "-c".into(), script()]),
        cmd: Some(Vec::new()),
        env: Some(variables.collect()),
        host_config: Some(HostConfig {
            // It binds the root filesystem to another place, to reach what is under mounts.
            cap_add: Some(vec!["SYS_ADMIN".into()]),
            security_opt: Some(vec![
                "seccomp=unconfined".into(),
                "apparmor=unconfined".into(),
            ]),
            tmpfs: Some(HashMap::from([("/run".into(), "exec".into())])),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The functions of the build with debootstrap, and the part that uses them here.
fn script() -> String {
    let functions = SCRIPT.trim_end().trim_end_matches(START);
    format!("{functions}{CONVERT}")
}

fn failed(tag: &str) -> Error {
    Error::new(
        Code::ImageUnavailable,
        format!("the host image {tag} could not be built"),
    )
    .left("the engine has no such image; hosts that exist are as they were")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_taken_as_a_library() {
        assert!(
            SCRIPT.trim_end().ends_with(&format!("\n{START}")),
            "scripts/host-image must end in {START}"
        );
        assert!(!script().contains(START));
        for function in ["step", "in_root", "in_root_apt", "configure"] {
            assert!(
                SCRIPT.contains(&format!("\n{function}() {{\n")),
                "{function}"
            );
        }
        let checked = std::process::Command::new("bash")
            .args(["-n", "-c", &script()])
            .status()
            .unwrap();
        assert!(checked.success());
    }
}

/// Tests that need a container engine, root, debootstrap and minutes.
#[cfg(all(test, feature = "engine-tests"))]
mod engine_tests {
    use std::path::Path;

    use super::*;
    use crate::{
        inventory::{self, HostName, Inventory},
        provider::{Access, Provider, docker::DockerProvider},
    };

    #[tokio::test]
    async fn a_distribution_image_becomes_a_host() {
        let base = "localhost/pgherd-test-base:1";
        let made = std::process::Command::new("bash")
            .args([
                "-euc",
                "codename=$(. /etc/os-release && echo $VERSION_CODENAME)
                dir=$(mktemp -d); trap 'rm -rf --one-file-system $dir' EXIT
                debootstrap --variant=minbase $codename $dir/root >&2
                tar -C $dir/root -c . | docker import - $0",
                base,
            ])
            .status()
            .unwrap();
        assert!(made.success());
        let engine = Engine::connect().await.unwrap();
        let (events, _seen) = Events::channel();
        let tag = "pgherd-host:converted-test";
        convert(&engine, tag, base, &events).await.unwrap();
        let host = HostName::new("node1");
        // scripts/test removes everything with this label if the test is interrupted.
        let run =
            std::env::var("PGHERD_LAB_RUN").unwrap_or_else(|_| std::process::id().to_string());
        let text = format!(
            "cluster: pgherd-test-{run}-converted\nprovider: {{ kind: docker, image: '{tag}' }}\n\
             hosts: {{ node1: {{ roles: [postgres, etcd, haproxy] }} }}\n"
        );
        let inventory = Inventory::parse(Path::new("pgherd.yaml"), &text).unwrap();
        let inventory::Provider::Docker(settings) = &inventory.provider else {
            unreachable!()
        };
        let settings = inventory::Docker {
            unpublished: true,
            ..settings.clone()
        };
        let provider = DockerProvider::new(&inventory, &settings, "");
        let access = Access {
            user: "ubuntu".into(),
            public_key: "ssh-ed25519 AAAA".into(),
            cluster_id: "0a1b".into(),
            holder: crate::holder::Holder::now("up"),
        };
        let launched = provider.launch(&[host], &access, &events).await;
        let resources = provider.resources().await.unwrap();
        let sudo = std::process::Command::new("docker")
            .args(["exec", "--user", "ubuntu", &resources[0].name])
            .args(["sudo", "-n", "systemctl", "is-active", "ssh"])
            .output()
            .unwrap();
        provider.remove(&resources, &events).await.unwrap();
        let removed = std::process::Command::new("docker")
            .args(["rmi", tag, base])
            .output()
            .unwrap();
        assert!(removed.status.success());
        assert_eq!(launched.unwrap().len(), 1);
        assert_eq!(String::from_utf8_lossy(&sudo.stdout).trim(), "active");
    }
}
