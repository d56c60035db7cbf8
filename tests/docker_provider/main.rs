//! The Docker provider against a real engine.
//!
//! Not part of a plain `cargo test`, because it needs an engine and fails without one: `cargo test --test
//! docker_provider`. It makes the host image if the engine does not have it.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    collections::HashMap,
    io::Write,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    time::{Duration, Instant},
};

use bollard::{
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, StopContainerOptionsBuilder,
    },
};
use pgherd::{
    error::Code,
    event::HostState,
    holder::Holder,
    inventory::{HostName, Role},
    provider::{CLUSTER_LABEL, HOST_LABEL, MachineState, Preflight},
};

use lab::{
    KEY, Lab, engine, exec, greeting, host_image, lab_image, make_network, remove_container,
    scanned,
};

mod lab;
#[path = "../lab/ports.rs"]
mod ports;
#[path = "../lab/run.rs"]
mod run;

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "it is one story, told from its begin to its end"
)]
async fn five_hosts_come_stay_and_go() {
    use Role::{Etcd, Haproxy, Postgres};
    let mut lab = Lab::new(
        "five",
        &[
            ("node1", Postgres),
            ("node2", Postgres),
            ("node3", Postgres),
            ("node4", Etcd),
            ("haproxy", Haproxy),
        ],
    );
    let provider = lab.provider();
    assert_eq!(provider.discover().await.unwrap(), []);
    let lines = provider.preflight(&lab.hosts(), KEY).await.unwrap().made;
    assert!(
        lines.iter().any(|line| line.starts_with("network ")),
        "{lines:?}"
    );
    assert_eq!(
        provider.resources().await.unwrap(),
        [],
        "preflight made something"
    );

    let began = Instant::now();
    let launched = lab.launch().await.unwrap();
    println!("launch: {:.2?}", began.elapsed());
    assert_eq!(launched.len(), 5);

    let began = Instant::now();
    let found = lab.discover().await;
    println!("discover, connecting included: {:.2?}", began.elapsed());
    let began = Instant::now();
    provider.discover().await.unwrap();
    println!("discover: {:.2?}", began.elapsed());
    for machine in &launched {
        assert_eq!(&found[machine.host.as_str()], machine);
        assert_eq!(machine.state, MachineState::Running);
        assert!(
            machine
                .host_key
                .as_ref()
                .unwrap()
                .starts_with("ssh-ed25519 AAAA")
        );
        // sshd proves itself with the key that the provider reported.
        assert_eq!(
            Some(scanned(machine.address.unwrap()).await),
            machine.host_key
        );
    }
    // In the inventory's order, from the eleventh on.
    let last: Vec<u8> = launched
        .iter()
        .map(|m| m.address.unwrap().octets()[3])
        .collect();
    assert_eq!(last, [11, 12, 13, 14, 15]);
    let published: Vec<bool> = launched.iter().map(|m| m.published_on.is_some()).collect();
    assert_eq!(published, [false, false, false, false, true]);
    assert_eq!(
        lab.states_of("node1"),
        [HostState::Creating, HostState::Starting, HostState::Created]
    );

    // Only this user can read the key, and sshd accepts it.
    let stat = [
        "stat",
        "-c",
        "%a %U %n",
        "/home/ubuntu/.ssh",
        "/home/ubuntu/.ssh/authorized_keys",
    ];
    assert_eq!(
        exec(&lab.container("node1"), &stat).await,
        "700 ubuntu /home/ubuntu/.ssh\n600 ubuntu /home/ubuntu/.ssh/authorized_keys\n"
    );
    assert_eq!(
        exec(&lab.container("node3"), &["hostname"]).await.trim(),
        "node3"
    );
    // Each host reaches the others by name, and names outside.
    exec(&lab.container("node1"), &["getent", "hosts", "node2"]).await;

    // A second time changes nothing, not even the list of keys.
    assert_eq!(lab.launch().await.unwrap(), launched);
    let keys = exec(
        &lab.container("node1"),
        &["cat", "/home/ubuntu/.ssh/authorized_keys"],
    )
    .await;
    assert_eq!(keys, format!("{KEY}\n"));
    assert_eq!(
        lab.provider().preflight(&[], KEY).await.unwrap(),
        Preflight::default()
    );

    // A stopped host keeps its address and its key when it starts again.
    let stop = StopContainerOptionsBuilder::default().t(20).build();
    let began = Instant::now();
    engine()
        .stop_container(&lab.container("node2"), Some(stop))
        .await
        .unwrap();
    println!("stop: {:.2?}", began.elapsed());
    let stopped = lab.discover().await.remove("node2").unwrap();
    assert_eq!(stopped.state, MachineState::Stopped);
    assert_eq!(stopped.address, found["node2"].address);
    assert_eq!(stopped.host_key, found["node2"].host_key);
    lab.launch().await.unwrap();
    assert_eq!(lab.discover().await["node2"], found["node2"]);

    // A host that has gone is created again, with its old address; the others stay.
    remove_container(&lab.container("node1")).await;
    assert_eq!(lab.discover().await.len(), 4);
    let again = lab.launch().await.unwrap();
    assert_eq!(again[0].address, found["node1"].address);
    assert_ne!(again[0].host_key, found["node1"].host_key);
    assert_eq!(again[1], found["node2"]);

    // A host that has left the inventory is removed with the cluster.
    lab.inventory.hosts.shift_remove(&HostName::new("node3"));
    let provider = lab.provider();
    let resources = provider.resources().await.unwrap();
    let kinds: Vec<_> = resources.iter().map(|resource| resource.kind).collect();
    assert_eq!(
        kinds,
        [
            "container",
            "container",
            "container",
            "container",
            "container",
            "network"
        ]
    );
    let began = Instant::now();
    provider.remove(&resources, &lab.events).await.unwrap();
    println!("remove: {:.2?}", began.elapsed());
    assert_eq!(provider.resources().await.unwrap(), []);
    // It is fine if they have gone already.
    provider.remove(&resources, &lab.events).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_launch_is_taken_up() {
    let lab = Lab::new(
        "cut",
        &[("node1", Role::Postgres), ("node2", Role::Postgres)],
    );
    // Dropped at any moment, as by an interruption.
    for millis in [30, 150, 400, 900] {
        let _ = tokio::time::timeout(Duration::from_millis(millis), lab.launch()).await;
    }
    let machines = lab.launch().await.unwrap();
    assert_eq!(machines.len(), 2);
    assert_eq!(lab.provider().resources().await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_not_touched() {
    let lab = Lab::new("foreign", &[("node1", Role::Postgres)]);
    let name = lab.container("node1");
    let create = |labels: Option<HashMap<String, String>>| {
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let body = ContainerCreateBody {
            image: Some(host_image()),
            cmd: Some(vec!["true".into()]),
            labels,
            ..Default::default()
        };
        async move {
            engine()
                .create_container(Some(options), body)
                .await
                .unwrap()
        }
    };
    lab_image().await;
    for labels in [
        None,
        Some(HashMap::from([
            (CLUSTER_LABEL.to_owned(), "another".to_owned()),
            (HOST_LABEL.to_owned(), "x".to_owned()),
        ])),
    ] {
        let created = create(labels).await;
        let error = lab.launch().await.unwrap_err();
        assert!(error.what().contains(&name), "{error}");
        assert_eq!(error.left_behind(), Some("nothing was touched"));
        assert_eq!(lab.provider().resources().await.unwrap(), []);
        let there = engine()
            .inspect_container(&name, None::<InspectContainerOptions>)
            .await
            .unwrap();
        assert_eq!(there.id, Some(created.id));
        remove_container(&name).await;
    }

    let network = format!("{}-net", lab.cluster());
    make_network(&network, "10.254.7.0/24").await;
    let error = lab.launch().await.unwrap_err();
    engine().remove_network(&network).await.unwrap();
    assert!(error.what().contains(&network), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_that_is_taken_is_refused_before_anything_is_made() {
    let mut lab = Lab::new("subnet", &[("node1", Role::Postgres)]);
    let other = format!("{}-other", lab.cluster());
    make_network(&other, "10.254.8.0/24").await;
    lab.docker().subnet = Some("10.254.0.0/16".parse().unwrap());
    let error = lab
        .provider()
        .preflight(&lab.hosts(), KEY)
        .await
        .unwrap_err();
    engine().remove_network(&other).await.unwrap();
    assert!(error.what().contains(&other), "{error}");
    assert!(error.hints()[0].contains("provider.subnet"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_refused_before_anything_is_made() {
    let lab = Lab::new("port", &[("haproxy", Role::Haproxy)]);
    let port = lab.inventory.haproxy.read_port;
    let holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let error = lab.launch().await.unwrap_err();
    drop(holder);
    assert!(error.what().contains(&port.to_string()), "{error}");
    assert!(error.hints()[0].contains("haproxy.read_port"));
    assert_eq!(lab.provider().resources().await.unwrap(), []);
}

/// Two first runs: the other one has started this cluster's own container after this one looked for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_another_run_of_the_cluster_took_is_told_as_that_run() {
    let lab = Lab::new("claimed", &[("haproxy", Role::Haproxy)]);
    let name = format!("pgherd up {}", lab.cluster());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let claim = UnixListener::bind_addr(&address).unwrap();
    let mut other = Holder::now("up");
    other.pid = 1;
    let line = format!("{}\n", other.line());
    std::thread::spawn(move || {
        for stream in claim.incoming() {
            stream.unwrap().write_all(line.as_bytes()).unwrap();
        }
    });
    let port = lab.inventory.haproxy.write_port;
    let _published = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let error = lab
        .provider()
        .preflight(&lab.hosts(), KEY)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LeaseHeld, "{error}");
    assert!(error.causes()[0].contains("`up` by "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_ports_follow_the_inventory_or_are_refused() {
    let mut lab = Lab::new(
        "fixed",
        &[("node1", Role::Etcd), ("haproxy", Role::Haproxy)],
    );
    lab.inventory.ssh.port = 2222;
    lab.fix("haproxy", "10.254.9.173");
    let launched = lab.launch().await.unwrap();
    let addresses: Vec<String> = launched
        .iter()
        .map(|m| m.address.unwrap().to_string())
        .collect();
    assert_eq!(addresses, ["10.254.9.11", "10.254.9.173"]);
    assert_eq!(greeting(launched[1].address.unwrap(), 2222).await, "SSH-");

    // A stopped host moves to its new address in the inventory, and is still the same host.
    lab.fix("haproxy", "10.254.9.174");
    let stop = StopContainerOptionsBuilder::default().t(20).build();
    engine()
        .stop_container(&lab.container("haproxy"), Some(stop))
        .await
        .unwrap();
    let moved = lab.launch().await.unwrap();
    assert_eq!(moved[1].address, Some("10.254.9.174".parse().unwrap()));
    assert_eq!(moved[1].host_key, launched[1].host_key);
    // Still published.
    let port = lab.inventory.haproxy.write_port;
    assert!(
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
    );

    lab.inventory.haproxy.write_port += 1000;
    let error = lab.provider().preflight(&[], KEY).await.unwrap_err();
    assert!(
        error.causes()[0].contains("fixed when it is made"),
        "{error}"
    );
    lab.inventory.haproxy.write_port -= 1000;

    lab.docker().subnet = Some("10.254.10.0/24".parse().unwrap());
    lab.inventory.hosts[1].address = None;
    let error = lab.provider().preflight(&[], KEY).await.unwrap_err();
    assert!(error.what().contains("10.254.9.0/24"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_are_no_hosts_are_refused_without_leftovers() {
    let mut lab = Lab::new("image", &[("node1", Role::Etcd)]);
    lab.docker().image = Some("pgherd-host:no-such".into());
    let error = lab.launch().await.unwrap_err();
    assert!(
        error.what().contains("no image pgherd-host:no-such"),
        "{error}"
    );

    lab.docker().image = None;
    lab.inventory.ssh.user = "nobody-here".into();
    let error = lab.launch().await.unwrap_err();
    assert!(error.what().contains("`nobody-here`"), "{error}");
    lab.inventory.ssh.user = "ubuntu".into();

    // An image whose first process ends at once.
    lab_image().await;
    let own = format!("localhost/{}:ends", lab.cluster());
    let made = tokio::process::Command::new("bash")
        .args(["-c", "docker create --name $1-tmp $2 true && docker commit -c 'ENTRYPOINT [\"sh\", \"-c\", \"echo no systemd here; exit 3\"]' $1-tmp $3 && docker rm $1-tmp", "-", &lab.cluster(), &host_image(), &own])
        .output()
        .await
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    lab.docker().image = Some(own.clone());
    let error = lab.launch().await.unwrap_err();
    let _ = tokio::process::Command::new("docker")
        .args(["rmi", &own])
        .output()
        .await;
    assert!(error.what().contains("ended as soon as"), "{error}");
    assert!(error.excerpts()[0].text.contains("no systemd here"));
    assert!(error.left_behind().unwrap().contains("removed again"));
    let left = lab.provider().resources().await.unwrap();
    assert!(
        left.iter().all(|resource| resource.kind == "network"),
        "{left:?}"
    );
}
