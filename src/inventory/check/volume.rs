//! Checks the data volumes: their settings, and where they are mounted.

use super::{
    super::{
        DataVolume, Inventory, Role,
        bounds::Bounds,
        limits,
        placed::{Span, span_of},
        problem::{Problem, quoted},
        schema::{self, Number, Word},
    },
    Problems, bounded,
    postgresql::SHARED,
    shaped,
};

/// The keys of data volumes in one section.
struct Written<'a> {
    size_gb: Option<&'a Number>,
    iops: Option<&'a Number>,
    throughput: Option<&'a Number>,
    kms_key: Option<&'a Word>,
}

impl Written<'_> {
    fn of_provider(section: &schema::Provider) -> Written<'_> {
        Written {
            size_gb: section.data_volume_gb.as_ref(),
            iops: section.data_volume_iops.as_ref(),
            throughput: section.data_volume_throughput.as_ref(),
            kms_key: section.data_volume_kms_key.as_ref(),
        }
    }

    fn of_host(host: &schema::Host) -> Written<'_> {
        Written {
            size_gb: host.data_volume_gb.as_ref(),
            iops: host.data_volume_iops.as_ref(),
            throughput: host.data_volume_throughput.as_ref(),
            kms_key: host.data_volume_kms_key.as_ref(),
        }
    }

    /// The first key that says more about a volume than its size.
    fn more(&self) -> Option<(&'static str, Span)> {
        let iops = self.iops.map(|it| ("data_volume_iops", span_of(it)));
        let throughput = self.throughput;
        let throughput = throughput.map(|it| ("data_volume_throughput", span_of(it)));
        let kms_key = self.kms_key.map(|it| ("data_volume_kms_key", span_of(it)));
        iops.or(throughput).or(kms_key)
    }

    fn any(&self) -> Option<(&'static str, Span)> {
        let size = self.size_gb.map(|it| ("data_volume_gb", span_of(it)));
        size.or(self.more())
    }
}

/// The settings of one section that are right.
struct Settings {
    size_gb: Option<u32>,
    iops: Option<u32>,
    throughput: Option<u32>,
    kms_key: Option<String>,
}

impl Settings {
    fn of(problems: &mut Problems, written: &Written<'_>) -> Self {
        let mut number = |number: Option<&Number>, noun: &str, bounds: Bounds<u32>| {
            bounded(problems, number?, noun, bounds)
        };
        let size_gb = number(written.size_gb, "a size in GiB", limits::DATA_VOLUME_GB);
        let iops = number(written.iops, "a number of IOPS of gp3", limits::IOPS);
        let throughput = number(
            written.throughput,
            "a throughput of gp3, in MiB/s",
            limits::THROUGHPUT,
        );
        Self {
            size_gb,
            iops,
            throughput,
            kms_key: shaped(problems, written.kms_key, limits::KMS_KEY),
        }
    }
}

/// The data volumes of an inventory, host by host.
pub(super) struct Volumes<'a> {
    section: Written<'a>,
    all: Settings,
    /// A mistake in the provider's section is reported with the first host that it concerns.
    told: bool,
    made: bool,
}

impl<'a> Volumes<'a> {
    pub(super) fn new(problems: &mut Problems, section: &'a schema::Provider) -> Self {
        let section = Written::of_provider(section);
        Self {
            all: Settings::of(problems, &section),
            section,
            told: false,
            made: false,
        }
    }

    /// A host's own settings, or those of all hosts with a database.
    pub(super) fn of_host(
        &mut self,
        problems: &mut Problems,
        name: &str,
        host: &schema::Host,
    ) -> Option<DataVolume> {
        let written = Written::of_host(host);
        let own = Settings::of(problems, &written);
        // A host without roles has been reported already.
        let roles = &host.roles.as_ref()?.value;
        if !roles
            .iter()
            .any(|role| role.value == Role::Postgres.as_str())
        {
            if let Some((key, at)) = written.any() {
                problems.add(
                    Problem::new(
                        at,
                        format!("`{key}` of {}, which has no database", quoted(name)),
                    )
                    .label("only for hosts with the role `postgres`")
                    .hint("what other services keep is on the root volume: `volume_gb`"),
                );
            }
            return None;
        }
        let Some(size_gb) = own.size_gb.or(self.all.size_gb) else {
            if let Some((key, at)) = written.more()
                && written.size_gb.is_none()
                && self.section.size_gb.is_none()
            {
                problems.add(without_size(key, at));
            }
            return None;
        };
        self.made = true;
        let volume = DataVolume {
            size_gb,
            iops: own.iops.or(self.all.iops),
            throughput: own.throughput.or(self.all.throughput),
            kms_key: own.kms_key.or_else(|| self.all.kms_key.clone()),
        };
        if let Some((what, label, hint)) = too_fast(&volume) {
            let at = written.any().or_else(|| {
                let first = !std::mem::replace(&mut self.told, true);
                self.section.more().filter(|_| first)
            });
            if let Some((_, at)) = at {
                problems.add(Problem::new(at, what).label(label).hint(hint));
            }
        }
        Some(volume)
    }

    /// Refuses settings of volumes that no host has.
    pub(super) fn end(&self, problems: &mut Problems) {
        if let Some((key, at)) = self.section.more()
            && !self.made
            && self.section.size_gb.is_none()
        {
            problems.add(without_size(key, at));
        }
    }
}

fn without_size(key: &str, at: Span) -> Problem {
    Problem::new(
        at,
        format!("`{key}` belongs to `data_volume_gb`, which is not there"),
    )
    .hint("add `data_volume_gb: 100`, or another size in GiB; or leave this key out")
}

/// More than EC2 allows: what, why, and what would be right.
fn too_fast(volume: &DataVolume) -> Option<(String, String, String)> {
    let (size, iops) = (volume.size_gb, volume.iops.unwrap_or(limits::LEAST_IOPS));
    let least = iops.div_ceil(limits::IOPS_PER_GB);
    if volume.iops.is_some() && least > size {
        return Some((
            format!("{iops} IOPS are too many for {size} GiB"),
            format!("gp3 has at most {} for each GiB", limits::IOPS_PER_GB),
            format!("`data_volume_gb: {least}`, or fewer `data_volume_iops`"),
        ));
    }
    let throughput = volume.throughput?;
    let least = throughput * limits::IOPS_PER_MIB;
    (least > iops).then(|| {
        (
            format!("{throughput} MiB/s are too many for {iops} IOPS"),
            format!("gp3 needs {} IOPS for each MiB/s", limits::IOPS_PER_MIB),
            format!("`data_volume_iops: {least}`, or less `data_volume_throughput`"),
        )
    })
}

/// Checks that there is a place for data volumes: the folder above the data directory.
pub(super) fn check_mount_point(
    problems: &mut Problems,
    document: &schema::Document,
    inventory: &Inventory,
) {
    let mut hosts = inventory.hosts.keys();
    let above = inventory.mount_point();
    let is_taken = above == "/" || SHARED.contains(&above);
    if !is_taken || !hosts.any(|host| inventory.data_volume(host).is_some()) {
        return;
    }
    let section = document.postgresql.as_ref();
    if let Some(word) = section.and_then(|it| it.data_dir.as_ref()) {
        problems.add(
            Problem::new(
                span_of(word),
                format!("a data volume cannot be mounted on {above}"),
            )
            .label("it is mounted on the folder above the data directory")
            .hint("name a folder in a folder of its own, such as the default, `/data/patroni`"),
        );
    }
}
