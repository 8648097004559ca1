//! `/metrics`: the metrics as text, encoded for each scrape from the counters of the other modules.

mod certificates;
mod format;
mod logins;
mod process;
mod quotas;
mod retention;
mod traffic;
mod upstreams;

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

pub(super) use format::MetricsFormat;

/// Encodes all metrics.
pub(super) fn metrics(app: &Arc<App>, format: MetricsFormat) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(app.clone())));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(format.convert_open_metrics(text))
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
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
        let out = &mut MetricsEncoder(encoder);
        process::write(out, app)?;
        traffic::write(out, app)?;
        upstreams::write(out, app)?;
        quotas::write(out, app)?;
        logins::write(out, app)?;
        certificates::write(out, app)?;
        retention::write(out, app)
    }
}

/// A metric: its name without unit and `_total`, and its help text.
struct MetricDescriptor<'a> {
    name: &'a str,
    help: &'a str,
    unit: Option<Unit>,
}

impl<'a> MetricDescriptor<'a> {
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

/// Encodes one metric with all its series at a time.
struct MetricsEncoder<'a>(DescriptorEncoder<'a>);

impl MetricsEncoder<'_> {
    /// A counter with a series for each set of labels.
    fn counters<S: EncodeLabelSet>(
        &mut self,
        metric: &MetricDescriptor<'_>,
        series: impl IntoIterator<Item = (S, u64)>,
    ) -> fmt::Result {
        let MetricDescriptor { name, help, unit } = metric;
        let mut all = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in series {
            all.encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// A gauge with a series for each set of labels.
    fn gauges<S: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        metric: &MetricDescriptor<'_>,
        series: impl IntoIterator<Item = (S, V)>,
    ) -> fmt::Result {
        let MetricDescriptor { name, help, unit } = metric;
        let mut all = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in series {
            all.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A histogram with a series for each set of labels.
    fn durations<S: EncodeLabelSet>(
        &mut self,
        metric: &MetricDescriptor<'_>,
        series: impl IntoIterator<Item = (S, Durations)>,
    ) -> fmt::Result {
        let MetricDescriptor { name, help, .. } = metric;
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
    fn counter<V: EncodeCounterValue>(
        &mut self,
        metric: &MetricDescriptor<'_>,
        value: V,
    ) -> fmt::Result {
        let MetricDescriptor { name, help, unit } = metric;
        let mut one = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        one.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A gauge without labels.
    fn gauge<V: EncodeGaugeValue>(
        &mut self,
        metric: &MetricDescriptor<'_>,
        value: V,
    ) -> fmt::Result {
        let MetricDescriptor { name, help, unit } = metric;
        let mut one = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        one.encode_gauge(&value)
    }
}
