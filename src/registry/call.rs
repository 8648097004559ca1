//! Calls: the meanings of requests below `/v2/`. A request that is not a call is never forwarded,
//! and no code after the parser deals with paths.

mod endpoint;
mod error;
mod kind;
mod operation;
mod print;
mod query;

/// Whether responses of this path are for registry clients rather than for people.
pub(crate) fn is_api(path: &str) -> bool {
    ["/v2", "/v1"].iter().any(|root| {
        path.strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// The repository that a path below `/v2/` names, if it names one. Errors as [`Call::parse`].
pub(crate) fn repository_of(path: &str) -> Result<Option<RepositoryName>, CallError> {
    let path = endpoint::plain_path(path)?;
    Ok(match Endpoint::parse(&path)? {
        Endpoint::Base | Endpoint::Catalog => None,
        Endpoint::Repository(name, _) => Some(name),
    })
}

#[cfg(test)]
mod tests;

use http::Method;

use self::endpoint::Endpoint;
use self::query::Parameters;
use super::name::RepositoryName;
use super::upload_id::UploadId;

pub(crate) use self::error::CallError;
pub(crate) use self::kind::CallKind;
pub(crate) use self::operation::{RepositoryCall, UploadStep};
pub(crate) use self::query::encode_value;
pub use self::query::pairs;
pub(crate) use self::query::{
    Pagination, Parameter, QueryError, QueryText, with_value, without_parameters,
};

/// An endpoint and method of the distribution specification 1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `GET /v2/`: tells clients that this is a registry, and whether they must log in.
    Ping { read: Read },
    /// `GET /v2/_catalog`: lists the repositories.
    Catalog { page: Pagination },
    /// A call to one repository; of a mount, the repository that receives the blob.
    Repository {
        name: RepositoryName,
        operation: RepositoryCall,
    },
}

/// The two reading methods. HEAD has the meaning of GET and is answered without a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    Get,
    Head,
}

impl Call {
    /// Parses a request target as received, percent-encoding included; `query` follows the `?`. The
    /// path must be in its canonical form: nothing is normalised here, so that moorgate and the
    /// upstream cannot interpret it differently.
    pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Self, CallError> {
        let path = endpoint::plain_path(path)?;
        let endpoint = Endpoint::parse(&path)?;
        let parameters = Parameters::parse(query)?;
        match endpoint {
            Endpoint::Base => Ok(Self::Ping {
                read: Read::parse(method).ok_or(not_allowed("GET, HEAD"))?,
            }),
            Endpoint::Catalog => {
                get_only(method)?;
                Ok(Self::Catalog {
                    page: parameters.page()?,
                })
            }
            Endpoint::Repository(name, resource) => Ok(Self::Repository {
                name,
                operation: RepositoryCall::parse(method, resource, &parameters)?,
            }),
        }
    }

    /// The call that opens an upload session, for example instead of a mount.
    pub fn upload_start(repository: &RepositoryName) -> Self {
        Self::Repository {
            name: repository.clone(),
            operation: RepositoryCall::UploadStart { digest: None },
        }
    }

    /// The repository of the call; of a mount, the one that receives the blob.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Ping { .. } | Self::Catalog { .. } => None,
            Self::Repository { name, .. } => Some(name),
        }
    }

    /// The operation in the repository.
    pub fn operation(&self) -> Option<&RepositoryCall> {
        match self {
            Self::Ping { .. } | Self::Catalog { .. } => None,
            Self::Repository { operation, .. } => Some(operation),
        }
    }

    /// The upload session that the call continues.
    pub fn session(&self) -> Option<&UploadId> {
        self.operation().and_then(RepositoryCall::session)
    }

    /// The tag or digest of the call, for the log. Never an upload session: for some registries its
    /// id is as good as a password.
    pub fn reference(&self) -> Option<&str> {
        self.operation().and_then(RepositoryCall::reference)
    }

    /// Whether the call makes content visible. The upstream may take minutes to answer these.
    pub fn is_commit(&self) -> bool {
        self.operation().is_some_and(RepositoryCall::is_commit)
    }

    /// Whether the request's body is a blob or a chunk of one (it may still be empty).
    pub fn is_upload_body(&self) -> bool {
        self.operation().is_some_and(RepositoryCall::is_upload_body)
    }

    /// Whether the call is a step of an upload that sends a body, which a registry may read as a
    /// form.
    pub fn is_upload(&self) -> bool {
        self.operation().is_some_and(RepositoryCall::is_upload)
    }

    /// Whether the request's body is a manifest.
    pub fn is_manifest_write(&self) -> bool {
        matches!(self.operation(), Some(RepositoryCall::ManifestWrite { .. }))
    }
}

impl Read {
    fn parse(method: &Method) -> Option<Self> {
        match *method {
            Method::GET => Some(Self::Get),
            Method::HEAD => Some(Self::Head),
            _ => None,
        }
    }

    pub fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
        }
    }
}

/// For the endpoints where no registry answers HEAD.
fn get_only(method: &Method) -> Result<(), CallError> {
    if *method == Method::GET {
        Ok(())
    } else {
        Err(not_allowed("GET"))
    }
}

fn not_allowed(allow: &'static str) -> CallError {
    CallError::MethodNotAllowed { allow }
}
