//! The date of a response, as HTTP writes it. Knows no clock: the time is an argument.

use std::time::{Duration, UNIX_EPOCH};

/// The last second of the year 9999, since the Unix epoch: a year has four digits.
const SECONDS_MAX: u64 = 253_402_300_799;

/// The time since the Unix epoch as an IMF-fixdate (RFC 9110 §5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
/// A clock that is beyond what can be written stays at its end.
#[must_use]
pub fn imf_fixdate(unix_now: Duration) -> String {
    let seconds = unix_now.as_secs().min(SECONDS_MAX);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
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
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let almost_more = Duration::new(seconds, 999_999_999);
            assert_eq!(imf_fixdate(Duration::from_secs(seconds)), expected);
            assert_eq!(imf_fixdate(almost_more), expected);
        }
    }
}
