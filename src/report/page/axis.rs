//! A time axis: the position of a moment, and the ticks.
//!
//! Positions are percentages, so that a chart is as wide as its paper or screen, while its letters keep their
//! size.

use maud::{Markup, html};

use crate::quantity;

/// Room for the names of moments, in pixels.
pub(super) const HEIGHT: f64 = 22.0;

/// More than this would not fit on a phone.
const MOST_INTERVALS: f64 = 6.0;

/// Seconds from one end of a chart to the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    from: f64,
    to: f64,
    /// The moment that is labelled 0.
    zero: f64,
}

impl Axis {
    pub(super) fn new(from: f64, to: f64) -> Self {
        Self {
            from,
            // A chart without any duration still needs a width.
            to: to.max(from + 0.001),
            zero: from,
        }
    }

    /// Counts from `zero`, in both directions.
    pub(super) fn around(self, zero: f64) -> Self {
        Self { zero, ..self }
    }

    /// Percent from the left.
    pub(super) fn x(&self, t: f64) -> f64 {
        ((t - self.from) / (self.to - self.from) * 100.0).clamp(0.0, 100.0)
    }

    /// Percent of the width.
    pub(super) fn width(&self, from: f64, to: f64) -> f64 {
        self.x(to) - self.x(from)
    }

    /// The seconds between two named moments.
    fn interval(&self) -> f64 {
        const STEPS: [f64; 15] = [
            0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
            3600.0,
        ];
        let length = self.to - self.from;
        let fits = |step: &&f64| length / **step <= MOST_INTERVALS;
        // Beyond hours, whole multiples of hours.
        let hours = || (length / 3600.0 / MOST_INTERVALS).ceil() * 3600.0;
        STEPS.iter().find(fits).copied().unwrap_or_else(hours)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let step = self.interval();
        // The small number keeps a tick that rounding has moved just beyond the end.
        let first = ((self.from - self.zero) / step - 1e-9).ceil();
        let last = ((self.to - self.zero) / step + 1e-9).floor();
        (0..quantity::whole(last - first + 1.0))
            .map(|i| {
                let t = (first + i as f64) * step;
                (self.zero + t, self.label(t, step))
            })
            .collect()
    }

    fn label(&self, t: f64, step: f64) -> String {
        let sign = match t {
            t if t < 0.0 => "−",
            t if t > 0.0 && self.zero > self.from => "+",
            _ => "",
        };
        let t = t.abs();
        let text = if t < 1e-9 {
            "0".to_owned()
        } else if step < 1.0 && t < 60.0 {
            format!("{t:.1} s")
        } else if t < 60.0 {
            format!("{t:.0} s")
        } else if t < 3600.0 {
            let (minutes, seconds) = ((t / 60.0).floor(), (t % 60.0).round());
            if seconds > 0.0 {
                format!("{minutes:.0}:{seconds:02.0}")
            } else {
                format!("{minutes:.0} m")
            }
        } else {
            let (hours, minutes) = ((t / 3600.0).floor(), (t % 3600.0 / 60.0).round());
            if minutes > 0.0 {
                format!("{hours:.0} h {minutes:02.0}")
            } else {
                format!("{hours:.0} h")
            }
        };
        format!("{sign}{text}")
    }

    /// The named moments along the top, each with a line down through the chart.
    pub(super) fn draw(&self, height: f64) -> Markup {
        html! {
            @for (t, label) in self.ticks() {
                @let x = self.x(t);
                line class="grid" x1=(pct(x)) x2=(pct(x)) y1=(HEIGHT - 4.0) y2=(height) {}
                text class="tick" x=(pct(x)) y="12" text-anchor=(anchor(x)) { (label) }
            }
        }
    }
}

/// Which end of a text is at `x`, so that no text leaves the chart.
fn anchor(x: f64) -> &'static str {
    match x {
        x if x < 4.0 => "start",
        x if x > 96.0 => "end",
        _ => "middle",
    }
}

/// A percentage for SVG and CSS.
pub(super) fn pct(x: f64) -> String {
    format!("{}%", (x * 1000.0).round() / 1000.0)
}

/// The class that shows a text only in charts wide enough for it.
///
/// `room` is the text's percentage of the chart's width. `None` if no chart is wide enough.
pub(super) fn fits(text: &str, room: f64) -> Option<String> {
    const LETTER: f64 = 6.3;
    const MARGIN: f64 = 10.0;
    const WIDTHS: [u32; 6] = [320, 440, 560, 680, 840, 1000];
    let needs = (text.chars().count() as f64 * LETTER + MARGIN) / room * 100.0;
    let width = WIDTHS.iter().find(|width| f64::from(**width) >= needs)?;
    Some(format!("from{width}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn moments_are_round_and_few() {
        assert_eq!(
            labels(Axis::new(0.0, 0.5)),
            ["0", "0.1 s", "0.2 s", "0.3 s", "0.4 s", "0.5 s"]
        );
        assert_eq!(labels(Axis::new(0.0, 64.3)), ["0", "20 s", "40 s", "1 m"]);
        assert_eq!(
            labels(Axis::new(0.0, 170.0)),
            ["0", "30 s", "1 m", "1:30", "2 m", "2:30"]
        );
        assert_eq!(
            labels(Axis::new(0.0, 7300.0)),
            ["0", "30 m", "1 h", "1 h 30", "2 h"]
        );
        assert_eq!(labels(Axis::new(0.0, 90_000.0)).len(), 6);
    }

    #[test]
    fn a_zero_in_the_middle_counts_to_both_sides() {
        let axis = Axis::new(0.0, 30.0).around(8.0);
        assert_eq!(
            labels(axis),
            ["−5 s", "0", "+5 s", "+10 s", "+15 s", "+20 s"]
        );
        assert!((axis.x(8.0) - 26.667).abs() < 0.001);
    }

    #[test]
    fn no_time_at_all_is_a_chart_too() {
        let axis = Axis::new(3.0, 3.0);
        assert!(axis.x(3.0).abs() < 1e-9);
        assert!(axis.ticks().len() <= 7);
    }

    #[test]
    fn a_label_is_shown_where_it_fits() {
        assert_eq!(fits("prepare", 50.0).as_deref(), Some("from320"));
        assert_eq!(fits("install-packages", 15.0).as_deref(), Some("from840"));
        assert_eq!(fits("install-packages", 2.0), None);
    }
}
