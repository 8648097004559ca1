//! Conflicts between domains: names and stores used twice, listeners that cannot both be bound.

use std::collections::HashMap;
use std::net::IpAddr;

use super::process::Process;
use super::{Conflict, DomainFile, RequestedListener, ResolvedDomain};
use crate::config::problem::Problem;
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
pub(super) fn names(domains: &[&ResolvedDomain]) -> Vec<Conflict> {
    let mut claims: HashMap<&HostName, Vec<AddressClaim<'_>>> = HashMap::new();
    let mut found = Vec::new();
    for claim in domains.iter().flat_map(|domain| claims_of(domain)) {
        let earlier = claims.entry(claim.name).or_default();
        let conflict = earlier.iter().find_map(|other| {
            Some(Conflict {
                problem: dispute(&claim, other)?,
                opposite: dispute(other, &claim),
            })
        });
        found.extend(conflict);
        earlier.push(claim);
    }
    found
}

fn claims_of(domain: &ResolvedDomain) -> impl Iterator<Item = AddressClaim<'_>> {
    let (file, listen) = (&*domain.file, domain.listen.as_slice());
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
pub(super) fn stores(domains: &[&ResolvedDomain]) -> Vec<Conflict> {
    let mut holders: HashMap<&str, (&DomainFile, &Span)> = HashMap::new();
    let mut found = Vec::new();
    for domain in domains {
        let file = &*domain.file;
        let Some(upstream) = file.raw.upstream.given() else {
            continue;
        };
        let Some((name, span)) = upstream.directory.given().zip(upstream.directory.span()) else {
            continue;
        };
        if let Some((holder, its)) = holders.insert(name, (file, span)) {
            found.push(Conflict {
                problem: shared_store(name, (file, span), holder),
                opposite: Some(shared_store(name, (holder, its), file)),
            });
        }
    }
    found
}

fn shared_store(name: &str, (file, span): (&DomainFile, &Span), holder: &DomainFile) -> Problem {
    let holder = holder.source.path().display();
    let message = format!("the directory `{name}` is already the store of {holder}");
    let help = "use another name, or serve the one domain under both names with `aliases`";
    Problem::at(&file.source, span, message, help)
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
pub(super) fn listeners(domains: &[&ResolvedDomain], process: &Process) -> Vec<Conflict> {
    let https = domains
        .iter()
        .flat_map(|domain| &domain.listen)
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
    let mut found = Vec::new();
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
        if let Some(&other) = other {
            found.extend(collision((listener, role), other));
        }
        bound.push((listener, role));
    }
    found
}

/// Whether the system refuses to bind both. Port 0 is a different port each time.
fn overlap(a: ListenAddress, b: ListenAddress) -> bool {
    // `[::]` covers IPv4 as well, `0.0.0.0` only IPv4.
    let covers =
        |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    let (a, b) = (a.0, b.0);
    a.port() == b.port() && a.port() != 0 && (covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

/// Points at the listeners that are written; two defaults never collide.
fn collision(
    one: (&RequestedListener, ListenerRole),
    two: (&RequestedListener, ListenerRole),
) -> Option<Conflict> {
    let (first, second) = (excluded(one, two), excluded(two, one));
    let (problem, opposite) = match first {
        Some(problem) => (problem, second),
        None => (second?, None),
    };
    Some(Conflict { problem, opposite })
}

/// The problem at the first listener, if it is written.
fn excluded(
    (at, role): (&RequestedListener, ListenerRole),
    (other, its): (&RequestedListener, ListenerRole),
) -> Option<Problem> {
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
