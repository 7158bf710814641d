//! Messages (RFC 6455 §5.4, §5.6): fragments put together, text checked for UTF-8.

/// A whole message, lent for the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Text; that it is UTF-8 has been checked (§8.1).
    Text(&'a str),
    /// Anything else.
    Binary(&'a [u8]),
}
