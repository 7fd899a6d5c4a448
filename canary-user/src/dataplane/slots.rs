//! Free slots and free ranges of slots. Pure.
use std::collections::{BTreeMap, BTreeSet};

use super::layout::LayoutError;

/// Slots of one map, taken one at a time, lowest first.
#[derive(Debug)]
pub(crate) struct Slots {
    what: &'static str,
    limit: u32,
    used: BTreeSet<u32>,
    next: u32,
}

impl Slots {
    /// All slots below `limit` but those that are `used`.
    pub(crate) fn new(what: &'static str, limit: u32, used: impl Iterator<Item = u32>) -> Self {
        Self { what, limit, used: used.collect(), next: 0 }
    }

    /// A free slot; `object` is who gets none.
    pub(crate) fn take(&mut self, object: impl Fn() -> String) -> Result<u32, LayoutError> {
        while self.next < self.limit {
            let slot = self.next;
            self.next += 1;
            if self.used.insert(slot) {
                return Ok(slot);
            }
        }
        Err(LayoutError::Full { object: object(), what: self.what, limit: self.limit })
    }
}

/// Slots of one map, taken in blocks that lie together: first fit.
#[derive(Debug)]
pub(crate) struct Ranges {
    what: &'static str,
    limit: u32,
    /// First slot → length of the blocks in use, neighbours merged.
    used: BTreeMap<u32, u32>,
    /// Nothing fits below, for blocks at least as long as any asked for since.
    next: u32,
}

impl Ranges {
    /// All slots below `limit` but those in the blocks (first slot, length) that are `used`.
    pub(crate) fn new(what: &'static str, limit: u32, used: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut ranges = Self { what, limit, used: BTreeMap::new(), next: 0 };
        for (at, len) in used {
            ranges.mark(at, len);
        }
        ranges
    }

    fn mark(&mut self, at: u32, len: u32) {
        if len == 0 {
            return;
        }
        if let Some((&before, length)) = self.used.range_mut(..at).next_back()
            && before + *length == at
        {
            *length += len;
            return;
        }
        self.used.insert(at, len);
    }

    /// The first slot of a free block; `object` is who gets none.
    pub(crate) fn take(&mut self, len: u32, object: impl Fn() -> String) -> Result<u32, LayoutError> {
        for from in [self.next, 0] {
            if let Some(at) = self.fit(from, len) {
                self.mark(at, len);
                self.next = at + len;
                return Ok(at);
            }
        }
        Err(LayoutError::Full { object: object(), what: self.what, limit: self.limit })
    }

    fn fit(&self, from: u32, len: u32) -> Option<u32> {
        let mut at = from;
        if let Some((&before, &length)) = self.used.range(..=at).next_back() {
            at = at.max(before + length);
        }
        for (&start, &length) in self.used.range(at..) {
            if start - at >= len {
                break;
            }
            at = start + length;
        }
        at.checked_add(len).filter(|&end| end <= self.limit).map(|_| at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_free_slot_comes_first() {
        let mut slots = Slots::new("things", 4, [1].into_iter());
        let mut take = || slots.take(|| "it".into());
        assert_eq!([take(), take(), take()], [Ok(0), Ok(2), Ok(3)]);
        assert_eq!(take().unwrap_err().to_string(), "it: no room for things, all 4 are taken");
    }

    proptest! {
        #[test]
        fn blocks_never_overlap(used in prop::collection::vec((0_u32..40, 1_u32..5), 0..5), wanted in prop::collection::vec(1_u32..6, 0..20)) {
            let mut taken = BTreeSet::new();
            let used: Vec<_> = used.into_iter().filter(|&(at, len)| (at..at + len).all(|slot| taken.insert(slot))).collect();
            // A block that was refused above has left marks: take what really is there.
            let marks: BTreeSet<u32> = used.iter().flat_map(|&(at, len)| at..at + len).collect();
            let mut blocks: Vec<_> = used.clone();
            blocks.sort_unstable();
            let mut ranges = Ranges::new("things", 64, blocks.into_iter());
            let mut taken = marks;
            for len in wanted {
                if let Ok(at) = ranges.take(len, String::new) {
                    for slot in at..at + len {
                        prop_assert!(slot < 64);
                        prop_assert!(taken.insert(slot), "slot {slot} twice");
                    }
                } else {
                    let free = |at: u32| (at..at + len).all(|slot| slot < 64 && !taken.contains(&slot));
                    prop_assert!(!(0..64).any(free), "{len} would have fitted");
                }
            }
        }
    }
}
