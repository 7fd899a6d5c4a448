//! What this kernel can do for canary, asked of the kernel itself; and whose programs are there besides.
use std::collections::BTreeMap;

use aya::{
    programs::{ProgramType, loaded_programs},
    sys::{BpfHelper, is_helper_supported, is_program_supported},
};

/// What the kernel says. `Err`: why it does not say, which is a lack of rights most often.
#[derive(Debug, Clone)]
pub struct Features {
    /// Programs at interfaces.
    pub interfaces: Result<bool, String>,
    /// Programs of a cgroup, and that they may refuse.
    pub sockets: Result<bool, String>,
    /// Programs of others at the same kinds of hooks: how many of each name.
    pub others: Result<BTreeMap<String, usize>, String>,
}

impl Features {
    /// Asks.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        let kinds = [ProgramType::Xdp, ProgramType::SchedClassifier];
        let sockets = [ProgramType::CgroupSockAddr, ProgramType::SockOps];
        let refuse = || is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval);
        let text = |error: &dyn std::error::Error| crate::diagnostic::chain(error);
        let all = |kinds: &[ProgramType]| -> Result<bool, String> {
            kinds
                .iter()
                .try_fold(true, |all, kind| Ok(all && is_program_supported(*kind).map_err(|error| text(&error))?))
        };
        Self {
            interfaces: all(&kinds),
            sockets: all(&sockets).and_then(|there| Ok(there && refuse().map_err(|error| text(&error))?)),
            others: others(),
        }
    }
}

fn others() -> Result<BTreeMap<String, usize>, String> {
    let hooks = [ProgramType::Xdp, ProgramType::SchedClassifier, ProgramType::CgroupSockAddr, ProgramType::SockOps];
    let mut others = BTreeMap::new();
    for program in loaded_programs() {
        let program = program.map_err(|error| crate::diagnostic::chain(&error))?;
        let name = program.name_as_str().filter(|name| !name.is_empty()).unwrap_or("(without a name)").to_owned();
        if hooks.iter().any(|kind| program.program_type() == (*kind).into()) && !name.starts_with("canary_") {
            *others.entry(name).or_default() += 1;
        }
    }
    Ok(others)
}
