//! Status codes of HTTP (RFC 9110 §15) that this server sends.

/// A status code with its reason phrase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// The three digits.
    pub code: u16,
    /// The words behind them.
    pub phrase: &'static str,
}

impl Status {
    /// Here it is.
    pub const OK: Self = Self::new(200, "OK");
    /// The request is malformed.
    pub const BAD_REQUEST: Self = Self::new(400, "Bad Request");
    /// The request lacks a token that is accepted.
    pub const UNAUTHORIZED: Self = Self::new(401, "Unauthorized");
    /// The request is not permitted.
    pub const FORBIDDEN: Self = Self::new(403, "Forbidden");
    /// There is nothing at this path.
    pub const NOT_FOUND: Self = Self::new(404, "Not Found");
    /// The method is not one that this path takes.
    pub const METHOD_NOT_ALLOWED: Self = Self::new(405, "Method Not Allowed");
    /// The head did not come in time.
    pub const REQUEST_TIMEOUT: Self = Self::new(408, "Request Timeout");
    /// A body whose length nobody knows.
    pub const LENGTH_REQUIRED: Self = Self::new(411, "Length Required");
    /// The body is beyond the limit.
    pub const CONTENT_TOO_LARGE: Self = Self::new(413, "Content Too Large");
    /// The body is not of the kind that is taken here.
    pub const UNSUPPORTED_MEDIA_TYPE: Self = Self::new(415, "Unsupported Media Type");
    /// Another protocol, or another version of it, is needed.
    pub const UPGRADE_REQUIRED: Self = Self::new(426, "Upgrade Required");
    /// Too much of this came from there (RFC 6585 §4).
    pub const TOO_MANY_REQUESTS: Self = Self::new(429, "Too Many Requests");
    /// The head is beyond the limit.
    pub const HEAD_TOO_LARGE: Self = Self::new(431, "Request Header Fields Too Large");
    /// The server is full, or stopping.
    pub const SERVICE_UNAVAILABLE: Self = Self::new(503, "Service Unavailable");
    /// Not HTTP/1.
    pub const VERSION_NOT_SUPPORTED: Self = Self::new(505, "HTTP Version Not Supported");

    const fn new(code: u16, phrase: &'static str) -> Self {
        Self { code, phrase }
    }
}
