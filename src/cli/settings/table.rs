//! What can be set, one after the other: its name, what it takes, where that goes, and its help.
//! What the settings mean is where they go, in `config`.

use crate::config::{Console, LogFormat};

use super::kind::Kind;

/// One setting: `--name VALUE`, or `CRIEUR_NAME`.
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Lines that fit beside the flag.
    pub(super) help: &'static str,
}

const KIB: usize = 1024;
const GIB: usize = 1024 * 1024 * 1024;

pub(super) static SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        kind: Kind::Addresses {
            field: |config| &mut config.server.listen,
        },
        help: "Where to listen; may be given several times, and is ignored\n\
               where the service manager hands over sockets",
    },
    Setting {
        name: "publish-listen",
        kind: Kind::PublishAddresses {
            field: |config| &mut config.server.publish_listen,
        },
        help: "Where to listen for publishers alone: ADDRESS:PORT or unix:PATH;\n\
               may be given several times; nobody may publish elsewhere then",
    },
    Setting {
        name: "no-local-publish",
        kind: Kind::Switch {
            turn: |config, is_on| config.trust.local_publish = !is_on,
        },
        help: "Nobody may publish by being local to this machine",
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
        help: "Where the page at / is shown: local, public or off",
    },
    Setting {
        name: "log",
        kind: Kind::Text {
            shown: "LEVEL",
            field: |config| &mut config.log,
        },
        help: "error, warn, info, debug, trace or off; or @FILE, whose first\n\
               line says which, and which SIGHUP has read again",
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
        help: "text, or json: an object a line",
    },
    Setting {
        name: "socket-mode",
        kind: Kind::Mode {
            field: |config| &mut config.server.socket_mode,
        },
        help: "Permissions of Unix sockets: a user that may open one may publish",
    },
    Setting {
        name: "publish-token-file",
        kind: Kind::File {
            field: |config| &mut config.trust.publish_token_file,
        },
        help: "One or two tokens, a line each; publishers have to show one",
    },
    Setting {
        name: "client-key-file",
        kind: Kind::File {
            field: |config| &mut config.trust.client_key_file,
        },
        help: "One or two keys, a line each; clients have to show a JSON Web Token",
    },
    Setting {
        name: "allow-origin",
        kind: Kind::List {
            field: |config| &mut config.trust.allow_origin,
            shown: "ORIGIN",
        },
        help: "Origins that are allowed, beside the server's own; * for all",
    },
    Setting {
        name: "trusted-proxy",
        kind: Kind::List {
            field: |config| &mut config.trust.trusted_proxy,
            shown: "CIDR",
        },
        help: "Proxies whose X-Forwarded-For is believed; being local proves nothing then",
    },
    Setting {
        name: "metrics-from",
        kind: Kind::List {
            field: |config| &mut config.trust.metrics_from,
            shown: "CIDR",
        },
        help: "Networks that are shown /metrics, beside programs of this host",
    },
    Setting {
        name: "max-connections-per-address",
        kind: Kind::Limit {
            field: |config| &mut config.trust.connections_per_address,
            unit: "N",
        },
        help: "Clients of one address (IPv6: of one /64); beyond: 429",
    },
    Setting {
        name: "upgrades-per-address",
        kind: Kind::Rate {
            field: |config| &mut config.trust.upgrades_per_address,
        },
        help: "Upgrades and other requests per second, per address; beyond: 429",
    },
    Setting {
        name: "token-timeout",
        kind: Kind::Seconds {
            field: |config| &mut config.hub.token_timeout,
        },
        help: "For a client to show its token; then: Close 3000",
    },
    Setting {
        name: "max-publishers",
        kind: Kind::Count {
            field: |config| &mut config.server.limits.publishers_max,
            min: 1,
            max: 1_000_000,
        },
        help: "Publishers on their own addresses at once, beside the clients",
    },
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
        name: "max-message-bytes",
        kind: Kind::Bytes {
            field: |config| &mut config.hub.limits.message_bytes_max,
            min: 128,
            max: GIB,
        },
        help: "Message of a connection that may not publish; beyond: Close 1009",
    },
    Setting {
        name: "max-publish-bytes",
        kind: Kind::Bytes {
            field: |config| &mut config.hub.limits.publish_bytes_max,
            min: 128,
            max: GIB,
        },
        help: "Message of a connection that may publish; beyond: Close 1009",
    },
    Setting {
        name: "max-head-bytes",
        kind: Kind::Bytes {
            field: |config| &mut config.server.limits.head_bytes_max,
            min: 256,
            max: 1024 * KIB,
        },
        help: "Request head of an upgrade; beyond: 431",
    },
    Setting {
        name: "max-subscriptions",
        kind: Kind::Count {
            field: |config| &mut config.hub.limits.subscriptions_max,
            min: 1,
            max: 1_000_000,
        },
        help: "Subscriptions of a connection; beyond: too-many-subscriptions",
    },
    Setting {
        name: "max-values",
        kind: Kind::Count {
            field: |config| &mut config.hub.limits.values_max,
            min: 1,
            max: 1_000_000,
        },
        help: "Values in all subscriptions of a connection; beyond: too-many-subscriptions",
    },
    Setting {
        name: "max-total-subscriptions",
        kind: Kind::Count {
            field: |config| &mut config.hub.limits.subscriptions_total_max,
            min: 1,
            max: 100_000_000,
        },
        help: "Subscriptions of all connections; beyond: too-many-subscriptions",
    },
    Setting {
        name: "max-total-values",
        kind: Kind::Count {
            field: |config| &mut config.hub.limits.values_total_max,
            min: 1,
            max: 400_000_000,
        },
        help: "Values in all subscriptions of all; beyond: too-many-subscriptions",
    },
    Setting {
        name: "max-text-bytes",
        kind: Kind::Bytes {
            field: |config| &mut config.hub.limits.text_bytes_max,
            min: 128,
            max: 64 * GIB,
        },
        help: "Texts of all subscriptions, each once; beyond: too-many-subscriptions",
    },
    Setting {
        name: "max-share-per-address",
        kind: Kind::Count {
            field: |config| &mut config.hub.limits.share_percent,
            min: 1,
            max: 100,
        },
        help: "Percent of these three totals for one address (IPv6: one /64);\n\
               beyond: too-many-subscriptions; 100: no share",
    },
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
        help: "Bytes kept for all connections; beyond: the worst get Close 1013",
    },
    Setting {
        name: "history-seconds",
        kind: Kind::SecondsOrZero {
            field: |config| &mut config.history.age_max,
        },
        help: "How long notifications are kept for clients that come back; 0: not at all",
    },
    Setting {
        name: "history-bytes",
        kind: Kind::Bytes {
            field: |config| &mut config.history.bytes_max,
            min: 0,
            max: GIB,
        },
        help: "Memory that they may take; 0: none are kept",
    },
    Setting {
        name: "history-directory",
        kind: Kind::Directory {
            field: |config| &mut config.history_directory,
        },
        help: "Where they are kept beside memory, so that they outlive the process",
    },
    Setting {
        name: "redis",
        kind: Kind::List {
            field: |config| &mut config.redis.urls,
            shown: "URL",
        },
        help: "Experimental: the Redis that several servers share, so that each delivers what\n\
               is published at any: redis://[user:password@]HOST[:PORT][/DB] or\n\
               redis+unix:///PATH; of several, the first that is a master is used",
    },
    Setting {
        name: "redis-password-file",
        kind: Kind::File {
            field: |config| &mut config.redis.password_file,
        },
        help: "Its password, where the URL has none; one line",
    },
    Setting {
        name: "redis-stream",
        kind: Kind::Text {
            shown: "KEY",
            field: |config| &mut config.redis.stream,
        },
        help: "Key of the stream that they share; their other keys begin with it",
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
        help: "For an answer of Redis; then publishers get the error unavailable",
    },
    Setting {
        name: "reuse-port",
        kind: Kind::Switch {
            turn: |config, is_on| config.server.reuse_port = is_on,
        },
        help: "Other processes may listen on the same addresses; needs --redis",
    },
    Setting {
        name: "messages-per-second",
        kind: Kind::Limit {
            field: |config| &mut config.server.limits.messages_per_second,
            unit: "RATE",
        },
        help: "Messages and pings per second of a non-publisher; beyond: read later",
    },
    Setting {
        name: "bytes-per-second",
        kind: Kind::Limit {
            field: |config| &mut config.server.limits.bytes_per_second,
            unit: "BYTES",
        },
        help: "Bytes per second of a non-publisher; beyond: read later",
    },
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
        help: "Silence after the ping was sent; then the connection is dropped",
    },
    Setting {
        name: "message-timeout",
        kind: Kind::Seconds {
            field: |config| &mut config.server.timeouts.message,
        },
        help: "From the first byte of a message to its last; then: Close 1008",
    },
    Setting {
        name: "close-timeout",
        kind: Kind::Seconds {
            field: |config| &mut config.server.timeouts.close,
        },
        help: "For the answer to a Close; then the connection is dropped",
    },
    Setting {
        name: "write-timeout",
        kind: Kind::Seconds {
            field: |config| &mut config.server.timeouts.write,
        },
        help: "For a client that takes nothing of what waits for it; then: Close 1013",
    },
    Setting {
        name: "drain-timeout",
        kind: Kind::Seconds {
            field: |config| &mut config.server.drain,
        },
        help: "For the clients' answers when the server stops",
    },
];
