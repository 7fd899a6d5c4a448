//! Keeps programs at the interfaces that are wanted, as these come and go.
use std::collections::BTreeMap;

use super::{Agent, kernel::Kernel, pass::PassError};
use crate::diagnostic::chain;

impl<K: Kernel> Agent<K> {
    /// Attaches to the interfaces unless that is done; each one that was made anew since is attached to again. Those
    /// that cannot be attached are tried again: when they have come, or, if they are there, each time.
    ///
    /// # Errors
    /// When none of them is attached.
    pub fn attach(&mut self) -> Result<(), PassError> {
        let now: BTreeMap<String, Option<u64>> =
            self.attach.iter().map(|one| (one.interface.clone(), self.kernel.interface(&one.interface))).collect();
        if now != self.interfaces {
            let became = self.kernel.attach(&self.attach);
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
        if self.kernel.attached().is_empty() && !self.attach.is_empty() {
            return Err(PassError::Attach { failures: self.unattached.clone() });
        }
        Ok(())
    }

    /// Whether an interface is there now that was missing at the last attempt.
    pub(super) fn has_come(&self) -> bool {
        let mut missing = self.interfaces.iter().filter(|(_, index)| index.is_none());
        missing.any(|(name, _)| self.kernel.interface(name).is_some())
    }
}
