//! Pauses between attempts.

use std::time::Duration;

/// The pause after the first attempt; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(10);

/// How long to wait after the attempt with this number (1, 2, 3, …): 100, 200, 400, 800 ms …, at most
/// 10 s, each a fifth shorter or longer by chance so that many callers do not come back at once.
pub(super) fn pause(attempt: u32) -> Duration {
    let plain = FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST);
    let mut random = [0; 2];
    // Without a source of chance every caller has the plain pause.
    let chance = match getrandom::fill(&mut random) {
        Ok(()) => f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    };
    plain.mul_f64(0.8 + 0.4 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_cap() {
        for (attempt, plain) in [(1, 100), (2, 200), (3, 400), (4, 800), (8, 10_000), (99, 10_000)]
        {
            let pause = pause(attempt).as_millis();
            let (low, high) = (plain * 79 / 100, plain * 121 / 100);
            assert!((low..=high).contains(&pause), "{attempt}: {pause} ms");
        }
    }
}
