//! The chart of a drill: what clients got at each moment, and the state of each member.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::axis::{self, Axis, fits, pct};
use crate::{
    drill::{
        Scenario,
        record::{Band, Drill, Hold, Mark, Seen, Span},
    },
    event::Moment,
    report::{labels, quantity::duration},
};

/// Heights in pixels.
const MARK: f64 = 18.0;
const HEADING: f64 = 18.0;
const WRITES: f64 = 84.0;
const READS: f64 = 56.0;
const STRIP: f64 = 5.0;
const BAND: f64 = 15.0;
const GAP: f64 = 10.0;

/// The width of a numbered mark on a phone, in percent.
const MARK_WIDTH: f64 = 6.0;

pub(super) fn chart(drill: &Drill) -> Markup {
    let samples = &drill.samples;
    let step = f64::from(samples.step_ms) / 1000.0;
    let end = drill.bands.iter().map(|band| band.to);
    let end = end.fold(samples.writes_ok.len() as f64 * step, f64::max);
    let fault = drill.marks.iter().find(|mark| mark.moment == Moment::Fault);
    let axis = Axis::new(0.0, end).around(fault.map_or(0.0, |mark| mark.t));
    let marks = shown(&drill.marks);
    let rows = rows(&marks, &axis);
    let top = axis::HEIGHT + rows.iter().max().map_or(0.0, |row| (row + 1) as f64) * MARK;
    let members = members(&drill.bands);
    let writes = Panel {
        heading: "writes acknowledged",
        class: "writes",
        top,
        height: WRITES,
        ok: &samples.writes_ok,
        failed: &samples.writes_failed,
        gaps: &drill.measured.write_gaps,
        hold: drill.hold.as_ref(),
    };
    let reads = Panel {
        heading: "reads answered",
        class: "reads",
        top: writes.bottom(),
        height: READS,
        ok: &samples.reads_ok,
        failed: &samples.reads_failed,
        gaps: &drill.measured.read_gaps,
        hold: None,
    };
    let bands = reads.bottom();
    let height = bands + members.len() as f64 * (HEADING + BAND + 2.0) + 2.0;
    html! {
        figure.chart {
            svg width="100%" height=(height) role="img"
                aria-label="Acknowledged writes and answered reads over time, and the members' roles" {
                (axis.draw(height))
                (writes.draw(&axis, step, samples.step_ms))
                (reads.draw(&axis, step, samples.step_ms))
                @for (i, member) in members.iter().enumerate() {
                    (band(member, &drill.bands, bands + i as f64 * (HEADING + BAND + 2.0), &axis))
                }
                @for (i, (mark, row)) in marks.iter().zip(&rows).enumerate() {
                    (draw_mark(i + 1, mark, said(drill, mark.moment), *row, height, &axis))
                }
            }
            figcaption {
                ol.marks {
                    @for mark in &marks {
                        li.(tone(mark.moment)) {
                            @if let Some(fault) = fault { b { (since(mark.t - fault.t)) } " " }
                            (said(drill, mark.moment))
                            @if let Some(host) = &mark.host { " (" (host) ")" }
                        }
                    }
                }
                p.legend {
                    span.key.leader { "takes writes" } span.key.stalled { "writes hang" }
                    span.key.replica { "replica" } span.key.refusing { "starts or stops" }
                    span.key.down { "no answer" }
                    @if drill.hold.is_some() { span.key.held-up { "replication held up" } }
                }
            }
        }
    }
}

fn said(drill: &Drill, moment: Moment) -> &'static str {
    labels::moment(moment, drill.scenario == Scenario::Switchover)
}

/// Seconds since the fault.
fn since(seconds: f64) -> String {
    if seconds < 0.0 {
        format!("−{}", duration(-seconds))
    } else {
        format!("+{}", duration(seconds))
    }
}

/// The marks that get a line through the chart, by time.
fn shown(marks: &[Mark]) -> Vec<&Mark> {
    let mut shown: Vec<&Mark> = marks
        .iter()
        .filter(|mark| match mark.moment {
            Moment::HeldUp
            | Moment::Fault
            | Moment::NewLeader
            | Moment::Accepted
            | Moment::Repair
            | Moment::Whole => true,
            // The first is at the chart's beginning, the last at its end; refused writes are shaded.
            Moment::Load | Moment::Refused | Moment::End => false,
        })
        .collect();
    shown.sort_by(|a, b| a.t.total_cmp(&b.t));
    shown
}

/// One row for each mark, so that no two numbers overlap.
fn rows(marks: &[&Mark], axis: &Axis) -> Vec<usize> {
    let mut free_from: Vec<f64> = Vec::new();
    marks
        .iter()
        .map(|mark| {
            let x = axis.x(mark.t);
            let row = free_from.iter().position(|free| *free <= x);
            let row = row.unwrap_or_else(|| {
                free_from.push(0.0);
                free_from.len() - 1
            });
            free_from[row] = x + MARK_WIDTH;
            row
        })
        .collect()
}

fn tone(moment: Moment) -> &'static str {
    match moment {
        Moment::HeldUp | Moment::Fault | Moment::Refused => "bad",
        Moment::NewLeader => "lead",
        Moment::Accepted | Moment::Whole => "good",
        Moment::Load | Moment::Repair | Moment::End => "plain",
    }
}

fn draw_mark(
    number: usize,
    mark: &Mark,
    said: &str,
    row: usize,
    height: f64,
    axis: &Axis,
) -> Markup {
    // The disc stays inside the picture; its line is at the exact place.
    let (x, disc) = (axis.x(mark.t), axis.x(mark.t).clamp(2.6, 97.4));
    let y = axis::HEIGHT + row as f64 * MARK + MARK / 2.0 - 2.0;
    html! {
        g class=(format!("mark {}", tone(mark.moment))) {
            title { (said) }
            line x1=(pct(x)) x2=(pct(x)) y1=(y) y2=(height) {}
            circle cx=(pct(disc)) cy=(y) r="7.5" {}
            text x=(pct(disc)) y=(y + 3.8) text-anchor="middle" { (number) }
        }
    }
}

/// What clients got, for one kind.
struct Panel<'a> {
    heading: &'a str,
    class: &'static str,
    top: f64,
    height: f64,
    ok: &'a [u32],
    failed: &'a [u32],
    gaps: &'a [Span],
    /// While replication was delayed.
    hold: Option<&'a Hold>,
}

impl Panel<'_> {
    fn bottom(&self) -> f64 {
        self.top + HEADING + self.height + STRIP + GAP
    }

    fn draw(&self, axis: &Axis, step: f64, step_ms: u32) -> Markup {
        let most = self.ok.iter().copied().max().unwrap_or(0).max(1);
        let top = self.top + HEADING;
        let base = top + self.height;
        let width = pct(axis.width(0.0, self.ok.len() as f64 * step));
        let view = format!("0 0 {} {most}", self.ok.len().max(1));
        html! {
            text class="group" x="0" y=(self.top + 12.0) { (self.heading) }
            text class="tick" x="100%" y=(self.top + 12.0) text-anchor="end" {
                "up to " (most) " in " (step_ms) " ms"
            }
            @for gap in self.gaps {
                (shade(gap, top, self.height, axis))
            }
            @if let Some(hold) = self.hold {
                rect class="held-up" x=(pct(axis.x(hold.from))) width=(pct(axis.width(hold.from, hold.to))) y=(top) height=(self.height) {
                    title { "replication is held up" }
                }
            }
            svg class=(self.class) x="0" y=(top) width=(width) height=(self.height) viewBox=(view) preserveAspectRatio="none" {
                path d=(area(self.ok, most)) {}
            }
            line class="rule" x1="0" x2="100%" y1=(base) y2=(base) {}
            @for (from, to) in stretches(self.failed) {
                @let (from, to) = (from as f64 * step, to as f64 * step);
                rect class="refused" x=(pct(axis.x(from))) width=(pct(axis.width(from, to).max(0.2))) y=(base) height=(STRIP) {}
            }
        }
    }
}

/// The time in which no client got anything, with its length.
fn shade(gap: &Span, y: f64, height: f64, axis: &Axis) -> Markup {
    let width = axis.width(gap.from, gap.to);
    let text = duration(gap.to - gap.from);
    html! {
        rect class="gap" x=(pct(axis.x(gap.from))) width=(pct(width)) y=(y) height=(height) {}
        @if let Some(fits) = fits(&text, width) {
            text class=(format!("outage {fits}")) x=(pct(axis.x(gap.from) + width / 2.0)) y=(y + height / 2.0 + 4.0) text-anchor="middle" { (text) }
        }
    }
}

/// The outline of one bar for each sample, from the base line up.
fn area(values: &[u32], most: u32) -> String {
    let mut path = format!("M0 {most}");
    let mut height = 0;
    for (i, value) in values.iter().enumerate() {
        if *value != height {
            let _ = write!(path, "H{i}V{}", most - value);
            height = *value;
        }
    }
    let _ = write!(path, "H{}V{most}Z", values.len());
    path
}

/// Ranges of samples in which something failed: from one, up to but not including another.
fn stretches(failed: &[u32]) -> Vec<(usize, usize)> {
    let mut stretches: Vec<(usize, usize)> = Vec::new();
    for (i, failed) in failed.iter().enumerate() {
        if *failed == 0 {
            continue;
        }
        match stretches.last_mut() {
            Some((_, to)) if *to == i => *to = i + 1,
            _ => stretches.push((i, i + 1)),
        }
    }
    stretches
}

fn members(bands: &[Band]) -> Vec<&str> {
    let mut members: Vec<&str> = bands.iter().map(|band| band.member.as_str()).collect();
    members.dedup();
    members
}

fn band(member: &str, bands: &[Band], top: f64, axis: &Axis) -> Markup {
    let own = bands.iter().filter(|band| band.member == member);
    html! {
        text class="group" x="0" y=(top + 12.0) { (member) }
        @for band in own {
            @let width = axis.width(band.from, band.to);
            svg class=(format!("band {}", class(band.role))) x=(pct(axis.x(band.from))) width=(pct(width)) y=(top + HEADING - 1.0) height=(BAND) {
                title { (member) ": " (role(band.role)) " for " (duration(band.to - band.from)) }
                rect width="100%" height="100%" {}
                @if let Some(fits) = fits(role(band.role), width) {
                    text class=(fits) x="5" y="11.5" { (role(band.role)) }
                }
            }
        }
    }
}

fn class(role: Seen) -> &'static str {
    match role {
        Seen::Leader => "leader",
        Seen::Stalled => "stalled",
        Seen::Replica => "replica",
        Seen::Refusing => "refusing",
        Seen::Down => "down",
    }
}

fn role(role: Seen) -> &'static str {
    match role {
        Seen::Leader => "leader",
        Seen::Stalled => "writes hang",
        Seen::Replica => "replica",
        Seen::Refusing => "starts or stops",
        Seen::Down => "no answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_drawn_from_the_base_and_closed() {
        assert_eq!(area(&[3, 3, 0, 1], 3), "M0 3H0V0H2V3H3V2H4V3Z");
        assert_eq!(area(&[], 1), "M0 1H0V1Z");
    }

    #[test]
    fn failures_side_by_side_are_one_stretch() {
        assert_eq!(stretches(&[0, 2, 1, 0, 0, 5]), [(1, 3), (5, 6)]);
    }

    #[test]
    fn numbers_that_would_touch_get_rows_of_their_own() {
        let mark = |t| Mark {
            t,
            moment: Moment::Fault,
            host: None,
        };
        let marks = [mark(10.0), mark(12.0), mark(17.0), mark(18.5), mark(60.0)];
        let marks: Vec<&Mark> = marks.iter().collect();
        assert_eq!(rows(&marks, &Axis::new(0.0, 100.0)), [0, 1, 0, 1, 0]);
    }
}
