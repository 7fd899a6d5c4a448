//! Keeps programs at the interfaces that are wanted, as these come and go.
use std::collections::{BTreeMap, BTreeSet};

use super::{Agent, kernel::Kernel, pass::PassError};
use crate::{dataplane::Attach, diagnostic::chain};

impl<K: Kernel> Agent<K> {
    /// Attaches to the interfaces unless that is done; each one that was made anew since is attached to again. Those
    /// that cannot be attached are tried again: when they have come, or, if they are there, each time.
    ///
    /// # Errors
    /// When none of them is attached.
    pub fn attach(&mut self) -> Result<(), PassError> {
        let wanted = self.wanted();
        self.looked_for = names(&wanted);
        let now: BTreeMap<String, Option<u64>> =
            wanted.iter().map(|one| (one.interface.clone(), self.kernel.interface(&one.interface))).collect();
        if now != self.interfaces {
            let became = self.kernel.attach(&wanted);
            let before = std::mem::replace(&mut self.interfaces, now);
            let mut failures = Vec::new();
            for one in became {
                match one {
                    // It was attached to before, and is only asked about because of another.
                    Ok(one) if before.get(&one.attach.interface) == self.interfaces.get(&one.attach.interface) => {}
                    Ok(one) => {
                        let (interface, mode) = (&one.attach.interface, &one.mode);
                        tracing::info!(interface, mode, adopted = one.adopted, "attached");
                        if let Some(warning) = &one.warning {
                            tracing::warn!(interface, "{warning}");
                        }
                    }
                    Err(error) => failures.push(chain(&error)),
                }
            }
            let attached = self.kernel.attached();
            self.interfaces
                .retain(|name, index| index.is_none() || attached.iter().any(|it| it.attach.interface == *name));
            for failure in failures.iter().filter(|failure| !self.unattached.contains(failure)) {
                tracing::error!("not attached: {failure}");
            }
            self.unattached = failures;
        }
        // Of patterns there may be none for a while.
        if self.kernel.attached().is_empty() && !wanted.is_empty() {
            return Err(PassError::Attach { failures: self.unattached.clone() });
        }
        Ok(())
    }

    /// Every place to attach to, patterns as the interfaces that they are for now. Named ones come first, and an interface
    /// has one hook.
    fn wanted(&self) -> Vec<Attach> {
        let (patterns, mut wanted): (Vec<_>, Vec<_>) = self.attach.iter().cloned().partition(Attach::is_pattern);
        if patterns.is_empty() {
            return wanted;
        }
        let mut seen: BTreeSet<String> = wanted.iter().map(|one| one.interface.clone()).collect();
        let mut names = self.kernel.interfaces();
        names.sort();
        for name in names {
            if let Some(one) = patterns.iter().find_map(|pattern| pattern.of(&name))
                && seen.insert(name)
            {
                wanted.push(one);
            }
        }
        wanted
    }

    /// Whether some places to attach to are not there yet, or may be others any time.
    pub(super) fn waits_for_interfaces(&self) -> bool {
        !self.unattached.is_empty() || self.attach.iter().any(Attach::is_pattern)
    }

    /// Whether an interface is there now that was missing at the last attempt, or a pattern is for others than it was.
    pub(super) fn has_come(&self) -> bool {
        if self.attach.iter().any(Attach::is_pattern) && names(&self.wanted()) != self.looked_for {
            return true;
        }
        let mut missing = self.interfaces.iter().filter(|(_, index)| index.is_none());
        missing.any(|(name, _)| self.kernel.interface(name).is_some())
    }
}

fn names(places: &[Attach]) -> BTreeSet<String> {
    places.iter().map(|one| one.interface.clone()).collect()
}
