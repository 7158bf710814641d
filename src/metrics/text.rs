//! The text format of Prometheus, version 0.0.4. Knows the format and no figures.

use std::fmt::{Display, Write};

use super::{Bounds, Histogram};

/// The kind of the text, for `Content-Type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The lines above the samples of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric<'a> {
    /// Its name, as it is shown.
    pub name: &'a str,
    /// A sentence.
    pub help: &'a str,
    /// The word for its type.
    pub kind: &'a str,
}

/// A text that grows by one metric after the other.
#[derive(Default, Debug)]
pub struct MetricsText(String);

impl MetricsText {
    /// A metric of one sample.
    pub fn sample(&mut self, metric: Metric<'_>, value: impl Display) {
        self.begin(metric);
        self.line(metric.name, value);
    }

    /// A metric with a sample for each value of a label, which needs no escaping.
    pub fn samples<L: Display>(
        &mut self,
        metric: Metric<'_>,
        label: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) {
        self.begin(metric);
        let name = metric.name;
        for (of, value) in values {
            self.line(&format!(r#"{name}{{{label}="{of}"}}"#), value);
        }
    }

    /// How values are distributed; `unit` is how many of what was observed are one of the
    /// metric's.
    pub fn histogram<B: Bounds>(
        &mut self,
        metric: Metric<'_>,
        unit: f64,
        histogram: &Histogram<B>,
    ) {
        self.begin(metric);
        let name = metric.name;
        let mut count = 0;
        for (bound, of) in histogram.buckets() {
            count += of;
            match bound {
                Some(bound) => {
                    let bound = bound as f64 / unit;
                    self.line(&format!(r#"{name}_bucket{{le="{bound}"}}"#), count);
                }
                None => self.line(&format!(r#"{name}_bucket{{le="+Inf"}}"#), count),
            }
        }
        self.line(&format!("{name}_sum"), histogram.sum() as f64 / unit);
        self.line(&format!("{name}_count"), count);
    }

    /// The whole text.
    #[must_use]
    pub fn finish(self) -> String {
        self.0
    }

    fn begin(&mut self, Metric { name, help, kind }: Metric<'_>) {
        // Writing to a string can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::WorkMicros;

    #[test]
    fn the_format_to_the_letter() {
        let metric = |name, help, kind| Metric { name, help, kind };
        let mut text = MetricsText::default();
        text.sample(metric("a_total", "Things.", "counter"), 7);
        let codes = [(1000, 1), (1001, 0)];
        text.samples(metric("b_total", "By code.", "counter"), "code", codes);
        text.sample(metric("c", "Now.", "gauge"), 1.5);
        let mut histogram = Histogram::<WorkMicros>::default();
        histogram.observe(10);
        histogram.observe(11);
        histogram.observe(5_000_000);
        let times = metric("d_seconds", "Times.", "histogram");
        text.histogram(times, 1e6, &histogram);
        let text = text.finish();
        let start = r#"# HELP a_total Things.
# TYPE a_total counter
a_total 7
# HELP b_total By code.
# TYPE b_total counter
b_total{code="1000"} 1
b_total{code="1001"} 0
# HELP c Now.
# TYPE c gauge
c 1.5
# HELP d_seconds Times.
# TYPE d_seconds histogram
d_seconds_bucket{le="0.00001"} 1
"#;
        assert!(text.starts_with(start), "{text}");
        let end = r#"
d_seconds_bucket{le="1"} 2
d_seconds_bucket{le="+Inf"} 3
d_seconds_sum 5.000021
d_seconds_count 3
"#;
        assert!(text.ends_with(end), "{text}");
    }
}
