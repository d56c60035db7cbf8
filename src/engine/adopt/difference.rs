//! What differs between a cluster that somebody made and the same cluster of pgherd's, and what becomes of it.

use std::collections::BTreeSet;

use crate::inventory::HostName;

/// What becomes of something that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// pgherd leaves it as it is.
    Kept,
    /// It becomes what pgherd makes, and clients notice nothing.
    Converged,
    /// The same, and PostgreSQL starts again: the replicas first, the leader last and after a switchover.
    HandOver,
    /// It becomes what pgherd makes, and some clients must change with it.
    Clients,
    /// pgherd cannot take it in as it is.
    Refused,
}

impl Fate {
    /// The word in the table and in `--json`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Converged => "converged",
            Self::HandOver => "hand-over",
            Self::Clients => "clients",
            Self::Refused => "refused",
        }
    }
}

/// Something that was found, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub fate: Fate,
    /// `None` for what concerns the whole cluster.
    pub host: Option<HostName>,
    pub what: &'static str,
    pub found: String,
    /// What it becomes, or what to do about it.
    pub becomes: String,
}

/// The differences, as they are collected.
#[derive(Default)]
pub(super) struct Differences(pub(super) Vec<Difference>);

impl Differences {
    pub(super) fn add(
        &mut self,
        fate: Fate,
        host: Option<&HostName>,
        what: &'static str,
        (found, becomes): (impl Into<String>, impl Into<String>),
    ) {
        self.0.push(Difference {
            fate,
            host: host.cloned(),
            what,
            found: found.into(),
            becomes: becomes.into(),
        });
    }

    pub(super) fn refuse(
        &mut self,
        host: Option<&HostName>,
        what: &'static str,
        found: impl Into<String>,
        to_do: impl Into<String>,
    ) {
        self.add(Fate::Refused, host, what, (found, to_do));
    }

    pub(super) fn keep(
        &mut self,
        host: Option<&HostName>,
        what: &'static str,
        found: impl Into<String>,
    ) {
        self.add(Fate::Kept, host, what, (found, ""));
    }

    /// Rows that are the same on every host that has such a row become one, for the whole cluster; then what needs attention
    /// comes first.
    pub(super) fn in_order(self) -> Vec<Difference> {
        let hosts = |rows: &mut dyn Iterator<Item = &Difference>| {
            let named: BTreeSet<&HostName> = rows.filter_map(|row| row.host.as_ref()).collect();
            named.len()
        };
        let mut all: Vec<Difference> = Vec::new();
        for row in &self.0 {
            let with_it = hosts(&mut self.0.iter().filter(|it| it.what == row.what));
            let alike = hosts(&mut self.0.iter().filter(|it| row.is_like(it)));
            let mut one = row.clone();
            if alike == with_it && with_it > 1 {
                one.host = None;
            }
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all.sort_by_key(|row| std::cmp::Reverse(row.fate));
        all
    }
}

impl Difference {
    /// Whether both say the same, of whatever host.
    fn is_like(&self, other: &Self) -> bool {
        (self.fate, self.what, &self.found, &self.becomes)
            == (other.fate, other.what, &other.found, &other.becomes)
    }
}
