//! The event log for the administrator, as text or JSON.

use super::colour::wants_colour;
use std::io::{self, Write};
use std::sync::Arc;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use super::event_format::{EventTime, JsonEvents};
use super::log_queue::{LogKind, LogQueue};
use super::repeats::{RepeatFilter, Repeats};
use crate::config::snapshot::{LogFormat, LogLevel, LogSettings};

/// Changes the level of a running log.
#[derive(Clone, Debug)]
pub(crate) struct LogControl {
    level: reload::Handle<Targets, Registry>,
    lines: Arc<LogQueue>,
    repeats: Arc<Repeats>,
}

impl LogControl {
    /// Sets the level. The format is fixed at the start.
    pub(crate) fn configure(&self, settings: &LogSettings) {
        if let Err(error) = self
            .level
            .modify(|level| *level = ours(filter(settings.level)))
        {
            tracing::warn!(%error, "log level could not be changed");
        }
    }

    /// What it leaves out because it repeats.
    pub(crate) fn repeats(&self) -> &Repeats {
        &self.repeats
    }

    /// Where its lines wait to be written.
    pub(crate) fn queue(&self) -> &LogQueue {
        &self.lines
    }
}

/// Installs the event log of the process, whose lines go to `lines`. `floor` is the minimum level,
/// whatever the settings say.
pub(crate) fn install(
    settings: &LogSettings,
    floor: Option<LogLevel>,
    lines: Arc<LogQueue>,
) -> LogControl {
    let level = floor.map_or(filter(settings.level), |floor| {
        filter(floor).max(filter(settings.level))
    });
    let (level, handle) = reload::Layer::new(ours(level));
    let (queue, repeats) = (lines.clone(), Arc::<Repeats>::default());
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || EventWriter(queue.clone()))
        .with_timer(EventTime)
        .with_target(false);
    let layer: Box<dyn Layer<_> + Send + Sync> = match settings.format {
        LogFormat::Text => Box::new(layer.with_ansi(wants_colour())),
        LogFormat::Json => Box::new(layer.event_format(JsonEvents)),
    };
    // A second call, as in tests, keeps the first log.
    let _ = tracing_subscriber::registry()
        .with(level)
        .with(RepeatFilter(repeats.clone()))
        .with(layer)
        .try_init();
    LogControl {
        level: handle,
        lines,
        repeats,
    }
}

/// Adds each event to the queue: the subscriber writes an event at once.
struct EventWriter(Arc<LogQueue>);

impl Write for EventWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.add(LogKind::Events, &String::from_utf8_lossy(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
