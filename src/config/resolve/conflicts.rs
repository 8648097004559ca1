//! Conflicts between domains: names and stores used twice, listeners that cannot both be bound.

use std::collections::HashMap;
use std::net::IpAddr;

use super::process::Process;
use super::{DomainFile, RequestedListener};
use crate::config::problem::{Problem, Problems};
use crate::config::source::Span;
use crate::config::vhost::ListenAddress;
use crate::registry::host::{Authority, HostName};

/// A name that a file claims on its listeners.
struct AddressClaim<'a> {
    file: &'a DomainFile,
    listen: &'a [RequestedListener],
    name: &'a HostName,
    /// The port of an alias that is limited to one.
    port: Option<u16>,
    span: Span,
    is_domain: bool,
}

/// A domain is unique in the configuration, an alias on each listener.
pub(super) fn names(
    files: &[DomainFile],
    listeners: &[Vec<RequestedListener>],
    problems: &mut Problems,
) {
    let mut claims: HashMap<&HostName, Vec<AddressClaim<'_>>> = HashMap::new();
    for (file, listen) in files.iter().zip(listeners) {
        for claim in claims_of(file, listen) {
            let earlier = claims.entry(claim.name).or_default();
            if let Some(problem) = earlier.iter().find_map(|other| dispute(&claim, other)) {
                problems.push(problem);
            }
            earlier.push(claim);
        }
    }
}

fn claims_of<'a>(
    file: &'a DomainFile,
    listen: &'a [RequestedListener],
) -> impl Iterator<Item = AddressClaim<'a>> {
    let raw = &file.raw;
    let domain = raw.domain.given().zip(raw.domain.span());
    let domain = domain.map(|(name, span)| AddressClaim {
        file,
        listen,
        name,
        port: None,
        span: span.clone(),
        is_domain: true,
    });
    let aliases = raw.aliases.given().into_iter().flatten();
    let aliases = aliases.map(move |alias| {
        let Authority { host: name, port } = alias.get_ref();
        AddressClaim {
            file,
            listen,
            name,
            port: *port,
            span: alias.span(),
            is_domain: false,
        }
    });
    domain.into_iter().chain(aliases)
}

/// The conflict between two claims to the same name. Claims of one file are checked with the file.
fn dispute(claim: &AddressClaim<'_>, other: &AddressClaim<'_>) -> Option<Problem> {
    if std::ptr::eq(claim.file, other.file) {
        return None;
    }
    let (name, holder) = (claim.name, other.file.source.path().display());
    if claim.is_domain && other.is_domain {
        let message = format!("the domain `{name}` is already in {holder}");
        return Some(Problem::at(
            &claim.file.source,
            &claim.span,
            message,
            "keep one of the two files",
        ));
    }
    let claims = |claim: &AddressClaim<'_>, at: ListenAddress| {
        claim.port.is_none_or(|port| port == at.0.port())
    };
    let shared = |at: ListenAddress| {
        let theirs = other.listen.iter().any(|theirs| theirs.address == at);
        theirs && claims(claim, at) && claims(other, at)
    };
    let listener = claim
        .listen
        .iter()
        .find(|listener| shared(listener.address))?;
    let message = format!(
        "`{name}` is already served on `{}` by {holder}",
        listener.address
    );
    let help = "name it in one of the two files, or give them different `listen` addresses";
    Some(Problem::at(&claim.file.source, &claim.span, message, help))
}

/// Each directory is the store of one domain.
pub(super) fn stores(files: &[DomainFile], problems: &mut Problems) {
    let mut holders: HashMap<&str, &DomainFile> = HashMap::new();
    for file in files {
        let Some(upstream) = file.raw.upstream.given() else {
            continue;
        };
        let Some((name, span)) = upstream.directory.given().zip(upstream.directory.span()) else {
            continue;
        };
        if let Some(holder) = holders.insert(name, file) {
            let holder = holder.source.path().display();
            let message = format!("the directory `{name}` is already the store of {holder}");
            let help = "use another name, or serve the one domain under both names with `aliases`";
            problems.push(Problem::at(&file.source, span, message, help));
        }
    }
}

/// The role of a listener.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListenerRole {
    Https,
    Http,
    Admin,
}

impl ListenerRole {
    fn key(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Admin => "admin",
        }
    }
}

/// Each address has one role, and no two addresses overlap.
pub(super) fn listeners(
    domains: &[Vec<RequestedListener>],
    process: &Process,
    problems: &mut Problems,
) {
    let https = domains
        .iter()
        .flatten()
        .map(|listener| (listener, ListenerRole::Https));
    let http = process
        .http
        .iter()
        .map(|listener| (listener, ListenerRole::Http));
    let admin = process
        .admin
        .iter()
        .map(|listener| (listener, ListenerRole::Admin));
    let mut bound: Vec<(&RequestedListener, ListenerRole)> = Vec::new();
    for (listener, role) in https.chain(http).chain(admin) {
        if bound
            .iter()
            .any(|(other, its)| other.address == listener.address && *its == role)
        {
            continue;
        }
        let other = bound
            .iter()
            .find(|(other, _)| overlap(other.address, listener.address));
        if let Some(&(other, its)) = other {
            problems.extend(collision((listener, role), (other, its)));
        }
        bound.push((listener, role));
    }
}

/// Whether the system refuses to bind both. Port 0 is a different port each time.
fn overlap(a: ListenAddress, b: ListenAddress) -> bool {
    // `[::]` covers IPv4 as well, `0.0.0.0` only IPv4.
    let covers =
        |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    let (a, b) = (a.0, b.0);
    a.port() == b.port() && a.port() != 0 && (covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

/// Points at the listener that is written; two defaults never collide.
fn collision(
    one: (&RequestedListener, ListenerRole),
    two: (&RequestedListener, ListenerRole),
) -> Option<Problem> {
    let ((at, role), (other, its)) = if one.0.written.is_some() {
        (one, two)
    } else {
        (two, one)
    };
    let (source, span) = at.written.as_ref()?;
    let (of, help) = match &other.written {
        Some((theirs, _)) => {
            let help = "use another port, or name each address with its port instead of `:PORT`, which takes them all";
            (format!(" of {}", theirs.path().display()), help)
        }
        None => {
            let help = match its {
                ListenerRole::Http => "use another port, or write `http = []` in moorgate.toml",
                ListenerRole::Https | ListenerRole::Admin => "use another port",
            };
            (", the default of moorgate.toml,".to_owned(), help)
        }
    };
    let message = format!(
        "the {} listener `{}` and the {} listener `{}`{of} exclude each other",
        role.key(),
        at.address,
        its.key(),
        other.address
    );
    Some(Problem::at(source, span, message, help))
}
