//! `VirtualServices` and routes at the API server, for the command line: found and changed with the user's own rights.
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{Access, ConnectError, Kind, Object, follow::resource, kinds::weighted, trim::trim};

/// What has weights in one namespace.
#[derive(Debug)]
pub struct Routes {
    all: Vec<Installed>,
    namespace: String,
}

/// A kind that the API server has.
#[derive(Debug)]
struct Installed {
    api: Api<DynamicObject>,
    kind: &'static Kind,
    version: &'static str,
}

/// A `VirtualService` or a route, as it was read.
#[derive(Debug)]
pub struct Route {
    /// What is written.
    pub object: Object,
    version: Option<String>,
    /// Its kind's place in [`Routes`].
    kind: usize,
}

/// Why routes cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// No client.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The API server has no such resource.
    #[error("the API server has neither VirtualServices nor routes of the Gateway API")]
    NotInstalled,
    /// Somebody else was faster.
    #[error("{object} was changed by somebody else meanwhile; nothing was changed")]
    Conflict {
        /// The object.
        object: String,
    },
    /// The API server refuses, or does not answer.
    #[error("the API server")]
    Server(#[source] Box<kube::Error>),
}

impl RouteError {
    fn of(error: kube::Error) -> Self {
        Self::Server(Box::new(error))
    }
}

impl Access {
    /// The `VirtualServices` and routes of `namespace`, or of the namespace of the context. What the user may not see is
    /// left out, unless that is all of it.
    ///
    /// # Errors
    /// When there is no cluster, or none with such resources.
    pub async fn routes(&self, namespace: Option<&str>) -> Result<Routes, RouteError> {
        let config = self.config().await?;
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config).map_err(|error| ConnectError::Client(error.into()))?;
        let (mut all, mut refused) = (Vec::new(), None);
        for kind in weighted() {
            for version in kind.versions {
                let described: ApiResource = resource(kind, version);
                let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &described);
                match api.list_metadata(&ListParams::default().limit(1)).await {
                    Ok(_) => {
                        all.push(Installed { api, kind, version });
                        break;
                    }
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error @ kube::Error::Api(_)) => {
                        refused = refused.or(Some(error));
                        break;
                    }
                    Err(error) => return Err(RouteError::of(error)),
                }
            }
        }
        match refused {
            _ if !all.is_empty() => Ok(Routes { all, namespace }),
            Some(error) => Err(RouteError::of(error)),
            None => Err(RouteError::NotInstalled),
        }
    }
}

impl Routes {
    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// All of them.
    ///
    /// # Errors
    /// When the API server refuses, or does not answer.
    pub async fn all(&self) -> Result<Vec<Route>, RouteError> {
        let mut found = Vec::new();
        for (kind, installed) in self.all.iter().enumerate() {
            let list = installed.api.list(&ListParams::default()).await.map_err(RouteError::of)?;
            found.extend(list.items.into_iter().filter_map(|object| {
                let version = object.metadata.resource_version.clone();
                let object = trim(installed.kind, installed.version, serde_json::to_value(object).ok()?)?;
                Some(Route { object, version, kind })
            }));
        }
        Ok(found)
    }

    /// Gives a route another list of rules (`http`, `rules`, …), unless somebody has changed it since it was read.
    ///
    /// # Errors
    /// When it was changed, or the API server refuses.
    pub async fn change(&self, route: &Route, section: &str, rules: &Value, dry_run: bool) -> Result<(), RouteError> {
        let patch = json!({"metadata": {"resourceVersion": route.version}, "spec": {section: rules}});
        let parameters = PatchParams { dry_run, field_manager: Some("canary".to_owned()), ..PatchParams::default() };
        let Some(Installed { api, .. }) = self.all.get(route.kind) else { return Err(RouteError::NotInstalled) };
        match api.patch(&route.object.name, &parameters, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Err(RouteError::Conflict { object: route.object.id() })
            }
            Err(error) => Err(RouteError::of(error)),
        }
    }
}
