//! The type of a problem document (RFC 8555 §6.7).

/// The type without the namespace of ACME; `None`: it has no type of ACME.
pub(super) fn problem_type(problem: &instant_acme::Problem) -> Option<&str> {
    problem.r#type.as_deref()?.strip_prefix(ERROR_NAMESPACE)
}

const ERROR_NAMESPACE: &str = "urn:ietf:params:acme:error:";
