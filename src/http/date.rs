//! The date of a response, as HTTP writes it. Knows no clock: the time is an argument.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

/// The time since the Unix epoch as an IMF-fixdate (RFC 9110 §5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
/// Its year has four digits, so a clock that is beyond them stays at their end.
#[must_use]
pub fn imf_fixdate(unix_now: Duration) -> String {
    let seconds = i64::try_from(unix_now.as_secs()).unwrap_or(i64::MAX);
    let timestamp = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp);
    text.expect("a year from 1970 to 9999 can be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_that_are_known() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            // RFC 9110 §5.6.7.
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
            (2_147_483_648, "Tue, 19 Jan 2038 03:14:08 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (u64::MAX, "Thu, 30 Dec 9999 22:00:00 GMT"),
        ] {
            let almost_more = Duration::new(seconds, 999_999_999);
            assert_eq!(imf_fixdate(Duration::from_secs(seconds)), expected);
            assert_eq!(imf_fixdate(almost_more), expected);
        }
    }
}
