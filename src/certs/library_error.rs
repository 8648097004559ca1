//! Errors of the libraries for TLS, PEM and certificates in words for people: the cause, and what
//! cures it. The libraries' own texts show the names of their types.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{UnixTime, pem};
use rustls::{AlertDescription, CertificateError};

use crate::certs::inspect::Rfc3339;

/// An error of a TLS connection to a server, displayed in words.
#[derive(Debug)]
struct TlsFailure(rustls::Error);

impl Error for TlsFailure {}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&tls(&self.0))
    }
}

/// An error of a connection to a server with a text for people, in place of that of the TLS library.
pub(crate) fn described(error: io::Error) -> io::Error {
    if let Some(failure) = tls_error(&error) {
        return io::Error::new(error.kind(), TlsFailure(failure.clone()));
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return io::Error::new(error.kind(), CLOSED);
    }
    error
}

/// An error and its sources, each once.
pub(crate) fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = text(error);
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = self::text(cause);
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn text(error: &(dyn Error + 'static)) -> String {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return tls(error);
    }
    match error.downcast_ref::<io::Error>() {
        Some(io) if io.kind() == io::ErrorKind::UnexpectedEof => CLOSED.to_owned(),
        Some(io) => tls_error(io).map_or_else(|| io.to_string(), tls),
        None => error.to_string(),
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Why a TLS connection to a server has failed.
pub(crate) fn tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate(error),
        rustls::Error::InvalidMessage(_) => {
            "the server does not answer in TLS: is this the port of another protocol, as plain \
             HTTP?"
                .to_owned()
        }
        rustls::Error::NoCertificatesPresented => "the server has no certificate".to_owned(),
        rustls::Error::InconsistentKeys(_) => {
            "the key does not belong to the certificate".to_owned()
        }
        other => tls_with(other, "the server"),
    }
}

/// Why a TLS connection of a client has failed.
pub(crate) fn tls_of_client(error: &rustls::Error) -> String {
    tls_with(error, "the client")
}

fn tls_with(error: &rustls::Error, peer: &str) -> String {
    match error {
        rustls::Error::AlertReceived(alert) => format!(
            "{peer} refused the TLS handshake with the alert {}{}",
            alert_name(*alert),
            alert_cure(*alert)
        ),
        rustls::Error::PeerIncompatible(reason) => format!(
            "{peer} has no TLS parameters in common with moorgate, which uses TLS 1.2 and 1.3: {}",
            spelled(&format!("{reason:?}"))
        ),
        rustls::Error::InvalidMessage(reason) => format!(
            "{peer} does not speak TLS: {}",
            spelled(&format!("{reason:?}"))
        ),
        rustls::Error::PeerMisbehaved(reason) => format!(
            "{peer} does not keep to the TLS protocol: {}",
            spelled(&format!("{reason:?}"))
        ),
        rustls::Error::InappropriateMessage { .. }
        | rustls::Error::InappropriateHandshakeMessage { .. } => {
            format!("{peer} does not keep to the TLS protocol: a message out of order")
        }
        rustls::Error::General(reason) => format!("TLS has failed: {reason}"),
        rustls::Error::Other(reason) => format!("TLS has failed: {}", spelled(&reason.to_string())),
        other => format!("TLS has failed: {}", spelled(&format!("{other:?}"))),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "the server's certificate expired on {}: renew it, or set the clock of this machine",
            date(*not_after)
        ),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the server's certificate is not valid before {}: set the clock of this machine, or of \
             the machine that issued it",
            date(*not_before)
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "the server's certificate is for {}, not for {}: use its name in the URL, or give it a \
             certificate for this one",
            presented_names(presented),
            expected.to_str()
        ),
        CertificateError::Other(reason) if reason.to_string() == "CaUsedAsEndEntity" => {
            "the server's certificate is that of a CA (CA:TRUE), which cannot be a server's: give \
             it another one, signed by that CA"
                .to_owned()
        }
        CertificateError::Other(reason) => format!(
            "the server's certificate is refused: {}",
            spelled(&reason.to_string())
        ),
        other => match fault(other) {
            Some(fault) => format!("the server's certificate {fault}"),
            None => format!(
                "the server's certificate is refused: {}",
                spelled(&other.to_string())
            ),
        },
    }
}

/// What a server's certificate is or has, of errors without details.
fn fault(error: &CertificateError) -> Option<&'static str> {
    Some(match error {
        CertificateError::BadEncoding => "is damaged",
        CertificateError::Expired => "has expired, or the clock of this machine is ahead",
        CertificateError::NotValidYet => "is not valid yet, or the clock of this machine is behind",
        CertificateError::Revoked => "is revoked: renew it",
        CertificateError::UnknownIssuer => {
            "is from a CA that is not trusted here: name the file of that CA's certificate in \
             `roots`"
        }
        CertificateError::BadSignature => {
            "is not signed by the CA in `roots` that has the name of its issuer: that CA has \
             another key"
        }
        CertificateError::NotValidForName => "is for another name than the one in the URL",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not one for servers: it needs the extended key usage serverAuth"
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed by an algorithm that is not supported: use ECDSA, Ed25519, or RSA with SHA-2"
        }
        _ => return None,
    })
}

/// The names in a certificate as webpki shows them, `DnsName("a")`, without the names of its types.
fn presented_names(presented: &[String]) -> String {
    let names = presented.iter().map(|name| {
        let inner = name.split_once('(').map_or(&**name, |(_, inner)| inner);
        inner.trim_end_matches(')').trim_matches('"')
    });
    let names: Vec<_> = names.take(MAX_NAMES_SHOWN).collect();
    if names.is_empty() {
        return "no name".to_owned();
    }
    names.join(", ")
}

fn date(at: UnixTime) -> Rfc3339 {
    let since = Duration::from_secs(at.as_secs());
    let at = SystemTime::UNIX_EPOCH.checked_add(since);
    Rfc3339(at.unwrap_or(SystemTime::UNIX_EPOCH))
}

/// The name of an alert in RFC 8446 §6: `HandshakeFailure` is `handshake_failure`.
pub(crate) fn alert_name(alert: AlertDescription) -> String {
    let name = spelled(&format!("{alert:?}")).replace(' ', "_");
    name.replace("recognised", "recognized")
}

fn alert_cure(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::UnrecognisedName => ": it serves no such name",
        AlertDescription::ProtocolVersion => ": it has neither TLS 1.2 nor 1.3",
        AlertDescription::CertificateRequired => ": it demands a certificate of its clients",
        AlertDescription::HandshakeFailure => ": it has no TLS parameters in common with moorgate",
        AlertDescription::NoApplicationProtocol => {
            ": it does not offer HTTP/1.1, which moorgate speaks to servers"
        }
        _ => "",
    }
}

/// The words of the name of a type or variant at the start of a text: `CaUsedAsEndEntity` is `ca
/// used as end entity`. Other texts stay.
fn spelled(text: &str) -> String {
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric());
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    // A sentence, and not a name with its fields.
    if rest.starts_with(' ') && !rest.starts_with(" {") {
        return text.to_owned();
    }
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// Why a text is not PEM. The text itself is left out: it may be a part of a key.
pub(crate) fn pem_fault(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "an END line is missing",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "the base64 text is damaged",
        pem::Error::SectionTooLarge => "it is too large",
        pem::Error::NoItemsFound => "it has no BEGIN line",
        _ => "it cannot be decoded",
    }
}

const CLOSED: &str = "the server closed the connection early";
const MAX_NAMES_SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{OtherError, PeerIncompatible, PeerMisbehaved};

    use super::*;

    /// As webpki displays its errors: by the names of their variants.
    #[derive(Debug)]
    struct VariantName(&'static str);

    impl Error for VariantName {}

    impl fmt::Display for VariantName {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    fn other(name: &'static str) -> CertificateError {
        CertificateError::Other(OtherError(Arc::new(VariantName(name))))
    }

    #[test]
    fn errors_of_tls_are_sentences_with_a_cure() {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(1_000_000_000));
        let certificates = [
            CertificateError::BadEncoding,
            CertificateError::Expired,
            CertificateError::ExpiredContext {
                time: at,
                not_after: at,
            },
            CertificateError::NotValidYet,
            CertificateError::NotValidYetContext {
                time: at,
                not_before: at,
            },
            CertificateError::Revoked,
            CertificateError::UnknownIssuer,
            CertificateError::BadSignature,
            CertificateError::NotValidForName,
            CertificateError::NotValidForNameContext {
                expected: "ca.example".try_into().expect("a name"),
                presented: vec!["DnsName(\"a.example\")".into(), "IpAddress(::1)".into()],
            },
            CertificateError::InvalidPurpose,
            CertificateError::UnhandledCriticalExtension,
            CertificateError::UnsupportedSignatureAlgorithmContext {
                signature_algorithm_id: vec![1, 2],
                supported_algorithms: Vec::new(),
            },
            other("CaUsedAsEndEntity"),
            other("PathLenConstraintViolated"),
        ];
        let others = [
            rustls::Error::AlertReceived(AlertDescription::UnrecognisedName),
            rustls::Error::AlertReceived(AlertDescription::HandshakeFailure),
            rustls::Error::AlertReceived(AlertDescription::InternalError),
            rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol),
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
            rustls::Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
            rustls::Error::PeerMisbehaved(PeerMisbehaved::BadCertChainExtensions),
            rustls::Error::NoCertificatesPresented,
            rustls::Error::DecryptError,
            rustls::Error::General("no luck".into()),
        ];
        let certificates = certificates.map(rustls::Error::InvalidCertificate);
        let mut all: Vec<_> = certificates.iter().chain(&others).map(tls).collect();
        all.push(tls_of_client(&others[4]));
        insta::assert_snapshot!(all.join("\n"), @r"
        the server's certificate is damaged
        the server's certificate has expired, or the clock of this machine is ahead
        the server's certificate expired on 2001-09-09T01:46:40Z: renew it, or set the clock of this machine
        the server's certificate is not valid yet, or the clock of this machine is behind
        the server's certificate is not valid before 2001-09-09T01:46:40Z: set the clock of this machine, or of the machine that issued it
        the server's certificate is revoked: renew it
        the server's certificate is from a CA that is not trusted here: name the file of that CA's certificate in `roots`
        the server's certificate is not signed by the CA in `roots` that has the name of its issuer: that CA has another key
        the server's certificate is for another name than the one in the URL
        the server's certificate is for a.example, ::1, not for ca.example: use its name in the URL, or give it a certificate for this one
        the server's certificate is not one for servers: it needs the extended key usage serverAuth
        the server's certificate is refused: unhandled critical extension
        the server's certificate is signed by an algorithm that is not supported: use ECDSA, Ed25519, or RSA with SHA-2
        the server's certificate is that of a CA (CA:TRUE), which cannot be a server's: give it another one, signed by that CA
        the server's certificate is refused: path len constraint violated
        the server refused the TLS handshake with the alert unrecognized_name: it serves no such name
        the server refused the TLS handshake with the alert handshake_failure: it has no TLS parameters in common with moorgate
        the server refused the TLS handshake with the alert internal_error
        the server refused the TLS handshake with the alert no_application_protocol: it does not offer HTTP/1.1, which moorgate speaks to servers
        the server does not answer in TLS: is this the port of another protocol, as plain HTTP?
        the server has no TLS parameters in common with moorgate, which uses TLS 1.2 and 1.3: no cipher suites in common
        the server does not keep to the TLS protocol: bad cert chain extensions
        the server has no certificate
        TLS has failed: decrypt error
        TLS has failed: no luck
        the client does not speak TLS: invalid content type
        ");
    }

    #[test]
    fn the_sources_of_an_error_are_said_once_and_in_words() {
        let eof = io::Error::new(io::ErrorKind::UnexpectedEof, "see https://docs.rs/rustls");
        assert_eq!(with_sources(&eof), CLOSED);
        assert_eq!(described(eof).to_string(), CLOSED);
        let unknown = rustls::Error::from(CertificateError::UnknownIssuer);
        let expected = tls(&unknown);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, unknown);
        assert_eq!(with_sources(&wrapped), expected);
        assert_eq!(described(wrapped).to_string(), expected);
    }
}
