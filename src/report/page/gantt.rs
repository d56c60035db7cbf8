//! The steps of a run as a Gantt chart over its hosts.

use maud::{Markup, html};

use super::{
    axis::{self, Axis, fits, pct},
    critical::Link,
    history::{Ending, History, Place, Span},
};
use crate::report::quantity::{count, duration};

/// Heights in pixels.
const LANE: f64 = 21.0;
const BAR: f64 = 17.0;
const HEADING: f64 = 19.0;
const GAP: f64 = 7.0;

/// A bar narrower than this, in percent of the width, would be invisible.
const NARROWEST: f64 = 0.25;

/// The spans of one host, in as many lanes as run in parallel.
struct Group<'a> {
    name: &'a str,
    top: f64,
    bars: Vec<Bar>,
    lanes: usize,
}

struct Bar {
    span: usize,
    lane: usize,
}

impl Group<'_> {
    fn y(&self, lane: usize) -> f64 {
        self.top + HEADING + lane as f64 * LANE
    }

    fn height(&self) -> f64 {
        HEADING + self.lanes as f64 * LANE + GAP
    }
}

/// The chart, with the critical path drawn through it.
pub(super) fn gantt(history: &History, path: &[Link]) -> Markup {
    let spans = &history.spans;
    let ends = spans.iter().map(|span| span.end);
    let axis = Axis::new(0.0, ends.fold(history.seconds, f64::max));
    let groups = groups(history);
    let height = groups
        .last()
        .map_or(axis::HEIGHT, |last| last.top + last.height());
    let summary = format!(
        "{} over {} on {}; the critical path is listed below",
        count(spans.len(), "span"),
        duration(history.seconds),
        count(history.hosts.len(), "host")
    );
    html! {
        figure.chart {
            svg width="100%" height=(height) role="img" aria-label=(summary) {
                (axis.draw(height))
                @for group in &groups {
                    line class="rule" x1="0" x2="100%" y1=(group.top) y2=(group.top) {}
                }
                (chain(spans, path, &groups, &axis))
                @for group in &groups {
                    text class="group" x="0" y=(group.top + 13.0) { (group.name) }
                    @for bar in &group.bars {
                        (draw(&spans[bar.span], on_path(path, bar.span), group.y(bar.lane), &axis))
                    }
                }
            }
            figcaption.legend {
                span.key.critical { "on the critical path" }
                span.key { "beside it" }
                span.key.done { "only waits or looks" }
                @if spans.iter().any(|span| span.ending == Ending::Failed) {
                    span.key.failed { "failed" }
                }
                @if spans.iter().any(|span| span.ending == Ending::CutOff) {
                    span.key.cut-off { "cut off" }
                }
            }
        }
    }
}

pub(super) fn on_path(path: &[Link], span: usize) -> bool {
    path.iter().any(|link| link.span == span)
}

fn groups(history: &History) -> Vec<Group<'_>> {
    let hosts = history.hosts.iter();
    let places = std::iter::once(Place::Site)
        .chain(hosts.map(|host| Place::Host(host.clone())))
        .chain([Place::Proof]);
    let mut top = axis::HEIGHT;
    let mut groups = Vec::new();
    for (i, place) in places.enumerate() {
        let (bars, lanes) = pack(&history.spans, &place);
        if bars.is_empty() {
            continue;
        }
        let name = match place {
            Place::Site => "around the hosts",
            Place::Host(_) => &history.hosts[i - 1],
            Place::Proof => "the whole cluster",
        };
        let group = Group {
            name,
            top,
            bars,
            lanes,
        };
        top += group.height();
        groups.push(group);
    }
    groups
}

/// Puts each span into the first lane that is free when it begins.
fn pack(spans: &[Span], place: &Place) -> (Vec<Bar>, usize) {
    let mut free_from: Vec<f64> = Vec::new();
    let mut bars = Vec::new();
    for (i, span) in spans.iter().enumerate() {
        if span.place != *place {
            continue;
        }
        let lane = free_from.iter().position(|free| *free <= span.begin);
        let lane = lane.unwrap_or_else(|| {
            free_from.push(0.0);
            free_from.len() - 1
        });
        free_from[lane] = span.end;
        bars.push(Bar { span: i, lane });
    }
    (bars, free_from.len())
}

fn draw(span: &Span, critical: bool, y: f64, axis: &Axis) -> Markup {
    let width = axis.width(span.begin, span.end).max(NARROWEST);
    let x = axis.x(span.begin).min(100.0 - width);
    let class = format!(
        "bar {}{}",
        class_of(span.ending),
        if critical { " critical" } else { "" }
    );
    html! {
        svg class=(class) x=(pct(x)) y=(y) width=(pct(width)) height=(BAR) {
            title { (tooltip(span)) }
            rect width="100%" height="100%" rx="2" {}
            @if let Some(fits) = fits(&span.name, width) {
                text class=(fits) x="5" y="12.5" { (span.name) }
            }
        }
    }
}

pub(super) fn class_of(ending: Ending) -> &'static str {
    match ending {
        Ending::Changed => "changed",
        Ending::Done => "done",
        Ending::Failed => "failed",
        Ending::CutOff => "cut-off",
    }
}

fn tooltip(span: &Span) -> String {
    let host = span.host().map(|host| format!("{host}: "));
    let mut text = format!(
        "{}{}, {} (from {} to {})",
        host.unwrap_or_default(),
        span.name,
        duration(span.seconds()),
        duration(span.begin),
        duration(span.end)
    );
    if let Some(step) = &span.step
        && !step.why.is_empty()
    {
        text += &format!("\n{}", step.why);
    }
    if let Some(error) = &span.error {
        text += &format!("\n{error}");
    }
    text
}

/// Lines from the end of each link to the beginning of the next.
fn chain(spans: &[Span], path: &[Link], groups: &[Group<'_>], axis: &Axis) -> Markup {
    let middle = |span: usize| {
        groups.iter().find_map(|group| {
            let bar = group.bars.iter().find(|bar| bar.span == span)?;
            Some(group.y(bar.lane) + BAR / 2.0)
        })
    };
    let links = path.windows(2).filter_map(|pair| {
        let (from, to) = (pair[0].span, pair[1].span);
        let (x, next) = (axis.x(spans[from].end), axis.x(spans[to].begin));
        Some((x, next, middle(from)?, middle(to)?))
    });
    html! {
        @for (x, next, from, to) in links {
            @if (from - to).abs() > f64::EPSILON {
                line.chain x1=(pct(x)) x2=(pct(x)) y1=(from) y2=(to) {}
            }
            line.chain x1=(pct(x)) x2=(pct(next)) y1=(to) y2=(to) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(place: &Place, begin: f64, end: f64) -> Span {
        Span {
            place: place.clone(),
            name: "step".into(),
            begin,
            end,
            ending: Ending::Changed,
            error: None,
            step: None,
        }
    }

    #[test]
    fn what_runs_side_by_side_gets_lanes_and_what_follows_does_not() {
        let (a, b) = (Place::Host("a".into()), Place::Host("b".into()));
        let spans = [
            span(&a, 0.0, 2.0),
            span(&b, 0.0, 9.0),
            span(&a, 1.0, 3.0),
            span(&a, 2.0, 4.0),
            span(&a, 4.0, 5.0),
        ];
        let (bars, lanes) = pack(&spans, &a);
        assert_eq!(lanes, 2);
        let places: Vec<(usize, usize)> = bars.iter().map(|bar| (bar.span, bar.lane)).collect();
        assert_eq!(places, [(0, 0), (2, 1), (3, 0), (4, 0)]);
    }
}
