//! A line of the log as a JSON object: when, how grave, from where, what, and the members that the
//! line was logged with. One line each, whatever they contain.

use std::fmt::Display;
use std::io::{self, Write};

use log::Record;
use log::kv::{Error, Key, Value, VisitSource};

/// Writes `record`, which was logged at `time`, as RFC 3339 has it.
pub(super) fn write(
    to: &mut impl Write,
    time: impl Display,
    record: &Record<'_>,
) -> io::Result<()> {
    let level = record.level().as_str().to_ascii_lowercase();
    write!(to, r#"{{"time":"{time}","level":"{level}","target":"#)?;
    write_string(to, record.target())?;
    to.write_all(br#","message":"#)?;
    write_string(to, record.args())?;
    let mut members = Members(to);
    record
        .key_values()
        .visit(&mut members)
        .map_err(io::Error::other)?;
    to.write_all(b"}\n")
}

struct Members<'a, W>(&'a mut W);

impl<'kvs, W: Write> VisitSource<'kvs> for Members<'_, W> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.write_all(b",")?;
        write_string(self.0, key)?;
        self.0.write_all(b":")?;
        match value.to_u64() {
            Some(number) => write!(self.0, "{number}")?,
            None => write_string(self.0, value)?,
        }
        Ok(())
    }
}

fn write_string(to: &mut impl Write, text: impl Display) -> io::Result<()> {
    serde_json::to_writer(to, &text.to_string()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_members_that_it_was_logged_with() {
        let code = 1002_u16;
        let members = [
            ("connection", Value::from_display(&"0.1")),
            ("code", Value::from(code)),
        ];
        let mut line = Vec::new();
        let mut builder = Record::builder();
        let builder = builder.level(log::Level::Warn).target("here");
        let record = builder.key_values(&members);
        write(&mut line, "now", &record.args(format_args!("what")).build()).expect("a vector");
        assert_eq!(
            String::from_utf8_lossy(&line),
            concat!(
                r#"{"time":"now","level":"warn","target":"here","message":"what","#,
                r#""connection":"0.1","code":1002}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_line_stays_one_whatever_it_says() {
        let text = "a\n\"b\"\\\0\u{7f}\u{2028}";
        let members = [("reason", Value::from(text))];
        let mut line = Vec::new();
        let mut builder = Record::builder();
        let record = builder.key_values(&members);
        write(
            &mut line,
            "now",
            &record.args(format_args!("{text}")).build(),
        )
        .expect("a vector");
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let json: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(
            (&json["message"], &json["reason"]),
            (&text.into(), &text.into())
        );
    }
}
