//! Latencies in buckets whose width grows with the value: at most 1.6 % off, and a few
//! nanoseconds to record.

/// Buckets within one power of two.
const STEPS_LOG2: u32 = 6;
const STEPS: u64 = 1 << STEPS_LOG2;
const BUCKETS: usize = ((64 - STEPS_LOG2 + 1) as usize) << STEPS_LOG2;

/// Counts of nanoseconds.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts one value.
    pub(crate) fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
        self.max = 0;
    }

    /// The largest value.
    pub(crate) const fn max(&self) -> u64 {
        self.max
    }

    /// The value that `part` (0 to 1) of all values don't exceed; 0 without values.
    pub(crate) fn quantile(&self, part: f64) -> u64 {
        let wanted = ((self.total as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_bound(index).min(self.max);
            }
        }
        self.max
    }
}

const fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - STEPS_LOG2;
    (((shift as u64 + 1) << STEPS_LOG2) + (value >> shift) - STEPS) as usize
}

const fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let shift = (bucket >> STEPS_LOG2) - 1;
    (((bucket & (STEPS - 1)) + STEPS) << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_is_little_wider_than_it() {
        for exponent in 0..64 {
            for offset in [0_u64, 1, 7] {
                let value = (1_u64 << exponent).saturating_add(offset << (exponent / 2));
                let upper = upper_bound(bucket(value));
                assert!(
                    upper >= value && upper - value <= value / STEPS,
                    "{value}: {upper}"
                );
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_of_a_known_set() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), 0);
        for value in 1..=1000 {
            histogram.record(value * 1000);
        }
        let is_near = |part, wanted: u64| histogram.quantile(part).abs_diff(wanted) <= wanted / 60;
        assert!(is_near(0.5, 500_000) && is_near(0.99, 990_000) && is_near(0.999, 999_000));
        assert_eq!(histogram.quantile(1.0), 1_000_000);
        assert_eq!(histogram.max(), 1_000_000);
    }
}
