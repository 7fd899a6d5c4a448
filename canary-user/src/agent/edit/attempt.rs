//! One edit from the draft to the pass that brings it into force.
use super::{
    Edit, EditError, Edited, What,
    draft::{Ground, new_errors, not_enforced, want_strictly},
    effect::scaled,
};
use crate::{
    agent::{
        Agent,
        history::{self, Author},
        kernel::Kernel,
        pass::{self, PassError},
    },
    diagnostic::Diagnostic,
    source::directory::Directory,
};

impl<K: Kernel> Agent<K> {
    /// Drafts an edit, tries it in memory, and writes it unless it is refused or a dry run.
    pub(in crate::agent) fn edit(&mut self, edit: &Edit, author: Author) -> Result<Edited, EditError> {
        let snapshot = self.source.read().map_err(|error| EditError::Unavailable(error.into()))?;
        let strict_before = want_strictly(&snapshot, &self.memory, &self.proxy);
        let current = pass::want(&snapshot, &self.memory, &self.proxy);
        let ground = Ground {
            config: self.source.directory().map(Directory::path),
            snapshot: &snapshot,
            wanted: &current,
            state: &self.memory.state,
            history: &self.history,
        };
        let draft = edit.what.draft(&ground)?;
        let tried = draft.try_on(&snapshot);
        let strict = want_strictly(&tried, &self.memory, &self.proxy);
        let broken = new_errors(&strict_before, &strict);
        if !broken.is_empty() {
            let diagnostics = broken.iter().map(|found| draft.at_home(found)).collect();
            match edit.what {
                What::Delete { force: true, .. } => {}
                What::Delete { .. } => return Err(EditError::Needed { diagnostics }),
                _ => return Err(EditError::Invalid { diagnostics }),
            }
        }
        let mut after = pass::want(&tried, &self.memory, &self.proxy);
        let plan = self.kernel.plan(&after.state).map_err(|error| EditError::Unavailable(PassError::Kernel(error)));
        let plan = if edit.dry_run { plan? } else { plan.unwrap_or_default() };
        after.refuse(&plan.refused, &self.memory.state);
        let before = self.view.reports.clone();
        let touched =
            |found: &&Diagnostic| draft.objects.iter().any(|(id, _)| *id == found.object) || broken.contains(found);
        let mut changes = history::changes(&self.memory.state, &after.state);
        changes.extend(history::arrivals(&self.memory.state, &after.state));
        let mut edited = Edited {
            changes,
            scaled: scaled(&self.memory.state, &after.state),
            diagnostics: strict.diagnostics.iter().filter(touched).map(|found| draft.at_home(found)).collect(),
            files: draft.files.iter().map(|file| file.path.clone()).collect(),
            ..Edited::default()
        };
        if edit.dry_run {
            edited.plan = Some(plan.operations);
        } else {
            draft.write()?;
            let passed = self.pass(author, edit.what.action(), draft.undoes).map_err(EditError::NotInForce)?;
            (edited.applied, edited.entry) = (Some(passed.applied), passed.entry);
        }
        let reports = if edit.dry_run { &after.reports } else { &self.view.reports };
        edited.not_enforced = not_enforced(&before, reports, &draft.objects);
        edited.objects = draft.objects;
        Ok(edited)
    }
}
