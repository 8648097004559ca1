//! The event log for the administrator, on standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::snapshot::{LogFormat, LogLevel, LogSettings};

/// Changes the level of a running log.
#[derive(Clone, Debug)]
pub(crate) struct LogControl(reload::Handle<Targets, Registry>);

impl LogControl {
    /// Sets the level. The format is fixed at the start.
    pub(crate) fn configure(&self, settings: &LogSettings) {
        if let Err(error) = self.0.modify(|level| *level = ours(filter(settings.level))) {
            tracing::warn!(%error, "log level could not be changed");
        }
    }
}

/// Installs the event log of the process. `floor` is the minimum level, whatever the settings say.
pub(crate) fn install(settings: &LogSettings, floor: Option<LogLevel>) -> LogControl {
    let level = floor.map_or(filter(settings.level), |floor| {
        filter(floor).max(filter(settings.level))
    });
    let (level, handle) = reload::Layer::new(ours(level));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let layer: Box<dyn Layer<_> + Send + Sync> = match settings.format {
        LogFormat::Text => Box::new(layer.with_ansi(std::io::stderr().is_terminal())),
        LogFormat::Json => Box::new(layer.json().flatten_event(true)),
    };
    // A second call, as in tests, keeps the first log.
    let _ = tracing_subscriber::registry()
        .with(level)
        .with(layer)
        .try_init();
    LogControl(handle)
}

/// Our own events only: those of dependencies may contain secrets (h2 logs targets with queries).
fn ours(level: LevelFilter) -> Targets {
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), level)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
