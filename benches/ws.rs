//! The protocol's own work, without sockets: `cargo bench --bench ws`.
//!
//! Decoding models a client's frames as they lie in the read buffer: header, unmasking, and
//! for text the check of UTF-8. Each frame is masked again by decoding it a second time, so
//! that no copy is measured. The session's figure is the whole way of a message, event included.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use crieur::http::head::Head;
use crieur::time::Timestamp;
use crieur::wire::buffers::Buffers;
use crieur::ws::event::Event;
use crieur::ws::frame::{EncodedFrame, Opcode, Role, decode_frame, encode_masked_frame};
use crieur::ws::handshake::{AcceptKey, check_upgrade};
use crieur::ws::mask::MaskingKey;
use crieur::ws::session::Session;

const MAX: usize = 1 << 20;
const PAYLOADS: [usize; 5] = [16, 125, 1024, 4096, 65536];

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: api.example.com:8000\r\nConnection: Upgrade\r\nPragma: no-cache\r\n\
Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0.0.0\r\n\
Upgrade: websocket\r\nOrigin: https://api.example.com:8000\r\nSec-WebSocket-Version: 13\r\n\
Accept-Encoding: gzip, deflate, br\r\nAccept-Language: fr-FR,fr;q=0.9\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

fn masked(opcode: Opcode, payload_len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_masked_frame(
        &mut bytes,
        opcode,
        &vec![b'x'; payload_len],
        MaskingKey([0x37, 0xfa, 0x21, 0x3d]),
    );
    bytes
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode and unmask");
    for payload_len in PAYLOADS {
        let mut bytes = masked(Opcode::Binary, payload_len);
        group.throughput(Throughput::Bytes(payload_len as u64));
        group.bench_function(BenchmarkId::from_parameter(payload_len), |bencher| {
            bencher.iter(|| {
                decode_frame(black_box(&mut bytes), Role::Server, MAX).map(|frame| frame.is_some())
            });
        });
    }
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode once");
    for payload_len in PAYLOADS {
        let payload = vec![b'x'; payload_len];
        group.throughput(Throughput::Bytes(payload_len as u64));
        group.bench_function(BenchmarkId::from_parameter(payload_len), |bencher| {
            bencher.iter(|| {
                EncodedFrame::text(black_box(&[
                    b"{\"type\":\"notification\",\"notification\":",
                    &payload,
                    b"}",
                ]))
            });
        });
    }
    group.finish();
}

fn utf8(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check of UTF-8");
    for (name, text) in [
        ("ASCII", "Bonjour, tout le monde. "),
        ("French", "Déjà vu à l'été, où ça? "),
        ("Greek", "Καλημέρα κόσμε "),
    ] {
        let text = text.repeat(4096 / text.len());
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| std::str::from_utf8(black_box(text.as_bytes())).is_ok())
        });
    }
    group.finish();
}

fn upgrade(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("upgrade");
    group.bench_function("read the head", |bencher| {
        bencher.iter(|| Head::parse(black_box(UPGRADE), 0, MAX).map(|head| head.is_some()));
    });
    let (head, _) = Head::parse(UPGRADE, 0, MAX).ok().flatten().expect("a head");
    group.bench_function("check it", |bencher| {
        bencher.iter(|| check_upgrade(black_box(&head)))
    });
    group.bench_function("accept key", |bencher| {
        bencher.iter(|| AcceptKey::of(black_box(b"dGhlIHNhbXBsZSBub25jZQ==")));
    });
    group.finish();
}

/// Reads `bytes` in a session and counts its messages.
fn turn(session: &mut Session, bytes: &mut [u8]) -> usize {
    let mut input = session.begin_turn(bytes, usize::MAX);
    let mut messages = 0;
    while let Some(event) = session.next_event(&mut input, Timestamp::ZERO) {
        match event {
            Event::Message(_) => messages += 1,
            other => panic!("{other:?}"),
        }
    }
    session.end_turn(input, Timestamp::ZERO);
    messages
}

fn session(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    for (payload_len, frames) in [(15, 64), (200, 16), (2048, 4)] {
        let accept = AcceptKey::of(b"dGhlIHNhbXBsZSBub25jZQ==");
        let now = Timestamp::ZERO;
        let mut session = Session::accept(Buffers::default(), accept, MAX, now);
        session.handle_sent(session.buffers().queue().unsent_bytes(), now);
        let stream = masked(Opcode::Text, payload_len).repeat(frames);
        group.throughput(Throughput::Elements(frames as u64));
        group.bench_function(
            BenchmarkId::new(
                "messages",
                format!("{frames} of {payload_len} bytes a read"),
            ),
            |bencher| {
                let mut bytes = stream.clone();
                bencher.iter(|| {
                    // Decoding unmasks in place: the read is made again by a copy, as by the kernel.
                    bytes.copy_from_slice(&stream);
                    assert_eq!(turn(&mut session, &mut bytes), frames);
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, decode, encode, utf8, upgrade, session);
criterion_main!(benches);
