//! The metrics of one process. Names are `nzc_<floor>_<noun>_<unit|total>`; labels come from fixed sets only, never from
//! what a peer says.

mod process;
mod text;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{metrics::info::Info, registry::Registry};

/// The content type of OpenMetrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of the older text format, for readers that do not ask for OpenMetrics.
pub const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The registry. Cheap to clone; all clones are the same registry.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// A registry that knows the process and its build.
    #[must_use]
    pub fn new(role: &str, version: &str) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(process::Process::starting_now()));
        let metrics = Self(Arc::new(Mutex::new(registry)));
        metrics.floor("ops", |ops| {
            let labels = vec![("version", version.to_owned()), ("role", role.to_owned())];
            ops.register("build", "What this process was built from and which role it plays", Info::new(labels));
        });
        metrics
    }

    /// Registers the metrics of one floor; their names get the prefix `nzc_<floor>_`.
    pub fn floor<T>(&self, floor: &str, register: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        register(registry.sub_registry_with_prefix("nzc").sub_registry_with_prefix(floor))
    }

    /// Everything in OpenMetrics text.
    #[must_use]
    pub fn openmetrics(&self) -> String {
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing to a String cannot fail; a collector that gives up leaves the text without its EOF, which readers refuse.
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &registry) {
            tracing::warn!(%error, "a metric could not be encoded");
        }
        text
    }

    /// Everything in the text format that came before OpenMetrics.
    #[must_use]
    pub fn plain(&self) -> String {
        text::from_openmetrics(&self.openmetrics())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

    use super::*;

    #[test]
    fn names_carry_the_prefix_and_their_floor() {
        let metrics = Metrics::new("stun-server", "1.2.3");
        let requests = metrics.floor("stun", |stun| {
            let requests = Counter::<u64>::default();
            stun.register("requests", "Requests received", requests.clone());
            stun.register("sources", "Sources known", Gauge::<i64>::default());
            requests
        });
        requests.inc();
        let open = metrics.openmetrics();
        assert!(open.contains("# TYPE nzc_stun_requests counter\nnzc_stun_requests_total 1\n"), "{open}");
        assert!(open.contains("nzc_ops_build_info{version=\"1.2.3\",role=\"stun-server\"} 1\n"), "{open}");
        assert!(open.contains("nzc_stun_sources 0\n"));
        assert!(open.ends_with("# EOF\n"));
        let plain = metrics.plain();
        assert!(plain.contains("# TYPE nzc_stun_requests_total counter\nnzc_stun_requests_total 1\n"), "{plain}");
        assert!(plain.contains("# TYPE nzc_ops_build_info gauge\n"), "{plain}");
    }
}
