//! `certs` and `certs renew`: what is held, and the wish for another certificate.

use std::sync::Arc;

use super::Reply;
use crate::app::App;
use crate::certs::served::report;
use crate::registry::host::HostName;

pub(super) fn list(app: &App, json: bool) -> Reply {
    let reports = app.certificates().report();
    if !json {
        return Reply::done(report::listing(&reports));
    }
    match serde_json::to_string_pretty(&reports) {
        Ok(text) => Reply::done(text),
        Err(error) => Reply::failed(error.to_string()),
    }
}

pub(super) async fn renew(app: &Arc<App>, domain: &str) -> Reply {
    let reports = app.certificates().report();
    let own = reports
        .iter()
        .find(|report| report.domain.as_str() == domain);
    let own = own.map(|report| report.domain.clone());
    let Some(domain) = own.or_else(|| app.issuer().domain_of(&HostName::parse(domain).ok()?))
    else {
        let all: Vec<&str> = reports
            .iter()
            .map(|report| report.domain.as_str())
            .collect();
        return Reply::failed(format!(
            "there is no domain {domain}; there are: {}",
            all.join(", ")
        ));
    };
    match app.issuer().order_now(&domain).await {
        Ok(wished) => {
            tracing::info!(%domain, "certs renew: {wished}");
            Reply::done(format!("the certificate of {domain}: {wished}"))
        }
        Err(error) => Reply::failed(error.to_string()),
    }
}
