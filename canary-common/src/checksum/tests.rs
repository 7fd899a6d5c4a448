//! Checksums: the full sum against RFC 1071's example, updates against full sums.
use proptest::prelude::*;

use super::*;

/// Another way to the same number: big-endian words, folded at every step.
fn reference(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for at in (0..bytes.len()).step_by(2) {
        sum += u32::from(u16::from_be_bytes([bytes[at], bytes.get(at + 1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(!sum & 0xffff).unwrap().to_be()
}

#[test]
fn the_example_of_rfc_1071() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(of(&bytes, 0), (!0xddf2_u16).to_be());
}

#[test]
fn the_example_of_rfc_1624() {
    // §4: a checksum of 0xdd2f, and 0x5555 becomes 0x3285. Equation 4 gives 0xffff there, equation 3 zero.
    assert_eq!(update(0xdd2f, diff16(0x5555, 0x3285)), 0);
}

#[test]
fn folding_keeps_the_largest_sums() {
    assert_eq!(fold(0), 0);
    assert_eq!(fold(0xffff), 0xffff);
    assert_eq!(fold(0x1_0000), 1);
    assert_eq!(fold(u32::MAX), 0xffff);
    assert_eq!(fold(0xffff_0001), 1);
    assert_eq!(fold(0x1_ffff), 1);
}

proptest! {
    #[test]
    fn the_full_sum_of_anything(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(of(&bytes, 0), reference(&bytes));
    }

    #[test]
    fn a_sum_known_already_counts(bytes in proptest::collection::vec(any::<u8>(), 0..50), known: u32) {
        let joined = [&known.to_ne_bytes()[..], &bytes].concat();
        let halves = (known & 0xffff) + (known >> 16);
        prop_assert_eq!(of(&bytes, halves), reference(&joined));
    }

    /// An update is the full sum of the changed bytes; the first byte keeps the sum from being zero, as in all headers.
    #[test]
    fn an_update_equals_the_full_sum(
        mut bytes in proptest::collection::vec(any::<u8>(), 40..80), at in 0..5_usize, word: u16, long: u32, addr: [u32; 4],
    ) {
        bytes[0] = 0x45;
        let full = reference(&bytes);
        let place = 2 + 4 * at;
        let old = u16::from_ne_bytes([bytes[place], bytes[place + 1]]);
        let mut short = bytes.clone();
        short[place..place + 2].copy_from_slice(&word.to_ne_bytes());
        prop_assert_eq!(update(full, diff16(old, word)), reference(&short));

        let old = u32::from_ne_bytes(bytes[place..place + 4].try_into().unwrap());
        let mut double = bytes.clone();
        double[place..place + 4].copy_from_slice(&long.to_ne_bytes());
        prop_assert_eq!(update(full, diff32(old, long)), reference(&double));

        let mut old = [0; 4];
        for (word, bytes) in old.iter_mut().zip(bytes[place..].chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().unwrap());
        }
        let mut whole = bytes.clone();
        for (word, bytes) in addr.iter().zip(whole[place..].chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        prop_assert_eq!(update(full, diff_addr(&old, &addr)), reference(&whole));
        prop_assert_eq!(update(full, diff_addr(&old, &old)), full, "no change changes nothing");
    }

    #[test]
    fn sixteen_differences_can_be_added(from: u32, to: u32) {
        prop_assert!(diff32(from, to).checked_mul(16).and_then(|sum| sum.checked_add(0xffff)).is_some());
    }
}
