//! The critical path: the chain of spans that decides how long the run takes.

use std::collections::BTreeMap;

use super::history::{History, Span, StepKey};

/// Two events this close together, in seconds, count as one moment.
const MOMENT: f64 = 0.003;

/// A step that begins this much later than it could, in seconds, has waited for room: where hosts share processors,
/// not all of them install at once.
const WAITED: f64 = 0.1;

/// A link of the chain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Link {
    /// Its index in the history's spans.
    pub span: usize,
    /// Seconds between the end of the previous link (or the run's beginning) and its own beginning.
    pub gap: f64,
}

/// The chain, from the run's beginning to its last end.
///
/// The predecessor of a step is the step, among those that it needed, that ended last, or the one that made room for
/// it. For other spans, and for
/// steps without needs, it is the span that ended last before: nothing else can have delayed it. If several
/// ended at the same moment, one on the same host is chosen.
pub(super) fn critical_path(history: &History) -> Vec<Link> {
    let spans = &history.spans;
    let by_key: BTreeMap<StepKey, usize> = spans
        .iter()
        .enumerate()
        .filter_map(|(i, span)| span.step.as_ref().map(|step| (step.id, i)))
        .collect();
    let mut chain = Vec::new();
    let mut next = last_to_end(spans, 0..spans.len());
    // Each link ends before the next begins, so this terminates; the limit is for wrong clocks.
    while let Some(i) = next
        && chain.len() <= spans.len()
    {
        let before = predecessor(spans, i, &by_key);
        let gap = spans[i].begin - before.map_or(0.0, |before| spans[before].end);
        chain.push(Link {
            span: i,
            gap: gap.max(0.0),
        });
        next = before;
    }
    chain.reverse();
    chain
}

fn predecessor(spans: &[Span], i: usize, by_key: &BTreeMap<StepKey, usize>) -> Option<usize> {
    let span = &spans[i];
    let needed = span.step.as_ref().and_then(|step| step.after.as_ref());
    let needed: Vec<usize> = needed
        .into_iter()
        .flatten()
        .filter_map(|key| by_key.get(key).copied())
        .filter(|needed| *needed != i)
        .collect();
    let last_needed = last_to_end(spans, needed);
    let waited = last_needed.map_or(0.0, |it| span.begin - spans[it].end);
    if last_needed.is_some() && waited < WAITED {
        return last_needed;
    }
    let mut earlier: Vec<usize> = (0..spans.len())
        .filter(|other| {
            let other = &spans[*other];
            // Also begun earlier: of several spans at one moment, only one can be the cause of another.
            other.end <= span.begin + MOMENT && (other.begin, other.end) < (span.begin, span.end)
        })
        .collect();
    if last_needed.is_some() {
        // Whoever ended at that very moment has made room for it.
        earlier.retain(|other| spans[*other].end >= span.begin - MOMENT);
        return last_to_end(spans, earlier).or(last_needed);
    }
    // A span that ended in the same place at that very moment is the likelier cause.
    let own = earlier.iter().copied().find(|other| {
        spans[*other].place == span.place && spans[*other].end >= span.begin - MOMENT
    });
    own.or_else(|| last_to_end(spans, earlier))
}

fn last_to_end(spans: &[Span], of: impl IntoIterator<Item = usize>) -> Option<usize> {
    of.into_iter()
        .max_by(|a, b| spans[*a].end.total_cmp(&spans[*b].end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(history: &History) -> Vec<String> {
        critical_path(history)
            .iter()
            .map(|link| {
                let span = &history.spans[link.span];
                format!("{} {}", span.host().unwrap_or("-"), span.name)
            })
            .collect()
    }

    fn step(id: usize, host: &str, name: &str, begin: f64, end: f64) -> String {
        format!(
            "{{\"t\":{begin},\"event\":\"step_started\",\"step\":{id},\"host\":\"{host}\",\"name\":\"{name}\"}}\n\
             {{\"t\":{end},\"event\":\"step_finished\",\"step\":{id},\"host\":\"{host}\",\"name\":\"{name}\",\"outcome\":\"changed\",\"seconds\":1}}\n"
        )
    }

    fn planned(id: usize, host: &str, name: &str, after: &[usize]) -> String {
        format!(
            "{{\"t\":0,\"event\":\"step_planned\",\"step\":{id},\"host\":\"{host}\",\"name\":\"{name}\",\"why\":\"\",\"after\":{after:?}}}\n"
        )
    }

    #[test]
    fn it_follows_what_a_step_needed_and_not_what_ended_meanwhile() {
        let text = [
            planned(0, "a", "first", &[]),
            planned(1, "b", "aside", &[]),
            planned(2, "a", "last", &[0]),
            step(0, "a", "first", 0.0, 2.0),
            step(1, "b", "aside", 0.0, 2.001),
            step(2, "a", "last", 2.002, 5.0),
        ];
        assert_eq!(
            names(&super::super::replay::read(&text.concat())),
            ["a first", "a last"]
        );
    }

    #[test]
    fn a_step_that_waited_for_room_follows_the_one_that_made_it() {
        let text = [
            planned(0, "b", "prepare", &[]),
            planned(1, "a", "install", &[]),
            planned(2, "b", "install", &[0]),
            step(0, "b", "prepare", 0.0, 0.2),
            step(1, "a", "install", 0.0, 4.0),
            step(2, "b", "install", 4.001, 9.0),
        ];
        let history = super::super::replay::read(&text.concat());
        assert_eq!(names(&history), ["a install", "b install"]);
    }

    #[test]
    fn without_the_plan_it_follows_the_clock() {
        let text = [
            step(0, "a", "first", 0.1, 2.0),
            step(1, "b", "aside", 0.1, 3.0),
            step(2, "a", "last", 2.001, 5.0),
        ];
        let history = super::super::replay::read(&text.concat());
        assert_eq!(names(&history), ["a first", "a last"]);
        let gaps: Vec<f64> = critical_path(&history)
            .iter()
            .map(|link| link.gap)
            .collect();
        assert!((gaps[0] - 0.1).abs() < 1e-9, "{gaps:?}");
    }

    #[test]
    fn of_two_that_end_at_one_moment_the_one_on_the_same_host_is_the_cause() {
        let state = |t: f64, host: &str, event: &str, state: &str| {
            format!(
                "{{\"t\":{t},\"event\":\"{event}\",\"host\":\"{host}\",\"state\":\"{state}\"}}\n"
            )
        };
        let text = [
            state(0.0, "a", "host", "connecting"),
            state(0.1, "b", "host", "connecting"),
            state(1.0, "a", "host", "connected"),
            state(1.0, "b", "host", "connected"),
            state(1.5, "b", "facts_read", ""),
            state(2.0, "a", "facts_read", ""),
        ];
        let history = super::super::replay::read(&text.concat());
        assert_eq!(names(&history), ["a connect", "a read facts"]);
    }

    #[test]
    fn moments_at_the_same_time_do_not_turn_in_circles() {
        let text = [
            step(0, "a", "x", 1.0, 1.0),
            step(1, "b", "y", 1.0, 1.0),
            step(2, "c", "z", 1.0, 1.0),
        ];
        assert_eq!(
            critical_path(&super::super::replay::read(&text.concat())).len(),
            1
        );
    }
}
