//! The text format of Prometheus, version 0.0.4. Knows the format and no figures.

use std::fmt::{Display, Write};

use super::{Bounds, Histogram};

/// The kind of the text, for `Content-Type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text that grows by one metric after the other.
#[derive(Default, Debug)]
pub struct MetricsText(String);

impl MetricsText {
    /// What only grows; `name` without its `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.begin(&format!("{name}_total"), help, "counter");
        self.sample(&format!("{name}_total"), value);
    }

    /// The same for each value of a label.
    pub fn counters<L: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) {
        let name = format!("{name}_total");
        self.begin(&name, help, "counter");
        for (of, value) in values {
            self.sample(&format!(r#"{name}{{{label}="{of}"}}"#), value);
        }
    }

    /// What is so now.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.begin(name, help, "gauge");
        self.sample(name, value);
    }

    /// The same for each value of a label, which needs no escaping.
    pub fn gauges<L: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) {
        self.begin(name, help, "gauge");
        for (of, value) in values {
            self.sample(&format!(r#"{name}{{{label}="{of}"}}"#), value);
        }
    }

    /// How values are distributed; `unit` is how many of what was observed are one of the
    /// metric's.
    pub fn histogram<B: Bounds>(
        &mut self,
        name: &str,
        help: &str,
        unit: f64,
        histogram: &Histogram<B>,
    ) {
        self.begin(name, help, "histogram");
        let mut count = 0;
        for (bound, of) in histogram.buckets() {
            count += of;
            match bound {
                Some(bound) => {
                    let bound = bound as f64 / unit;
                    self.sample(&format!(r#"{name}_bucket{{le="{bound}"}}"#), count);
                }
                None => self.sample(&format!(r#"{name}_bucket{{le="+Inf"}}"#), count),
            }
        }
        self.sample(&format!("{name}_sum"), histogram.sum() as f64 / unit);
        self.sample(&format!("{name}_count"), count);
    }

    /// The whole text.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }

    fn begin(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a string can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::WorkMicros;

    #[test]
    fn the_format_to_the_letter() {
        let mut text = MetricsText::default();
        text.counter("a", "Things.", 7);
        text.counters("b", "By code.", "code", [(1000, 1), (1001, 0)]);
        text.gauge("c", "Now.", 1.5);
        let mut histogram = Histogram::<WorkMicros>::default();
        histogram.observe(10);
        histogram.observe(11);
        histogram.observe(5_000_000);
        text.histogram("d_seconds", "Times.", 1e6, &histogram);
        let text = text.finish();
        assert!(text.starts_with(
            "# HELP a_total Things.\n# TYPE a_total counter\na_total 7\n\
             # HELP b_total By code.\n# TYPE b_total counter\nb_total{code=\"1000\"} 1\nb_total{code=\"1001\"} 0\n\
             # HELP c Now.\n# TYPE c gauge\nc 1.5\n\
             # HELP d_seconds Times.\n# TYPE d_seconds histogram\nd_seconds_bucket{le=\"0.00001\"} 1\n"
        ), "{text}");
        assert!(text.ends_with(
            "d_seconds_bucket{le=\"1\"} 2\nd_seconds_bucket{le=\"+Inf\"} 3\nd_seconds_sum 5.000021\nd_seconds_count 3\n"
        ), "{text}");
    }
}
