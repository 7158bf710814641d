//! What can be set, in the groups of the help: its name, what it takes, where that goes, and its help.
//! What the settings mean is where they go, in `config`.

use crate::config::{Console, LogFormat};

use super::kind::Kind;

/// One setting: `--name VALUE`, or `CRIEUR_NAME`.
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// What it is for, without line breaks.
    pub(super) help: &'static str,
}

/// Settings that the help shows together.
pub(super) struct Group {
    pub(super) heading: &'static str,
    pub(super) settings: &'static [Setting],
}

/// Every setting.
pub(super) fn settings() -> impl Iterator<Item = &'static Setting> {
    GROUPS.iter().flat_map(|group| group.settings)
}

const KIB: usize = 1024;
const GIB: usize = 1024 * 1024 * 1024;

pub(super) static GROUPS: &[Group] = &[
    Group {
        heading: "Where it listens",
        settings: &[
            Setting {
                name: "listen",
                kind: Kind::Addresses {
                    field: |config| &mut config.server.listen,
                },
                help: "Address for clients; may be given several times. Not used where a service manager passes sockets",
            },
            Setting {
                name: "publish-listen",
                kind: Kind::PublishAddresses {
                    field: |config| &mut config.server.publish_listen,
                },
                help: "Address for publishers only, ADDRESS:PORT or unix:PATH; may be given several times. Publishing is refused elsewhere then",
            },
            Setting {
                name: "socket-mode",
                kind: Kind::Mode {
                    field: |config| &mut config.server.socket_mode,
                },
                help: "Permissions of Unix sockets; they say who may publish",
            },
            Setting {
                name: "reuse-port",
                kind: Kind::Switch {
                    turn: |config, is_on| config.server.reuse_port = is_on,
                },
                help: "Let other processes listen on the same addresses; needs --redis",
            },
        ],
    },
    Group {
        heading: "Who may publish and subscribe",
        settings: &[
            Setting {
                name: "publish-token-file",
                kind: Kind::File {
                    field: |config| &mut config.trust.publish_token_file,
                },
                help: "One or two tokens, a line each. Publishers must show one",
            },
            Setting {
                name: "no-local-publish",
                kind: Kind::Switch {
                    turn: |config, is_on| config.trust.local_publish = !is_on,
                },
                help: "Don't let a program publish only because it runs on this host",
            },
            Setting {
                name: "client-key-file",
                kind: Kind::File {
                    field: |config| &mut config.trust.client_key_file,
                },
                help: "One or two keys, a line each. Clients must show a JSON Web Token. Without this, everybody may subscribe to everything",
            },
            Setting {
                name: "token-timeout",
                kind: Kind::Seconds {
                    field: |config| &mut config.hub.token_timeout,
                },
                help: "Time for a client to show its token; then: Close 3000",
            },
            Setting {
                name: "allow-origin",
                kind: Kind::List {
                    field: |config| &mut config.trust.allow_origin,
                    shown: "ORIGIN",
                },
                help: "Let only web pages of these origins connect, and of the server's own; * for all; may be given several times",
            },
            Setting {
                name: "trusted-proxy",
                kind: Kind::List {
                    field: |config| &mut config.trust.trusted_proxy,
                    shown: "CIDR",
                },
                help: "Believe the X-Forwarded-For of these proxies. Publishers need a token or an address of their own then",
            },
            Setting {
                name: "metrics-from",
                kind: Kind::List {
                    field: |config| &mut config.trust.metrics_from,
                    shown: "CIDR",
                },
                help: "Networks that may read /metrics, in addition to this host",
            },
            Setting {
                name: "console",
                kind: Kind::Word {
                    shown: "WHO",
                    words: &["local", "public", "off"],
                    default: "local",
                    choose: |config, word| {
                        config.console = match word {
                            "public" => Console::Public,
                            "off" => Console::Off,
                            _ => Console::Local,
                        }
                    },
                },
                help: "Who sees the console at /: local (browsers on this host), public or off",
            },
        ],
    },
    Group {
        heading: "History, for clients that come back",
        settings: &[
            Setting {
                name: "history-seconds",
                kind: Kind::SecondsOrZero {
                    field: |config| &mut config.history.age_max,
                },
                help: "How long notifications are kept; 0 keeps none",
            },
            Setting {
                name: "history-bytes",
                kind: Kind::Bytes {
                    field: |config| &mut config.history.bytes_max,
                    min: 0,
                    max: GIB,
                },
                help: "Memory for them; 0 keeps none",
            },
            Setting {
                name: "history-directory",
                kind: Kind::Directory {
                    field: |config| &mut config.history_directory,
                },
                help: "Keep them on disk too, so that they survive a restart",
            },
        ],
    },
    Group {
        heading: "Limits of connections and messages",
        settings: &[
            Setting {
                name: "max-connections",
                kind: Kind::Count {
                    field: |config| &mut config.server.limits.connections_max,
                    min: 1,
                    max: 1_000_000,
                },
                help: "Clients at once; the next gets 503 and Retry-After",
            },
            Setting {
                name: "max-publishers",
                kind: Kind::Count {
                    field: |config| &mut config.server.limits.publishers_max,
                    min: 1,
                    max: 1_000_000,
                },
                help: "Publishers at once on --publish-listen, beside the clients",
            },
            Setting {
                name: "max-connections-per-address",
                kind: Kind::Limit {
                    field: |config| &mut config.trust.connections_per_address,
                    unit: "N",
                },
                help: "Clients of one address (IPv6: one /64); beyond: 429",
            },
            Setting {
                name: "upgrades-per-address",
                kind: Kind::Rate {
                    field: |config| &mut config.trust.upgrades_per_address,
                },
                help: "Requests a second, per address; beyond: 429",
            },
            Setting {
                name: "max-message-bytes",
                kind: Kind::Bytes {
                    field: |config| &mut config.hub.limits.message_bytes_max,
                    min: 128,
                    max: GIB,
                },
                help: "Message of a client; beyond: Close 1009",
            },
            Setting {
                name: "max-publish-bytes",
                kind: Kind::Bytes {
                    field: |config| &mut config.hub.limits.publish_bytes_max,
                    min: 128,
                    max: GIB,
                },
                help: "Message of a publisher; beyond: Close 1009",
            },
            Setting {
                name: "max-head-bytes",
                kind: Kind::Bytes {
                    field: |config| &mut config.server.limits.head_bytes_max,
                    min: 256,
                    max: 1024 * KIB,
                },
                help: "Head of a request; beyond: 431",
            },
            Setting {
                name: "messages-per-second",
                kind: Kind::Limit {
                    field: |config| &mut config.server.limits.messages_per_second,
                    unit: "RATE",
                },
                help: "Messages a second, per client; more are read later",
            },
            Setting {
                name: "bytes-per-second",
                kind: Kind::Limit {
                    field: |config| &mut config.server.limits.bytes_per_second,
                    unit: "BYTES",
                },
                help: "Bytes a second, per client; more are read later",
            },
        ],
    },
    Group {
        heading: "Limits of subscriptions (beyond: error too-many-subscriptions)",
        settings: &[
            Setting {
                name: "max-subscriptions",
                kind: Kind::Count {
                    field: |config| &mut config.hub.limits.subscriptions_max,
                    min: 1,
                    max: 1_000_000,
                },
                help: "Subscriptions of one connection",
            },
            Setting {
                name: "max-values",
                kind: Kind::Count {
                    field: |config| &mut config.hub.limits.values_max,
                    min: 1,
                    max: 1_000_000,
                },
                help: "Values in all subscriptions of one connection",
            },
            Setting {
                name: "max-total-subscriptions",
                kind: Kind::Count {
                    field: |config| &mut config.hub.limits.subscriptions_total_max,
                    min: 1,
                    max: 100_000_000,
                },
                help: "Subscriptions of all connections",
            },
            Setting {
                name: "max-total-values",
                kind: Kind::Count {
                    field: |config| &mut config.hub.limits.values_total_max,
                    min: 1,
                    max: 400_000_000,
                },
                help: "Values in all subscriptions of all connections",
            },
            Setting {
                name: "max-text-bytes",
                kind: Kind::Bytes {
                    field: |config| &mut config.hub.limits.text_bytes_max,
                    min: 128,
                    max: 64 * GIB,
                },
                help: "Texts of all subscriptions, each text once",
            },
            Setting {
                name: "max-share-per-address",
                kind: Kind::Count {
                    field: |config| &mut config.hub.limits.share_percent,
                    min: 1,
                    max: 100,
                },
                help: "Percent of these three totals for one address (IPv6: one /64); 100 sets no share",
            },
        ],
    },
    Group {
        heading: "Limits of memory",
        settings: &[
            Setting {
                name: "send-queue-bytes",
                kind: Kind::Bytes {
                    field: |config| &mut config.server.limits.send_queue_bytes_max,
                    min: 4 * KIB,
                    max: GIB,
                },
                help: "Bytes that wait for one connection; beyond: Close 1013",
            },
            Setting {
                name: "buffer-bytes",
                kind: Kind::Bytes {
                    field: |config| &mut config.server.limits.buffer_bytes_max,
                    min: 1024 * KIB,
                    max: 1024 * GIB,
                },
                help: "Bytes kept for all connections; beyond: Close 1013 for those with the most",
            },
        ],
    },
    Group {
        heading: "Times",
        settings: &[
            Setting {
                name: "handshake-timeout",
                kind: Kind::Seconds {
                    field: |config| &mut config.server.timeouts.handshake,
                },
                help: "From accept to the end of the upgrade; then: 408",
            },
            Setting {
                name: "ping-interval",
                kind: Kind::Seconds {
                    field: |config| &mut config.server.timeouts.ping_interval,
                },
                help: "Silence of a client after which it is pinged",
            },
            Setting {
                name: "pong-timeout",
                kind: Kind::Seconds {
                    field: |config| &mut config.server.timeouts.pong,
                },
                help: "Silence after the ping; then the connection is dropped",
            },
            Setting {
                name: "message-timeout",
                kind: Kind::Seconds {
                    field: |config| &mut config.server.timeouts.message,
                },
                help: "From a message's first byte to its last; then: Close 1008",
            },
            Setting {
                name: "write-timeout",
                kind: Kind::Seconds {
                    field: |config| &mut config.server.timeouts.write,
                },
                help: "For a client to take something of what waits for it; then: Close 1013",
            },
            Setting {
                name: "close-timeout",
                kind: Kind::Seconds {
                    field: |config| &mut config.server.timeouts.close,
                },
                help: "For the answer to a Close; then the connection is dropped",
            },
            Setting {
                name: "drain-timeout",
                kind: Kind::Seconds {
                    field: |config| &mut config.server.drain,
                },
                help: "For the clients' answers when the server stops",
            },
        ],
    },
    Group {
        heading: "Several servers on one Redis (experimental)",
        settings: &[
            Setting {
                name: "redis",
                kind: Kind::List {
                    field: |config| &mut config.redis.urls,
                    shown: "URL",
                },
                help: "The Redis that they share, redis://[user:password@]HOST[:PORT][/DB] or redis+unix:///PATH; of several, the first that is a master is used",
            },
            Setting {
                name: "redis-password-file",
                kind: Kind::File {
                    field: |config| &mut config.redis.password_file,
                },
                help: "Its password, one line, where the URL has none",
            },
            Setting {
                name: "redis-stream",
                kind: Kind::Text {
                    shown: "KEY",
                    field: |config| &mut config.redis.stream,
                },
                help: "Key of the stream; the servers' other keys begin with it",
            },
            Setting {
                name: "redis-maxlen",
                kind: Kind::Count {
                    field: |config| &mut config.redis.maxlen,
                    min: 1_000,
                    max: 100_000_000,
                },
                help: "Notifications that the stream keeps, about",
            },
            Setting {
                name: "redis-timeout",
                kind: Kind::Seconds {
                    field: |config| &mut config.redis.timeout,
                },
                help: "Time for an answer; then: error unavailable for publishers",
            },
        ],
    },
    Group {
        heading: "Log",
        settings: &[
            Setting {
                name: "log",
                kind: Kind::Text {
                    shown: "LEVEL",
                    field: |config| &mut config.log,
                },
                help: "error, warn, info, debug, trace or off; or @FILE, whose first line names the level and is read again on SIGHUP",
            },
            Setting {
                name: "log-format",
                kind: Kind::Word {
                    shown: "FORMAT",
                    words: &["text", "json"],
                    default: "text",
                    choose: |config, word| {
                        config.log_format = match word {
                            "json" => LogFormat::Json,
                            _ => LogFormat::Text,
                        }
                    },
                },
                help: "text, or json: one object a line",
            },
        ],
    },
];
