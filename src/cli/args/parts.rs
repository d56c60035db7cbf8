//! The verbs of `rotate`, `state` and `image`, the words of some options, and how verbs take Ctrl-C.

use std::time::Duration;

use clap::{Subcommand, ValueEnum, builder::PossibleValue};

use super::Verb;
use crate::{engine::image, inventory::ProviderKind};

impl ValueEnum for ProviderKind {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

/// What `pgherd rotate` can change while the cluster runs.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Rotate {
    /// Make a new certificate authority, and new certificates for all hosts
    #[command(
        after_help = "Clients that verify need the new pki/ca.crt before the certificates change: give it to them after \
                      --prepare, when it has both authorities.\n\n\
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
        after_help = "The old key is removed only after every host has accepted the new one. Then a login with the\n\
                      old key is tried, which must be refused.\n\n\
                      Example:\n  pgherd rotate ssh"
    )]
    Ssh {
        /// Also change the host keys of hosts that pgherd did not make; other users need the new ones
        #[arg(long)]
        host_keys: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Make new passwords
    #[command(after_help = "Example:\n  pgherd rotate secrets --users")]
    Secrets {
        /// Also change those of `postgresql.users`; their applications need the new ones at once
        #[arg(long)]
        users: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// What becomes of the shared state.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum State {
    /// Put this machine's workspace into a place that has none yet
    #[command(after_help = "Example:\n  pgherd state init")]
    Init,
    /// Write this machine's workspace to the place, for new recipients or over what is there
    #[command(after_help = "Example:\n  pgherd state push")]
    Push {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Replace this machine's workspace by the shared one; files that differ are put aside
    #[command(after_help = "Example:\n  pgherd state pull")]
    Pull {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Show your own public key, for `recipients` in the inventory
    #[command(after_help = "Example:\n  pgherd state identity --new")]
    Identity {
        /// Make a private key first, where there is none
        #[arg(long)]
        new: bool,
    },
}

/// What becomes of images.
#[derive(Debug, Clone, Subcommand)]
pub enum Image {
    /// Make an image of what the inventory's hosts need
    #[command(
        after_help = "It is made of a host that is there for this alone, and goes again whatever comes of it; what a killed\n\
                      build has left goes at the next.\n\n\
                      Example:\n  pgherd image build --yes"
    )]
    Build {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Show which images there are, what they hold and cost, and which one this cluster would use
    #[command(
        after_help = "Example:\n  pgherd image list --json | jq '.images[] | select(.used_next)'"
    )]
    List,
    /// Remove an image that pgherd has made, and all that it takes up
    #[command(after_help = "Example:\n  pgherd image remove ami-0123456789abcdef0")]
    Remove {
        /// The image's id or name, as `pgherd image list` shows it
        id: String,
        /// Do not ask for the image's id
        #[arg(short, long)]
        yes: bool,
    },
}

impl Verb {
    /// Whether Ctrl-C stops pgherd. Otherwise it goes to the program that uses the terminal.
    pub fn can_be_interrupted(&self) -> bool {
        !matches!(
            self,
            Verb::Ssh { .. } | Verb::Psql { .. } | Verb::Logs { .. }
        )
    }

    /// How long the verb may take to clean up after Ctrl-C.
    pub fn grace(&self) -> Duration {
        match self {
            // The fault is repaired first, which may mean that a host boots.
            Verb::Drill(_) | Verb::Switchover { .. } => Duration::from_secs(300),
            // The builder is removed.
            Verb::Image { .. } => image::CLEARANCE,
            // The table of its clients is dropped.
            Verb::Restart { .. } => Duration::from_secs(30),
            _ => Duration::from_secs(3),
        }
    }
}
