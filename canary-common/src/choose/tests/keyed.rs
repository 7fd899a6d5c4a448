//! Keyed splits as statistics, with bounds from the binomial, and as monotone functions.
use proptest::prelude::*;

use crate::{
    abi::{Addr, FlowKey, mapped},
    build::name_hash,
    choose::{endpoint_half, hash_client, hash_flow, scale, version_half},
    packet::{TCP, UDP},
};

fn client(n: u32) -> Addr {
    mapped((0x0a00_0000 + n).to_be())
}

fn flow(n: u32) -> FlowKey {
    FlowKey {
        src_be: client(n % 64),
        dst_be: mapped(0xcb00_7101_u32.to_be()),
        src_port_be: u16::try_from(32_768 + n / 64).unwrap().to_be(),
        dst_port_be: 80_u16.to_be(),
        protocol: TCP,
        pad: 0,
        zero: 0,
    }
}

/// Six sigma of a binomial.
fn binomial(trials: u32, share: f64) -> f64 {
    6.0 * (f64::from(trials) * share * (1.0 - share)).sqrt()
}

#[test]
fn keyed_shares_are_within_six_sigma() {
    let keys = 1_000_000;
    for (name, salt) in [("one", 1), ("two", name_hash(b"default/helloworld"))] {
        // A million flows of 64 clients, and a million clients in a row: the least random keys there are.
        let hashes: [(&str, &dyn Fn(u32) -> u64); 2] =
            [("flow", &|n| hash_flow(&flow(n), salt)), ("client", &|n| hash_client(&client(n), salt))];
        for (kind, hash) in hashes {
            for half in [version_half, endpoint_half] {
                for percent in [1, 5, 10, 50, 90] {
                    let got = (0..keys).filter(|&n| scale(half(hash(n)), 100) < percent).count();
                    let share = f64::from(percent) / 100.0;
                    let off = (f64::from(u32::try_from(got).unwrap()) - f64::from(keys) * share).abs();
                    assert!(off < binomial(keys, share), "{name}, {kind}: {got} of {keys} at {percent} %");
                }
            }
        }
    }
}

#[test]
fn the_halves_of_a_hash_are_independent() {
    // Were they not, the clients of the canary would all meet the same endpoint.
    let mut table = [[0_u32; 4]; 4];
    for n in 0..160_000 {
        let hash = hash_client(&client(n), 5);
        table[scale(version_half(hash), 4) as usize][scale(endpoint_half(hash), 4) as usize] += 1;
    }
    for count in table.into_iter().flatten() {
        assert!((f64::from(count) - 10_000.0).abs() < binomial(160_000, 1.0 / 16.0), "{table:?}");
    }
}

#[test]
fn services_do_not_share_their_canaries() {
    let chosen = |n, salt| scale(version_half(hash_client(&client(n), salt)), 10) == 0;
    let both = (0..100_000).filter(|&n| chosen(n, 1) && chosen(n, 2)).count();
    let off = (f64::from(u32::try_from(both).unwrap()) - 1_000.0).abs();
    assert!(off < binomial(100_000, 0.01), "{both} of 100 000 in both, 1 000 expected");
}

#[test]
fn all_of_the_key_counts() {
    let base = flow(1);
    let others = [
        FlowKey { src_be: client(9), ..base },
        FlowKey { dst_be: client(9), ..base },
        FlowKey { src_port_be: 9, ..base },
        FlowKey { dst_port_be: 9, ..base },
        FlowKey { protocol: UDP, ..base },
        FlowKey { src_be: base.dst_be, dst_be: base.src_be, ..base },
        FlowKey { src_be: [1, 0, base.src_be[2], base.src_be[3]], ..base },
        FlowKey { src_be: [0, 1, base.src_be[2], base.src_be[3]], ..base },
    ];
    for other in others {
        assert_ne!(hash_flow(&other, 1), hash_flow(&base, 1), "{other:?}");
    }
    assert_ne!(hash_flow(&base, 1), hash_flow(&base, 2));
}

proptest! {
    /// `ends` as `compile` makes them: v1 up to its weight, v2 up to the sum.
    #[test]
    fn raising_the_second_version_takes_no_key_away_from_it(
        hash: u32, one in 1..=u32::MAX / 2, two in 0..=u32::MAX / 4, more in 0..=u32::MAX / 4,
    ) {
        let second = |one: u32, two: u32| scale(hash, one + two) >= one;
        prop_assert!(!second(one, two) || second(one, two + more));
        prop_assert!(!second(one, two) || second(one - one.min(more), two + one.min(more)), "at a constant sum");
    }

    #[test]
    fn a_scaled_hash_is_below_its_bound(hash: u32, bound in 1..=u32::MAX) {
        prop_assert!(scale(hash, bound) < bound);
    }
}
