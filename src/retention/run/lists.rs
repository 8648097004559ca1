//! Reads the lists of images that are in use elsewhere. One that cannot be read ends the run: what is
//! in use is not known then.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::error::{ListError, RunError};
use crate::certs::library_error::with_sources;
use crate::config::retention::InUseSource;
use crate::config::upstream::{Scheme, UpstreamUrl};
use crate::registry::host::HostName;
use crate::retention::in_use::InUse;
use crate::state_file::run_blocking;
use crate::upstream::Upstream;
use crate::upstream::connector::{Connector, Trust};
use crate::upstream::request_body::RequestBody;
use crate::upstream::transfer::TransferLimits;

/// What all lists name of a domain that has these names.
pub(crate) async fn read(sources: &[InUseSource], names: &[HostName]) -> Result<InUse, RunError> {
    let mut in_use = InUse::new(names.iter().cloned());
    for source in sources {
        let list = list_name(source);
        let added = match read_list(source).await {
            Ok(text) => in_use
                .add(&list, &text)
                .map_err(|error| ListError::Invalid(error.to_string())),
            Err(error) => Err(error),
        };
        added.map_err(|source| RunError::InUse { list, source })?;
    }
    Ok(in_use)
}

/// The text of a list.
async fn read_list(source: &InUseSource) -> Result<String, ListError> {
    let read = async {
        match source {
            InUseSource::File(path) => {
                let file = tokio::fs::File::open(path).await?;
                let mut bytes = Vec::new();
                let limit = MAX_LIST_BYTES as u64 + 1;
                file.take(limit).read_to_end(&mut bytes).await?;
                if bytes.len() > MAX_LIST_BYTES {
                    return Err(ListError::TooLarge);
                }
                Ok(Bytes::from(bytes))
            }
            InUseSource::Url(url) => fetch(url).await,
        }
    };
    let bytes = timeout(LIST_TIMEOUT, read).await;
    let bytes = bytes.map_err(|_| ListError::TimedOut(LIST_TIMEOUT.as_secs()))??;
    String::from_utf8(bytes.into()).map_err(|_| ListError::NotText)
}

/// What a list is called in messages.
fn list_name(source: &InUseSource) -> String {
    match source {
        InUseSource::File(path) => path.display().to_string(),
        InUseSource::Url(url) => url.to_string(),
    }
}

async fn fetch(url: &UpstreamUrl) -> Result<Bytes, ListError> {
    let http = |error: &(dyn std::error::Error + 'static)| ListError::Http(with_sources(error));
    let trust = match url.scheme {
        Scheme::Http => None,
        Scheme::Https => {
            let trust = run_blocking(|| Trust::new(None)).await;
            Some(trust.map_err(|error| http(&error))?)
        }
    };
    let connector = Connector::new(url.clone(), trust.as_ref()).map_err(|error| http(&error))?;
    let upstream = Upstream::new(connector, 1, LIST_TIMEOUT, None);
    let authority = url.host.authority(url.port, url.scheme.default_port());
    let authority = HeaderValue::try_from(authority).expect("a host name is visible ASCII");
    let path = match url.base_path.as_str() {
        "" => "/",
        path => path,
    };
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, "moorgate")
        .body(RequestBody::empty())
        .map_err(|error| http(&error))?;
    let limits = TransferLimits {
        first_body_byte: LIST_TIMEOUT,
        stall: LIST_TIMEOUT,
        head: LIST_TIMEOUT,
        idle: LIST_TIMEOUT,
    };
    // Boxed: a rare, large future.
    let response = Box::pin(upstream.send(request, None, limits)).await;
    let response = response.map_err(|error| ListError::Http(with_sources(&error)))?;
    // Redirects are not followed: they may lead to other hosts, and a login page is no list.
    if response.status() != StatusCode::OK {
        let status = response.status();
        return Err(ListError::Http(format!("it answered {status}")));
    }
    let body = Limited::new(response.into_body(), MAX_LIST_BYTES);
    let collected = body.collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            ListError::TooLarge
        } else {
            ListError::Http(with_sources(error.as_ref()))
        }
    })?;
    Ok(collected.to_bytes())
}

/// Some 100,000 references.
const MAX_LIST_BYTES: usize = 16 << 20;
/// From the connection to the last byte.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::retention::testing::{repository_name, tag_name};

    fn names() -> [HostName; 1] {
        [HostName::parse("ci.test").expect("a name")]
    }

    /// What a list says that is served so.
    async fn served(head: &str, body: Vec<u8>) -> Result<InUse, RunError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = UpstreamUrl {
            scheme: Scheme::Http,
            host: HostName::parse("127.0.0.1").expect("an address"),
            port: listener.local_addr().expect("bound").port(),
            base_path: "/in-use".to_owned(),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n");
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("connected");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.expect("read");
            }
            assert!(request.starts_with(b"GET /in-use HTTP/1.1\r\n"));
            // Whoever has enough of it reads no further.
            let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
        };
        let sources = [InUseSource::Url(url)];
        let names = names();
        let (read, ()) = tokio::join!(read(&sources, &names), server);
        read
    }

    #[tokio::test]
    async fn a_list_comes_from_a_url() {
        let list = b"ci.test/app:v1\nelsewhere.test/app:v2\n".to_vec();
        let in_use = served("200 OK", list).await.expect("read");
        let app = repository_name("app");
        assert!(in_use.tag(&app, &tag_name("v1")).is_some());
        assert!(in_use.tag(&app, &tag_name("v2")).is_none());
    }

    #[tokio::test]
    async fn whatever_is_no_list_ends_the_run() {
        let case = async |head: &str, body: Vec<u8>| {
            let error = served(head, body).await.expect_err("no list");
            let text = with_sources(&error);
            let port = text.split("127.0.0.1:").nth(1).unwrap_or_default();
            let port: String = port.chars().take_while(char::is_ascii_digit).collect();
            text.replace(&port, "PORT")
        };
        let moved = "302 Found\r\nLocation: http://127.0.0.1/login";
        insta::assert_snapshot!(case(moved, Vec::new()).await, @"the list of images in use at http://127.0.0.1:PORT/in-use cannot be read, so nothing is taken away: it answered 302 Found");
        insta::assert_snapshot!(case("200 OK", vec![b'\n'; MAX_LIST_BYTES + 1]).await, @"the list of images in use at http://127.0.0.1:PORT/in-use cannot be read, so nothing is taken away: it is larger than 16 MiB");
        insta::assert_snapshot!(case("200 OK", vec![0xff]).await, @"the list of images in use at http://127.0.0.1:PORT/in-use cannot be read, so nothing is taken away: it is no text in UTF-8");
        let html = case("200 OK", b"<html>Log in</html>".to_vec()).await;
        assert!(
            html.contains("so nothing is taken away: line 1: "),
            "{html}"
        );
        let missing = [InUseSource::File("/nowhere/in-use.txt".into())];
        let error = read(&missing, &names()).await.expect_err("no file");
        assert!(
            with_sources(&error).contains("/nowhere/in-use.txt cannot be read"),
            "{error}"
        );
    }
}
