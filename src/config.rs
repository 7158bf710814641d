//! Every limit and every time of the server, with its default, in one place.
//!
//! What is in a `Config` has been validated: the parts that use it check nothing again.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// What the hub allows to one connection, and to all of them together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HubLimits {
    /// Subscriptions that a connection may have at once.
    pub subscriptions_max: usize,
    /// Values in all subscriptions of a connection together; a wildcard counts as one.
    pub values_max: usize,
    /// Subscriptions that all connections may have together.
    pub subscriptions_total_max: usize,
    /// Values in all subscriptions of all connections together.
    pub values_total_max: usize,
    /// Bytes of the texts of all subscriptions together, each text counted once.
    pub text_bytes_max: usize,
    /// How many hundredths of each of these three totals one address may have; all: no share.
    pub share_percent: usize,
    /// Bytes of a message from a connection that may not publish.
    pub message_bytes_max: usize,
    /// Bytes of a message from a connection that may publish by where it comes from.
    pub publish_bytes_max: usize,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            subscriptions_max: 256,
            values_max: 1024,
            subscriptions_total_max: 1_000_000,
            values_total_max: 4_000_000,
            text_bytes_max: 64 * 1024 * 1024,
            share_percent: 25,
            message_bytes_max: 64 * 1024,
            publish_bytes_max: 1024 * 1024,
        }
    }
}

/// How far back the history reaches. Either of them being zero turns it off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryLimits {
    /// How old what is kept may be.
    pub age_max: Duration,
    /// Bytes of memory that it may take.
    pub bytes_max: usize,
}

impl HistoryLimits {
    /// Whether anything is kept.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.bytes_max > 0 && !self.age_max.is_zero()
    }
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            age_max: Duration::from_secs(300),
            bytes_max: 32 * 1024 * 1024,
        }
    }
}

/// What the hub needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HubConfig {
    /// The limits.
    pub limits: HubLimits,
    /// How long a client may take to show a token, where it needs one.
    pub token_timeout: Duration,
}

impl Default for HubConfig {
    fn default() -> Self {
        Self {
            limits: HubLimits::default(),
            token_timeout: Duration::from_secs(10),
        }
    }
}

/// How long the server waits for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// For the opening handshake, from accept to the end of the request head.
    pub handshake: Duration,
    /// Silence after which a peer is pinged; the hub tells it to clients.
    pub ping_interval: Duration,
    /// For any sign of life after a Ping has left.
    pub pong: Duration,
    /// For a message, from its first byte to its last.
    pub message: Duration,
    /// For the peer's Close and end of file, once the closing handshake has begun.
    pub close: Duration,
    /// For a socket that takes nothing, while something waits to be written.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            ping_interval: Duration::from_secs(25),
            pong: Duration::from_secs(10),
            message: Duration::from_secs(60),
            close: Duration::from_secs(5),
            write: Duration::from_secs(60),
        }
    }
}

/// What the shell allows to all connections together, and to each of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerLimits {
    /// Open sessions at once.
    pub connections_max: usize,
    /// Open sessions on the publishers' lane at once, beside those.
    pub publishers_max: usize,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Bytes that may wait to be written to one connection.
    pub send_queue_bytes_max: usize,
    /// Bytes that the process keeps for all peers together.
    pub buffer_bytes_max: usize,
    /// Frames that a client may send per second, fragments and control frames among them.
    pub messages_per_second: Option<NonZeroU32>,
    /// Bytes that a client may send per second.
    pub bytes_per_second: Option<NonZeroU32>,
}

impl ServerLimits {
    /// Whether clients have a rate.
    #[must_use]
    pub const fn has_rates(&self) -> bool {
        self.messages_per_second.is_some() || self.bytes_per_second.is_some()
    }
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            publishers_max: 256,
            head_bytes_max: 16 * 1024,
            send_queue_bytes_max: 1024 * 1024,
            buffer_bytes_max: 256 * 1024 * 1024,
            messages_per_second: None,
            bytes_per_second: None,
        }
    }
}

/// Where to listen for publishers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket, made at this path.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => fmt::Display::fmt(address, f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What the shell needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Where to listen for publishers alone, with connections of their own.
    pub publish_listen: Vec<ListenAddress>,
    /// The permissions of the Unix sockets.
    pub socket_mode: u32,
    /// Whether other processes may listen on the same TCP addresses.
    pub reuse_port: bool,
    /// The limits.
    pub limits: ServerLimits,
    /// The times.
    pub timeouts: Timeouts,
    /// How long clients get to take their Close when the server stops.
    pub drain: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8000))],
            publish_listen: Vec::new(),
            socket_mode: 0o660,
            reuse_port: false,
            limits: ServerLimits::default(),
            timeouts: Timeouts::default(),
            drain: Duration::from_secs(5),
        }
    }
}

/// What is trusted, as it was written: files are yet to be read.
#[derive(Clone, PartialEq, Debug)]
pub struct TrustConfig {
    /// Whether a local peer may publish where nothing else is asked for.
    pub local_publish: bool,
    /// The tokens of publishers.
    pub publish_token_file: Option<PathBuf>,
    /// The keys that sign the tokens of clients.
    pub client_key_file: Option<PathBuf>,
    /// Origins that are allowed; none: all are.
    pub allow_origin: Vec<String>,
    /// Networks of proxies.
    pub trusted_proxy: Vec<String>,
    /// Networks that are shown the metrics.
    pub metrics_from: Vec<String>,
    /// Connections of one address at once.
    pub connections_per_address: Option<NonZeroU32>,
    /// Upgrades per second, per address.
    pub upgrades_per_address: Option<f64>,
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self {
            local_publish: true,
            publish_token_file: None,
            client_key_file: None,
            allow_origin: Vec::new(),
            trusted_proxy: Vec::new(),
            metrics_from: Vec::new(),
            connections_per_address: None,
            upgrades_per_address: None,
        }
    }
}

/// The Redis that several servers share, as it was written: its URLs and its file are yet to be read.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// Where it is, several if it may move; none: this server is alone. A URL may have a password in it.
    pub urls: Vec<String>,
    /// Its password, where the URL has none.
    pub password_file: Option<PathBuf>,
    /// The key of the stream.
    pub stream: String,
    /// Entries that the stream keeps, about.
    pub maxlen: usize,
    /// How long an answer is waited for.
    pub timeout: Duration,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            password_file: None,
            stream: "crieur".to_owned(),
            maxlen: 100_000,
            timeout: Duration::from_secs(1),
        }
    }
}

/// Shows no URL.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = (self.urls.len(), &self.stream, self.maxlen, self.timeout);
        f.debug_tuple("RedisConfig").field(&shown).finish()
    }
}

/// Where the console is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Console {
    /// Browsers on this host.
    #[default]
    Local,
    /// Everybody.
    Public,
    /// Nobody.
    Off,
}

/// What a line of the log looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object.
    Json,
}

/// What the program runs with.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The shell's part.
    pub server: ServerConfig,
    /// The hub's part.
    pub hub: HubConfig,
    /// How far back the history reaches.
    pub history: HistoryLimits,
    /// Where it is kept beside memory.
    pub history_directory: Option<PathBuf>,
    /// The Redis that it shares with other servers, if it does.
    pub redis: RedisConfig,
    /// What is trusted.
    pub trust: TrustConfig,
    /// Where the console is shown.
    pub console: Console,
    /// The level of the log.
    pub log: String,
    /// What its lines look like.
    pub log_format: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: ServerConfig::default(),
            hub: HubConfig::default(),
            history: HistoryLimits::default(),
            history_directory: None,
            redis: RedisConfig::default(),
            trust: TrustConfig::default(),
            console: Console::default(),
            log: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}
