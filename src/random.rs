//! Randomness for jitter: small, seeded from outside, the same again for the same seed.
//!
//! Not for secrets: masking keys and nonces come from the operating system.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// If `low` is greater than `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range");
        let span = u128::from(high - low) + 1;
        // The high half of the product is uniform enough: the bias is under span / 2^64.
        low + ((u128::from(self.next_u64()) * span) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_their_range() {
        let mut random = Random::new(1);
        let mut seen = [false; 6];
        for _ in 0..200 {
            seen[random.between(0, 5) as usize] = true;
        }
        assert_eq!(seen, [true; 6]);
        assert_eq!(random.between(7, 7), 7);
        assert!(random.between(u64::MAX - 1, u64::MAX) >= u64::MAX - 1);
        assert_eq!(Random::new(3).next_u64(), Random::new(3).next_u64());
    }
}
