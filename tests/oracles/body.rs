//! Bodies of requests against a reading of the whole stream at once.

use crieur::http::body::{BodyError, BodyReader, Framing};
use crieur::http::head::Head;
use fastrand::Rng;

const BODY_BYTES_MAX: usize = 300;

/// The bytes are a stream of chunks, and a request whose body follows its head.
pub(crate) fn check(bytes: &[u8]) {
    check_stream(Framing::Chunked, bytes);
    if let Ok(Some((head, length))) = Head::parse(bytes, 0, 4096)
        && let Ok(framing) = Framing::of(&head)
    {
        let encodings = head.fields.values("Transfer-Encoding").count();
        let lengths = head.fields.values("Content-Length").count();
        let expected = match framing {
            Framing::None => (0, 0),
            Framing::Length(_) => (0, 1),
            Framing::Chunked => (1, 0),
        };
        assert_eq!(
            (encodings, lengths),
            expected,
            "one reader in doubt is one too many"
        );
        check_stream(framing, &bytes[length..]);
    }
}

fn check_stream(framing: Framing, stream: &[u8]) {
    let whole = read(framing, stream, stream.len().max(1));
    for piece in [1, 2, 7] {
        assert_eq!(read(framing, stream, piece), whole, "in pieces of {piece}");
    }
    let naive = match framing {
        Framing::Chunked => naive_chunks(stream),
        Framing::Length(length) => stream.get(..length).map(|body| (body.to_vec(), length)),
        Framing::None => Some((Vec::new(), 0)),
    };
    match whole {
        Ok(Some(read)) => assert_eq!(Some(read), naive),
        Ok(None) => assert_eq!(naive, None, "it has an end"),
        Err(BodyError::TooLarge { .. }) => {
            assert!(naive.is_none_or(|(body, _)| body.len() > BODY_BYTES_MAX));
        }
        Err(BodyError::Annotations) => assert!(stream.len() > 4096),
        Err(_) => assert_eq!(naive, None, "it is refused"),
    }
}

/// The body and how much was taken; `None` if more is to come.
fn read(
    framing: Framing,
    stream: &[u8],
    piece: usize,
) -> Result<Option<(Vec<u8>, usize)>, BodyError> {
    let mut reader = BodyReader::new(framing, BODY_BYTES_MAX)?;
    let mut taken = 0;
    for part in stream.chunks(piece) {
        taken += reader.read(part)?;
        if reader.is_whole() {
            break;
        }
    }
    let is_whole = reader.is_whole();
    Ok(is_whole.then(|| (reader.take_body(), taken)))
}

/// The chunked body at the start of `stream` (RFC 9112 §7.1), if there is a whole and valid one.
fn naive_chunks(stream: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut rest = stream;
    let mut body = Vec::new();
    loop {
        let line = take_line(&mut rest)?;
        let size_end = line.iter().position(|byte| !byte.is_ascii_hexdigit());
        let (size, behind) = line.split_at(size_end.unwrap_or(line.len()));
        // White space may be there only in front of an extension.
        let blank = behind
            .iter()
            .take_while(|&&byte| byte == b' ' || byte == b'\t')
            .count();
        if !(behind.is_empty() || behind[blank..].starts_with(b";")) {
            return None;
        }
        if size.len() > 15 {
            return None;
        }
        let size = std::str::from_utf8(size).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            break;
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
    loop {
        match take_line(&mut rest)? {
            [] => return Some((body, stream.len() - rest.len())),
            line if is_field(line) => {}
            _ => return None,
        }
    }
}

/// A token and a colon, and whatever a line may have behind them.
fn is_field(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let is_token_byte =
        |&byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    line.len() > name.len() && !name.is_empty() && name.iter().all(is_token_byte)
}

/// Takes a line off that ends with CRLF and has no other control character than tabs.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    line.iter().all(is_text).then_some(line)
}

/// Chunks, sometimes damaged, sometimes behind a head.
#[allow(dead_code, reason = "the fuzz target brings bytes of its own")]
pub(crate) fn random(random: &mut Rng) -> Vec<u8> {
    let mut stream = String::new();
    for _ in 0..random.u64(0..=5) {
        let size = random.u64(1..=90) as usize;
        let extension = ["", "", ";a=b", " ;c", "\t;", " "][random.u64(0..=5) as usize];
        stream += &format!("{size:x}{extension}\r\n{}\r\n", "y".repeat(size));
    }
    stream += [
        "0\r\n\r\n",
        "000;x\r\nT: 1\r\nU:\r\n\r\n",
        "0\r\n",
        "0\r\nT : 1\r\n\r\n",
        "0\r\nT: 1\r\n folded\r\n\r\n",
    ][random.u64(0..=4) as usize];
    let field = match random.u64(0..=5) {
        0 => "Transfer-Encoding: chunked",
        1 => "Content-Length: 7",
        2 => "Content-Length: 7\r\nTransfer-Encoding: chunked",
        3 => "Content-Length: 07\r\nContent-Length: 7",
        _ => "",
    };
    if !field.is_empty() {
        stream = format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n{stream}");
    }
    let mut bytes = stream.into_bytes();
    if random.u64(0..=1) == 0 {
        let position = random.u64(0..=bytes.len() as u64 - 1) as usize;
        bytes[position] = random.u64(..) as u8;
    }
    bytes
}
