//! Error codes of the registry protocol and the JSON document that carries them.

use std::fmt;

use serde::Serialize;

/// A code of the distribution specification ("Error codes"), or a further one that every client
/// knows. Clients decide by it whether to retry: Docker gives up at once only on UNAUTHORIZED,
/// DENIED, UNSUPPORTED, TOOMANYREQUESTS and NAME_UNKNOWN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The blob does not exist.
    BlobUnknown,
    /// The upload cannot continue.
    BlobUploadInvalid,
    /// The upload session does not exist; the client starts a new one.
    BlobUploadUnknown,
    /// The client is logged in but not allowed to do it, or a quota is used up.
    Denied,
    /// The digest is not valid, or not that of the content.
    DigestInvalid,
    /// A manifest references a blob that does not exist.
    ManifestBlobUnknown,
    /// The manifest is not valid, or not valid under this name.
    ManifestInvalid,
    /// The manifest does not exist.
    ManifestUnknown,
    /// The repository name is not valid.
    NameInvalid,
    /// The repository does not exist.
    NameUnknown,
    /// `n` is not valid.
    PaginationNumberInvalid,
    /// The chunk does not begin at the end of the upload.
    RangeInvalid,
    /// The size differs from that of the content, or exceeds a limit.
    SizeInvalid,
    /// The tag is not valid.
    TagInvalid,
    /// The client must retry later.
    TooManyRequests,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// The registry is not available.
    Unavailable,
    /// Any other error.
    Unknown,
    /// The operation is not supported.
    Unsupported,
}

impl ErrorCode {
    /// The code in the error document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::Denied => "DENIED",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
            Self::Unsupported => "UNSUPPORTED",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error document with one entry. Without a detail the field is left out.
pub(crate) fn error_body(code: ErrorCode, message: &str, detail: Option<&str>) -> String {
    let document = ErrorDocument {
        error: None,
        error_description: None,
        errors: [ErrorEntry {
            code: code.as_str(),
            message,
            detail,
        }],
    };
    document.text()
}

/// The error document of the token endpoint: also with the members of RFC 6749 §5.2, because some
/// clients read these and some the others.
pub(crate) fn token_error_body(error: &str, code: ErrorCode, message: &str) -> String {
    let (error, error_description) = (Some(error), Some(message));
    let document = ErrorDocument {
        error,
        error_description,
        errors: [ErrorEntry {
            code: code.as_str(),
            message,
            detail: None,
        }],
    };
    document.text()
}

#[derive(Serialize)]
struct ErrorDocument<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_description: Option<&'a str>,
    errors: [ErrorEntry<'a>; 1],
}

impl ErrorDocument<'_> {
    /// With a line end, as docker-registry ends its documents: people read them in terminals.
    fn text(&self) -> String {
        let mut text = serde_json::to_string(self).expect("texts always serialize");
        text.push('\n');
        text
    }
}

#[derive(Serialize)]
struct ErrorEntry<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_document_is_that_of_the_specification() {
        assert_eq!(
            error_body(ErrorCode::Denied, "ci-bot may not push here", None),
            r#"{"errors":[{"code":"DENIED","message":"ci-bot may not push here"}]}
"#
        );
        assert_eq!(
            error_body(ErrorCode::NameInvalid, "a \"b\"\n", Some("\\\u{7}")),
            r#"{"errors":[{"code":"NAME_INVALID","message":"a \"b\"\n","detail":"\\\u0007"}]}
"#
        );
    }

    proptest! {
        #[test]
        fn any_text_comes_back_as_it_went_in(message in any::<String>(), detail in any::<Option<String>>()) {
            let body = error_body(ErrorCode::Unknown, &message, detail.as_deref());
            let read: serde_json::Value = serde_json::from_str(&body).unwrap();
            prop_assert_eq!(read["errors"][0]["message"].as_str(), Some(message.as_str()));
            prop_assert_eq!(read["errors"][0]["detail"].as_str(), detail.as_deref());
        }
    }
}
