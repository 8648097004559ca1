//! The query parameters of calls. All others are ignored here and forwarded unchanged.

use std::borrow::Cow;

use percent_encoding::{
    AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_decode, utf8_percent_encode,
};

use crate::registry::digest::Digest;
use crate::registry::name::RepositoryName;
use crate::registry::reference::Tag;

/// A parameter that a call understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// The digest of the content of an upload.
    Digest,
    /// The blob to mount.
    Mount,
    /// The repository to mount it from.
    From,
    /// A further tag of a manifest.
    Tag,
    /// The maximum number of entries of a page.
    N,
    /// The last entry of the previous page.
    Last,
    /// The artifact type of the listed referrers.
    ArtifactType,
}

/// Why a query is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A character is not valid in a query, or two hexadecimal digits do not follow a percent sign.
    #[error("the query is not percent-encoded correctly")]
    Encoding,
    /// The parameter has two values: programs disagree on whether the first or the last counts.
    #[error("the parameter {} is given more than once", .0.as_str())]
    Repeated(Parameter),
    /// The parameter is in other letter case: programs disagree on whether it is the same one.
    #[error("the parameter {} has the wrong letter case", .0.as_str())]
    Spelling(Parameter),
    /// A required parameter is missing or empty.
    #[error("the parameter {} is missing", .0.as_str())]
    Missing(Parameter),
    /// The value is not valid.
    #[error("the value of the parameter {} is not valid", .0.as_str())]
    Invalid(Parameter),
    /// A single request cannot both commit an upload and mount a blob.
    #[error("the parameters digest and mount exclude each other")]
    Contradiction,
}

/// The requested part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pagination {
    /// The maximum number of entries. Without it the registry decides.
    pub n: Option<u32>,
    /// Only entries after this one: a name, or for some registries a token.
    pub last: Option<QueryText>,
}

/// A parameter's decoded value that only the upstream understands: printable ASCII, not empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueryText(Box<str>);

impl Parameter {
    const ALL: [Self; 7] = [
        Self::Digest,
        Self::Mount,
        Self::From,
        Self::Tag,
        Self::N,
        Self::Last,
        Self::ArtifactType,
    ];

    /// The parameter's name in the query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Digest => "digest",
            Self::Mount => "mount",
            Self::From => "from",
            Self::Tag => "tag",
            Self::N => "n",
            Self::Last => "last",
            Self::ArtifactType => "artifactType",
        }
    }
}

impl QueryError {
    /// The parameter at fault.
    pub fn parameter(self) -> Option<Parameter> {
        match self {
            Self::Repeated(parameter)
            | Self::Spelling(parameter)
            | Self::Missing(parameter)
            | Self::Invalid(parameter) => Some(parameter),
            Self::Encoding | Self::Contradiction => None,
        }
    }
}

impl QueryText {
    /// Checks a decoded value.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = !text.is_empty() && text.bytes().all(|b| matches!(b, b' '..=b'~'));
        valid.then(|| Self(text.into()))
    }

    /// The decoded value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The decoded values, before they are parsed. An empty value counts as missing, as in Go.
#[derive(Default)]
pub(super) struct Parameters<'a> {
    digest: Option<Cow<'a, str>>,
    mount: Option<Cow<'a, str>>,
    from: Option<Cow<'a, str>>,
    tags: Vec<Cow<'a, str>>,
    n: Option<Cow<'a, str>>,
    last: Option<Cow<'a, str>>,
    artifact_type: Option<Cow<'a, str>>,
}

impl<'a> Parameters<'a> {
    /// Parses `name=value` pairs as WHATWG's `application/x-www-form-urlencoded` does, but refuses
    /// what that would repair. A raw `;` is refused, because older Go versions also separate pairs
    /// by it.
    pub(super) fn parse(query: Option<&'a str>) -> Result<Self, QueryError> {
        let mut parameters = Self::default();
        let Some(query) = query else {
            return Ok(parameters);
        };
        let known = |b: u8| b.is_ascii_graphic() && !matches!(b, b';' | b'#' | b'\\');
        if !query.bytes().fold(true, |so_far, b| so_far & known(b)) {
            return Err(QueryError::Encoding);
        }
        for pair in decoded_pairs(query) {
            let (name, value) = pair?;
            let same =
                |parameter: &Parameter| name.eq_ignore_ascii_case(parameter.as_str().as_bytes());
            let Some(parameter) = Parameter::ALL.into_iter().find(same) else {
                continue;
            };
            if *name != *parameter.as_str().as_bytes() {
                return Err(QueryError::Spelling(parameter));
            }
            parameters.set(
                parameter,
                text(value).ok_or(QueryError::Invalid(parameter))?,
            )?;
        }
        Ok(parameters)
    }

    fn set(&mut self, parameter: Parameter, value: Cow<'a, str>) -> Result<(), QueryError> {
        let slot = match parameter {
            Parameter::Digest => &mut self.digest,
            Parameter::Mount => &mut self.mount,
            Parameter::From => &mut self.from,
            Parameter::N => &mut self.n,
            Parameter::Last => &mut self.last,
            Parameter::ArtifactType => &mut self.artifact_type,
            Parameter::Tag => {
                self.tags.push(value);
                return Ok(());
            }
        };
        match slot {
            Some(earlier) if *earlier != value => Err(QueryError::Repeated(parameter)),
            _ => {
                *slot = Some(value);
                Ok(())
            }
        }
    }

    pub(super) fn digest(&self) -> Result<Option<Digest>, QueryError> {
        typed(&self.digest, Parameter::Digest, |text| {
            Digest::parse(text).ok()
        })
    }

    pub(super) fn mount(&self) -> Result<Option<Digest>, QueryError> {
        typed(&self.mount, Parameter::Mount, |text| {
            Digest::parse(text).ok()
        })
    }

    pub(super) fn from(&self) -> Result<Option<RepositoryName>, QueryError> {
        typed(&self.from, Parameter::From, |text| {
            RepositoryName::parse(text).ok()
        })
    }

    pub(super) fn tags(&self) -> Result<Vec<Tag>, QueryError> {
        let tag =
            |text: &Cow<'_, str>| Tag::parse(text).map_err(|_| QueryError::Invalid(Parameter::Tag));
        self.tags.iter().map(tag).collect()
    }

    pub(super) fn page(&self) -> Result<Pagination, QueryError> {
        Ok(Pagination {
            n: typed(&self.n, Parameter::N, number)?,
            last: typed(&self.last, Parameter::Last, QueryText::parse)?,
        })
    }

    pub(super) fn artifact_type(&self) -> Result<Option<QueryText>, QueryError> {
        typed(
            &self.artifact_type,
            Parameter::ArtifactType,
            QueryText::parse,
        )
    }
}

/// The decoded `name=value` pairs of a query or a form. Malformed escapes are errors.
pub fn pairs(
    query: &str,
) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), QueryError>> {
    decoded_pairs(query).map(|pair| {
        let (name, value) = pair?;
        let text = |part| text(part).ok_or(QueryError::Encoding);
        Ok((text(name)?, text(value)?))
    })
}

/// A name and its value, which need not be UTF-8.
type DecodedPair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

fn decoded_pairs(query: &str) -> impl Iterator<Item = Result<DecodedPair<'_>, QueryError>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    })
}

/// Removes parameters, however they are encoded, from a query that was accepted.
pub(crate) fn without_parameters(query: &str, unwanted: &[Parameter]) -> String {
    query
        .split('&')
        .filter(|pair| !is_one_of(pair, unwanted))
        .collect::<Vec<_>>()
        .join("&")
}

/// Gives a parameter, however it is encoded, another value in a query that was accepted. The value
/// needs no encoding.
pub(crate) fn with_value(query: &str, parameter: Parameter, value: &str) -> String {
    let pair = format!("{}={value}", parameter.as_str());
    let pairs = query.split('&').map(|other| {
        if is_one_of(other, &[parameter]) {
            &pair
        } else {
            other
        }
    });
    pairs.collect::<Vec<_>>().join("&")
}

fn is_one_of(pair: &str, parameters: &[Parameter]) -> bool {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    let is = |name: &[u8]| {
        let mut parameters = parameters.iter();
        parameters.any(|p| name.eq_ignore_ascii_case(p.as_str().as_bytes()))
    };
    decode(name).is_ok_and(|name| is(&name))
}

fn typed<T>(
    value: &Option<Cow<'_, str>>,
    parameter: Parameter,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, QueryError> {
    match value.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => parse(text).map(Some).ok_or(QueryError::Invalid(parameter)),
    }
}

/// Only digits: `u32` would also accept a plus sign.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

fn text(value: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    match value {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

/// A value of a query, percent-encoded but for unreserved characters (RFC 3986 §2.3), `:` and `/`,
/// which are valid in a query (§3.4).
pub(crate) fn encode_value(text: &str) -> PercentEncode<'_> {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b':')
        .remove(b'/');
    utf8_percent_encode(text, ENCODED)
}

/// Decodes `+` and percent-encoded bytes (WHATWG URL §5.1), but refuses malformed escapes.
fn decode(text: &str) -> Result<Cow<'_, [u8]>, QueryError> {
    // Without a branch for each byte, so that the long `_state` of an upload is scanned by vectors.
    let is_encoded = |so_far: bool, byte: u8| so_far | (byte == b'%') | (byte == b'+');
    if !text.bytes().fold(false, is_encoded) {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    if !has_valid_escapes(text) {
        return Err(QueryError::Encoding);
    }
    let mut decoded = Vec::with_capacity(text.len());
    for (number, part) in text.split('+').enumerate() {
        if number > 0 {
            decoded.push(b' ');
        }
        // Byte by byte only up to the last escape: a digest has one, before its digits.
        let end = part.rfind('%').map_or(0, |escape| escape + 3);
        let (escaped, plain) = part
            .as_bytes()
            .split_at_checked(end)
            .ok_or(QueryError::Encoding)?;
        decoded.extend(percent_decode(escaped));
        decoded.extend_from_slice(plain);
    }
    Ok(Cow::Owned(decoded))
}

/// Whether two hexadecimal digits follow each percent sign.
fn has_valid_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes().first_chunk::<2>();
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}
