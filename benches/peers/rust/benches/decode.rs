//! Decoding and unmasking what a client sends: masked binary frames of four sizes.
//!
//! Every routine gets the same bytes: frames one behind the other, in a buffer that lies in the
//! cache and was filled before the clock runs. Nothing is copied while it runs.
//!
//! - `crieur`: `ws::frame::decode_frame`, all of it: the header's rules, the limit, the payload in place.
//! - `tungstenite`: `FrameHeader::parse` and the unmasking. tungstenite keeps its unmasking to
//!   itself; fastwebsockets' is that routine, word for word, and public.
//! - `tungstenite-message`: `WebSocketContext::read`, from bytes that it was given to a `Message`:
//!   besides, it counts a reference to its buffer and keeps the order of messages.
//! - `fastwebsockets`: `unmask` alone. Its header parser can't be had without a socket to read
//!   from, which copies; so the header is taken for free, and this is less than it needs.
//!
//! At the end, each routine's median over crieur's: above 1, crieur is faster.

use std::hint::black_box;
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crieur::ws::frame::{Opcode, Role, decode_frame, encode_masked_frame};
use crieur::ws::mask::MaskingKey;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::{self, WebSocketConfig, WebSocketContext};

const PAYLOAD_BYTES: [usize; 4] = [16, 125, 4 * 1024, 64 * 1024];
const ROUTINES: [&str; 4] = [
    "crieur",
    "tungstenite",
    "tungstenite-message",
    "fastwebsockets",
];

/// Frames of a buffer, together: more than one reading of the clock costs, less than a cache holds.
const BUFFER_BYTES: usize = 32 * 1024;

/// No frame is as long as this; a limit is looked at all the same.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

fn main() {
    let folder = output_folder();
    let mut criterion = Criterion::default()
        .output_directory(&folder)
        .configure_from_args();
    for payload_bytes in PAYLOAD_BYTES {
        let frames = Frames::new(payload_bytes);
        let mut group = criterion.benchmark_group(group_name(payload_bytes));
        group.throughput(Throughput::Elements(frames.count as u64));
        measure(&mut group, "crieur", &frames, crieur);
        measure(&mut group, "tungstenite", &frames, tungstenite);
        measure_messages(&mut group, &frames);
        measure(&mut group, "fastwebsockets", &frames, |bytes, frames| {
            fastwebsockets(bytes, frames);
        });
        group.finish();
    }
    criterion.final_summary();
    print_ratios(&folder);
}

fn group_name(payload_bytes: usize) -> String {
    format!("decode-{payload_bytes}")
}

/// Beside the build.
fn output_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
            PathBuf::from,
        )
        .join("criterion")
}

/// Masked frames of one size, one behind the other.
struct Frames {
    bytes: Vec<u8>,
    count: usize,
    header_bytes: usize,
    payload_bytes: usize,
    key: [u8; 4],
}

impl Frames {
    fn new(payload_bytes: usize) -> Self {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let payload: Vec<u8> = (0..payload_bytes).map(|index| index as u8).collect();
        let mut bytes = Vec::new();
        encode_masked_frame(&mut bytes, Opcode::Binary, &payload, MaskingKey(key));
        let frame_bytes = bytes.len();
        let count = (BUFFER_BYTES / frame_bytes).max(1);
        Self {
            bytes: bytes.repeat(count),
            count,
            header_bytes: frame_bytes - payload_bytes,
            payload_bytes,
            key,
        }
    }
}

/// Runs a routine on a fresh copy of the frames each time; only the routine is timed.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    frames: &Frames,
    routine: fn(&mut [u8], &Frames),
) {
    let mut bytes = frames.bytes.clone();
    routine(&mut bytes, frames);
    assert_unmasked(&bytes, frames, name);
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                bytes.copy_from_slice(&frames.bytes);
                let start = Instant::now();
                routine(black_box(&mut bytes), frames);
                elapsed += start.elapsed();
            }
            elapsed
        });
    });
}

/// That the routine did what it is measured for.
fn assert_unmasked(bytes: &[u8], frames: &Frames, name: &str) {
    for frame in bytes.chunks_exact(frames.header_bytes + frames.payload_bytes) {
        let mut payload = frame[frames.header_bytes..].iter().enumerate();
        assert!(payload.all(|(index, &byte)| byte == index as u8), "{name}");
    }
}

fn crieur(bytes: &mut [u8], frames: &Frames) {
    let mut rest = bytes;
    for _ in 0..frames.count {
        let frame = decode_frame(rest, Role::Server, PAYLOAD_BYTES_MAX)
            .expect("valid")
            .expect("complete");
        let frame_len = frame.header.frame_len();
        black_box(frame);
        rest = &mut rest[frame_len..];
    }
}

fn tungstenite(bytes: &mut [u8], frames: &Frames) {
    let mut rest = bytes;
    for _ in 0..frames.count {
        let mut cursor = Cursor::new(&rest);
        let (header, payload_len) = FrameHeader::parse(&mut cursor)
            .expect("valid")
            .expect("complete");
        let start = cursor.position() as usize;
        let end = start + payload_len as usize;
        let payload = &mut rest[start..end];
        fastwebsockets::unmask(payload, header.mask.expect("masked"));
        black_box((&header, payload));
        rest = &mut rest[end..];
    }
}

fn fastwebsockets(bytes: &mut [u8], frames: &Frames) {
    for frame in bytes.chunks_exact_mut(frames.header_bytes + frames.payload_bytes) {
        let payload = &mut frame[frames.header_bytes..];
        fastwebsockets::unmask(payload, frames.key);
        black_box(payload);
    }
}

/// tungstenite owns its buffer: each time a context is made from the frames, then timed.
fn measure_messages(group: &mut BenchmarkGroup<'_, WallTime>, frames: &Frames) {
    // Room behind the frames: it reserves for a payload, also when all of it is there.
    let config =
        WebSocketConfig::default().read_buffer_size(frames.bytes.len() + frames.payload_bytes + 64);
    group.bench_function("tungstenite-message", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                let mut context = WebSocketContext::from_partially_read(
                    frames.bytes.clone(),
                    protocol::Role::Server,
                    Some(config),
                );
                let start = Instant::now();
                for _ in 0..frames.count {
                    black_box(context.read(&mut NoStream).expect("a message"));
                }
                elapsed += start.elapsed();
            }
            elapsed
        });
    });
}

/// What is read is there before; there is nothing to write.
struct NoStream;

impl Read for NoStream {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        unreachable!("all frames are in the buffer")
    }
}

impl Write for NoStream {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        unreachable!("nothing is to be written")
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A table of the medians that criterion left behind, over crieur's.
fn print_ratios(folder: &Path) {
    println!("\nmedian over crieur's (above 1: crieur is faster)");
    print!("{:>12}", "payload");
    for routine in &ROUTINES[1..] {
        print!("{routine:>22}");
    }
    println!();
    for payload_bytes in PAYLOAD_BYTES {
        let median = |routine| median_ns(&folder.join(group_name(payload_bytes)).join(routine));
        let Some(own) = median(ROUTINES[0]) else {
            continue;
        };
        print!("{payload_bytes:>10} B");
        for routine in &ROUTINES[1..] {
            match median(routine) {
                Some(other) => print!("{:>22.2}", other / own),
                None => print!("{:>22}", "-"),
            }
        }
        println!();
    }
}

/// `None` if it was not measured, now or before.
fn median_ns(folder: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(folder.join("new").join("estimates.json")).ok()?;
    let estimates: serde_json::Value = serde_json::from_str(&text).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}
