//! The word of a slot, what becomes of a packet by it, and what holds over all orders of events.
use super::{NOBODY, Place, Slot};

mod search;
mod tables;

#[test]
fn a_slot_is_one_word() {
    let slot = Slot::new(7);
    assert_eq!((slot.current(), slot.base(), slot.is_tracked()), (7, 7, false));
    let changed = slot.change(NOBODY - 1);
    assert_eq!((changed.current(), changed.base(), changed.is_tracked()), (NOBODY - 1, 7, true));
    assert_eq!(Slot::from_word(changed.word()), changed);
    assert_eq!(changed.release(), changed, "not before it has settled");
    assert_eq!(changed.settle().release(), Slot::new(NOBODY - 1));
    assert_eq!(slot.change(7), slot, "no change");
    assert!(changed.change(7).is_tracked(), "back again: those that came meanwhile are elsewhere");
}

#[test]
fn a_slot_that_does_not_change_asks_for_no_record() {
    let asked = || panic!("asked for a record");
    assert_eq!(Slot::new(7).place(true, asked), Place::Straight(7));
    assert_eq!(Slot::new(7).place(false, asked), Place::Straight(7));
}

#[test]
fn a_slot_that_changed_goes_by_records_and_by_what_was_before() {
    let slot = Slot::new(7).change(8).change(9);
    assert_eq!(slot.place(true, || None), Place::Record(9));
    assert_eq!(slot.place(false, || None), Place::Record(7));
    assert_eq!(slot.place(true, || Some(8)), Place::Recorded(8));
    assert_eq!((slot.refused(true), slot.refused(false)), (Some(7), None));
}

/// A version that had no endpoints has no flows.
#[test]
fn a_slot_that_was_nobodys_has_no_flows_of_old() {
    let slot = Slot::new(NOBODY).change(3);
    assert_eq!(slot.place(false, || None), Place::Record(3));
    assert_eq!(slot.refused(true), None);
}
