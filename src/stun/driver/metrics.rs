//! The counters of a server as metrics, read when somebody asks.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::Shared;
use crate::stun::counters::Counter;
use crate::transport::tls::Certificate;

/// The families, each with what it means.
const FAMILIES: &[(&str, &str)] = &[
    ("requests", "Binding requests that were answered, by what they came over"),
    ("responses", "Responses, by class and error code"),
    ("auth_failures", "Requests whose credentials were refused, by reason"),
    ("dropped", "Messages that got no answer, by reason"),
    ("io_errors", "System calls that failed, by operation"),
    ("connections", "Connections that came, by what became of them"),
    ("connection_ends", "Connections that ended, by reason"),
    ("dial_backs", "Calls back to clients that asked for one, by result"),
    ("certificate_reloads", "Attempts to replace the certificate, by result"),
];

pub(super) struct Collector {
    shared: Arc<Shared>,
}

impl Collector {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

impl prometheus_client::collector::Collector for Collector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (family, help) in FAMILIES {
            let mut family_encoder = encoder.encode_descriptor(family, help, None, MetricType::Counter)?;
            for counter in Counter::ALL {
                let (of, label, value) = counter.metric();
                if of == *family {
                    let count = ConstCounter::new(self.shared.counters.get(*counter));
                    count.encode(family_encoder.encode_family(&[(label, value)])?)?;
                }
            }
        }
        let open = ConstGauge::new(i64::from(self.shared.connections.open()));
        let help = "Connections that are open";
        open.encode(encoder.encode_descriptor("open_connections", help, None, MetricType::Gauge)?)?;
        if let Some(expiry) = self.shared.certificate.as_ref().and_then(Certificate::not_after) {
            let gauge = ConstGauge::new(expiry);
            let (name, help) = ("certificate_expiry_timestamp", "Unix time the certificate expires at");
            gauge.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?)?;
        }
        Ok(())
    }
}
