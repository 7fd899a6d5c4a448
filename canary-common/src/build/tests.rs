//! Trees: shape and depth. Rings: filled, balanced, weighted, stable.
use proptest::prelude::*;

use super::*;
use crate::limits::{ENDPOINT_DEPTH, ENDPOINTS_PER_VERSION, RING_MAX, SPLIT_DEPTH, VERSIONS_PER_SPLIT};

fn depth(tree: &Tree, at: u32) -> u32 {
    match tree.nodes.get((at & !LEAF) as usize) {
        Some(node) if at & LEAF == 0 => 1 + depth(tree, node.to_light).max(depth(tree, node.to_heavy)),
        _ => 0,
    }
}

#[test]
fn the_largest_trees_are_as_deep_as_the_kernel_walks() {
    for (items, levels) in [(VERSIONS_PER_SPLIT, SPLIT_DEPTH), (ENDPOINTS_PER_VERSION, ENDPOINT_DEPTH)] {
        let falling: Vec<u32> = (1..=items).collect();
        let skewed: Vec<u32> = (0..items).map(|item| 1 << (item % 18)).collect();
        for weights in [vec![1; items as usize], falling, skewed] {
            let tree = tree(&weights, 3).unwrap();
            assert_eq!(depth(&tree, tree.root), levels, "{items} items");
        }
    }
}

#[test]
fn nobody_weighs_anything() {
    assert_eq!(tree(&[], 1), None);
    assert_eq!(tree(&[0], 1), None);
    assert_eq!(tree(&[0, 0, 0], 1), None);
    assert_eq!(tree(&[0, 5, 0], 1), Some(Tree { root: 1 | LEAF, nodes: Vec::new() }));
}

#[test]
fn a_sum_beyond_32_bits_is_no_tree() {
    assert_eq!(tree(&[u32::MAX, 1], 1), None);
    assert!(tree(&[u32::MAX - 1, 1], 1).is_some());
}

proptest! {
    #[test]
    fn every_item_with_weight_is_in_the_tree_once(weights in proptest::collection::vec(0..1_000_u32, 1..=64), seed: u64) {
        let Some(tree) = tree(&weights, seed) else {
            prop_assert!(weights.iter().all(|&weight| weight == 0));
            return Ok(());
        };
        let children = tree.nodes.iter().flat_map(|node| [node.to_light, node.to_heavy]).chain([tree.root]);
        let mut items: Vec<u32> = children.filter(|child| child & LEAF != 0).map(|child| child & !LEAF).collect();
        items.sort_unstable();
        let heavy: Vec<u32> = (0..64).filter(|&item| weights.get(item as usize).is_some_and(|&it| it > 0)).collect();
        prop_assert_eq!(items, heavy);
        for node in &tree.nodes {
            prop_assert!(node.light > 0 && u64::from(node.light) * 2 <= u64::from(node.total));
            prop_assert_eq!(node.quotient * node.light + node.remainder, node.total);
        }
    }
}

fn names(count: u32) -> Vec<(u64, u32)> {
    (0..count).map(|n| (name_hash(format!("10.1.{}.{}:8080", n / 250, n % 250).as_bytes()), 1)).collect()
}

fn shares(ring: &[u32], entries: usize) -> Vec<u32> {
    let mut counts = vec![0; entries];
    for &entry in ring {
        counts[entry as usize] += 1;
    }
    counts
}

fn size(ring: &[u32]) -> u32 {
    u32::try_from(ring.len()).unwrap()
}

#[test]
fn ring_sizes_are_primes_in_order() {
    let prime = |n: u32| n == 1 || (2..n).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    for pair in RING_SIZES.windows(2) {
        assert!(pair[0] < pair[1]);
    }
    for &size in RING_SIZES {
        assert!(prime(size), "{size}");
    }
    assert_eq!((ring_size(0), ring_size(1)), (1, 1));
    for endpoints in 2..=650 {
        assert!(ring_size(endpoints) as usize >= 100 * endpoints, "{endpoints}");
    }
    assert_eq!(ring_size(16_384), RING_MAX);
}

#[test]
fn a_ring_of_equals_is_even_to_one_slot() {
    for count in [2, 3, 5, 10, 64, 100, 650] {
        let ring = ring(&names(count), ring_size(count as usize));
        assert_eq!(size(&ring), ring_size(count as usize), "every slot is there");
        let even = size(&ring) / count;
        for share in shares(&ring, count as usize) {
            assert!((even..=even + 1).contains(&share), "{share} of {} slots, {count} endpoints", size(&ring));
        }
    }
}

#[test]
fn the_largest_ring_is_filled() {
    let ring = ring(&names(ENDPOINTS_PER_VERSION), RING_MAX);
    let shares = shares(&ring, ENDPOINTS_PER_VERSION as usize);
    assert!(shares.iter().all(|&share| (4..=5).contains(&share)), "65 537 slots, 16 384 endpoints: 4 each, one has 5");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After r turns an entry has ⌊r·w/h⌋ slots (h: the heaviest). Rounding costs all together at most one slot each, so r
    /// is at most n·h/W more than even, and the last turn may be cut short: a slot or two, and the entry's part of n.
    #[test]
    fn a_ring_honours_weights(weights in proptest::collection::vec(0..=1_000_u32, 2..=40)) {
        let entries: Vec<(u64, u32)> = names(64).into_iter().zip(&weights).map(|((name, _), &weight)| (name, weight)).collect();
        let slots = 8_191;
        let ring = ring(&entries, slots);
        let total: u32 = weights.iter().sum();
        if total == 0 {
            prop_assert!(ring.is_empty());
            return Ok(());
        }
        prop_assert_eq!(size(&ring), slots);
        for (share, &weight) in shares(&ring, weights.len()).into_iter().zip(&weights) {
            let part = f64::from(weight) / f64::from(total);
            let off = (f64::from(share) - f64::from(slots) * part).abs();
            prop_assert!(off <= 2.0 + part * f64::from(u32::try_from(weights.len()).unwrap()), "{off} slots off {weights:?}");
            prop_assert!(weight > 0 || share == 0, "weight zero is never");
        }
    }
}

#[test]
fn one_slot_goes_to_somebody_with_weight() {
    let [(a, _), (b, _)] = names(2)[..] else { unreachable!() };
    assert_eq!(ring(&[(a, 0), (b, 3)], 1), [1]);
    assert_eq!(ring(&[(a, 1)], 1), [0]);
    assert!(ring(&[(a, 0)], 1).is_empty());
    assert!(ring(&[], 251).is_empty());
}

#[test]
fn a_leaver_moves_few_others() {
    for count in [3, 10, 100] {
        let all = names(count);
        let slots = ring_size(count as usize);
        let before = ring(&all, slots);
        for leaver in [0, count / 2, count - 1] {
            let mut rest = all.clone();
            rest.remove(leaver as usize);
            let after = ring(&rest, slots);
            // The leaver's slots must move; of the others some do, because turns come round sooner. Maglev's paper
            // measures this as well (§5.3, figure 12): a few percent at 100 slots for each entry.
            let moved = before
                .iter()
                .zip(&after)
                .filter(|&(&was, &is)| was != leaver && all[was as usize] != rest[is as usize])
                .count();
            let percent = moved * 100 / before.len();
            assert!(percent <= 6, "{percent} % of the slots moved needlessly when {leaver} of {count} left");
        }
    }
}

#[test]
fn a_ring_is_a_function_of_its_entries_in_order() {
    let entries = names(10);
    let mut turned = entries.clone();
    turned.reverse();
    let (one, other) = (ring(&entries, 1_021), ring(&turned, 1_021));
    assert_eq!(one, ring(&entries, 1_021));
    let by_name =
        |ring: &[u32], entries: &[(u64, u32)]| ring.iter().map(|&at| entries[at as usize].0).collect::<Vec<_>>();
    assert_ne!(by_name(&one, &entries), by_name(&other, &turned), "if these agree, nobody needs to sort any more");
    for (share, turned) in shares(&one, 10).into_iter().zip(shares(&other, 10).into_iter().rev()) {
        assert!(share.abs_diff(turned) <= 1, "the shares do not depend on the order");
    }
}

#[test]
fn names_spread_and_never_mark_a_free_slot() {
    let mut seen: Vec<u64> = names(60_000).into_iter().map(|(name, _)| name).collect();
    assert!(!seen.contains(&0));
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 60_000);
    // Close names differ in half of their bits: 64 ± 6·4 bits of noise over neighbours is far inside these limits.
    let bits: u32 = names(1_001).windows(2).map(|pair| (pair[0].0 ^ pair[1].0).count_ones()).sum();
    assert!((31_000..=33_000).contains(&bits), "{bits} of 64 000 bits differ");
}
