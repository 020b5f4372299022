//! The process-wide metrics recorder and its Prometheus text form. Names and descriptions live in each binary's own
//! `metrics.rs`, never here.

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

/// Upper bounds, in seconds, of every histogram: from a release in milliseconds to a step of hours.
const BUCKETS: [f64; 14] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0, 1800.0, 7200.0];

/// The installed recorder. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(PrometheusHandle);

/// The recorder could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("the metrics recorder cannot be installed")]
pub struct InstallError(#[from] BuildError);

/// Installs the recorder of this process. Fails when there is one already.
pub fn install() -> Result<Recorder, InstallError> {
    let handle = PrometheusBuilder::new().set_buckets(&BUCKETS)?.install_recorder()?;
    Ok(Recorder(handle))
}

impl Recorder {
    /// A recorder that is not installed: renders nothing. For tests that run in one process.
    pub fn detached() -> Recorder {
        Recorder(PrometheusBuilder::new().build_recorder().handle())
    }

    /// All metrics in Prometheus' text form.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Bounds the memory of histograms; call it every few seconds.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}
