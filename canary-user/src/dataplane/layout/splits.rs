//! Rules, their splits and trees, in slots.
use canary_common::{
    abi::{EXACT, KEYED_CLIENT, KEYED_FLOW, LEAF, Leaf, Node, Rule, Split, unrange},
    build::tree,
    limits,
};

use super::{Layout, LayoutError, service_hash};
use crate::{
    dataplane::address,
    state::{Choosing, DeadVersion, Service, ServiceId},
};

impl Layout<'_> {
    /// The rules of a service, their splits in slots.
    pub(super) fn rules(&mut self, id: &ServiceId, service: &Service, slot: u32) -> Result<Vec<Rule>, LayoutError> {
        // Splits of this service that packets use now, to be recognized by what they say.
        let mut known: Vec<u32> = self
            .observed
            .services
            .get(&slot)
            .and_then(|it| self.observed.rules.get(&unrange(it.rules).0))
            .map(|rules| rules.iter().map(|rule| rule.split).collect())
            .unwrap_or_default();
        known.dedup();
        let mut rules = Vec::new();
        for (index, rule) in service.rules.iter().enumerate() {
            let split = self.split(id, service, index, &mut known)?;
            self.part_names.splits.insert(split, (id.clone(), index));
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            if rule.sources.is_empty() {
                rules.push(Rule { net_be: [0; 4], mask_be: [0; 4], split, index });
            }
            rules.extend(rule.sources.iter().map(|net| {
                let (net_be, mask_be) = address::network(net);
                Rule { net_be, mask_be, split, index }
            }));
        }
        if rules.len() > limits::RULES_PER_SERVICE as usize {
            return Err(LayoutError::TooMany {
                object: id.to_string(),
                what: "rules and client networks",
                count: rules.len(),
                limit: limits::RULES_PER_SERVICE,
            });
        }
        Ok(rules)
    }

    /// Weights as they are programmed: with `spill`, versions without endpoints leave theirs to the others.
    fn effective(service: &Service, index: usize) -> Vec<(String, u32)> {
        let Some(split) = service.rules.get(index).map(|rule| &rule.split) else { return Vec::new() };
        let dead = |name: &str| service.versions.get(name).is_none_or(|version| version.endpoints.is_empty());
        let all_dead = split.weights.iter().all(|(name, weight)| *weight == 0 || dead(name));
        let spills = split.dead == DeadVersion::Spill && !all_dead;
        split
            .weights
            .iter()
            .map(|(name, weight)| (name.clone(), if spills && dead(name) { 0 } else { *weight }))
            .collect()
    }

    fn split(
        &mut self,
        id: &ServiceId,
        service: &Service,
        index: usize,
        known: &mut Vec<u32>,
    ) -> Result<u32, LayoutError> {
        let object = || format!("{id} rule {index}");
        let unsound = |problem| LayoutError::Unsound { object: object(), problem };
        let weights = Self::effective(service, index);
        if weights.len() > limits::VERSIONS_PER_SPLIT as usize {
            return Err(LayoutError::TooMany {
                object: object(),
                what: "versions",
                count: weights.len(),
                limit: limits::VERSIONS_PER_SPLIT,
            });
        }
        let mut leaves = Vec::with_capacity(weights.len());
        let mut end = 0_u32;
        for (name, weight) in &weights {
            let version = self.part_versions.get(name).copied();
            end = end.checked_add(*weight).ok_or_else(|| unsound("weights add up to more than 4294967295"))?;
            leaves.push(Leaf { version: version.ok_or_else(|| unsound("names a version that is not there"))?, end });
        }
        let salt = service_hash(id);
        let choosing = match service.rules.get(index).map(|rule| rule.split.choosing) {
            Some(Choosing::KeyedFlow) => KEYED_FLOW,
            Some(Choosing::KeyedClient) => KEYED_CLIENT,
            _ => EXACT,
        };
        let proxied = u32::from(service.is_proxied());
        let same = known.iter().position(|slot| {
            self.observed.splits.get(slot).is_some_and(|it| {
                it.choosing == choosing
                    && it.proxied == proxied
                    && it.salt == salt
                    && self.observed.leaves.get(&it.leaves) == Some(&leaves)
            })
        });
        if let Some(at) = same {
            let slot = known.remove(at); // In order: rules that say the same keep their splits.
            if let Some(split) = self.observed.splits.get(&slot) {
                self.keep_tree(split.root);
                self.part.leaves.insert(split.leaves, leaves);
                self.part.splits.insert(slot, *split);
                return Ok(slot);
            }
        }
        let plain: Vec<u32> = weights.iter().map(|(_, weight)| *weight).collect();
        let tree = tree(&plain, salt).ok_or_else(|| unsound("all weights are zero"))?;
        let leaves_len = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
        let base = self.pools.leaves.take(leaves_len).map_err(LayoutError::full(object()))?;
        let root = self.place_tree(tree.root, &tree.nodes, base, object)?;
        self.part.leaves.insert(base, leaves);
        let slot = self.pools.splits.take().map_err(LayoutError::full(object()))?;
        let split =
            Split { draws: 0, salt, root, leaves: base, leaves_len, total: end, choosing, proxied, pad: [0; 6] };
        self.part.splits.insert(slot, split);
        Ok(slot)
    }

    /// Copies a tree into free nodes; its leaves count from `leaf_base`. Returns the root's reference.
    pub(super) fn place_tree(
        &mut self,
        root: u32,
        nodes: &[Node],
        leaf_base: u32,
        object: impl Fn() -> String,
    ) -> Result<u32, LayoutError> {
        let len = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let base = if len == 0 { 0 } else { self.pools.nodes.take(len).map_err(LayoutError::full(object()))? };
        let moved = |at: u32| if at & LEAF != 0 { at + leaf_base } else { at + base };
        for (at, node) in (base..).zip(nodes) {
            let node = Node { to_light: moved(node.to_light), to_heavy: moved(node.to_heavy), ..*node };
            self.part.nodes.insert(at, node);
        }
        Ok(moved(root))
    }

    /// Keeps the nodes of a tree that packets walk now.
    pub(super) fn keep_tree(&mut self, root: u32) {
        for at in self.observed.tree(root) {
            if let Some(node) = self.observed.nodes.get(&at) {
                self.part.nodes.insert(at, *node);
            }
        }
    }
}
