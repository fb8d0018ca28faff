//! The clock on the wall, which people and programs set.

use crate::random::Dice;

const HOUR_MS: u64 = 3_600_000;

/// What `wall_ms` is after it may have been set: by up to an hour, forwards or backwards.
pub(crate) fn jump(wall_ms: u64, dice: &mut Dice) -> u64 {
    match dice.below(3) {
        0 => wall_ms + dice.below(HOUR_MS),
        1 => wall_ms - dice.below(HOUR_MS),
        _ => wall_ms,
    }
}
