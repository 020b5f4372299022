//! The process-wide metrics recorder and its Prometheus text form. Names and descriptions live in each binary's own
//! `metrics.rs`, never here.
//!
//! What is counted lives in the recorder. What is true right now (how an upgrade stands, what an agent sees) does not: it is asked for
//! at every scrape, so that what is over, or was not measured, is absent and never an old value.

use std::sync::Arc;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

/// Upper bounds, in seconds, of every histogram: from a release in milliseconds to a step of hours.
const BUCKETS: [f64; 14] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0, 1800.0, 7200.0];

/// Sets what is true right now, by the macros of `metrics`; no name in it may be counted elsewhere too.
type Picture = Arc<dyn Fn() + Send + Sync>;

/// The installed recorder. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    counted: PrometheusHandle,
    /// On every series.
    labels: Vec<(&'static str, String)>,
    picture: Option<Picture>,
}

/// The recorder could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("the metrics recorder cannot be installed")]
pub struct InstallError(#[from] BuildError);

/// Installs the recorder of this process; `labels` are on every series. Fails when there is one already.
pub fn install(labels: &[(&'static str, String)]) -> Result<Recorder, InstallError> {
    let counted = builder(labels).set_buckets(&BUCKETS)?.install_recorder()?;
    Ok(Recorder { counted, labels: labels.to_vec(), picture: None })
}

fn builder(labels: &[(&'static str, String)]) -> PrometheusBuilder {
    labels.iter().fold(PrometheusBuilder::new(), |builder, (name, value)| builder.add_global_label(*name, value))
}

impl Recorder {
    /// A recorder that is not installed: renders nothing. For tests that run in one process.
    pub fn detached() -> Recorder {
        Recorder { counted: builder(&[]).build_recorder().handle(), labels: Vec::new(), picture: None }
    }

    /// The same recorder, which also shows at every scrape what `picture` sets then.
    #[must_use]
    pub fn showing(self, picture: impl Fn() + Send + Sync + 'static) -> Recorder {
        Recorder { picture: Some(Arc::new(picture)), ..self }
    }

    /// All metrics in Prometheus' text form.
    pub fn render(&self) -> String {
        let mut text = self.counted.render();
        if let Some(picture) = &self.picture {
            let now = builder(&self.labels).build_recorder();
            metrics::with_local_recorder(&now, || picture());
            text.push_str(&now.handle().render());
        }
        text
    }

    /// Bounds the memory of histograms; call it every few seconds.
    pub fn upkeep(&self) {
        self.counted.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use metrics::{Key, Label, Level, Metadata};

    use super::*;

    #[test]
    fn what_is_over_is_gone_at_the_next_scrape_and_every_series_has_the_labels_of_the_process() {
        let there = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&there);
        let recorder = Recorder { labels: vec![("cluster", "orders \"1\"".into())], ..Recorder::detached() };
        let recorder = recorder.showing(move || {
            metrics::with_recorder(|recorder| {
                recorder.describe_gauge("now".into(), None, "for as long as it is".into());
                if seen.load(Ordering::SeqCst) {
                    let key = Key::from_parts("now", vec![Label::new("of", "it")]);
                    recorder.register_gauge(&key, &Metadata::new("", Level::INFO, None)).set(2.0);
                }
            });
        });
        let text = recorder.render();
        assert!(text.contains("# HELP now for as long as it is\n# TYPE now gauge\n"), "{text}");
        assert!(text.contains("now{cluster=\"orders \\\"1\\\"\",of=\"it\"} 2\n"), "{text}");
        there.store(false, Ordering::SeqCst);
        assert_eq!(recorder.render(), "");
    }
}
