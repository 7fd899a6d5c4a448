//! Who changed which weights when: entries made from what the state was and became, so no way to change one is missed.
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::state::{Service, ServiceId, Splitting, State};

/// Entries that are kept; older ones are forgotten.
pub const KEPT: usize = 1_000;

/// Who asked for a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// User id of the process at the other end of the socket; `None` for an edit of the files themselves.
    pub uid: Option<u32>,
    /// Name of that user (the id when it has none), or `files`.
    pub name: String,
}

/// How a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// `canary set-weight`.
    SetWeight,
    /// `canary apply`.
    Apply,
    /// `canary delete`.
    Delete,
    /// `canary undo`.
    Undo,
    /// Files were edited in the directory.
    Files,
}

/// Weights of one rule before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The service.
    pub service: ServiceId,
    /// Name of the rule.
    pub rule: String,
    /// Versions and weights before; a version of weight 0 is left out, all of them when there was no such rule.
    pub old: Vec<(String, u32)>,
    /// Versions and weights after; likewise, none when the rule is gone.
    pub new: Vec<(String, u32)>,
}

/// One change of weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Number, counting up from 1.
    pub id: u64,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Who.
    pub author: Author,
    /// How.
    pub action: Action,
    /// The entry that this one takes back.
    pub undoes: Option<u64>,
    /// What, in order of services.
    pub changes: Vec<Change>,
}

/// Entries, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The entries.
    pub entries: Vec<Entry>,
}

/// Why an entry cannot be taken back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UndoError {
    /// Nothing to take back.
    #[error("there is no change of weights to undo")]
    Nothing,
    /// No such entry.
    #[error("the history has no entry {id}")]
    Unknown {
        /// What was asked for.
        id: u64,
    },
    /// Weights are not what the entry made them.
    #[error("entry {id} cannot be taken back: {service} {now}")]
    Overtaken {
        /// The entry.
        id: u64,
        /// The service.
        service: Box<ServiceId>,
        /// What it is instead.
        now: Now,
    },
    /// The entry is about rules that came or went: their weights alone do not bring them back.
    #[error("entry {id} cannot be taken back: it changed which rules {service} has, not only weights")]
    Rules {
        /// The entry.
        id: u64,
        /// The service.
        service: Box<ServiceId>,
        /// The newest entry before it that can be taken back.
        earlier: Option<u64>,
    },
}

/// Why weights are not what an entry made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Now {
    /// The service is not there.
    NoService,
    /// The rule is not there.
    NoRule(String),
    /// The rule has other weights.
    Weights(String),
}

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoService => write!(f, "is not in force any more"),
            Self::NoRule(rule) => write!(f, "has no rule `{rule}` any more"),
            Self::Weights(rule) => write!(f, "has other weights in rule `{rule}` now"),
        }
    }
}

impl Change {
    /// The rule was there before and still is: setting its weights takes the change back.
    #[must_use]
    pub fn is_of_weights_only(&self) -> bool {
        !self.old.is_empty() && !self.new.is_empty()
    }
}

impl History {
    /// Appends an entry, forgetting the oldest ones past [`KEPT`]. `None` when nothing changed.
    pub fn record(
        &mut self,
        at: u64,
        author: Author,
        action: Action,
        undoes: Option<u64>,
        changes: Vec<Change>,
    ) -> Option<&Entry> {
        if changes.is_empty() {
            return None;
        }
        let id = self.entries.last().map_or(1, |last| last.id + 1);
        self.entries.push(Entry { id, at, author, action, undoes, changes });
        let excess = self.entries.len().saturating_sub(KEPT);
        self.entries.drain(..excess);
        self.entries.last()
    }

    /// The entry to take back: `id`, or the newest that is neither an undo nor undone.
    ///
    /// # Errors
    /// When there is none, or the weights in `now` are no longer what it made them.
    pub fn to_undo(&self, id: Option<u64>, now: &State) -> Result<&Entry, UndoError> {
        let entry = match id {
            Some(id) => self.entries.iter().find(|entry| entry.id == id).ok_or(UndoError::Unknown { id })?,
            None => self.open().next().ok_or(UndoError::Nothing)?,
        };
        stands(entry, now).map_err(|error| match error {
            UndoError::Rules { id, service, .. } => {
                let earlier = self.open().find(|one| one.id < id && stands(one, now).is_ok()).map(|one| one.id);
                UndoError::Rules { id, service, earlier }
            }
            other => other,
        })?;
        Ok(entry)
    }

    /// Entries that are neither an undo nor undone, newest first.
    fn open(&self) -> impl Iterator<Item = &Entry> {
        let undone = |id| self.entries.iter().any(|later| later.undoes == Some(id));
        self.entries.iter().rev().filter(move |entry| entry.action != Action::Undo && !undone(entry.id))
    }
}

/// Whether what an entry made is still so, and setting weights can take it back.
fn stands(entry: &Entry, now: &State) -> Result<(), UndoError> {
    let id = entry.id;
    if let Some(change) = entry.changes.iter().find(|change| !change.is_of_weights_only()) {
        return Err(UndoError::Rules { id, service: Box::new(change.service.clone()), earlier: None });
    }
    for change in &entry.changes {
        let overtaken = |now| UndoError::Overtaken { id, service: Box::new(change.service.clone()), now };
        let service = now.services.get(&change.service).ok_or_else(|| overtaken(Now::NoService))?;
        let rules = service.splitting();
        let rule = rules.iter().find(|rule| rule.name == change.rule);
        let rule = rule.ok_or_else(|| overtaken(Now::NoRule(change.rule.clone())))?;
        if rule.split.weights != change.new {
            return Err(overtaken(Now::Weights(change.rule.clone())));
        }
    }
    Ok(())
}

/// What became of the rules of every service that was there: other weights, come, gone.
#[must_use]
pub fn changes(old: &State, new: &State) -> Vec<Change> {
    let of = |(id, before): (&ServiceId, &Service)| {
        rules(id, &before.splitting(), &new.services.get(id).map(Service::splitting).unwrap_or_default())
    };
    old.services.iter().flat_map(of).collect()
}

/// The rules of services that were not there. For who makes them; in the history they would bury what changed.
#[must_use]
pub fn arrivals(old: &State, new: &State) -> Vec<Change> {
    let fresh = new.services.iter().filter(|(id, _)| !old.services.contains_key(id));
    fresh.flat_map(|(id, after)| rules(id, &[], &after.splitting())).collect()
}

fn rules(service: &ServiceId, old: &[Splitting<'_>], new: &[Splitting<'_>]) -> Vec<Change> {
    let change = |rule: &str, old: &[(String, u32)], new: &[(String, u32)]| Change {
        service: service.clone(),
        rule: rule.to_owned(),
        old: old.to_vec(),
        new: new.to_vec(),
    };
    let named = |rules: &'_ [Splitting<'_>], name: &str| rules.iter().any(|rule| rule.name == name);
    let for_same =
        |a: &Splitting<'_>, b: &Splitting<'_>| (a.sources, a.matches, a.names) == (b.sources, b.matches, b.names);
    // A rule that only has another name splits nobody differently.
    let same = |a: &Splitting<'_>, b: &Splitting<'_>| for_same(a, b) && a.split.weights == b.split.weights;
    let renamed = |rule: &Splitting<'_>, others: &[Splitting<'_>], own: &[Splitting<'_>]| {
        others.iter().any(|other| same(rule, other) && !named(own, other.name))
    };
    let gone = old.iter().filter(|rule| !named(new, rule.name) && !renamed(rule, new, old));
    let mut changes: Vec<Change> = gone.map(|rule| change(rule.name, &rule.split.weights, &[])).collect();
    for rule in new {
        match old.iter().find(|before| before.name == rule.name) {
            // Others get these weights now: not what setting weights takes back.
            Some(before) if !for_same(before, rule) => {
                changes.push(change(rule.name, &before.split.weights, &[]));
                changes.push(change(rule.name, &[], &rule.split.weights));
            }
            Some(before) if before.split.weights == rule.split.weights => {}
            Some(before) => changes.push(change(rule.name, &before.split.weights, &rule.split.weights)),
            None if renamed(rule, old, new) => {}
            None => changes.push(change(rule.name, &[], &rule.split.weights)),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::fake::split_state,
        state::{
            Choosing, DeadVersion, HeaderChanges, Http, HttpAction, HttpDestination, HttpPolicy, HttpRoute, HttpRule,
            RequestMatch, Rewrite, Text,
        },
    };

    fn root() -> Author {
        Author { uid: Some(0), name: "root".into() }
    }

    #[test]
    fn only_changed_weights_are_changes() {
        let old = split_state(&[("v1", 90), ("v2", 10)]);
        assert_eq!(changes(&old, &old), []);
        let new = split_state(&[("v1", 50), ("v2", 50)]);
        let found = changes(&old, &new);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].old, [("v1".to_owned(), 90), ("v2".to_owned(), 10)]);
        assert_eq!(found[0].new, [("v1".to_owned(), 50), ("v2".to_owned(), 50)]);
        assert_eq!(changes(&State::default(), &new), [], "a new service is not a change of weights");
        assert_eq!(arrivals(&State::default(), &new)[0].new, found[0].new);
        assert_eq!(arrivals(&old, &new), []);
    }

    #[test]
    fn rules_that_come_and_go_are_changes_and_another_name_is_none() {
        let old = split_state(&[("v1", 90), ("v2", 10)]);
        let mut new = old.clone();
        let rules = |state: &mut State| std::mem::take(&mut state.services.values_mut().next().unwrap().rules);
        let mut renamed = rules(&mut new);
        renamed[0].name = "canary".into();
        new.services.values_mut().next().unwrap().rules = renamed.clone();
        assert_eq!(changes(&old, &new), []);
        renamed[0].split.weights[0].1 = 1;
        new.services.values_mut().next().unwrap().rules = renamed;
        let found = changes(&old, &new);
        let names: Vec<_> = found.iter().map(|one| (one.rule.as_str(), one.old.len(), one.new.len())).collect();
        assert_eq!(names, [("http[0]", 2, 0), ("canary", 0, 2)]);
        let mut others = old.clone();
        others.services.values_mut().next().unwrap().rules[0].sources = vec!["192.0.2.0/24".parse().unwrap()];
        let found = changes(&old, &others);
        assert!(found.len() == 2 && found.iter().all(|one| !one.is_of_weights_only()), "for other clients: {found:?}");
        let gone = changes(&old, &State::default());
        assert_eq!((gone.len(), gone[0].new.len()), (1, 0), "so is a service that goes");
    }

    /// The service of `split_state` with rules for requests: everybody's, and those of one path.
    fn proxied(weights: u32, path: &str) -> State {
        let mut state = split_state(&[("v1", 1)]);
        let to = |version: &str, weight| HttpDestination {
            version: version.into(),
            weight,
            headers: HeaderChanges::default(),
            refused: false,
        };
        let rule = |name: &str, matches, destinations| HttpRule {
            name: name.into(),
            matches,
            action: HttpAction::Route(HttpRoute {
                choosing: Choosing::Exact,
                dead: DeadVersion::Fail,
                destinations,
                rewrite: Rewrite::default(),
            }),
            headers: HeaderChanges::default(),
            timeout_ms: None,
            policy: HttpPolicy::default(),
        };
        let only = RequestMatch { uri: Some(Text::Prefix(path.into())), ..RequestMatch::default() };
        let rules = vec![
            rule("canary", vec![only], vec![to("v1", 100 - weights), to("v2", weights)]),
            rule("rest", vec![], vec![to("v1", 1)]),
        ];
        state.services.values_mut().next().unwrap().http = Some(Http { rules, ..Http::default() });
        state
    }

    #[test]
    fn weights_of_rules_for_requests_are_weights_too() {
        let (old, new) = (proxied(10, "/a"), proxied(50, "/a"));
        let found = changes(&old, &new);
        assert_eq!(found.len(), 1, "the kernel's rule to the proxy is the same: {found:?}");
        assert_eq!(found[0].rule, "canary");
        assert_eq!(found[0].new, [("v1".to_owned(), 50), ("v2".to_owned(), 50)]);
        let mut history = History::default();
        history.record(1, root(), Action::SetWeight, None, found);
        assert_eq!(history.to_undo(None, &new).unwrap().id, 1);
        assert!(matches!(history.to_undo(None, &old), Err(UndoError::Overtaken { .. })));
        let others = changes(&old, &proxied(10, "/b"));
        assert!(others.len() == 2 && others.iter().all(|one| !one.is_of_weights_only()), "for others: {others:?}");
    }

    #[test]
    fn what_setting_weights_cannot_take_back_is_said_to_be_so() {
        let [old, new] = [90, 50].map(|w| split_state(&[("v1", w), ("v2", 100 - w)]));
        let mut history = History::default();
        history.record(1, root(), Action::SetWeight, None, changes(&old, &new));
        let error = history.to_undo(None, &State::default()).unwrap_err();
        assert!(matches!(error, UndoError::Overtaken { now: Now::NoService, .. }), "{error}");
        history.record(2, root(), Action::Delete, None, changes(&new, &State::default()));
        let rules =
            |earlier| Err(UndoError::Rules { id: 2, service: Box::new(crate::agent::fake::helloworld()), earlier });
        assert_eq!(history.to_undo(None, &State::default()).map(|entry| entry.id), rules(None));
        assert_eq!(history.to_undo(Some(2), &new).map(|entry| entry.id), rules(Some(1)), "it was applied again");
        assert_eq!(
            history.to_undo(Some(1), &old).unwrap_err().to_string(),
            "entry 1 cannot be taken back: default/helloworld:5000/tcp has other weights in rule `http[0]` now"
        );
    }

    #[test]
    fn undo_walks_back_and_refuses_what_was_overtaken() {
        let states = [90, 50, 20].map(|w| split_state(&[("v1", w), ("v2", 100 - w)]));
        let mut history = History::default();
        assert_eq!(history.to_undo(None, &states[0]), Err(UndoError::Nothing));
        history.record(1, root(), Action::SetWeight, None, changes(&states[0], &states[1]));
        history.record(2, root(), Action::SetWeight, None, changes(&states[1], &states[2]));
        assert_eq!(history.to_undo(None, &states[2]).unwrap().id, 2);
        assert!(matches!(history.to_undo(Some(1), &states[2]), Err(UndoError::Overtaken { id: 1, .. })));
        assert_eq!(history.to_undo(Some(7), &states[2]), Err(UndoError::Unknown { id: 7 }));
        history.record(3, root(), Action::Undo, Some(2), changes(&states[2], &states[1]));
        assert_eq!(history.to_undo(None, &states[1]).unwrap().id, 1);
    }

    #[test]
    fn it_forgets_the_oldest() {
        let (old, new) = (split_state(&[("v1", 1), ("v2", 1)]), split_state(&[("v1", 1), ("v2", 2)]));
        let mut history = History::default();
        for at in 0..KEPT as u64 + 5 {
            history.record(at, root(), Action::Files, None, changes(&old, &new));
        }
        assert_eq!(history.entries.len(), KEPT);
        assert_eq!(history.entries[0].id, 6);
        assert_eq!(history.record(0, root(), Action::Files, None, vec![]), None);
    }
}
