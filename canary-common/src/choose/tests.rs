//! Exact splits against the slow reference and against their guarantees.
mod keyed;

use proptest::prelude::*;

use super::*;
use crate::{
    abi::LEAF,
    build::{Tree, tree},
    limits::SPLIT_DEPTH,
};

/// Item, and number inside the item, of the n-th flow.
fn pick(tree: &Tree, n: u64) -> (u32, u64) {
    let (mut at, mut n) = (tree.root, n);
    let mut levels = 0;
    while at & LEAF == 0 {
        (at, n) = two_way(&tree.nodes[at as usize], n);
        levels += 1;
    }
    assert!(levels <= SPLIT_DEPTH, "the kernel walks {SPLIT_DEPTH} levels, this tree has {levels}");
    (at & !LEAF, n)
}

/// `exact_split.py`, line by line, with numbers that cannot overflow.
mod reference {
    fn keyed(seed: u128, k: u128) -> u128 {
        let m = u128::from(u64::MAX);
        let seeded = ((seed & m) * 0xD6E8_FEB8_6659_FD93) & m;
        let mut x = (((k * 0x9E37_79B9_7F4A_7C15) & m) + seeded) & m;
        x ^= x >> 32;
        x = (x * 0xD6E8_FEB8_6659_FD93) & m;
        x ^= x >> 29;
        ((x * 0xBF58_476D_1CE4_E5B9) & m) >> 32
    }

    fn two_way(n: u128, right: u128, total: u128, seed: u128) -> (bool, u128) {
        if right == 0 || right == total {
            return (right == total, n);
        }
        let flip = right * 2 > total;
        let w = if flip { total - right } else { right };
        let mut k = n * w / total;
        while (k * total).div_ceil(w) > n {
            k -= 1;
        }
        while ((k + 1) * total).div_ceil(w) <= n {
            k += 1;
        }
        let (start, end) = ((k * total).div_ceil(w), ((k + 1) * total).div_ceil(w));
        let place = start + ((keyed(seed, k) * (end - start)) >> 32);
        if n == place { (!flip, k) } else { (flip, n - k - u128::from(n > place)) }
    }

    /// Version and number inside it.
    pub(super) fn pick(weights: &[u32], n: u64, seed: u64) -> (u32, u64) {
        let mut ids: Vec<usize> = (0..weights.len()).collect();
        ids.sort_by_key(|&id| std::cmp::Reverse(weights[id]));
        let (mut ids, mut n, mut seed) = (&ids[..], u128::from(n), u128::from(seed));
        while ids.len() > 1 {
            let (left, right) = ids.split_at(ids.len() / 2);
            let weight = |ids: &[usize]| ids.iter().map(|&id| u128::from(weights[id])).sum::<u128>();
            let (to_right, index) = two_way(n, weight(right), weight(ids), seed);
            ids = if to_right { right } else { left };
            n = index;
            seed = (seed * 31 + 7 + u128::from(to_right)) & u128::from(u64::MAX);
        }
        (u32::try_from(ids[0]).unwrap(), u64::try_from(n).unwrap())
    }
}

#[test]
fn every_vector_of_the_python_reference() {
    let vectors = include_str!("../../tests/vectors/exact_split.txt");
    let (mut weights, mut built, mut compared) = (Vec::new(), None, 0);
    for line in vectors.lines().filter(|line| !line.starts_with('#')) {
        if let Some(list) = line.strip_prefix("w ") {
            weights = list.split(' ').map(|weight| weight.parse().unwrap()).collect::<Vec<u32>>();
            built = tree(&weights, 1);
            continue;
        }
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let got = pick(built.as_ref().unwrap(), numbers[0]);
        let want = (u32::try_from(numbers[1]).unwrap(), numbers[2]);
        assert_eq!(got, want, "{weights:?}, n = {}", numbers[0]);
        compared += 1;
    }
    assert!(compared > 20_000, "{compared} vectors");
}

/// Weights with a sum of at most `u32::MAX`, small and large ones, zeros among them.
fn weights(len: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<u32>> {
    let weight = prop_oneof![Just(0), Just(1), 1..=100_u32, 1..=1_000_000_u32, 1..=u32::MAX / 64];
    proptest::collection::vec(weight, len)
        .prop_filter("somebody must weigh something", |all| all.iter().any(|&weight| weight > 0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_tree_equals_the_slow_reference(weights in weights(1..=64), seed: u64, start in 0..1_u64 << 50) {
        let tree = tree(&weights, seed).unwrap();
        for n in (0..50).chain(start..start + 50) {
            prop_assert_eq!(pick(&tree, n), reference::pick(&weights, n, seed));
        }
    }

    #[test]
    fn weight_zero_is_never(weights in weights(2..=64), seed: u64, n: u64) {
        let (item, _) = pick(&tree(&weights, seed).unwrap(), n >> 1);
        prop_assert!(weights[item as usize] > 0, "item {} of {:?}", item, weights);
    }
}

/// Walks a prefix of `flows` flows: the largest distance of a version's count from its exact share, in flows · sum.
///
/// Between two flows of a version its distance only falls, so it is extreme just before and just after each of them.
fn worst_error(weights: &[u32], seed: u64, flows: u64) -> u128 {
    let tree = tree(weights, seed).unwrap();
    let total: i128 = weights.iter().map(|&weight| i128::from(weight)).sum();
    let mut counts = vec![0_i128; weights.len()];
    let mut worst = 0_u128;
    let mut look = |count: i128, weight: u32, n: u64| {
        worst = worst.max((count * total - i128::from(n) * i128::from(weight)).unsigned_abs());
    };
    for n in 0..flows {
        let (item, index) = pick(&tree, n);
        let count = &mut counts[item as usize];
        assert_eq!(i128::from(index), *count, "the number inside a version counts its flows");
        look(*count, weights[item as usize], n);
        *count += 1;
        look(*count, weights[item as usize], n + 1);
    }
    for (count, &weight) in counts.into_iter().zip(weights) {
        look(count, weight, flows);
    }
    worst
}

/// splitmix64: the same dice on every run.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % below
    }
}

/// `count` random weight vectors of `len` versions; magnitudes differ too.
fn vectors(len: std::ops::RangeInclusive<usize>, count: usize, seed: u64) -> Vec<Vec<u32>> {
    let mut roll = dice(seed);
    let mut vector = || {
        let len = *len.start() + usize::try_from(roll((len.end() - len.start() + 1) as u64)).unwrap();
        (0..len)
            .map(|_| {
                let most = [10, 100, 10_000, u64::from(u32::MAX) / 64][usize::try_from(roll(4)).unwrap()];
                u32::try_from(1 + roll(most)).unwrap()
            })
            .collect()
    };
    (0..count).map(|_| vector()).collect()
}

fn within(weights: &[u32], seed: u64, bound: u32) {
    let worst = worst_error(weights, seed, 100_000);
    let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    assert!(worst <= u128::from(bound) * total, "{weights:?}: {worst} / {total} flows, {bound} allowed");
}

#[test]
fn two_versions_are_within_one_flow_at_every_prefix() {
    for (seed, weights) in (0..).zip(vectors(2..=2, 80, 1)) {
        within(&weights, seed, 1);
    }
}

/// Checks random vectors against what can be proved for each, and against `most` for all. Returns the worst of all.
fn all_within(len: std::ops::RangeInclusive<usize>, count: usize, most: f64) {
    for (seed, weights) in (0..).zip(vectors(len, count, 2)) {
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        #[expect(clippy::cast_precision_loss, reason = "compared with a bound, not exactly")]
        let worst = worst_error(&weights, seed, 100_000) as f64 / total;
        let tree = tree(&weights, seed).unwrap();
        let bound = tree.guarantee().min(most);
        assert!(worst <= bound, "{weights:?}: {worst} flows, {bound} allowed");
    }
}

#[test]
fn three_and_four_versions_are_within_two_flows_at_every_prefix() {
    all_within(3..=4, 40, 2.0);
}

#[test]
fn even_weights_are_within_two_flows_at_every_prefix() {
    for versions in [2, 4, 8, 16, 32, 64] {
        let tree = tree(&vec![7; versions], 1).unwrap();
        assert!(tree.guarantee() <= 2.0, "{versions}");
    }
    within(&[7; 16], 1, 2);
    within(&[1; 64], 1, 2);
}

#[test]
fn more_versions_are_within_the_depth_of_the_tree_at_every_prefix() {
    all_within(5..=8, 40, 3.0);
    all_within(9..=16, 40, 4.0);
    all_within(17..=64, 20, 6.0);
}

#[test]
fn extreme_weights_keep_the_guarantee() {
    let extreme: [&[u32]; 6] =
        [&[u32::MAX - 1, 1], &[1 << 31, (1 << 31) - 1], &[4_000_000_000, 1], &[1, 4_000_000_000], &[0, 7, 0], &[1]];
    for weights in extreme {
        within(weights, 1, 1);
    }
    // One of four thousand million: exactly one in each stratum, and the numbers there are consecutive.
    let tree = tree(&[4_000_000_000, 1], 1).unwrap();
    let node = tree.nodes[0];
    for stratum in 0..50_u64 {
        // The place inside the stratum, found by bisection: the heavier side's numbers tell on which side of it n lies.
        let (mut low, mut high) = (stratum * 4_000_000_001, (stratum + 1) * 4_000_000_001 - 1);
        while low < high {
            let middle = low.midpoint(high);
            let after = match two_way(&node, middle) {
                (to, _) if to == node.to_light => true,
                (_, index) => middle - index > stratum,
            };
            if after { high = middle } else { low = middle + 1 }
        }
        assert_eq!(two_way(&node, low), (node.to_light, stratum));
    }
}

/// Shares, relative to the weight, that clients see which open every p-th flow, p in 2..=12, in any phase.
fn periodic(weights: &[u32], flows: u64, version: impl Fn(u64) -> usize, mut check: impl FnMut(usize, f64, f64)) {
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let seen: Vec<usize> = (0..flows).map(version).collect();
    for period in 2..=12 {
        for phase in 0..period {
            let mut counts = vec![0_u32; weights.len()];
            let mut all = 0_u32;
            for &version in seen[phase..].iter().step_by(period) {
                counts[version] += 1;
                all += 1;
            }
            for (version, (&count, &weight)) in counts.iter().zip(weights).enumerate() {
                let expected = f64::from(all) * f64::from(weight) / total;
                check(version, f64::from(count) / expected, expected);
            }
        }
    }
}

/// The chance of each single flow to be of an item, relative to the item's share: least and largest.
///
/// A stratum is `T/w` flows rounded up or down, and each flow in it has the same chance. So a client in step with a
/// period of the weights sees 1/⌈T/w⌉ or 1/⌊T/w⌋ instead of w/T on the lighter side, and the rest on the heavier one.
fn chances(tree: &Tree, at: u32, (low, high): (f64, f64), into: &mut Vec<(f64, f64)>) {
    if at & LEAF != 0 {
        into[(at & !LEAF) as usize] = (low, high);
        return;
    }
    let node = tree.nodes[at as usize];
    let wide = f64::from(node.quotient + u32::from(node.remainder > 0));
    let (narrow, share) = (f64::from(node.quotient), f64::from(node.light) / f64::from(node.total));
    let rest = 1.0 - share;
    chances(tree, node.to_light, (low / wide / share, high / narrow / share), into);
    chances(tree, node.to_heavy, (low * (1.0 - 1.0 / narrow) / rest, high * (1.0 - 1.0 / wide) / rest), into);
}

#[test]
fn a_periodic_client_sees_the_weights() {
    let cases: [&[u32]; 9] = [
        &[9, 1],
        &[99, 1],
        &[7, 3],
        &[80, 10, 10],
        &[50, 30, 20],
        &[40, 30, 20, 10],
        &[97, 1, 1, 1],
        &[64, 16, 8, 4, 4, 2, 1, 1],
        &[5; 16],
    ];
    for weights in cases {
        let tree = tree(weights, 1).unwrap();
        let mut limits = vec![(0.0, 0.0); weights.len()];
        chances(&tree, tree.root, (1.0, 1.0), &mut limits);
        periodic(
            weights,
            200_000,
            |n| pick(&tree, n).0 as usize,
            |version, share, expected| {
                // Strata throw their dice independently, so the variance is at most the mean: six sigma, and what the
                // design promises for these weights.
                let (low, high) = limits[version];
                let (low, high) = (low - 6.0 * (high / expected).sqrt(), high + 6.0 * (high / expected).sqrt());
                assert!((low..=high).contains(&share), "{weights:?}: {share} of the share of {version}, {low}..{high}");
                assert!((0.74..=1.31).contains(&share), "{weights:?}: {share} of the share");
            },
        );
    }
}

#[test]
fn the_test_of_periodic_clients_can_fail() {
    // Without jitter every tenth flow is the canary: a client that opens every tenth sees it always or never.
    let mut outside = 0;
    periodic(
        &[9, 1],
        200_000,
        |n| usize::from(n % 10 == 9),
        |_, share, _| {
            outside += u32::from(!(0.74..=1.31).contains(&share));
        },
    );
    assert!(outside > 0);
}
