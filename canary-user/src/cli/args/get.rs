//! Arguments of `canary get`.
use std::ffi::OsStr;

use clap::{
    Arg, Args, Command, ValueEnum,
    builder::{EnumValueParser, PossibleValue, TypedValueParser},
};

use super::{Output, parse_service};

/// What `canary get` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Resource {
    /// Services: addresses, rules, whether they are enforced.
    #[value(alias = "service", alias = "svc")]
    Services,
    /// Versions: weights, shares, flows, deviation.
    #[value(alias = "version")]
    Versions,
    /// Endpoints: state and counters.
    #[value(alias = "endpoint", alias = "ep")]
    Endpoints,
    /// Flows in the kernel's table.
    #[value(alias = "flow")]
    Flows,
    /// Packets left alone, by reason.
    #[value(alias = "leave")]
    Leaves,
}

/// `canary get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// What to list; `service/NAME` is one of them.
    #[arg(value_name = "RESOURCE", value_parser = ListedParser)]
    pub listed: Listed,
    /// Only of this service (`helloworld`, `default/helloworld`), or this reason of leaves.
    #[arg(value_parser = parse_service)]
    pub name: Option<String>,
    /// At most so many flows.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
    /// List again whenever a second has passed, until interrupted.
    #[arg(short, long)]
    pub watch: bool,
    /// Form of the output.
    #[command(flatten)]
    pub output: Output,
}

/// `services`, or `service/helloworld`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The kind.
    pub resource: Resource,
    /// One of them, or what belongs to one service.
    pub name: Option<String>,
}

#[derive(Debug, Clone)]
struct ListedParser;

impl TypedValueParser for ListedParser {
    type Value = Listed;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Listed, clap::Error> {
        let text = value.to_string_lossy();
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind, Some(name.to_owned())),
            None => (text.as_ref(), None),
        };
        let resource = EnumValueParser::<Resource>::new().parse_ref(command, arg, OsStr::new(kind))?;
        Ok(Listed { resource, name })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Resource::value_variants().iter().filter_map(Resource::to_possible_value)))
    }
}
