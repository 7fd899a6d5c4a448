//! Free slots and free ranges of slots. Pure.
use std::collections::{BTreeMap, BTreeSet};

/// A pool is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// What there is none left of.
    pub(crate) what: &'static str,
    /// How many there are.
    pub(crate) limit: u32,
}

/// Slots of one map, taken one at a time, lowest first.
#[derive(Debug)]
pub(crate) struct Slots {
    full: Full,
    used: BTreeSet<u32>,
    next: u32,
    /// Taken since the last `commit`, in order.
    taken: Vec<u32>,
}

impl Slots {
    /// All slots below `limit` but those that are `used`.
    pub(crate) fn new(what: &'static str, limit: u32, used: impl Iterator<Item = u32>) -> Self {
        Self { full: Full { what, limit }, used: used.collect(), next: 0, taken: Vec::new() }
    }

    /// A free slot.
    pub(crate) fn take(&mut self) -> Result<u32, Full> {
        while self.next < self.full.limit {
            let slot = self.next;
            self.next += 1;
            if self.used.insert(slot) {
                self.taken.push(slot);
                return Ok(slot);
            }
        }
        Err(self.full)
    }

    /// Keeps what was taken since the last call.
    pub(crate) fn commit(&mut self) {
        self.taken.clear();
    }

    /// Gives it back.
    pub(crate) fn roll_back(&mut self) {
        // All below is in use: to look there again would cost a full pool for each service that does not fit.
        self.next = self.taken.first().copied().unwrap_or(self.next);
        for slot in self.taken.drain(..) {
            self.used.remove(&slot);
        }
    }
}

/// Slots of one map, taken in blocks that lie together: first fit.
#[derive(Debug)]
pub(crate) struct Ranges {
    full: Full,
    /// First slot → length of the blocks in use, neighbours merged.
    used: BTreeMap<u32, u32>,
    /// Where the search begins.
    next: u32,
    /// Taken since the last `commit` (first slot, length), not merged yet, and what `next` was then.
    taken: Vec<(u32, u32)>,
    mark: u32,
}

impl Ranges {
    /// All slots below `limit` but those in the blocks (first slot, length) that are `used`.
    pub(crate) fn new(what: &'static str, limit: u32, used: impl Iterator<Item = (u32, u32)>) -> Self {
        let full = Full { what, limit };
        let mut ranges = Self { full, used: BTreeMap::new(), next: 0, taken: Vec::new(), mark: 0 };
        for (at, len) in used {
            ranges.merge(at, len);
        }
        ranges
    }

    fn merge(&mut self, at: u32, len: u32) {
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

    /// The first slot of a free block.
    pub(crate) fn take(&mut self, len: u32) -> Result<u32, Full> {
        for from in [self.next, 0] {
            if let Some(at) = self.fit(from, len) {
                if len > 0 {
                    self.used.insert(at, len);
                    self.taken.push((at, len));
                }
                self.next = at + len;
                return Ok(at);
            }
        }
        Err(self.full)
    }

    /// Keeps what was taken since the last call.
    pub(crate) fn commit(&mut self) {
        for (at, len) in std::mem::take(&mut self.taken) {
            self.used.remove(&at);
            self.merge(at, len);
        }
        self.mark = self.next;
    }

    /// Gives it back.
    pub(crate) fn roll_back(&mut self) {
        for (at, _) in self.taken.drain(..) {
            self.used.remove(&at);
        }
        self.next = self.mark;
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
        at.checked_add(len).filter(|&end| end <= self.full.limit).map(|_| at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_free_slot_comes_first() {
        let mut slots = Slots::new("things", 4, [1].into_iter());
        assert_eq!([slots.take(), slots.take(), slots.take()], [Ok(0), Ok(2), Ok(3)]);
        assert_eq!(slots.take(), Err(Full { what: "things", limit: 4 }));
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut slots = Slots::new("things", 4, [1].into_iter());
        let mut ranges = Ranges::new("blocks", 8, [(2, 2)].into_iter());
        assert_eq!((slots.take(), ranges.take(2)), (Ok(0), Ok(0)));
        slots.commit();
        ranges.commit();
        for _ in 0..3 {
            assert_eq!([slots.take(), slots.take()], [Ok(2), Ok(3)]);
            assert_eq!([ranges.take(3), ranges.take(1)], [Ok(4), Ok(7)]);
            assert!(slots.take().is_err() && ranges.take(1).is_err());
            slots.roll_back();
            ranges.roll_back();
        }
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
                if let Ok(at) = ranges.take(len) {
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
