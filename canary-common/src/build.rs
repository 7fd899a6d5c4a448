//! Builds what the choice walks: trees of two-way splits and Maglev rings. For the agent; needs an allocator.
extern crate alloc;
use alloc::{vec, vec::Vec};

use crate::{
    abi::{LEAF, Node},
    choose::node_seed,
};

/// A tree of two-way splits over items with weights; zero weights have no place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Root: index into `nodes`, or item with [`LEAF`].
    pub root: u32,
    /// Nodes; children are indices into `nodes`, or items with [`LEAF`].
    pub nodes: Vec<Node>,
}

impl Tree {
    /// How far an item's count is from its exact share at most, in flows, at every prefix: what can be proved.
    ///
    /// A two-way split is less than one flow off, and a child that takes the share p of its parent inherits p of the
    /// parent's error: less than 1 + p·(1 + p′·(1 + …)) up to the root. So 1 for two items, at most 2 for up to four, at
    /// most the tree's depth for more. Skewed weights do come near: with nine to sixteen versions of random magnitudes
    /// two in five exceed 2 within 100 000 flows, the worst seen is 3.03.
    #[must_use]
    pub fn guarantee(&self) -> f64 {
        self.error_below(self.root, 0.0)
    }

    fn error_below(&self, at: u32, inherited: f64) -> f64 {
        let Some(node) = self.nodes.get(at as usize).filter(|_| at & LEAF == 0) else {
            return inherited;
        };
        let light = f64::from(node.light) / f64::from(node.total);
        let child = |to, share: f64| self.error_below(to, 1.0 + share * inherited);
        child(node.to_light, light).max(child(node.to_heavy, 1.0 - light))
    }
}

/// Builds the tree of `weights`. `None` when all are zero, or their sum exceeds 32 bits.
///
/// Items are ordered by falling weight and halved, so that the tree is at most ⌈log₂ n⌉ deep; a node's seed follows from
/// its place (31·seed + 7 + side). The same as `exact_split.py` of the design, which the test vectors come from.
#[must_use]
pub fn tree(weights: &[u32], seed: u64) -> Option<Tree> {
    let mut order: Vec<u32> = (0..u32::try_from(weights.len()).ok()?).collect();
    order.sort_by_key(|&item| core::cmp::Reverse(weight(weights, item)));
    let mut nodes = Vec::new();
    let root = grow(weights, &order, seed, &mut nodes)?;
    Some(Tree { root, nodes })
}

fn weight(weights: &[u32], item: u32) -> u32 {
    weights.get(item as usize).copied().unwrap_or(0)
}

fn sum(weights: &[u32], items: &[u32]) -> u64 {
    items.iter().map(|&item| u64::from(weight(weights, item))).sum()
}

/// The reference to the subtree of `items`; `None` when they weigh nothing.
fn grow(weights: &[u32], items: &[u32], seed: u64, nodes: &mut Vec<Node>) -> Option<u32> {
    if let [item] = *items {
        return (weight(weights, item) > 0).then_some(item | LEAF);
    }
    let (left, right) = items.split_at_checked(items.len() / 2)?;
    let child = |nodes: &mut Vec<Node>, items: &[u32], side: u64| {
        grow(weights, items, seed.wrapping_mul(31).wrapping_add(7 + side), nodes)
    };
    let (left_child, right_child) = match (sum(weights, left), sum(weights, right)) {
        (0, 0) => return None,
        (_, 0) => return child(nodes, left, 0),
        (0, _) => return child(nodes, right, 1),
        _ => (child(nodes, left, 0)?, child(nodes, right, 1)?),
    };
    let (w_left, w_right) = (sum(weights, left), sum(weights, right));
    let total = u32::try_from(w_left + w_right).ok()?;
    // Equal sides: the right one counts as the lighter, as in the reference.
    let (light, to_light, to_heavy) =
        if w_right > w_left { (w_left, left_child, right_child) } else { (w_right, right_child, left_child) };
    let light = u32::try_from(light).ok()?;
    nodes.push(Node {
        seed: node_seed(seed),
        total,
        light,
        quotient: total.checked_div(light)?,
        remainder: total.checked_rem(light)?,
        to_light,
        to_heavy,
    });
    u32::try_from(nodes.len() - 1).ok()
}

/// A Maglev ring (Eisenbud et al., NSDI '16, §3.4): `slots` places, each with an index into `names`, filled in turn by
/// each entry's own permutation, so that a change of the entries moves few places. `slots` is prime; an entry takes
/// turns in proportion to its weight. Empty when there is nothing to put in.
///
/// Which entry has its turn first follows from the order of `names`, so callers sort them: the same set in another order
/// gives the same shares (to a slot or two) at other places.
#[must_use]
pub fn ring(names: &[(u64, u32)], slots: u32) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let heaviest = names.iter().map(|&(_, weight)| weight).max().unwrap_or(0);
    if heaviest == 0 {
        return Vec::new();
    }
    if slots < 2 {
        // One place, or none: the first of the heaviest takes it, never one of weight zero.
        let first = names.iter().position(|&(_, weight)| weight == heaviest).unwrap_or(0);
        return vec![u32::try_from(first).unwrap_or(0); slots as usize];
    }
    let mut ring = vec![FREE; slots as usize];
    let mut left = slots;
    // offset, skip, place in the permutation, credit
    let mut turns: Vec<(u64, u64, u64, u64)> = names
        .iter()
        .map(|&(name, _)| {
            let skip = (name >> 32) % u64::from(slots - 1) + 1;
            ((name & 0xffff_ffff) % u64::from(slots), skip, 0, 0)
        })
        .collect();
    while left > 0 {
        for (entry, turn) in turns.iter_mut().enumerate() {
            turn.3 += names.get(entry).map_or(0, |&(_, weight)| u64::from(weight));
            while turn.3 >= u64::from(heaviest) && left > 0 {
                turn.3 -= u64::from(heaviest);
                loop {
                    let place = (turn.0 + turn.2 * turn.1) % u64::from(slots);
                    turn.2 += 1;
                    let slot = usize::try_from(place).ok().and_then(|place| ring.get_mut(place));
                    if let Some(slot) = slot
                        && *slot == FREE
                    {
                        *slot = u32::try_from(entry).unwrap_or(0);
                        left -= 1;
                        break;
                    }
                }
            }
        }
    }
    ring
}

/// Ring sizes: primes, each about twice the one before.
pub const RING_SIZES: &[u32] = &[1, 251, 509, 1_021, 2_039, 4_093, 8_191, 16_381, 32_749, crate::limits::RING_MAX];

/// Size of the ring for `endpoints`: one needs one slot, more get a hundred each, up to the largest ring.
#[must_use]
pub fn ring_size(endpoints: usize) -> u32 {
    if endpoints <= 1 {
        return 1;
    }
    let wanted = endpoints.saturating_mul(100);
    RING_SIZES.iter().copied().find(|&size| size as usize >= wanted).unwrap_or(crate::limits::RING_MAX)
}

/// FNV-1a, 64 bits, finished with a multiply-xor so that close names are far apart: names become seeds, salts and
/// permutations the same way on every node.
#[must_use]
pub fn name_hash(name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in name {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (hash ^ (hash >> 32)).max(1) // 0 marks a free slot.
}

#[cfg(test)]
mod tests;
