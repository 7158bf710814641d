//! JSON that answers an operator, written member by member.
//!
//! Knows the grammar and no answer. Texts of peers are escaped, names are this server's own. Main type: [`JsonText`].

use std::fmt;
use std::io::Write;

use super::written::write_text;

/// A text that is being written. What was opened is to be closed.
#[derive(Debug)]
pub struct JsonText(Vec<u8>);

impl JsonText {
    /// The beginning of an object.
    #[must_use]
    pub fn object() -> Self {
        Self(vec![b'{'])
    }

    /// Bytes that are written.
    #[must_use]
    pub const fn bytes_len(&self) -> usize {
        self.0.len()
    }

    /// Ends the object that it began with.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.0.push(b'}');
        // All that is written is text.
        String::from_utf8(self.0).unwrap_or_default()
    }

    fn separate(&mut self) {
        if !matches!(self.0.last(), Some(b'{' | b'[' | b':')) {
            self.0.push(b',');
        }
    }

    /// The name of a member, whose value comes next.
    fn name(&mut self, name: &str) {
        self.separate();
        // Writing to a vector can't fail.
        let _ = write!(self.0, r#""{name}":"#);
    }

    /// A text, which may be anything.
    pub fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        write_text(text, &mut self.0);
    }

    /// A text that needs no escapes.
    pub fn plain(&mut self, name: &str, text: &dyn fmt::Display) {
        self.name(name);
        let _ = write!(self.0, r#""{text}""#);
    }

    /// A number.
    pub fn number(&mut self, name: &str, number: u64) {
        self.raw(name, &number.to_string());
    }

    /// true or false.
    pub fn flag(&mut self, name: &str, flag: bool) {
        self.raw(name, if flag { "true" } else { "false" });
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, name: &str, json: &str) {
        self.name(name);
        self.0.extend_from_slice(json.as_bytes());
    }

    /// An entry of an array, which is JSON already.
    pub fn entry(&mut self, json: &str) {
        self.separate();
        self.0.extend_from_slice(json.as_bytes());
    }

    /// Begins an array.
    pub fn begin_list(&mut self, name: &str) {
        self.name(name);
        self.0.push(b'[');
    }

    /// Ends it.
    pub fn end_list(&mut self) {
        self.0.push(b']');
    }

    /// Begins an object; without a `name`, one in an array.
    pub fn begin(&mut self, name: Option<&str>) {
        match name {
            Some(name) => self.name(name),
            None => self.separate(),
        }
        self.0.push(b'{');
    }

    /// Ends it.
    pub fn end(&mut self) {
        self.0.push(b'}');
    }
}

/// The beginning of a text that is no longer than `bytes_max`.
#[must_use]
pub fn clipped(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_json_whatever_is_in_it() {
        let mut json = JsonText::object();
        json.text("text", "a\n\"b\"\\\u{2028}");
        json.plain("plain", &1.5);
        json.begin_list("list");
        for number in [1, 2] {
            json.begin(None);
            json.number("number", number);
            json.end();
        }
        json.end_list();
        json.begin(Some("object"));
        json.end();
        json.flag("flag", true);
        json.raw("raw", "[1]");
        json.begin_list("entries");
        json.entry("1");
        json.entry("[]");
        json.end_list();
        json.begin_list("empty");
        json.end_list();
        let expected = serde_json::json!({
            "text": "a\n\"b\"\\\u{2028}", "plain": "1.5", "list": [{"number": 1}, {"number": 2}],
            "object": {}, "flag": true, "raw": [1], "entries": [1, []], "empty": [],
        });
        let got: serde_json::Value = serde_json::from_str(&json.finish()).expect("JSON");
        assert_eq!(got, expected);
    }

    #[test]
    fn a_text_is_clipped_between_characters() {
        for (bytes_max, text) in [(0, ""), (1, "a"), (2, "a"), (3, "aé"), (9, "aéb")] {
            assert_eq!(clipped("aéb", bytes_max), text);
        }
    }
}
