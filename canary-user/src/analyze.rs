//! Says what will not work as its author meant, with Istio's codes where Istio has one, so that CI filters keep working.
//!
//! Pure: looks at a [`Snapshot`] only. What a single object breaks by itself is the model's part; here it is about
//! objects that do not fit each other, and about rules that nothing can reach.
use self::{
    context::{Context, Report},
    mesh::MeshConfig,
};
use crate::{diagnostic::Diagnostic, source::Snapshot};

mod context;
mod cookies;
mod deployments;
mod deprecated;
mod destinations;
mod entries;
mod gateways;
mod hosts;
mod literal;
mod mesh;
mod ports;
mod reach;
mod subsets;
#[cfg(test)]
mod tests;

/// One kind of finding, or a few that need the same look.
#[derive(Debug, Clone, Copy)]
pub struct Analyzer {
    /// Istio's name for it, such as `virtualservice.GatewayAnalyzer`; ours start with `canary.`.
    pub name: &'static str,
    /// What it looks for, in one sentence.
    pub about: &'static str,
    /// The codes that it can give.
    pub codes: &'static [&'static str],
    run: fn(&Context<'_>, &mut Report),
}

/// All analyzers, in the order of their names.
pub const ANALYZERS: [Analyzer; 15] = [
    Analyzer {
        name: "canary.CookieRegexAnalyzer",
        about: "Regular expressions for cookies that forget the space behind `;`.",
        codes: &[cookies::CODE],
        run: cookies::run,
    },
    Analyzer {
        name: "canary.CoveredMatchAnalyzer",
        about: "Matches with the path prefix of an earlier one, and only more conditions.",
        codes: &[reach::SAME_PREFIX],
        run: reach::same_prefix,
    },
    Analyzer {
        name: "canary.LiteralHostAnalyzer",
        about: "Hosts with a dot, which are taken as they stand, where a short name was probably meant.",
        codes: &[literal::CODE],
        run: literal::run,
    },
    Analyzer {
        name: "canary.RuleAfterCatchAllAnalyzer",
        about: "Rules with a match that stand after one which matches everything.",
        codes: &[reach::AFTER_CATCH_ALL],
        run: reach::after_catch_all,
    },
    Analyzer {
        name: "deployment.ServiceAssociationAnalyzer",
        about: "Deployments in the mesh whose Services disagree about a port.",
        codes: &["IST0116", "IST0137"],
        run: deployments::run,
    },
    Analyzer {
        name: "deprecation.FieldAnalyzer",
        about: "Fields that have a successor.",
        codes: &["IST0002"],
        run: deprecated::run,
    },
    Analyzer {
        name: "destinationrule.PodNotSelectedAnalyzer",
        about: "DestinationRules of unknown hosts, and subsets that no workload belongs to.",
        codes: &["IST0173", "IST0174"],
        run: subsets::unselected,
    },
    Analyzer {
        name: "schema.ValidationAnalyzer.VirtualService",
        about: "Rules and matches that an earlier rule has taken already.",
        codes: &["IST0130", "IST0131"],
        run: reach::run,
    },
    Analyzer {
        name: "service.PortNameAnalyzer",
        about: "Service ports whose name does not say their protocol.",
        codes: &["IST0118", "IST0150"],
        run: ports::run,
    },
    Analyzer {
        name: "serviceentry.ConflictingServiceEntryProtocolAnalyzer",
        about: "ServiceEntries that give one host and port different protocols.",
        codes: &[entries::CONFLICT],
        run: entries::conflicts,
    },
    Analyzer {
        name: "serviceentry.ProtocolAddressesAnalyzer",
        about: "ServiceEntries with TCP ports and without addresses.",
        codes: &["IST0134"],
        run: entries::addresses,
    },
    Analyzer {
        name: "virtualservice.ConflictingMeshGatewayHostsAnalyzer",
        about: "VirtualServices that claim the same host in the mesh.",
        codes: &["IST0109"],
        run: mesh::conflicts,
    },
    Analyzer {
        name: "virtualservice.DestinationHostAnalyzer",
        about: "Destinations that do not exist, or that need a port.",
        codes: &["IST0101", "IST0112", "IST0140"],
        run: destinations::run,
    },
    Analyzer {
        name: "virtualservice.DestinationRuleAnalyzer",
        about: "Subsets that no DestinationRule defines.",
        codes: &["IST0101"],
        run: subsets::undefined,
    },
    Analyzer {
        name: "virtualservice.GatewayAnalyzer",
        about: "Gateways that do not exist, or that do not serve the hosts of the VirtualService.",
        codes: &["IST0101", "IST0132"],
        run: gateways::run,
    },
];

/// What to analyze with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'o> {
    /// Only the analyzer of this name.
    pub only: Option<&'o str>,
    /// Istio's mesh configuration, as text; also found in the `ConfigMap` `istio-system/istio`.
    pub mesh_config: Option<&'o str>,
}

/// Runs every analyzer; see [`analyze_with`].
#[must_use]
pub fn analyze(snapshot: &Snapshot) -> Vec<Diagnostic> {
    analyze_with(snapshot, Options::default())
}

/// What the analyzers find, in the order of places. What could not be read is in the snapshot's own diagnostics and is
/// not repeated.
#[must_use]
pub fn analyze_with(snapshot: &Snapshot, options: Options<'_>) -> Vec<Diagnostic> {
    let mesh_config = MeshConfig::find(snapshot, options.mesh_config);
    let context = Context::new(snapshot, mesh_config);
    let mut report = Report::default();
    for analyzer in ANALYZERS.iter().filter(|analyzer| options.only.is_none_or(|only| only == analyzer.name)) {
        (analyzer.run)(&context, &mut report);
    }
    let mut found = report.into_diagnostics();
    found.sort_by(|a, b| (&a.origin, a.code, &a.field).cmp(&(&b.origin, b.code, &b.field)));
    found
}
