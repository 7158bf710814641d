//! `X-Forwarded-For` against a reading of it that walks over one list from the right.

use std::net::{IpAddr, SocketAddr};

use crieur::http::head::Head;
use crieur::hub::access::proxy::{Cidr, TrustedProxies};
use fastrand::Rng;

const TRUSTED: [&str; 3] = ["10.0.0.0/8", "2001:db8::/33", "127.0.0.1"];
const HOPS_MAX: usize = 32;

/// The first byte says whether the peer is trusted; each line of the rest is a field.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&kind, fields)) = bytes.split_first() else {
        return;
    };
    check_block(fields);
    let peer = match kind % 3 {
        0 => "10.1.2.3",
        1 => "::ffff:127.0.0.1",
        _ => "192.0.2.1",
    };
    let peer: IpAddr = peer.parse().expect("an address");
    let mut request = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    let lines: Vec<&[u8]> = fields.split(|&byte| byte == b'\n').collect();
    for line in &lines {
        request.extend_from_slice(b"x-forwarded-For:");
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let Ok(Some((head, _))) = Head::parse(&request, 0, 1 << 20) else {
        return;
    };
    let blocks = TRUSTED.map(|text| text.parse::<Cidr>().expect("a block"));
    let client = TrustedProxies(blocks.to_vec()).client(peer, &head);
    assert_eq!(client, naive_client(peer, &lines), "{:?}", lines);
}

/// The same as the protocol says it: from the right, the first address that isn't trusted, or the last;
/// nobody's if something else comes before it, or too many.
fn naive_client(peer: IpAddr, lines: &[&[u8]]) -> Option<IpAddr> {
    let list = lines.join(&b',');
    let entries: Vec<_> = list.split(|&byte| byte == b',').collect();
    let mut way = vec![Some(peer.to_canonical())];
    way.extend(entries.iter().rev().map(|entry| naive_address(entry)));
    if let Some(too_many) = way.get_mut(1 + HOPS_MAX) {
        *too_many = None;
    }
    let is_end = |hop: &&Option<IpAddr>| hop.is_none_or(|address| !naive_is_trusted(address));
    *way.iter()
        .find(is_end)
        .or_else(|| way.last())
        .expect("the peer")
}

fn naive_is_trusted(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10 || address.octets() == [127, 0, 0, 1],
        IpAddr::V6(address) => {
            let [first, second, third, ..] = address.segments();
            first == 0x2001 && second == 0xdb8 && third < 0x8000
        }
    }
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]` or `[::1]:5`, with white space around it; not 0.0.0.0, nor `::`.
fn naive_address(entry: &[u8]) -> Option<IpAddr> {
    let address = naive_any_address(entry)?.to_canonical();
    let is_nobodys = ["0.0.0.0", "::"].contains(&address.to_string().as_str());
    (!is_nobodys).then_some(address)
}

fn naive_any_address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let text = text.trim_matches([' ', '\t']);
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        return Some(IpAddr::V6(inner.parse().ok()?));
    }
    text.parse().ok().map(|address: SocketAddr| address.ip())
}

/// A block of addresses, if the text is one: its bits, one by one, decide.
fn check_block(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(block) = text.parse::<Cidr>() else {
        return;
    };
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let network: IpAddr = address.parse().expect("what was taken has an address");
    let all = if network.is_ipv4() { 32 } else { 128 };
    let bits = if bits.is_empty() {
        all
    } else {
        bits.parse().expect("a number")
    };
    assert!(bits <= all);
    assert!(block.contains(network), "{text} holds its own address");
    for bit in 0..all {
        let flipped = flip(network, bit);
        // What leaves the mapped addresses is another family.
        let is_same = flipped.to_canonical().is_ipv4() == network.to_canonical().is_ipv4();
        assert_eq!(
            block.contains(flipped),
            is_same && bit >= bits,
            "{text}, bit {bit}"
        );
    }
}

/// The address with one bit changed, counted from the left.
fn flip(address: IpAddr, bit: usize) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mut octets = address.octets();
            octets[bit / 8] ^= 0x80 >> (bit % 8);
            octets.into()
        }
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[bit / 8] ^= 0x80 >> (bit % 8);
            octets.into()
        }
    }
}

/// Lists of addresses and of what looks like some.
#[allow(dead_code, reason = "the fuzz target brings bytes of its own")]
pub(crate) fn random(random: &mut Rng) -> Vec<u8> {
    let entries = [
        "10.0.0.1",
        "10.255.0.1:80",
        " 192.0.2.7 ",
        "[2001:db8::1]",
        "[2001:db8::1]:443",
        "2001:db8:8000::1",
        "::ffff:10.0.0.9",
        "unknown",
        "",
        "[::ffff:192.0.2.1]:1",
        "10.0.0.1:",
        "127.0.0.1",
        "1.2.3",
        "[10.0.0.1]",
        "_hidden",
        "10.0.0.256",
        "0.0.0.0",
        "[::]:80",
        "\t10.1.1.1",
    ];
    let mut bytes = vec![random.u64(..) as u8];
    if random.u64(0..=4) == 0 {
        let blocks = [
            "10.0.0.0",
            "::",
            "2001:db8::",
            "::ffff:10.0.0.0",
            "0.0.0.0",
            "fe80::",
        ];
        let block = blocks[random.u64(0..=5) as usize];
        bytes.extend(format!("{block}/{}", random.u64(0..=130)).bytes());
        return bytes;
    }
    for _ in 0..random.u64(0..=40) {
        let most = if random.u64(0..=2) == 0 { 18 } else { 1 };
        let entry = entries[random.u64(0..=most) as usize];
        bytes.extend(entry.bytes());
        bytes.push(if random.u64(0..=6) == 0 { b'\n' } else { b',' });
    }
    bytes
}
