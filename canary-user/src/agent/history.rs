//! Who changed which weights when: entries made from what the state was and became, so no way to change one is missed.
use serde::{Deserialize, Serialize};

use crate::state::{ServiceId, State};

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
    /// Versions and weights before; a version of weight 0 is left out.
    pub old: Vec<(String, u32)>,
    /// Versions and weights after; likewise.
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
    #[error("{service} rule `{rule}` was changed again after entry {id}")]
    Overtaken {
        /// The entry.
        id: u64,
        /// The service.
        service: Box<ServiceId>,
        /// The rule.
        rule: String,
    },
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
            None => self
                .entries
                .iter()
                .rev()
                .find(|entry| {
                    entry.action != Action::Undo && !self.entries.iter().any(|later| later.undoes == Some(entry.id))
                })
                .ok_or(UndoError::Nothing)?,
        };
        for change in &entry.changes {
            let current = now
                .services
                .get(&change.service)
                .and_then(|service| service.rules.iter().find(|rule| rule.name == change.rule));
            if current.is_none_or(|rule| rule.split.weights != change.new) {
                return Err(UndoError::Overtaken {
                    id: entry.id,
                    service: Box::new(change.service.clone()),
                    rule: change.rule.clone(),
                });
            }
        }
        Ok(entry)
    }
}

/// Rules that are in both states with different weights.
#[must_use]
pub fn changes(old: &State, new: &State) -> Vec<Change> {
    let mut changes = Vec::new();
    for (id, after) in &new.services {
        let Some(before) = old.services.get(id) else { continue };
        for rule in &after.rules {
            let same = before.rules.iter().find(|old| old.name == rule.name);
            if let Some(old) = same.filter(|old| old.split.weights != rule.split.weights) {
                changes.push(Change {
                    service: id.clone(),
                    rule: rule.name.clone(),
                    old: old.split.weights.clone(),
                    new: rule.split.weights.clone(),
                });
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fake::split_state;

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
