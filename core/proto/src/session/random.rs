//! Pseudo-random numbers from the seed the caller gave: jitter, and names nobody else has.

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, good enough for jitter and names, not
/// for secrets.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, not including, 1.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Thirteen letters and digits: a publisher's origin.
    pub(super) fn name(&mut self) -> String {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let bits = self.next();
        (0..13).map(|at| char::from(ALPHABET[(bits >> (at * 5)) as usize & 31])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_names_differ() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        assert_eq!(a.name(), b.name());
        assert_ne!(a.name(), a.name());
        assert!((0..1000).all(|_| (0.0..1.0).contains(&a.fraction())));
    }
}
