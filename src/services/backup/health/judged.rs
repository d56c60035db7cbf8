//! What is wrong with the backups, in each place.

use super::{super::client::Repository, failed_runs, proof, silent, unreadable, wrong_inside};
use crate::{
    inventory::{Inventory, Place},
    services::archive::rehearsal::Rehearsals,
};

/// What is wrong with the backups and with the proof that they can be restored, a sentence each.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Judged {
    /// What concerns no place alone.
    of_all: Vec<String>,
    /// For each place.
    pub(super) places: Vec<(Place, Vec<String>)>,
}

impl Judged {
    /// For people. With two places, each sentence names its place, and it is said if the other one is good.
    pub(crate) fn told(&self) -> Vec<String> {
        if let [(_, only)] = self.places.as_slice() {
            return only.clone();
        }
        let mut told = Vec::new();
        for (place, wrong) in &self.places {
            told.extend(wrong.iter().map(|it| format!("{}: {it}", place.inside())));
        }
        let mut good = self.places.iter().filter(|it| it.1.is_empty());
        if let (Some(last), Some((place, _))) = (told.last_mut(), good.next()) {
            last.push_str(&format!("; what is {} is good", place.inside()));
        }
        told.extend(self.of_all.iter().cloned());
        told
    }
}

/// Judges the repositories, of which there is one for each place, as there is one of the rehearsals.
pub(crate) fn judge(
    repositories: &[Repository],
    rehearsals: &[Rehearsals],
    inventory: &Inventory,
) -> Judged {
    let command = |verb: &str| inventory.command(verb);
    let both = repositories.len() > 1;
    let mut judged = Judged::default();
    for (repository, rehearsals) in repositories.iter().zip(rehearsals) {
        let place = repository.place.as_str();
        let (full, rehearse) = match both {
            true => (
                command(&format!("backup --full --only {place}")),
                command(&format!("rehearse --from {place}")),
            ),
            false => (command("backup --full"), command("rehearse")),
        };
        let runs = failed_runs(repositories, &command("backup"), &command("logs"));
        let mut wrong = unreadable(repository, both);
        match both {
            true => judged.of_all = runs,
            false => wrong.extend(runs),
        }
        wrong.extend(wrong_inside(repository, &full));
        wrong.extend(silent(repository));
        let within = inventory.backup.prove_within;
        wrong.extend(proof::wrong(
            repository,
            rehearsals,
            within,
            (&command, &rehearse),
        ));
        judged.places.push((repository.place, wrong));
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::{
        super::{super::client::OTHER, summary, tests::good},
        *,
    };
    use crate::plan::tests::world::{FIVE, World};

    #[test]
    fn each_place_is_judged_and_named_and_the_good_one_too() {
        let inventory = World::bare(FIVE).cluster.inventory;
        let mut bucket = Repository {
            place: Place::Bucket,
            ..good()
        };
        let rehearsals = [Rehearsals::default(), Rehearsals::default()];
        let told = |bucket: &Repository| {
            judge(&[good(), bucket.clone()], &rehearsals, &inventory)
                .told()
                .join("\n")
        };
        assert_eq!(told(&bucket), "");
        assert!(
            summary(&[good(), bucket.clone()]).starts_with("on the disk: 2 backups (0 B"),
            "{}",
            summary(&[good(), bucket.clone()])
        );
        bucket.backups.clear();
        let said = told(&bucket);
        assert!(
            said.starts_with("in the bucket: there is no backup; make one: pgherd")
                && said.ends_with(" backup --full --only bucket; what is on the disk is good"),
            "{said}"
        );
        bucket.status = (OTHER, "[HostConnectError] unable to connect".into());
        assert_eq!(
            told(&bucket),
            "in the bucket: pgBackRest cannot read it: [HostConnectError] unable to connect; what is on the disk is good"
        );
        // A run is of both places, and told once.
        let mut disk = good();
        disk.schedules.get_mut("full").unwrap().result = "exit-code".into();
        bucket.schedules.clone_from(&disk.schedules);
        let judged = judge(&[disk, bucket], &rehearsals, &inventory);
        assert_eq!(judged.of_all.len(), 1);
        assert_eq!(judged.told().len(), 2);
        assert_eq!(judged.places[0].1, [""; 0]);
    }
}
