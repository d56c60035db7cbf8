//! The arguments of the command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueHint};

use super::{drill, endpoint, targets};
use crate::inventory::ProviderKind;

mod global;
mod parts;

pub use self::{
    global::Global,
    parts::{Image, Rotate, State},
};

/// Deploy, verify and remove highly available PostgreSQL clusters
#[derive(Debug, Parser)]
#[command(
    name = "pgherd",
    version,
    max_term_width = 100,
    after_help = "Start here:\n  pgherd init && pgherd plan && pgherd up\n\n\
                  Exit codes: 0 done · 1 hosts, cloud or cluster failed · 2 bad input · 3 the cluster \
                  is not healthy · 4 changes are pending · 130 interrupted"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write an inventory with comments, which works as it is
    #[command(after_help = "Example:\n  pgherd init --provider existing -o prod.yaml")]
    Init {
        /// Where the hosts come from
        #[arg(long, value_enum, default_value = "docker")]
        provider: ProviderKind,
        /// Write to this file, or to stdout with `-` [default: the inventory's path]
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// Show what `up` would do; change nothing
    #[command(
        after_help = "Example:\n  pgherd -i prod.yaml plan --check || echo 'something would change'"
    )]
    Plan {
        /// Exit with 4 if anything would change
        #[arg(long)]
        check: bool,
    },
    /// Create the cluster or bring it to the inventory's state, and verify it
    #[command(
        after_help = "Safe to run again at any time, also after an interruption.\n\nExamples:\n  pgherd -i inventories/local.yaml up --yes\n  pgherd -i prod.yaml up --remove node4"
    )]
    Up {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Take this host, which left the inventory, out of the cluster with its data; give it again for more
        #[arg(long, value_name = "HOST")]
        remove: Vec<String>,
    },
    /// Make a host anew under its name: one that died, or that should be another machine
    #[command(
        after_help = "If the host leads, another member takes over first. Its data is deleted; its successor copies it\n\
                      from the leader. Safe to run again after an interruption.\n\n\
                      Example:\n  pgherd replace node3"
    )]
    Replace {
        /// The host
        host: String,
        /// Delete its data volume with it, and make a new one, which copies the data of another member
        #[arg(long)]
        new_volume: bool,
        /// Do not ask for the host's name
        #[arg(short, long)]
        yes: bool,
    },
    /// Find the hosts' present addresses, and correct every config
    #[command(
        after_help = "Use it when addresses have changed. It finds the hosts' present addresses, renders every file,\n\
                      shows the diff, changes only what must change, in an order that keeps the cluster writable,\n\
                      and verifies the result. Safe to run again at any time, also after an interruption.\n\n\
                      Examples:\n  \
                      pgherd -i prod.yaml render\n  \
                      pgherd -i prod.yaml render --check || echo 'something would change'\n  \
                      pgherd -i prod.yaml render --out /tmp/rendered"
    )]
    Render {
        /// Show what would change; change nothing
        #[arg(long, conflicts_with_all = ["out", "check", "yes"])]
        dry_run: bool,
        /// Write the files to DIR/<host>/<path>; connect to no host
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["check", "yes"])]
        out: Option<PathBuf>,
        /// Show what would change, and exit with 4 if anything would
        #[arg(long, conflicts_with = "yes")]
        check: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Show the topology, etcd's health and HAProxy's backends
    #[command(
        after_help = "Example:\n  pgherd status --json | jq '.members[] | select(.role == \"leader\")'"
    )]
    Status {
        /// Keep watching: live on a terminal, one line for each change elsewhere
        #[arg(short, long)]
        watch: bool,
        /// Exit with 3 where `verify` would, without writing anything
        #[arg(long, conflicts_with = "watch")]
        check: bool,
    },
    /// Check that the cluster is healthy, also through its write and read ports
    #[command(
        after_help = "Writes a row into a schema of its own, `pgherd`, through the write port, reads it back\n\
                      from every replica through the read port, and removes it. Changes nothing else.\n\n\
                      Example:\n  pgherd verify && echo 'the cluster is healthy'"
    )]
    Verify,
    /// Make another member the leader, and measure how long writes are refused
    #[command(
        after_help = "A checkpoint comes first, so that the leader can stop at once. When the command returns, the\n\
                      cluster is whole again.\n\n\
                      Example:\n  pgherd switchover --to node2"
    )]
    Switchover {
        /// The new leader [default: the synchronous standby, or the replica with the least lag]
        #[arg(long, value_name = "HOST")]
        to: Option<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Stop automatic failover while you work on the cluster by hand
    #[command(
        after_help = "While the cluster is paused, a failed leader is not replaced. `pgherd resume` ends the pause.\n\n\
                      Example:\n  pgherd pause && pgherd ssh node1"
    )]
    Pause {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Allow automatic failover again, and verify the cluster
    #[command(after_help = "Example:\n  pgherd resume --yes")]
    Resume {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Remove a replica's data and copy the leader's
    #[command(
        after_help = "Use it for a replica that can no longer follow the leader. It returns when the replica streams\n\
                      and the cluster is verified.\n\n\
                      Example:\n  pgherd reinit node3"
    )]
    Reinit {
        /// The replica whose data is removed
        host: String,
        /// Do not ask for the host's name
        #[arg(short, long)]
        yes: bool,
    },
    /// Restart PostgreSQL: replicas one at a time, then a switchover, then the old leader
    #[command(
        after_help = "Each member streams again before the next one restarts. Measures how long writes are refused.\n\n\
                      Examples:\n  pgherd restart\n  pgherd restart --pending\n  pgherd restart node3"
    )]
    Restart {
        /// Restart only this member; if it leads, a switchover comes first [default: all]
        host: Option<String>,
        /// Restart only members with a parameter that waits for a restart
        #[arg(long)]
        pending: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Reboot hosts one at a time, while the cluster serves: replicas first, the leader last
    #[command(
        after_help = "Says first which hosts would be rebooted, in which order, and why. Each host must be back, and\n\
                      the cluster healthy, before the next one. A run that was cut off goes on with `pgherd reboot`.\n\n\
                      Examples:\n  pgherd reboot --dry-run\n  pgherd reboot --needed\n  pgherd reboot node2"
    )]
    Reboot(super::reboot::Wish),
    /// Bring newer versions of the cluster's software, one host at a time, while the cluster serves
    #[command(
        after_help = "Says first what would come, from where, and what restarts. No package restarts anything by\n\
                      itself: replicas restart first, the leader last and after a switchover. A run that was cut\n\
                      off goes on with the same command.\n\n\
                      Examples:\n  pgherd update --check\n  pgherd update --security"
    )]
    Update(super::update::Wish),
    /// Make a member the leader when there is no leader, or an unhealthy one
    #[command(
        after_help = "Says what may be lost before it asks. While the leader is healthy, `pgherd switchover` does the\n\
                      same and loses nothing.\n\n\
                      Example:\n  pgherd failover --to node2"
    )]
    Failover {
        /// The new leader
        #[arg(long, value_name = "HOST")]
        to: String,
        /// Accept a member that is not synchronous and may lack acknowledged commits
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Break the cluster on purpose under load, and measure what clients see
    #[command(
        after_help = "Writers commit numbered rows through HAProxy and note each acknowledgement, readers read, and\n\
                      every member is asked directly whether it accepts writes. Everything is repaired afterwards,\n\
                      also after Ctrl-C; after a kill -9, the next run repairs it.\n\n\
                      Exits with 3 if a commit is missing, two leaders accepted writes, a limit was exceeded, or\n\
                      the cluster did not become whole again.\n\n\
                      Examples:\n  pgherd drill crash-host\n  \
                      pgherd drill all --yes --runs 3 --max-outage 30s --json\n  \
                      pgherd drill crash-host --lag 5s\n  \
                      pgherd drill watch --for 60s"
    )]
    Drill(drill::Wish),
    /// Change certificates, passwords or SSH keys while the cluster runs
    #[command(
        after_help = "No acknowledged write is lost. If a change is interrupted, run the same command \
                      again to complete it.\n\n\
                      Example:\n  pgherd rotate certs --prepare && pgherd rotate certs"
    )]
    Rotate {
        #[command(subcommand)]
        what: Rotate,
    },
    /// Make and look after images from which hosts come up in a fraction of the time
    #[command(
        after_help = "An image holds the packages and Patroni; no key, no password, nothing of a cluster. Hosts are made\n\
                      from the newest that fits with `image: prepared` under `provider` in the inventory.\n\n\
                      Example:\n  pgherd image build && pgherd up"
    )]
    Image {
        #[command(subcommand)]
        what: Image,
    },
    /// Make a backup now, and say what it took
    #[command(
        after_help = "Backups come by themselves too, as the inventory's `backup` says. This one goes on if pgherd is\n\
                      stopped, and the same command waits for it again.\n\n\
                      Example:\n  pgherd backup --full"
    )]
    Backup {
        /// Copy everything, instead of what has changed since the last full backup
        #[arg(long)]
        full: bool,
        /// Copy only what has changed since the last backup of any type
        #[arg(long, conflicts_with = "full")]
        incremental: bool,
        /// Make it in this place only, if backups are in both
        #[arg(long, value_name = "PLACE", value_parser = ["disk", "bucket"])]
        only: Option<String>,
    },
    /// Show which backups there are, and which moments can be restored
    #[command(after_help = "Example:\n  pgherd backups --json | jq -r '.from, .to'")]
    Backups,
    /// Prove that a moment can be restored: beside the cluster, for a check
    #[command(
        after_help = "It is done on a replica, within limits that clients do not feel. Exit code 3: it is not proven.\n\n\
                      Examples:\n  pgherd rehearse\n  pgherd rehearse --at latest\n  \
                      pgherd rehearse --at '2026-11-26 14:03:07+01'"
    )]
    Rehearse {
        /// `latest`, or a time with its zone; without it, a moment at random
        #[arg(
            long,
            value_name = "MOMENT",
            default_value = "random",
            hide_default_value = true
        )]
        at: String,
        /// From this place, if backups are in both; without it, from where the last proof is older
        #[arg(long, value_name = "PLACE", value_parser = ["disk", "bucket"])]
        from: Option<String>,
    },
    /// Have the cluster, a copy of it, or a table, as it was at a moment
    #[command(
        after_help = "In place, all members stop, and whatever was committed after the moment is gone. The data from\n\
                      before is kept if there is room. With --into, another cluster is made from the backups of this one.\n\
                      A run that was cut off goes on with the same command.\n\n\
                      Examples:\n  pgherd restore --to '2026-11-26 14:03:07+01' --dry-run\n  \
                      pgherd restore --to '2026-11-26 14:03:07+01'\n  \
                      pgherd restore --table shop.orders --to '2026-11-26 14:03:07+01' --out orders.sql\n  \
                      pgherd -i prod.yaml restore --into staging.yaml --to latest --run sanitise.sql"
    )]
    Restore(super::restore::Wish),
    /// Have another major version of PostgreSQL, in place
    #[command(
        after_help = "The old version's data is kept until you accept the new one; until then there is a way back. A run\n\
                      that was cut off goes on with `pgherd upgrade`.\n\n\
                      Examples:\n  pgherd upgrade --to 17 --dry-run\n  pgherd upgrade --to 17 --prepare\n  \
                      pgherd upgrade --to 17\n  pgherd upgrade --accept"
    )]
    Upgrade(super::upgrade::Wish),
    /// Open a shell on a host, or run a command there
    #[command(
        after_help = "Examples:\n  pgherd ssh node1 -- patronictl list\n  pgherd ssh --close"
    )]
    Ssh {
        /// One of the inventory's hosts
        #[arg(required_unless_present = "close")]
        host: Option<String>,
        /// Close the connections that are kept for the next command (`ssh.keep_alive`)
        #[arg(long, conflicts_with_all = ["host", "command"])]
        close: bool,
        /// Run this command instead of a shell
        #[arg(last = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Open psql through HAProxy, as the superuser
    #[command(
        after_help = "Examples:\n  pgherd psql -- -c 'select version()'\n  pgherd psql --pooled shop -- -d shop"
    )]
    Psql {
        /// Connect to a replica, through the read port
        #[arg(long)]
        read: bool,
        /// Connect through the pooler, as this user of `postgresql.users`
        #[arg(long, value_name = "USER")]
        pooled: Option<String>,
        /// Arguments for psql
        #[arg(last = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Show how an application connects: a connection string, a URI, variables, a password file
    #[command(
        after_help = "Examples:\n  psql \"$(pgherd connect --user shop)\"\n  pgherd connect --user shop --format env -o shop.env"
    )]
    Connect(endpoint::Arguments),
    /// Show what a Prometheus of your own scrapes: `file_sd` as JSON, and the configuration for it
    #[command(
        after_help = "Examples:\n  pgherd targets -o /etc/prometheus/pg\n  pgherd targets --prometheus -o /etc/prometheus/pg"
    )]
    Targets(targets::Arguments),
    /// Show the journal of a host's units
    #[command(after_help = "Example:\n  pgherd logs node2 patroni -f")]
    Logs {
        /// One of the inventory's hosts
        host: String,
        /// Only this unit [default: the units of the host's roles]
        unit: Option<String>,
        /// Keep printing new lines
        #[arg(short, long)]
        follow: bool,
        /// Start with the last N lines
        #[arg(short = 'n', long, default_value = "100")]
        lines: u32,
    },
    /// Remove everything that `up` created, and check that nothing is left
    #[command(after_help = "Example:\n  pgherd -i inventories/local.yaml down")]
    Down {
        /// Do not ask for the cluster's name
        #[arg(short, long)]
        yes: bool,
        /// Keep the passwords, keys and certificates for the next `up`
        #[arg(long)]
        keep_secrets: bool,
        /// Remove the backups too; without it they stay on hosts that pgherd has not made
        #[arg(long)]
        with_backups: bool,
        /// Remove the bucket of this name too, which `up` has made, with all backups in it
        #[arg(long, value_name = "NAME")]
        with_bucket: Option<String>,
        /// Remove the cluster with this id, if its workspace is lost; an error of `down` shows the id
        #[arg(long, value_name = "ID")]
        cluster_id: Option<String>,
    },
    /// Collect in one file what somebody needs who looks into a fault; passwords are masked
    #[command(after_help = "Example:\n  pgherd diagnose -o ticket-4711.tar")]
    Diagnose {
        /// The archive to write [default: pgherd-CLUSTER-TIME.tar]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show where the workspace's secrets are shared; put them there, or have them from there
    #[command(
        after_help = "The inventory says where, and with whom: `state` in docs/inventory.md. Every verb reads it, and \
                      those\nthat change something write it, by themselves; these verbs are for the first time, and for two states\n\
                      that have parted.\n\n\
                      Example:\n  pgherd state identity --new && pgherd state init"
    )]
    State {
        #[command(subcommand)]
        what: Option<State>,
    },
    /// Show who changed the cluster, when, with what, and how it ended
    #[command(
        after_help = "The hosts remember it, also what was done from other machines.\n\n\
                      Example:\n  pgherd history --limit 5"
    )]
    History {
        /// Show the newest N runs
        #[arg(long, value_name = "N", default_value = "20")]
        limit: usize,
    },
    /// Take in a cluster that somebody made by hand, while it runs; without --yes, only look
    #[command(
        after_help = "Without --yes it changes nothing: it says what is there, and what would become of it. With --yes\n\
                      PostgreSQL keeps running; what differs afterwards is shown by `pgherd plan`, and corrected by\n\
                      `pgherd up`. An adoption that was cut off goes on with the same command.\n\n\
                      Examples:\n  pgherd -i prod.yaml adopt\n  pgherd -i prod.yaml adopt --yes && pgherd -i prod.yaml plan"
    )]
    Adopt {
        /// Take the cluster in
        #[arg(short, long)]
        yes: bool,
        /// Trust the SSH keys that the hosts show now, where this machine does not know them
        #[arg(long, requires = "yes")]
        trust_host_keys: bool,
    },
    /// Make a lost workspace again, from what the hosts have; change nothing on them
    #[command(
        after_help = "For another machine, or an empty folder: with the inventory and a way onto the hosts. Passwords and\n\
                      certificates are read back. What no host has is named, and made anew. It never replaces a\n\
                      workspace that is there.\n\n\
                      Example:\n  pgherd -i prod.yaml recover && pgherd -i prod.yaml rotate certs"
    )]
    Recover {
        /// Trust the SSH keys that the hosts show now, where this machine does not know them
        #[arg(long)]
        trust_host_keys: bool,
    },
    /// Print the path of a run's report: how long each step took, what failed, what was verified
    #[command(
        after_help = "RUN is the name of a folder in .pgherd/<cluster>/runs, or its first characters.\n\n\
                      Example:\n  xdg-open \"$(pgherd report)\""
    )]
    Report {
        /// The run to report on [default: the latest]
        run: Option<String>,
        /// Print the report itself as text, without its charts
        #[arg(long)]
        text: bool,
        /// List the runs that are kept here, the latest first
        #[arg(long, conflicts_with_all = ["run", "text"])]
        list: bool,
    },
    /// Print the JSON Schema of inventories, for editors
    #[command(
        after_help = "If an inventory begins with `# yaml-language-server: $schema=pgherd.schema.json`, an editor\n\
                      completes and checks it. `pgherd init` writes this line and the file.\n\n\
                      Example:\n  pgherd schema >pgherd.schema.json"
    )]
    Schema,
    /// Print a completion script
    #[command(after_help = "Example:\n  pgherd completions bash >/etc/bash_completion.d/pgherd")]
    Completions {
        /// The shell that the script is for
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example:\n  pgherd man | man -l -")]
    Man,
}
