//! Masking (RFC 6455 §5.3): every client-to-server payload is XORed with a key of four bytes.
//!
//! Pure and in place. The fast routine works on eight bytes at a time, in a form that the
//! compiler turns into vector instructions; the tests hold it against the byte-wise rule.

/// The four bytes that a client picked for one frame (§5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MaskingKey(pub [u8; 4]);

/// Masks or unmasks `payload`, which starts at the first byte of its frame's payload: octet i
/// is XORed with octet i mod 4 of the key (§5.3). Doing it twice gives the original.
#[inline]
pub fn apply_mask(payload: &mut [u8], key: MaskingKey) {
    let [a, b, c, d] = key.0;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.0.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule of §5.3, word for word.
    fn apply_mask_by_the_book(payload: &mut [u8], key: MaskingKey) {
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= key.0[i % 4];
        }
    }

    #[test]
    fn example_of_the_rfc() {
        // §5.7: "Hello", masked.
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        apply_mask(&mut payload, MaskingKey([0x37, 0xfa, 0x21, 0x3d]));
        assert_eq!(&payload, b"Hello");
    }

    #[test]
    fn fast_equals_slow_at_every_length_and_alignment() {
        let key = MaskingKey([0x12, 0x00, 0xff, 0xa5]);
        let original: Vec<u8> = (0..300u32).map(|i| (i * 7 % 251) as u8).collect();
        for start in 0..9 {
            for end in start..original.len() {
                let (mut fast, mut slow) = (original.clone(), original.clone());
                apply_mask(&mut fast[start..end], key);
                apply_mask_by_the_book(&mut slow[start..end], key);
                assert_eq!(fast, slow, "{start}..{end}");
            }
        }
    }
}
