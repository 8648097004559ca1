//! Tells the service manager what the process does (`sd_notify(3)`): ready, reloading, stopping,
//! alive. Does nothing where none has asked.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::app::App;
use crate::state_file::run_blocking;

/// The configuration is in force, and connections are accepted.
pub(super) async fn ready(app: &App) {
    reloaded(app, true).await;
}

/// The configuration is read again. [`reloaded`] must follow.
pub(in crate::app) async fn reloading() {
    let Ok(now) = NotifyState::monotonic_usec_now() else {
        return;
    };
    send(vec![NotifyState::Reloading.to_string(), now.to_string()]).await;
}

/// The configuration in force serves, whether it is a new one or not.
pub(in crate::app) async fn reloaded(app: &App, is_accepted: bool) {
    let mut status = serving(app);
    if !is_accepted {
        status.push_str("; the newest configuration is refused");
    }
    send(vec![
        NotifyState::Ready.to_string(),
        NotifyState::Status(&status).to_string(),
    ])
    .await;
}

/// Transfers may finish for `limit`, however long the service manager would have waited.
pub(super) async fn stopping(app: &App, limit: Duration) {
    let connections = app.connections();
    let extended = limit.saturating_add(FINAL_WRITES).as_micros();
    send(vec![
        NotifyState::Stopping.to_string(),
        format!("EXTEND_TIMEOUT_USEC={extended}"),
        NotifyState::Status(&format!(
            "draining: {connections} connections may finish, a second signal ends them"
        ))
        .to_string(),
    ])
    .await;
}

/// Another process serves now: it is the main one of the service, and speaks for it.
pub(super) async fn replaced(pid: u32) {
    send(vec![NotifyState::MainPid(pid).to_string()]).await;
}

/// Sends a sign of life for as long as every thread that serves answers, if the service manager
/// has asked for one. Never returns.
pub(super) async fn keep_alive(app: Arc<App>) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    // As sd_watchdog_enabled(3) recommends.
    let interval = limit / 2;
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if app.is_replaced() {
            return std::future::pending().await;
        }
        if tokio::time::timeout(interval, app.workers.answer())
            .await
            .is_ok()
        {
            send(vec![NotifyState::Watchdog.to_string()]).await;
        } else {
            tracing::error!(
                limit_ms = interval.as_millis(),
                "a thread that serves does not answer: the service manager may restart the process"
            );
        }
    }
}

fn serving(app: &App) -> String {
    let domains = app.snapshot().domains.len();
    let ending = if domains == 1 { "" } else { "s" };
    format!("serving {domains} domain{ending}")
}

/// Waits while the service manager's socket is full, so on a thread that may block.
async fn send(states: Vec<String>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let sent = run_blocking(move || {
        let states: Vec<_> = states
            .iter()
            .map(|state| NotifyState::Custom(state))
            .collect();
        sd_notify::notify(&states)
    });
    match tokio::time::timeout(SEND_TIMEOUT, sent).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the service manager could not be notified"),
        Err(_) => tracing::warn!("the service manager does not read its notifications"),
    }
}

const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// What a process does after its drain takes seconds.
const FINAL_WRITES: Duration = Duration::from_secs(60);
