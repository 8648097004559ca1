//! `moorgate certs ca`: prints the certificate of moorgate's own CA. It is no secret, so whoever may
//! not read the state directory gets it from the admin listener of the running process.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::admin::CA_PATH;
use crate::app;
use crate::certs::served::internal_ca::{InternalCa, InternalCaError};
use crate::cli::{report_problems, with_snapshot};
use crate::config::snapshot::Snapshot;
use crate::state_file::FileOwner;

/// Writes the certificate in PEM, for the trust stores of clients. Makes the CA if there is none yet.
pub fn run(config: &Path, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let state = match crate::config::state(config) {
        Ok(state) => state,
        Err(problems) => {
            report_problems(&problems)?;
            return Ok(ExitCode::from(2));
        }
    };
    let error = match InternalCa::open(&state) {
        Ok(Some(ca)) => {
            out.write_all(ca.pem().as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        Ok(None) => return with_snapshot(config, |snapshot| make(snapshot, out)),
        Err(error) => error,
    };
    let Some(path) = error.denied_path() else {
        return Err(anyhow!("{error}; {}", error.help()));
    };
    let owner = FileOwner::of(path);
    // Only the key may be closed to this user.
    if let Ok(Some(pem)) = InternalCa::certificate(&state) {
        out.write_all(pem.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let admin = crate::config::admin(config).map(reachable);
    let from_process = match admin {
        Some(admin) => match fetched(admin, owner.as_ref()) {
            Ok(pem) => {
                out.write_all(pem.as_bytes())?;
                return Ok(ExitCode::SUCCESS);
            }
            Err(cause) => format!(
                "ask again while moorgate runs, which hands it out at http://{admin}{CA_PATH} ({cause})"
            ),
        },
        None => format!(
            "set `listen` in [admin]: the running moorgate hands it out there, at {CA_PATH}"
        ),
    };
    Err(anyhow!(
        "{}, or {from_process}",
        denied(&error, owner, config)
    ))
}

/// What to do where a file may not be read or made.
fn denied(error: &InternalCaError, owner: Option<FileOwner>, config: &Path) -> String {
    let (owner, sudo) = match owner {
        Some(owner) => (owner.to_string(), owner.sudo()),
        None => ("another user".to_owned(), "sudo".to_owned()),
    };
    let config = config.display();
    format!(
        "{error}; the directory belongs to {owner}: run `{sudo} moorgate certs ca --config {config}`"
    )
}

fn make(snapshot: &Snapshot, out: &mut impl Write) -> anyhow::Result<()> {
    let ca =
        InternalCa::open_or_make(&snapshot.state).map_err(|error| match error.denied_path() {
            Some(path) => anyhow!(denied(&error, FileOwner::of(path), &snapshot.directory)),
            None => anyhow!("{error}; {}", error.help()),
        })?;
    out.write_all(ca.pem().as_bytes())?;
    Ok(())
}

/// The address under which this machine reaches a listener.
fn reachable(mut listener: SocketAddr) -> SocketAddr {
    match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listener.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listener.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    listener
}

/// Why the running process gives no certificate.
#[derive(Debug, thiserror::Error)]
enum CaFetchError {
    #[error("nobody listens there")]
    NobodyListens,
    /// It could be anybody's certificate.
    #[error("it is another user's program that listens there")]
    ListenerOfAnother,
    #[error(transparent)]
    Unanswered(#[from] io::Error),
    #[error("it has none")]
    WithoutCa,
}

/// Asks the admin listener, if it is one of root or of the owner of the state directory: while
/// moorgate does not run, anybody may listen at a port above 1023.
fn fetched(admin: SocketAddr, owner: Option<&FileOwner>) -> Result<String, CaFetchError> {
    let listeners = app::listener_owners(admin);
    if listeners.is_empty() {
        return Err(CaFetchError::NobodyListens);
    }
    let is_trusted = |uid: &u32| *uid == 0 || owner.is_some_and(|owner| owner.uid == *uid);
    if !listeners.iter().all(is_trusted) {
        return Err(CaFetchError::ListenerOfAnother);
    }
    let response = exchanged(admin)?;
    let body = response.strip_prefix("HTTP/1.1 200 ").and_then(|rest| {
        let (_, body) = rest.split_once("\r\n\r\n")?;
        InternalCa::is_certificate(body).then(|| body.to_owned())
    });
    body.ok_or(CaFetchError::WithoutCa)
}

/// The response to a request for the certificate.
fn exchanged(admin: SocketAddr) -> io::Result<String> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect_timeout(&admin, TIMEOUT)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {CA_PATH} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"
    )?;
    let mut response = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = TIMEOUT.checked_sub(begun.elapsed()).unwrap_or_default();
        if left.is_zero() || response.len() > MAX_RESPONSE_BYTES {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        response.extend(buffer.iter().take(read));
    }
    String::from_utf8(response).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// For the whole exchange, on this machine.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A certificate has about 600 bytes.
const MAX_RESPONSE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::testing::snapshot;

    #[test]
    fn the_ca_is_made_and_printed_and_stays_the_same() {
        let directory = tempfile::tempdir().expect("directory");
        let snapshot = snapshot(directory.path(), Vec::new());
        let [first, second] = [(); 2].map(|()| {
            let mut out = Vec::new();
            make(&snapshot, &mut out).expect("printed");
            out
        });
        assert!(first.starts_with(b"-----BEGIN CERTIFICATE-----"));
        assert_eq!(first, second);
    }

    #[test]
    fn a_program_of_another_user_is_not_asked() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        assert_eq!(
            app::listener_owners(address),
            [rustix::process::geteuid().as_raw()]
        );
        drop(listener);
        let nobody = fetched(address, None).expect_err("nobody");
        assert_eq!(nobody.to_string(), "nobody listens there");
    }
}
