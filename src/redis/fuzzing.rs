//! The body of the fuzz target: any bytes as what a Redis says.
//!
//! It runs on a small corpus as a test too, so that what a fuzzer once found stays found.

use std::time::Duration;

use super::Redis;
use super::address::{Address, Login, Server};
use super::scripts::Append;
use super::settings::Settings;
use crate::application::{Endpoint, Uplink, Uplinks};
use crate::time::Timestamp;

/// Whatever is said, nothing panics, and what must always hold does. The first byte says in which pieces the bytes come
/// and how the time goes; the writer is answered by what is behind the first zero byte. They are also read as a URL.
pub fn fuzz_redis(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<Address>();
    }
    let Some((control, bytes)) = bytes.split_first() else {
        return;
    };
    let zero = bytes.iter().position(|byte| *byte == 0);
    let (read, write) = bytes.split_at(zero.unwrap_or(bytes.len()));
    let write = write.get(1..).unwrap_or_default();
    let piece = usize::from(control & 63) + 1;
    let step = Duration::from_millis(u64::from(control >> 6) * 100);
    let mut redis = redis();
    let mut now = Timestamp::ZERO;
    open(&mut redis, now);
    let mut pieces = [write.chunks(piece), read.chunks(piece)];
    let mut seen = None;
    loop {
        let mut is_over = true;
        for (uplink, pieces) in [Uplink::Writer, Uplink::Reader]
            .into_iter()
            .zip(&mut pieces)
        {
            let Some(piece) = pieces.next() else {
                continue;
            };
            is_over = false;
            redis.handle_received(uplink, piece, now);
            let len = redis.unsent(uplink).len();
            redis.handle_sent(uplink, len, now);
        }
        now = now + step;
        for key in [None, Some("k")] {
            let entry = Append {
                kind: "\"a\"",
                notification: "1",
                is_kept: true,
                key,
            };
            let _ = redis.append(&[entry], now);
        }
        redis.handle_timeout(now);
        while let Some(event) = redis.next_event(now) {
            if let super::Event::Entry { id, .. } | super::Event::Barrier(id) = event {
                seen = Some(id);
            }
        }
        redis.check_invariants();
        let _ = (redis.next_deadline(), redis.figures(), redis.is_settled());
        open(&mut redis, now);
        if is_over {
            break;
        }
    }
    assert!(!redis.is_ready() || seen.is_some());
}

fn redis() -> Redis {
    let settings = Settings {
        stream: "crieur".into(),
        maxlen: 1000,
        timeout: Duration::from_secs(1),
        history: Duration::from_secs(60),
        takes_position: |json| !json.contains("keep"),
    };
    let server = Server {
        endpoint: Endpoint::Unix("/r".into()),
        login: Login::default(),
    };
    Redis::new(settings, vec![server.clone(), server], 1)
}

/// Opens what is to be opened.
fn open(redis: &mut Redis, now: Timestamp) {
    redis.handle_timeout(now);
    for uplink in [Uplink::Reader, Uplink::Writer] {
        if redis.take_connect(uplink).is_some() {
            redis.handle_connected(uplink, now);
            let len = redis.unsent(uplink).len();
            redis.handle_sent(uplink, len, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_holds() {
        crate::run_corpus("redis", fuzz_redis);
    }
}
