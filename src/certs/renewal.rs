//! When a certificate that moorgate can renew by itself is due.

use std::time::SystemTime;

/// Whether less than a third of its life is left. One whose life has not begun is due too: it was
/// made under a wrong clock.
pub fn is_due(now: SystemTime, not_before: SystemTime, not_after: SystemTime) -> bool {
    let (Ok(left), Ok(life)) = (not_after.duration_since(now), not_after.duration_since(not_before)) else {
        return true;
    };
    now < not_before || left < life / 3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_third_of_the_life_decides() {
        let day = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n * 24 * 60 * 60);
        // now, not before, not after, due
        let table = [
            (100, 100, 130, false),
            (119, 100, 130, false),
            (120, 100, 130, false),
            (121, 100, 130, true),
            (130, 100, 130, true),
            (500, 100, 130, true),
            (99, 100, 130, true),
            (104, 100, 106, false),
            (105, 100, 106, true),
            (100, 130, 100, true),
        ];
        for (now, not_before, not_after, due) in table {
            let decided = is_due(day(now), day(not_before), day(not_after));
            assert_eq!(decided, due, "{now} in {not_before}..{not_after}");
        }
    }
}
