//! The two formats of `/metrics`: OpenMetrics for whoever asks for it, and otherwise the older text
//! format of Prometheus, which everything that scrapes can read.

use http::{HeaderMap, header};

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum MetricsFormat {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
}

impl MetricsFormat {
    /// The format that a client prefers (RFC 9110 §12.5.1). One that accepts neither gets the text
    /// format.
    pub(in crate::admin) fn accepted(headers: &HeaderMap) -> Self {
        let fields = headers.get_all(header::ACCEPT).iter();
        let fields = fields.filter_map(|field| field.to_str().ok());
        let ranges = fields.flat_map(|field| field.split(','));
        let ranges: Vec<_> = ranges.filter_map(MediaRange::parse).collect();
        let best = |format: Self| {
            let fitting = ranges.iter().filter(|range| range.fits(format));
            fitting.map(|range| range.weight).max().unwrap_or_default()
        };
        let open_metrics = best(Self::OpenMetrics);
        if open_metrics > 0 && open_metrics >= best(Self::Text) {
            return Self::OpenMetrics;
        }
        Self::Text
    }

    pub(in crate::admin) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Gives OpenMetrics text this format.
    pub(super) fn convert_open_metrics(self, text: String) -> String {
        match self {
            Self::OpenMetrics => text,
            Self::Text => prometheus_text(&text),
        }
    }
}

/// An element of `Accept`.
struct MediaRange<'a> {
    media_type: &'a str,
    version: Option<&'a str>,
    /// In thousandths.
    weight: u16,
}

impl<'a> MediaRange<'a> {
    /// `None`: its weight is not valid.
    fn parse(element: &'a str) -> Option<Self> {
        let mut parts = element.split(';').map(str::trim);
        let mut range = Self {
            media_type: parts.next()?,
            version: None,
            weight: MAX_WEIGHT,
        };
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            if name.trim().eq_ignore_ascii_case("q") {
                range.weight = weight(value)?;
            } else if name.trim().eq_ignore_ascii_case("version") {
                range.version = Some(value.trim_matches('"'));
            }
        }
        Some(range)
    }

    /// Whether it names the format. `*/*` does not name OpenMetrics: who reads that says so.
    fn fits(&self, format: MetricsFormat) -> bool {
        let is = |media_type: &str| self.media_type.eq_ignore_ascii_case(media_type);
        match format {
            MetricsFormat::OpenMetrics => {
                is("application/openmetrics-text") && self.version.is_none_or(|v| v == "1.0.0")
            }
            MetricsFormat::Text => {
                is("text/plain") && self.version.is_none_or(|v| v == "0.0.4")
                    || is("text/*")
                    || is("*/*")
            }
        }
    }
}

const MAX_WEIGHT: u16 = 1000;

/// A `qvalue` (RFC 9110 §12.4.2) in thousandths.
fn weight(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(MAX_WEIGHT),
        _ => None,
    }
}

/// Converts what the encoder writes: `HELP` before `TYPE` and `UNIT`, no exemplars and no creation
/// times. In the text format a counter is called as its series are, there are no units and no end,
/// and a quotation mark in a help text is not escaped.
fn prometheus_text(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|described| described.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take().filter(|(described, _)| *described == name) {
                let text = text.replace("\\\"", "\"");
                push_line(&mut out, &["# HELP ", name, suffix, " ", &text]);
            }
            let kind = if kind == "unknown" { "untyped" } else { kind };
            push_line(&mut out, &["# TYPE ", name, suffix, " ", kind]);
        } else if !line.starts_with('#') {
            push_line(&mut out, &[line]);
        }
    }
    out
}

fn push_line(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn open_metrics_is_for_those_that_prefer_it() {
        use MetricsFormat::{OpenMetrics, Text};
        // As Prometheus 2 and 3 send it, by default and for native histograms.
        let prometheus2 = "application/openmetrics-text; version=1.0.0,application/openmetrics-text; version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let old =
            "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=0.0.1,*/*;q=0.1";
        for (accept, expected) in [
            (prometheus2, OpenMetrics),
            (prometheus3, OpenMetrics),
            (protobuf, OpenMetrics),
            (old, Text),
            ("", Text),
            ("*/*", Text),
            ("text/plain", Text),
            ("text/*;q=0.1", Text),
            ("application/json", Text),
            ("application/*", Text),
            ("application/openmetrics-text", OpenMetrics),
            (
                "Application/OpenMetrics-Text ; Version=\"1.0.0\"; Q=1.000",
                OpenMetrics,
            ),
            ("application/openmetrics-text;version=2.0.0", Text),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=0.000, */*", Text),
            ("application/openmetrics-text, text/plain", OpenMetrics),
            ("text/plain, application/openmetrics-text;q=0.999", Text),
            ("application/openmetrics-text;q=0.2, */*;q=0.1", OpenMetrics),
            ("application/openmetrics-text;q=2", Text),
            ("application/openmetrics-text;q=0.0001", Text),
            (",;,=;q, application/openmetrics-text", OpenMetrics),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(MetricsFormat::accepted(&headers), expected, "{accept}");
        }
        assert_eq!(MetricsFormat::accepted(&HeaderMap::new()), Text);
        let mut headers = HeaderMap::new();
        headers.append(header::ACCEPT, HeaderValue::from_static("text/plain;q=0.5"));
        let open_metrics = HeaderValue::from_static("application/openmetrics-text");
        headers.append(header::ACCEPT, open_metrics);
        assert_eq!(MetricsFormat::accepted(&headers), OpenMetrics);
    }

    #[test]
    fn the_text_format_names_counters_as_their_series() {
        let open_metrics = "\
# HELP a_bytes The \\\"bytes\\\" \\\\ and\\nlines.
# TYPE a_bytes counter
# UNIT a_bytes bytes
a_bytes_total{domain=\"# EOF\"} 1
# HELP b Open.
# TYPE b gauge
b 2.5
# HELP c_seconds Time.
# TYPE c_seconds histogram
# UNIT c_seconds seconds
c_seconds_sum 1.5
c_seconds_count 2
c_seconds_bucket{le=\"+Inf\"} 2
# TYPE d unknown
d 1
# HELP e Nothing.
# TYPE e counter
# EOF
";
        let text = "\
# HELP a_bytes_total The \"bytes\" \\\\ and\\nlines.
# TYPE a_bytes_total counter
a_bytes_total{domain=\"# EOF\"} 1
# HELP b Open.
# TYPE b gauge
b 2.5
# HELP c_seconds Time.
# TYPE c_seconds histogram
c_seconds_sum 1.5
c_seconds_count 2
c_seconds_bucket{le=\"+Inf\"} 2
# TYPE d untyped
d 1
# HELP e_total Nothing.
# TYPE e_total counter
";
        assert_eq!(prometheus_text(open_metrics), text);
        let same = MetricsFormat::OpenMetrics.convert_open_metrics(open_metrics.to_owned());
        assert_eq!(same, open_metrics);
    }
}
