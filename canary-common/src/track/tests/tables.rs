//! Whole tables over many changes: no flow moves, new ones follow the table, and in the end nothing is remembered.
use std::collections::HashMap;

use proptest::prelude::*;

use super::super::{Place, Slot};
use crate::choose::scale;

const SLOTS: u32 = 251;
const IDLE: u32 = 4;

#[derive(Debug, Default)]
struct Agent {
    /// When a slot became tracked, or changed after it had settled.
    since: HashMap<usize, u32>,
}

impl Agent {
    fn change(&mut self, table: &mut [Slot], wanted: impl Fn(usize) -> u32, now: u32) {
        for (at, slot) in table.iter_mut().enumerate() {
            let changed = slot.change(wanted(at));
            if slot.base() == slot.current() && changed != *slot {
                self.since.insert(at, now);
            }
            *slot = changed;
        }
    }

    /// Flows that are over take their records with them.
    fn sweep(&self, table: &mut [Slot], records: &mut HashMap<u32, (u32, u32)>, now: u32) {
        records.retain(|_, &mut (_, seen)| now - seen <= IDLE);
        let mut differs = vec![false; table.len()];
        for (&hash, &(endpoint, _)) in &*records {
            let at = scale(hash, SLOTS) as usize;
            differs[at] |= endpoint != table[at].current();
        }
        for (at, slot) in table.iter_mut().enumerate().filter(|(_, slot)| slot.is_tracked()) {
            if now - self.since.get(&at).copied().unwrap_or(now) > IDLE {
                *slot = slot.settle();
            }
            if !differs[at] {
                *slot = slot.release();
            }
        }
    }
}

fn send(table: &[Slot], records: &mut HashMap<u32, (u32, u32)>, hash: u32, opens: bool, now: u32) -> u32 {
    let endpoint = match table[scale(hash, SLOTS) as usize].place(opens, || records.get(&hash).map(|it| it.0)) {
        Place::Straight(endpoint) => return endpoint,
        Place::Recorded(endpoint) | Place::Record(endpoint) => endpoint,
    };
    records.insert(hash, (endpoint, now));
    endpoint
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_flow_moves_over_a_hundred_changes(changes in prop::collection::vec((1_u32..40, any::<u32>()), 100)) {
        let mut table = vec![Slot::new(0); SLOTS as usize];
        let (mut records, mut agent) = (HashMap::new(), Agent::default());
        let mut flows: HashMap<u32, u32> = HashMap::new();
        let mut now = 0;
        for (endpoints, seed) in changes {
            now += 1;
            let wanted = |at: usize| (u32::try_from(at).unwrap_or(0).wrapping_mul(seed | 1) >> 7) % endpoints;
            agent.change(&mut table, wanted, now);
            for n in 0..20_u32 {
                let hash = (now * 20 + n).wrapping_mul(0x9e37_79b9);
                let endpoint = send(&table, &mut records, hash, true, now);
                prop_assert_eq!(endpoint, wanted(scale(hash, SLOTS) as usize), "a new flow follows the table");
                flows.insert(hash, endpoint);
            }
            // Some say something now, all others before they count as silent.
            for (&hash, &endpoint) in flows.iter().filter(|(hash, _)| (**hash >> 3) % IDLE == now % IDLE) {
                prop_assert_eq!(send(&table, &mut records, hash, false, now), endpoint, "a flow stays");
            }
            agent.sweep(&mut table, &mut records, now);
        }
        // All end; after the idle time nobody remembers anything, and nobody is looked for.
        for _ in 0..2 {
            now += IDLE + 1;
            agent.sweep(&mut table, &mut records, now);
        }
        prop_assert!(records.is_empty());
        prop_assert!(table.iter().all(|slot| !slot.is_tracked()));
    }
}
