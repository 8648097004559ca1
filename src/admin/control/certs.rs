//! `certs` and `certs renew`: lists certificates, and requests a renewal.

use std::sync::Arc;

use super::ControlReply;
use crate::app::App;
use crate::certs::served::report;
use crate::registry::host::HostName;

pub(super) fn list(app: &App, json: bool) -> ControlReply {
    let reports = app.certificates().report();
    if !json {
        return ControlReply::done(report::listing(&reports));
    }
    match serde_json::to_string_pretty(&reports) {
        Ok(text) => ControlReply::done(text),
        Err(error) => ControlReply::failed(error.to_string()),
    }
}

pub(super) async fn renew(app: &Arc<App>, domain: &str) -> ControlReply {
    let reports = app.certificates().report();
    let own = reports
        .iter()
        .find(|report| report.domain.as_str() == domain);
    let own = own.map(|report| report.domain.clone());
    let Some(domain) = own.or_else(|| app.issuer().domain_of_name(&HostName::parse(domain).ok()?))
    else {
        let all: Vec<&str> = reports
            .iter()
            .map(|report| report.domain.as_str())
            .collect();
        return ControlReply::failed(format!(
            "there is no domain {domain}; there are: {}",
            all.join(", ")
        ));
    };
    match app.issuer().order_now(&domain).await {
        Ok(answer) => {
            tracing::info!(%domain, "certs renew: {answer}");
            ControlReply::done(format!("the certificate of {domain}: {answer}"))
        }
        Err(error) => ControlReply::failed(error.to_string()),
    }
}
