//! `/metrics`: what is counted and held, in the text format of OpenMetrics. Written anew for each
//! scrape from what others count, so that nothing is kept twice.

mod certificates;
mod logins;
mod process;
mod traffic;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::app::App;
use crate::observe::metrics::Durations;

/// The type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The whole text.
pub(super) fn metrics(app: &Arc<App>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(app.clone())));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

fn unix(moment: SystemTime) -> f64 {
    moment
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

struct Scrape(Arc<App>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let Self(app) = self;
        let out = &mut Out(encoder);
        process::write(out, app)?;
        traffic::write(out, app)?;
        logins::write(out, app)?;
        certificates::write(out, app)
    }
}

/// A metric: its name without unit and `_total`, and what it means.
struct Metric<'a> {
    name: &'a str,
    help: &'a str,
    unit: Option<Unit>,
}

impl<'a> Metric<'a> {
    fn new(name: &'a str, help: &'a str) -> Self {
        Self {
            name,
            help,
            unit: None,
        }
    }

    fn bytes(self) -> Self {
        Self {
            unit: Some(Unit::Bytes),
            ..self
        }
    }

    fn seconds(self) -> Self {
        Self {
            unit: Some(Unit::Seconds),
            ..self
        }
    }
}

/// Where metrics are written: a metric with all its series at a time.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    /// One that only grows, with a series for each set of labels.
    fn counters<S: EncodeLabelSet>(
        &mut self,
        metric: &Metric<'_>,
        series: impl IntoIterator<Item = (S, u64)>,
    ) -> fmt::Result {
        let Metric { name, help, unit } = metric;
        let mut all = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in series {
            all.encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// One that rises and falls.
    fn gauges<S: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        metric: &Metric<'_>,
        series: impl IntoIterator<Item = (S, V)>,
    ) -> fmt::Result {
        let Metric { name, help, unit } = metric;
        let mut all = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in series {
            all.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// How long something takes.
    fn durations<S: EncodeLabelSet>(
        &mut self,
        metric: &Metric<'_>,
        series: impl IntoIterator<Item = (S, Durations)>,
    ) -> fmt::Result {
        let Metric { name, help, .. } = metric;
        let mut all =
            self.0
                .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (
            labels,
            Durations {
                sum,
                count,
                buckets,
            },
        ) in series
        {
            all.encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    /// A counter without labels.
    fn counter<V: EncodeCounterValue>(&mut self, metric: &Metric<'_>, value: V) -> fmt::Result {
        let Metric { name, help, unit } = metric;
        let mut one = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        one.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A gauge without labels.
    fn gauge<V: EncodeGaugeValue>(&mut self, metric: &Metric<'_>, value: V) -> fmt::Result {
        let Metric { name, help, unit } = metric;
        let mut one = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        one.encode_gauge(&value)
    }
}
