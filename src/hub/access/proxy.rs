//! Which address counts where proxies stand in between.
//!
//! A proxy adds to `X-Forwarded-For` the address that it was spoken to from. What is left of the
//! first entry that a trusted proxy added, anybody may have written. Main types: [`Cidr`] and
//! [`TrustedProxies`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::http::head::Head;

/// More proxies in a row than anybody has.
const HOPS_MAX: usize = 32;

/// Bits of the mapped IPv4 addresses in front of the IPv4 address (RFC 4291 §2.5.5.2).
const MAPPED_PREFIX_BITS: u8 = 96;

/// A block of addresses, `10.0.0.0/8`. An IPv4 address that is mapped into IPv6 is an IPv4 one,
/// so `::/0` has none of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    /// The bits behind the prefix are zero.
    network: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no block of addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CidrError {
    /// Neither an address nor an address, a slash and a number of bits.
    Syntax(String),
    /// The address has more than the prefix says.
    HostBits(String),
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(got) => write!(
                f,
                "{got:?}: expected an address, or a block of them, like 127.0.0.1 or 10.0.0.0/8"
            ),
            Self::HostBits(got) => write!(f, "{got:?}: the bits behind the prefix must be zero"),
        }
    }
}

impl std::error::Error for CidrError {}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let syntax = || CidrError::Syntax(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| syntax())?;
        let prefix_bits = match prefix {
            Some(prefix) => parse_bits(prefix).ok_or_else(syntax)?,
            None => address_bits(written),
        };
        if prefix_bits > address_bits(written) {
            return Err(syntax());
        }
        let network = written.to_canonical();
        let prefix_bits = if written.is_ipv6() && network.is_ipv4() {
            prefix_bits.checked_sub(MAPPED_PREFIX_BITS)
        } else {
            Some(prefix_bits)
        };
        // A shorter prefix of a mapped address ends within the bits that mark it, which are set.
        prefix_bits
            .map(|prefix_bits| Self {
                network,
                prefix_bits,
            })
            .filter(|cidr| cidr.host_bits() == 0)
            .ok_or_else(|| CidrError::HostBits(text.to_owned()))
    }
}

impl Cidr {
    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4()
            && self.prefix_of(address) == self.prefix_of(self.network)
    }

    /// The bits of the prefix. Without any, nothing is left to compare.
    fn prefix_of(self, address: IpAddr) -> u128 {
        let behind = address_bits(self.network) - self.prefix_bits;
        to_bits(address).checked_shr(behind.into()).unwrap_or(0)
    }

    /// What the network has behind the prefix.
    fn host_bits(self) -> u128 {
        let in_front = 128 - u32::from(address_bits(self.network) - self.prefix_bits);
        to_bits(self.network).checked_shl(in_front).unwrap_or(0)
    }
}

const fn address_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn parse_bits(bits: &str) -> Option<u8> {
    // Digits only: `parse` would take a sign.
    let is_number = bits.bytes().all(|byte| byte.is_ascii_digit());
    bits.parse().ok().filter(|_| is_number)
}

/// The proxies that are trusted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrustedProxies(pub Vec<Cidr>);

impl TrustedProxies {
    /// The address for which a request was made that came from `peer`: the last one on the way that
    /// isn't a trusted proxy's. A proxy that names none speaks for itself; `None` if what it names is no
    /// address, or too many of them: then it speaks for nobody in particular.
    #[must_use]
    pub fn client(&self, peer: IpAddr, head: &Head<'_>) -> Option<IpAddr> {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return Some(client);
        }
        let fields: Vec<&[u8]> = head.fields.values("X-Forwarded-For").collect();
        let hops = fields
            .iter()
            .rev()
            .flat_map(|field| field.rsplit(|&byte| byte == b','));
        for (number, hop) in hops.enumerate() {
            if number == HOPS_MAX {
                return None;
            }
            client = parse_hop(hop)?;
            if !self.trusts(client) {
                break;
            }
        }
        Some(client)
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|cidr| cidr.contains(address))
    }
}

/// The address of an entry; some proxies write a port behind it, or IPv6 in brackets. The unspecified
/// address is nobody's.
fn parse_hop(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry).ok()?.trim_ascii();
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || entry.parse().ok().map(|address: SocketAddr| address.ip());
    let address = entry.parse().ok().or_else(with_port);
    address
        .or_else(|| bracketed().map(IpAddr::V6))
        .map(|address: IpAddr| address.to_canonical())
        .filter(|address| !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::access::testing::head_of;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect(text)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn blocks_hold_their_addresses_and_no_others() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", "10.0.0.0", "9.255.255.255"),
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("192.0.2.6/31", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.0"),
            ("192.0.2.1/32", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("::/0", "ffff::1", "1.2.3.4"),
            ("::/0", "::1", "::ffff:1.2.3.4"),
            ("::1", "::1", "::2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::/127", "2001:db8::1", "2001:db8::2"),
            ("fe80::/10", "febf::1", "fec0::1"),
            ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.0"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("::ffff:0:0/96", "1.2.3.4", "::1"),
        ] {
            assert!(cidr(block).contains(ip(inside)), "{block} {inside}");
            assert!(!cidr(block).contains(ip(outside)), "{block} {outside}");
        }
        assert_eq!(cidr("::ffff:10.0.0.0/104"), cidr("10.0.0.0/8"));
    }

    #[test]
    fn blocks_that_are_refused() {
        for bad in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "::ffff:10.0.0.0/129",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/255.0.0.0",
            "10.0/8",
            "10.0.0.0 /8",
            "[::1]",
            "localhost",
            "10.0.0.0/1000",
        ] {
            let expected = CidrError::Syntax(bad.to_owned());
            assert_eq!(bad.parse::<Cidr>(), Err(expected));
        }
        for bad in [
            "10.0.0.1/8",
            "10.0.0.1/31",
            "0.0.0.1/0",
            "128.0.0.0/0",
            "2001:db8::1/127",
            "::1/0",
            "8000::/0",
            "::ffff:10.0.0.1/104",
            "::ffff:0:0/95",
        ] {
            let expected = CidrError::HostBits(bad.to_owned());
            assert_eq!(bad.parse::<Cidr>(), Err(expected));
        }
    }

    fn client(peer: &str, fields: &[&str]) -> String {
        let proxies = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"].map(cidr);
        let mut text = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned();
        for field in fields {
            text += &format!("X-Forwarded-For: {field}\r\n");
        }
        let head = format!("{text}\r\n");
        TrustedProxies(proxies.to_vec())
            .client(ip(peer), &head_of(&head))
            .map_or_else(|| "nobody".to_owned(), |client| client.to_string())
    }

    #[test]
    fn a_peer_that_is_not_trusted_speaks_for_itself() {
        assert_eq!(client("192.0.2.1", &["1.2.3.4"]), "192.0.2.1");
        assert_eq!(client("::ffff:192.0.2.1", &["1.2.3.4"]), "192.0.2.1");
        let nobody = TrustedProxies::default();
        let head = head_of("GET / HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n");
        assert_eq!(nobody.client(ip("127.0.0.1"), &head), Some(ip("127.0.0.1")));
    }

    #[test]
    fn the_last_hop_that_is_not_trusted_counts() {
        for (fields, expected) in [
            (&[][..], "127.0.0.1"),
            (&["1.2.3.4"], "1.2.3.4"),
            (&["5.6.7.8, 1.2.3.4"], "1.2.3.4"),
            (&["5.6.7.8", "1.2.3.4"], "1.2.3.4"),
            (&["5.6.7.8,1.2.3.4 ,\t10.1.1.1"], "1.2.3.4"),
            (&["5.6.7.8, 1.2.3.4, 10.1.1.1", "10.2.2.2"], "1.2.3.4"),
            (&["10.1.1.1, 5.6.7.8"], "5.6.7.8"),
            // All trusted: the leftmost.
            (&["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            (&["10.3.3.3", "10.1.1.1, 10.2.2.2"], "10.3.3.3"),
        ] {
            assert_eq!(client("127.0.0.1", fields), expected, "{fields:?}");
            assert_eq!(client("::ffff:127.0.0.1", fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn entries_may_have_ports_and_brackets() {
        for (entry, expected) in [
            ("1.2.3.4:5", "1.2.3.4"),
            ("[2001:db9::1]", "2001:db9::1"),
            ("[2001:db9::1]:5", "2001:db9::1"),
            ("2001:db9::1", "2001:db9::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("[::ffff:1.2.3.4]:5", "1.2.3.4"),
            ("5.6.7.8, 10.1.1.1:443", "5.6.7.8"),
            ("5.6.7.8, [2001:db8::1]:443", "5.6.7.8"),
        ] {
            assert_eq!(client("127.0.0.1", &[entry]), expected, "{entry}");
        }
    }

    #[test]
    fn what_is_no_address_is_nobodys() {
        for entry in [
            "",
            "unknown",
            "_hidden",
            "1.2.3",
            "1.2.3.4:",
            "1.2.3.4:65536",
            "[1.2.3.4]",
            "[::1",
            "::1]",
            "[]",
            "1.2.3.4;",
            r#""1.2.3.4""#,
            "for=1.2.3.4",
            "1.2.3.\u{e9}",
            "0.0.0.0",
            "::",
            "[::ffff:0.0.0.0]:80",
        ] {
            assert_eq!(client("127.0.0.1", &[entry]), "nobody", "{entry}");
            let between = format!("5.6.7.8, {entry}, 10.1.1.1");
            assert_eq!(client("127.0.0.1", &[&between]), "nobody", "{entry}");
            // In front of an address that isn't trusted, anybody may have written it.
            let in_front = format!("{entry}, 5.6.7.8, 10.1.1.1");
            assert_eq!(client("127.0.0.1", &[&in_front]), "5.6.7.8", "{entry}");
        }
    }

    #[test]
    fn hops_at_most_and_one_more() {
        let trusted = |count: usize| vec!["10.1.1.1"; count].join(",");
        let at_most = format!("1.2.3.4,{}", trusted(HOPS_MAX - 1));
        assert_eq!(client("127.0.0.1", &[&at_most]), "1.2.3.4");
        let one_more = format!("1.2.3.4,{}", trusted(HOPS_MAX));
        assert_eq!(client("127.0.0.1", &[&one_more]), "nobody");
        let fields = vec!["10.1.1.1"; HOPS_MAX];
        let fields = [&["1.2.3.4"], &fields[..]].concat();
        assert_eq!(client("127.0.0.1", &fields), "nobody");
    }
}
