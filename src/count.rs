//! A number with its noun, for what people read: "1 connection", "2 connections". Main type: [`Count`].

use std::fmt;

/// So many of something whose plural ends in s.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count<'a>(pub(crate) u64, pub(crate) &'a str);

impl fmt::Display for Count<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = *self;
        let ending = if count == 1 { "" } else { "s" };
        write!(f, "{count} {noun}{ending}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_all_others_are_many() {
        for (count, text) in [(0, "0 lines"), (1, "1 line"), (2, "2 lines")] {
            assert_eq!(Count(count, "line").to_string(), text);
        }
    }
}
