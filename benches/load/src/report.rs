//! What a run found: a table for people on the standard error, a JSON object a run on the
//! standard output and, where asked for, as a line of a file.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use crate::figures::{Memory, Span, explain};
use crate::histogram::Histogram;

/// A JSON object under construction, and the lines for people.
#[derive(Debug)]
pub(crate) struct Report {
    json: String,
    lines: String,
}

impl Report {
    pub(crate) fn new(command: &str) -> Self {
        let mut report = Self {
            json: "{".to_owned(),
            lines: String::new(),
        };
        report.text("command", command);
        report
    }

    fn member(&mut self, name: &str, value: &str) {
        if self.json.len() > 1 {
            self.json.push(',');
        }
        // Writing to a string can't fail.
        let _ = write!(self.json, "\"{name}\":{value}");
    }

    /// A member that is a string.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.member(name, &quoted(value));
    }

    /// A member that is a whole number.
    pub(crate) fn count(&mut self, name: &str, value: u64) {
        self.member(name, &value.to_string());
    }

    /// A member that is a fraction, with six significant digits.
    pub(crate) fn number(&mut self, name: &str, value: f64) {
        let digits = match value.abs() {
            value if !value.is_finite() => return self.member(name, "null"),
            value if value >= 1.0 => 5_usize.saturating_sub(value.log10() as usize),
            _ => 6,
        };
        self.member(name, &format!("{value:.digits$}"));
    }

    /// A member that is a boolean.
    pub(crate) fn flag(&mut self, name: &str, value: bool) {
        self.member(name, &value.to_string());
    }

    /// A member that is an array of objects.
    pub(crate) fn objects(&mut self, name: &str, objects: Vec<Self>) {
        let objects: Vec<_> = objects.into_iter().map(Self::into_json).collect();
        self.member(name, &format!("[{}]", objects.join(",")));
    }

    /// An object within.
    pub(crate) const fn inner() -> Self {
        Self {
            json: String::new(),
            lines: String::new(),
        }
    }

    /// A line for people.
    pub(crate) fn line(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.lines, "  {name:<28} {value}");
    }

    /// A line for people without a name.
    pub(crate) fn plain_line(&mut self, text: &str) {
        let _ = writeln!(self.lines, "  {text}");
    }

    /// Latencies, in microseconds.
    pub(crate) fn latencies(&mut self, name: &str, label: &str, histogram: &Histogram) {
        let micros = |part| histogram.quantile(part) as f64 / 1e3;
        let values = [
            micros(0.5),
            micros(0.99),
            micros(0.999),
            histogram.max() as f64 / 1e3,
        ];
        let names = ["p50", "p99", "p999", "max"];
        for (part, value) in names.iter().zip(values) {
            self.number(&format!("{name}_{part}_us"), value);
        }
        let [p50, p99, p999, max] = values;
        let text = format!("p50 {p50:.0} us, p99 {p99:.0} us, p99.9 {p999:.0} us, max {max:.0} us");
        self.line(label, &text);
    }

    /// What the span of time says about both sides.
    pub(crate) fn span(&mut self, span: &Span, idle: &'static str) {
        let limited_by = span.limited_by(idle);
        self.number("seconds", span.seconds);
        self.number("server_cpu_seconds", span.server_cpu_us / 1e6);
        self.number("server_busy", span.server_busy);
        self.number("server_waiting", span.server_waiting);
        self.count(
            "server_involuntary_switches",
            span.server_involuntary_switches,
        );
        self.number("generator_busy", span.generator_busy);
        self.number("generator_waiting", span.generator_waiting);
        self.number("core_others", span.core_others);
        self.number("stolen", span.stolen);
        self.text("limited_by", limited_by);
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let busy = format!(
            "server {}, generator {} of {:.2} s",
            percent(span.server_busy),
            percent(span.generator_busy),
            span.seconds
        );
        self.line("busy", &busy);
        let disturbance = format!(
            "server waited {}, generator {}, stolen {}",
            percent(span.server_waiting),
            percent(span.generator_waiting),
            percent(span.stolen)
        );
        self.line("disturbance", &disturbance);
        self.line("limited by", explain(limited_by));
    }

    /// Memory of the server.
    pub(crate) fn memory(&mut self, memory: &Memory) {
        self.count("server_rss_anon_bytes", memory.anonymous);
        self.count("server_rss_bytes", memory.resident);
        let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        let text = format!(
            "{:.1} MiB anonymous, {:.1} MiB in all",
            mib(memory.anonymous),
            mib(memory.resident)
        );
        self.line("server's memory", &text);
    }

    fn into_json(self) -> String {
        format!("{{{}}}", self.json.trim_start_matches('{'))
    }

    /// Prints everything.
    pub(crate) fn publish(self, title: &str, file: Option<&Path>) -> Result<(), String> {
        let mut errors = std::io::stderr().lock();
        // Nobody to tell if the standard error is closed.
        let _ = write!(errors, "{title}\n{}", self.lines);
        let json = self.into_json() + "\n";
        let mut output = std::io::stdout().lock();
        output
            .write_all(json.as_bytes())
            .map_err(|error| format!("cannot write the result: {error}"))?;
        if let Some(path) = file {
            let written = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|mut file| file.write_all(json.as_bytes()));
            written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if (letter as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", letter as u32);
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// A number with its thousands apart.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && digit != '-' {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_json() {
        let mut report = Report::new("a \"b\"\n\\");
        report.count("n", 7);
        report.number("x", 1_234_567.891);
        report.number("y", 1.0 / 3.0);
        report.number("z", f64::NAN);
        let mut round = Report::inner();
        round.flag("is", true);
        report.objects("rounds", vec![round, Report::inner()]);
        assert_eq!(
            report.into_json(),
            "{\"command\":\"a \\\"b\\\"\\u000a\\\\\",\"n\":7,\"x\":1234568,\"y\":0.333333,\"z\":null,\
             \"rounds\":[{\"is\":true},{}]}"
        );
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!(grouped(1_234_567.0), "1 234 567");
        assert_eq!(grouped(999.4), "999");
    }
}
