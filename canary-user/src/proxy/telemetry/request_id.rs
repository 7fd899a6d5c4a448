//! `x-request-id`: made where a client sends none, as in Envoy. W3C's and B3's headers belong to those who trace.
use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

/// The header.
pub(in crate::proxy) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives a request an id unless it has one.
pub(in crate::proxy) fn ensure(headers: &mut HeaderMap) {
    if !headers.contains_key(&REQUEST_ID)
        && let Ok(id) = HeaderValue::from_bytes(&uuid(random(), random()))
    {
        headers.insert(REQUEST_ID, id);
    }
}

/// A number that tells requests apart; nobody must not be able to guess it.
pub(in crate::proxy) fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    // SplitMix64: every seed runs through all numbers.
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// RFC 9562, version 4: 122 random bits.
fn uuid(high: u64, low: u64) -> [u8; 36] {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    let bits = (u128::from(high) << 64) | u128::from(low);
    let mut left = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    for (at, byte) in text.iter_mut().enumerate() {
        if !DASHES.contains(&at) {
            left = left.rotate_left(4);
            let digit = (left & 0xf) as u8;
            *byte = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_of_a_random_uuid() {
        let text = |high, low| String::from_utf8(uuid(high, low).to_vec()).unwrap();
        assert_eq!(text(0, 0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(text(u64::MAX, u64::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(text(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210), "01234567-89ab-4def-bedc-ba9876543210");
    }

    #[test]
    fn an_id_is_made_once_and_never_replaced() {
        let mut headers = HeaderMap::new();
        ensure(&mut headers);
        let made = headers[REQUEST_ID].clone();
        ensure(&mut headers);
        assert_eq!(headers[REQUEST_ID], made);
        let mut other = HeaderMap::new();
        ensure(&mut other);
        assert_ne!(other[REQUEST_ID], made);
    }
}
