//! The rules for TLS connections, ready to be asked: which one takes a server name.
use std::{cmp::Reverse, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::rule::Rule;
use crate::state::{Tls, TlsRule};

/// Rules by server name, as a listener of Envoy has its filter chains.
#[derive(Debug)]
pub(super) struct ServerNames(Vec<Named>);

#[derive(Debug)]
struct Named {
    matches: Vec<Match>,
    rest: bool,
    rule: Arc<Rule>,
}

#[derive(Debug)]
struct Match {
    sources: Vec<IpNet>,
    names: Vec<Name>,
}

#[derive(Debug)]
enum Name {
    Exact(String),
    /// What stands behind the `*`.
    EndsWith(String),
}

impl ServerNames {
    /// `rule` has the split of a rule, ready to be drawn from.
    pub(super) fn new(of: &Tls, mut rule: impl FnMut(&TlsRule) -> Arc<Rule>) -> Self {
        let named = of.rules.iter().map(|it| Named {
            matches: it.matches.iter().map(Match::new).collect(),
            rest: it.rest,
            rule: rule(it),
        });
        Self(named.collect())
    }

    /// All rules.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.0.iter().map(|named| &named.rule)
    }

    /// The rule for a client that asks for `name`: the one that names it most precisely, of equal ones the first.
    pub(super) fn rule(&self, name: Option<&str>, client: IpAddr) -> Option<&Arc<Rule>> {
        let precision = |named: &Named| {
            let mine = named.matches.iter().filter(|it| it.is_for(client));
            mine.filter_map(|it| it.precision(name)).max()
        };
        let best = self.0.iter().filter_map(|named| Some((precision(named)?, named)));
        if let Some((_, best)) = best.min_by_key(|(precision, _)| Reverse(*precision)) {
            return Some(&best.rule);
        }
        // For Istio's sidecar of such a client there would be no rule at all.
        let spoken_for = self.0.iter().any(|it| !it.rest && it.matches.iter().any(|entry| entry.is_for(client)));
        self.0.iter().find(|named| named.rest && !spoken_for).map(|named| &named.rule)
    }
}

impl Match {
    fn new(of: &crate::state::TlsMatch) -> Self {
        let names = of.names.iter().map(|name| match name.strip_prefix('*') {
            Some(end) => Name::EndsWith(end.to_owned()),
            None => Name::Exact(name.clone()),
        });
        Self { sources: of.sources.clone(), names: names.collect() }
    }

    fn is_for(&self, client: IpAddr) -> bool {
        self.sources.is_empty() || self.sources.iter().any(|network| network.contains(&client))
    }

    /// How precisely it names `name`: a wildcard the more the longer it is, all of it most, any name least. `None`: not.
    fn precision(&self, name: Option<&str>) -> Option<usize> {
        if self.names.is_empty() {
            return Some(0);
        }
        let one = |test: &Name| match (test, name) {
            (Name::Exact(exact), Some(name)) => (exact == name).then_some(usize::MAX),
            // `*` alone is any name, and none; with something behind it, it stands for one letter at least.
            (Name::EndsWith(end), _) if end.is_empty() => Some(0),
            (Name::EndsWith(end), Some(name)) => (name.len() > end.len() && name.ends_with(end)).then_some(end.len()),
            (_, None) => None,
        };
        self.names.iter().filter_map(one).max()
    }
}
