//! Which endpoint of a version with a policy gets a request.
use std::{
    cell::Cell,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use canary_common::{
    build::{name_hash, ring},
    choose::scale,
};

use super::{
    affinity,
    endpoint::{Chosen, Endpoint, Picked, Seen, Usage},
    outlier,
    rule::Ends,
    table::Turns,
    view::RequestView,
};
use crate::state::{Balancing, TrafficPolicy, Warmup};

/// How often an endpoint is drawn that may not have the request, before all are looked through.
const DRAWS: u32 = 16;

/// The endpoints of a version, with its policy.
#[derive(Debug)]
pub(super) struct Group {
    /// Service and version.
    name: String,
    policy: TrafficPolicy,
    members: Vec<(Arc<Endpoint>, u32)>,
    /// Where each one's share ends; empty: all weigh the same.
    ends: Vec<u64>,
    /// Places in the Maglev table.
    ring: Vec<u32>,
    pub(super) usage: Arc<Usage>,
    /// Held while an endpoint is ejected.
    ejecting: Mutex<()>,
}

impl Group {
    /// The endpoints at these addresses. What `previous` knows of them goes on.
    pub(super) fn new(
        name: String,
        policy: &TrafficPolicy,
        addresses: &[(SocketAddr, u32)],
        previous: Option<&Self>,
    ) -> Self {
        let known: HashMap<SocketAddr, &Arc<Endpoint>> =
            previous.iter().flat_map(|it| &it.members).map(|(it, _)| (it.address, it)).collect();
        let member = |&(address, weight): &(SocketAddr, u32)| {
            let endpoint = known.get(&address).map(|it| Arc::clone(it));
            (endpoint.unwrap_or_else(|| Arc::new(Endpoint::new(address))), weight)
        };
        let usage = previous.filter(|it| it.policy.connections == policy.connections).map(|it| it.usage.clone());
        Self {
            name,
            policy: policy.clone(),
            members: addresses.iter().map(member).collect(),
            ends: ends(addresses),
            ring: places(&policy.balancing, addresses),
            usage: usage.unwrap_or_else(|| Arc::new(Usage::new(policy.connections.clone()))),
            ejecting: Mutex::new(()),
        }
    }

    /// Whether it has this policy.
    pub(super) fn follows(&self, policy: &TrafficPolicy) -> bool {
        self.policy == *policy
    }

    /// The endpoint of a request; without what is asked one goes anywhere that the policy allows.
    pub(super) fn pick(self: &Arc<Self>, turns: &Turns, asked: Option<(RequestView<'_>, Ends)>) -> Option<Picked> {
        let mut cookie = None;
        let at = match (&self.policy.balancing, asked) {
            (Balancing::Hash { key, .. }, Some((view, ends))) => {
                let found = affinity::of(key, &view, ends);
                cookie = found.cookie.map(Box::new);
                let hash = found.hash.unwrap_or_else(random);
                self.first(|n| self.place(hash, n))
            }
            (Balancing::Hash { .. }, None) => self.first(|n| self.place(random(), n)),
            (Balancing::RoundRobin, _) => self.first(|_| turns.next()),
            (Balancing::Random, _) => self.first(|_| self.draw()),
            (Balancing::LeastRequest, _) => self.less_busy(),
        }?;
        let (endpoint, _) = self.members.get(at)?;
        let chosen = Chosen { group: self.clone(), endpoint: endpoint.clone() };
        Some(Picked { address: endpoint.address, chosen: Some(chosen), cookie })
    }

    /// The first one that may have a request, of those that are drawn; else any that may.
    fn first(&self, mut draw: impl FnMut(u32) -> Option<usize>) -> Option<usize> {
        for n in 0..DRAWS {
            let at = draw(n)?;
            let (endpoint, _) = self.members.get(at)?;
            if self.is_in(endpoint) && self.is_warm(endpoint) {
                return Some(at);
            }
        }
        let from = below(self.members.len())?;
        let all = (from..self.members.len()).chain(0..from);
        all.into_iter().find(|at| self.members.get(*at).is_some_and(|(endpoint, _)| self.is_in(endpoint)))
    }

    /// Of two the one with fewer requests under way for its weight.
    fn less_busy(&self) -> Option<usize> {
        let [first, second] = [self.first(|_| self.draw())?, self.first(|_| self.draw())?];
        let [(one, weight), (other, other_weight)] = [self.members.get(first)?, self.members.get(second)?];
        // By their weights they are drawn, and by their weights they may be busy.
        let busier =
            u64::from(one.active()) * u64::from(*other_weight) > u64::from(other.active()) * u64::from(*weight);
        Some(if busier { second } else { first })
    }

    /// One by chance and weight.
    fn draw(&self) -> Option<usize> {
        match self.ends.last() {
            None => below(self.members.len()),
            Some(total) => {
                let point = random().checked_rem(*total)?;
                Some(self.ends.partition_point(|end| *end <= point))
            }
        }
    }

    /// The `n`-th place of a hash in the table: where its requests go when those before may not have them.
    fn place(&self, hash: u64, n: u32) -> Option<usize> {
        let hash = if n == 0 { hash } else { mixed(hash ^ u64::from(n)) };
        let slots = u32::try_from(self.ring.len()).ok()?;
        let at = scale((hash >> 32) as u32, slots);
        self.ring.get(at as usize).map(|at| *at as usize)
    }

    /// Whether an endpoint is not ejected, or nearly all are.
    fn is_in(&self, endpoint: &Endpoint) -> bool {
        let Some(policy) = &self.policy.outliers else { return true };
        !endpoint.health.is_out(|| endpoint.age_ms()) || outlier::panics(policy, self.out(), self.members.len())
    }

    /// How many are ejected.
    fn out(&self) -> usize {
        self.members.iter().filter(|(it, _)| it.health.is_out(|| it.age_ms())).count()
    }

    /// By chance, as far as a new endpoint has come to its share.
    fn is_warm(&self, endpoint: &Endpoint) -> bool {
        let Some(warmup) = &self.policy.warmup else { return true };
        let slow = matches!(self.policy.balancing, Balancing::LeastRequest | Balancing::RoundRobin);
        let age = endpoint.age_ms();
        if !slow || age >= warmup.duration_ms {
            return true;
        }
        #[expect(clippy::cast_precision_loss, reason = "chance")]
        let point = (random() >> 11) as f64 / (1_u64 << 53) as f64;
        point < part(warmup, age)
    }

    /// Takes note of what became of a request.
    pub(super) fn saw(&self, endpoint: &Endpoint, seen: Seen) {
        let Some(policy) = &self.policy.outliers else { return };
        let Some(why) = endpoint.health.saw(policy, seen) else { return };
        let _alone = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        if endpoint.health.is_out(|| endpoint.age_ms()) {
            return;
        }
        let (version, address, all) = (&self.name, endpoint.address, self.members.len());
        if !outlier::may_eject(policy, self.out(), all) {
            let most = policy.max_ejection_percent;
            tracing::debug!(%version, endpoint = %address, "{why}: not ejected, as that would be more than {most} % of {all}");
            return;
        }
        let milliseconds = endpoint.health.eject(policy, endpoint.age_ms());
        tracing::warn!(%version, endpoint = %address, milliseconds, "ejected an endpoint: {why}, one after another");
    }

    /// Ejections so far, and whether it is ejected now, by endpoint.
    pub(super) fn ejections(&self) -> impl Iterator<Item = (SocketAddr, u64, bool)> {
        let of = self.members.iter().filter(|_| self.policy.outliers.is_some());
        of.map(|(it, _)| (it.address, it.health.ejections(), it.health.is_out(|| it.age_ms())))
    }
}

/// The part of its weight that an endpoint of this age has, as Envoy reckons it.
pub(super) fn part(warmup: &Warmup, age_ms: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 ms")]
    let time = age_ms.max(1_000) as f64 / warmup.duration_ms.max(1) as f64;
    let risen = time.powf(1_000.0 / f64::from(warmup.aggression_milli.max(1)));
    risen.max(f64::from(warmup.minimum_percent) / 100.0).min(1.0)
}

fn ends(addresses: &[(SocketAddr, u32)]) -> Vec<u64> {
    if addresses.windows(2).all(|pair| matches!(pair, [(_, one), (_, other)] if one == other)) {
        return Vec::new();
    }
    let mut end = 0;
    addresses
        .iter()
        .map(|(_, weight)| {
            end += u64::from(*weight);
            end
        })
        .collect()
}

fn places(balancing: &Balancing, addresses: &[(SocketAddr, u32)]) -> Vec<u32> {
    let Balancing::Hash { table_size, .. } = balancing else { return Vec::new() };
    let name = |(address, weight): &(SocketAddr, u32)| (name_hash(address.to_string().as_bytes()), *weight);
    let names: Vec<(u64, u32)> = addresses.iter().map(name).collect();
    ring(&names, *table_size)
}

/// A number below `n`, by chance.
fn below(n: usize) -> Option<usize> {
    usize::try_from(random().checked_rem(n as u64)?).ok()
}

thread_local! {
    static SEED: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
}

/// A number by chance: good enough to spread requests, and nothing else.
pub(super) fn random() -> u64 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let next = SEED.get().wrapping_add(STEP);
    SEED.set(next);
    mixed(next)
}

/// The finishing step of `SplitMix64` (Steele, Lea and Flood, 2014): each bit depends on all.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
