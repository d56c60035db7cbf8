//! What can be said on the command line.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint, builder::PossibleValue};

use super::{console::Console, drill};
use crate::{
    engine::context::{Context, Source},
    error::Result,
    inventory::{self, Inventory, ProviderKind},
    workspace::Workspace,
};

/// Provision, prove and tear down highly available PostgreSQL clusters
#[derive(Debug, Parser)]
#[command(
    name = "pgherd",
    version,
    max_term_width = 100,
    after_help = "Start here:\n  pgherd init && pgherd plan && pgherd up\n\n\
                  Exit codes: 0 done · 1 hosts, cloud or cluster failed · 2 bad input · 3 the cluster \
                  does not hold · 4 changes are pending · 130 interrupted"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Read this inventory
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "PGHERD_INVENTORY",
        default_value = inventory::DEFAULT_PATH,
        value_hint = ValueHint::FilePath
    )]
    pub inventory: PathBuf,
    /// Print JSON on stdout: one document, or a line per event
    #[arg(long, global = true)]
    pub json: bool,
    /// Show more; twice for every line that the hosts print
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Take templates from here before the built-in ones
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub templates: Option<PathBuf>,
}

impl Global {
    pub(super) fn load(&self) -> Result<Inventory> {
        Inventory::load(&self.inventory)
    }

    /// What every verb that looks at a cluster begins with.
    pub(super) fn open(
        &self,
        console: &Console,
        workspace: fn(&Inventory) -> Result<Workspace>,
    ) -> Result<Context> {
        Context::new(self.source(console)?, workspace)
    }

    /// The same for verbs that need the cluster to be there.
    pub(super) async fn existing(&self, console: &Console) -> Result<Context> {
        Context::existing(self.source(console)?).await
    }

    fn source(&self, console: &Console) -> Result<Source<'_>> {
        Ok(Source {
            inventory: self.load()?,
            templates: self.templates.as_deref(),
            operator: Arc::new(console.clone()),
        })
    }
}

impl ValueEnum for ProviderKind {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write a commented inventory that works as it is
    #[command(after_help = "Example:\n  pgherd init --provider existing -o prod.yaml")]
    Init {
        /// Where the hosts come from
        #[arg(long, value_enum, default_value = "docker")]
        provider: ProviderKind,
        /// Write to this file, or to stdout with `-` [default: the inventory's path]
        #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
    /// Show what `up` would do; touch nothing
    #[command(
        after_help = "Example:\n  pgherd -i prod.yaml plan --check || echo 'something would change'"
    )]
    Plan {
        /// Exit with 4 if anything would change
        #[arg(long)]
        check: bool,
    },
    /// Make the cluster what the inventory says, and prove it
    #[command(
        after_help = "Safe to run again at any time, also after an interruption.\n\nExample:\n  pgherd -i inventories/local.yaml up --yes"
    )]
    Up {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Find the hosts' addresses afresh, and make every config right for them
    #[command(
        after_help = "For when addresses have changed: finds where the hosts are now, renders every file, shows the\n\
                      diff, changes only what must change, in an order that keeps the cluster writable, and\n\
                      proves the result. Safe to run again at any time, also after an interruption.\n\n\
                      Examples:\n  \
                      pgherd -i prod.yaml render\n  \
                      pgherd -i prod.yaml render --check || echo 'something would change'\n  \
                      pgherd -i prod.yaml render --out /tmp/rendered"
    )]
    Render {
        /// Show what would change; touch nothing
        #[arg(long, conflicts_with_all = ["out", "check", "yes"])]
        dry_run: bool,
        /// Write the files to DIR/<host>/<path>; touch no host
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
        /// Go on as it changes: live on a terminal, a line per change elsewhere
        #[arg(short, long)]
        watch: bool,
    },
    /// Prove that the cluster works, through its own front door
    #[command(
        after_help = "Writes a row into a schema of its own, `pgherd`, through the write port, reads it back\n\
                      from every replica through the read port, and removes it; changes nothing else.\n\n\
                      Example:\n  pgherd verify && echo 'the cluster holds'"
    )]
    Verify,
    /// Give the leadership to another member, and measure how long writes are refused
    #[command(
        after_help = "A checkpoint goes before, so that the leader stops at once. Afterwards the cluster is\n\
                      whole again when this returns.\n\n\
                      Example:\n  pgherd switchover --to node2"
    )]
    Switchover {
        /// The member that is to lead [default: the synchronous standby, or the replica that is nearest]
        #[arg(long, value_name = "HOST")]
        to: Option<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Keep Patroni from failing over, for as long as somebody works on the cluster by hand
    #[command(
        after_help = "While it is paused a leader that dies stays dead. `pgherd resume` ends it.\n\n\
                      Example:\n  pgherd pause && pgherd ssh node1"
    )]
    Pause {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Let Patroni fail over again, and prove that the cluster holds
    #[command(after_help = "Example:\n  pgherd resume --yes")]
    Resume {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Remove a replica's data and copy the leader's anew
    #[command(
        after_help = "For a replica that cannot follow the leader any more. It returns once the replica streams and\n\
                      the cluster is proven.\n\n\
                      Example:\n  pgherd reinit node3"
    )]
    Reinit {
        /// The replica whose data is removed
        host: String,
        /// Do not ask for the host's name
        #[arg(short, long)]
        yes: bool,
    },
    /// Restart PostgreSQL: replicas one at a time, then a hand-over, the old leader last
    #[command(
        after_help = "Each member is back and streams before the next goes. How long writes were refused is measured.\n\n\
                      Examples:\n  pgherd restart\n  pgherd restart --pending\n  pgherd restart node3"
    )]
    Restart {
        /// Restart this member alone; if it leads, it hands over first [default: all]
        host: Option<String>,
        /// Only where a parameter waits for a restart
        #[arg(long)]
        pending: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Make a member the leader when there is no leader, or a sick one
    #[command(
        after_help = "Says what may be lost before it asks. While the leader is well, `pgherd switchover` does the same\n\
                      and loses nothing.\n\n\
                      Example:\n  pgherd failover --to node2"
    )]
    Failover {
        /// The member that is to lead
        #[arg(long, value_name = "HOST")]
        to: String,
        /// Take it although it is not synchronous and may lack acknowledged commits
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Break the cluster on purpose under load, and measure what its clients feel
    #[command(
        after_help = "Writers commit numbered rows through HAProxy and note what was acknowledged, readers read,\n\
                      and every member is asked directly whether it takes writes. Everything is put right again,\n\
                      also after Ctrl-C; after a kill -9 the next run does it.\n\n\
                      Exits with 3 when a commit is missing, two leaders wrote, a limit was exceeded, or the\n\
                      cluster did not become whole again.\n\n\
                      Examples:\n  pgherd drill crash-host\n  \
                      pgherd drill all --yes --runs 3 --max-outage 30s --json\n  \
                      pgherd drill crash-host --lag 5s\n  \
                      pgherd drill watch --for 60s"
    )]
    Drill(drill::Wish),
    /// Change certificates, passwords or SSH keys while the cluster runs
    #[command(
        after_help = "No acknowledged write is lost. A change that was cut off anywhere is \
                      completed by the same command.\n\n\
                      Example:\n  pgherd rotate certs --prepare && pgherd rotate certs"
    )]
    Rotate {
        #[command(subcommand)]
        what: Rotate,
    },
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
        /// Run this instead of a shell
        #[arg(last = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Open psql through HAProxy, as the superuser
    #[command(after_help = "Example:\n  pgherd psql -- -c 'select version()'")]
    Psql {
        /// Go to a replica, through the read port
        #[arg(long)]
        read: bool,
        /// Pass these to psql
        #[arg(last = true, value_name = "ARGS")]
        args: Vec<String>,
    },
    /// Show the journal of a host's units
    #[command(after_help = "Example:\n  pgherd logs node2 patroni -f")]
    Logs {
        /// One of the inventory's hosts
        host: String,
        /// Only this unit [default: the units of the host's roles]
        unit: Option<String>,
        /// Go on as lines come
        #[arg(short, long)]
        follow: bool,
        /// Begin with this many lines
        #[arg(short = 'n', long, default_value = "100")]
        lines: u32,
    },
    /// Remove what `up` made, and prove that nothing is left
    #[command(after_help = "Example:\n  pgherd -i inventories/local.yaml down")]
    Down {
        /// Do not ask for the cluster's name
        #[arg(short, long)]
        yes: bool,
        /// Keep the passwords, keys and certificates for the next `up`
        #[arg(long)]
        keep_secrets: bool,
        /// Remove what was made for the cluster with this id, as an error of `down` names it, where its
        /// workspace is lost
        #[arg(long, value_name = "ID")]
        cluster_id: Option<String>,
    },
    /// Show where the report of a run is: how long each step took, what failed, what was proven
    #[command(
        after_help = "RUN is the name of a folder in .pgherd/<cluster>/runs, or how it begins.\n\n\
                      Example:\n  xdg-open \"$(pgherd report)\""
    )]
    Report {
        /// The run to report on [default: the latest]
        run: Option<String>,
        /// Print the report itself, as far as text can show it
        #[arg(long)]
        text: bool,
    },
    /// Print the JSON Schema of inventories, for editors
    #[command(
        after_help = "With a line `# yaml-language-server: $schema=pgherd.schema.json` at its top, an editor completes\n\
                      and checks an inventory. `pgherd init` writes both.\n\n\
                      Example:\n  pgherd schema >pgherd.schema.json"
    )]
    Schema,
    /// Print a completion script
    #[command(after_help = "Example:\n  pgherd completions bash >/etc/bash_completion.d/pgherd")]
    Completions {
        /// The shell that is to complete pgherd's verbs and options
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example:\n  pgherd man | man -l -")]
    Man,
}

/// What can be changed while the cluster runs.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Rotate {
    /// Make a new authority, and certificates of it for all
    #[command(
        after_help = "Clients that verify need the new pki/ca.crt before the certificates change: hand it out after \
                      --prepare, when it holds both authorities.\n\n\
                      Example:\n  pgherd rotate certs --prepare"
    )]
    Certs {
        /// Stop once all hosts trust the new authority beside the old one
        #[arg(long)]
        prepare: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Make a new SSH key for pgherd, and new keys for the hosts
    #[command(
        after_help = "The old key goes only after every host was seen to let in the new one; then a login with the\n\
                      old key is tried, and must be refused.\n\n\
                      Example:\n  pgherd rotate ssh"
    )]
    Ssh {
        /// Change the keys of hosts that pgherd did not make, too; others who know them need the new ones
        #[arg(long)]
        host_keys: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Make new passwords
    #[command(after_help = "Example:\n  pgherd rotate secrets --users")]
    Secrets {
        /// Those of `postgresql.users` too; their applications need the new ones at once
        #[arg(long)]
        users: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

impl Verb {
    /// Whether Ctrl-C is for pgherd; otherwise it is for the program that has the terminal.
    pub fn can_be_interrupted(&self) -> bool {
        !matches!(
            self,
            Verb::Ssh { .. } | Verb::Psql { .. } | Verb::Logs { .. }
        )
    }

    /// How long the verb may take to put its affairs in order once the user wants to stop.
    pub fn grace(&self) -> Duration {
        match self {
            // What is broken is put right first: a host may have to boot.
            Verb::Drill(_) | Verb::Switchover { .. } => Duration::from_secs(300),
            // Its clients' table goes.
            Verb::Restart { .. } => Duration::from_secs(30),
            _ => Duration::from_secs(3),
        }
    }
}
