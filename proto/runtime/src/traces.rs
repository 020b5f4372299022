//! Traces, for who collects them: spans go to an OpenTelemetry collector over OTLP/gRPC when `OTEL_EXPORTER_OTLP_ENDPOINT` names one,
//! and nothing is made of them when it does not. Only our own spans, and what they carry stands in the logs too. A collector that is
//! away costs spans and nothing else.

use std::env;
use std::time::Duration;

use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

/// Where a collector listens, as every OpenTelemetry program is told it.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The last spans are sent within this at the end.
const FLUSH: Duration = Duration::from_secs(3);
/// One message to the collector.
#[cfg(feature = "otel")]
const SEND: Duration = Duration::from_secs(3);
/// Crates whose spans are sent: those of the client that sends them would make more of themselves.
#[cfg(feature = "otel")]
const OURS: [&str; 5] = ["agent", "coordinator", "engine", "proto", "runtime"];

/// Traces cannot be sent as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    #[error(
        "{ENDPOINT} is {0:?}: write http://HOST:PORT of a collector that takes OTLP over gRPC; for https put one beside this process"
    )]
    Endpoint(String),
    #[error("this program was built without the feature `otel`, and {ENDPOINT} is set")]
    NotBuilt,
    #[error("setting up the exporter of traces: {0}")]
    Exporter(String),
}

/// Where a collector is, if the environment names one.
pub fn endpoint() -> Option<String> {
    env::var(ENDPOINT).ok().filter(|url| !url.trim().is_empty())
}

/// A layer of a subscriber.
pub type Sending<S> = Box<dyn Layer<S> + Send + Sync>;
/// A layer of a subscriber, and what ends it.
pub type Sent<S> = (Sending<S>, Traces);

/// Sends what is left when the process ends.
#[derive(Debug, Default)]
pub struct Traces {
    #[cfg(feature = "otel")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

impl Drop for Traces {
    fn drop(&mut self) {
        #[cfg(feature = "otel")]
        if let Some(provider) = self.provider.take() {
            // A collector that is away keeps nobody from ending.
            let _unsent = provider.shutdown_with_timeout(FLUSH);
        }
    }
}

/// Sends spans to `endpoint` in the name of `service`. Must be called within a runtime; it lives as long as the runtime does.
///
/// # Errors
/// An endpoint that is none, or of a kind that is not taken.
#[cfg(feature = "otel")]
pub fn send<S>(endpoint: &str, service: &'static str) -> Result<Sent<S>, TracesError>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::filter::filter_fn;

    if !endpoint.starts_with("http://") {
        return Err(TracesError::Endpoint(endpoint.to_owned()));
    }
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(SEND).build();
    let exporter = exporter.map_err(|error| TracesError::Exporter(error.to_string()))?;
    let mut resource = Resource::builder();
    if env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service);
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let ours = |target: &str| OURS.contains(&target.split("::").next().unwrap_or_default());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(service));
    let layer = layer.with_filter(filter_fn(move |about| ours(about.target())));
    Ok((Box::new(layer), Traces { provider: Some(provider) }))
}

/// # Errors
/// Always: what cannot be done is not passed over.
#[cfg(not(feature = "otel"))]
pub fn send<S>(_: &str, _: &'static str) -> Result<Sent<S>, TracesError>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    Err(TracesError::NotBuilt)
}

#[cfg(all(test, feature = "otel"))]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
    use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
    use opentelemetry_proto::tonic::common::v1::KeyValue;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use tokio::net::TcpListener;
    use tonic::{Request, Response, Status};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// A collector that keeps what it is sent.
    #[derive(Clone, Default)]
    struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

    #[tonic::async_trait]
    impl TraceService for Collector {
        async fn export(
            &self,
            request: Request<ExportTraceServiceRequest>,
        ) -> Result<Response<ExportTraceServiceResponse>, Status> {
            self.0.lock().unwrap().push(request.into_inner());
            Ok(Response::new(ExportTraceServiceResponse::default()))
        }
    }

    fn text(all: &[KeyValue], key: &str) -> Option<String> {
        let found = all.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.as_ref()?;
        match found {
            Value::StringValue(text) => Some(text.clone()),
            other => Some(format!("{other:?}")),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn spans_reach_a_collector_with_their_fields_and_events_and_those_of_others_do_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Collector::default();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        let serving = tokio::spawn(server.serve_with_incoming(incoming));
        let (layer, traces) = send(&url, "pilot").unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let upgrade = tracing::info_span!("upgrade", upgrade = "up-1");
            let _inside = upgrade.enter();
            let step = tracing::info_span!("step", run = "up-1", step = "provisioning");
            step.in_scope(|| tracing::info!(request_id = "aws-7", "asked aws for a change"));
            tracing::info_span!(target: "hyper::client", "of_a_library").in_scope(|| {});
        });
        tokio::task::spawn_blocking(move || drop(traces)).await.unwrap();
        serving.abort();

        let sent = collector.0.lock().unwrap().clone();
        let resources = sent.iter().flat_map(|request| &request.resource_spans);
        let names = resources.clone().filter_map(|spans| text(&spans.resource.as_ref()?.attributes, "service.name"));
        assert!(names.clone().count() > 0 && names.clone().all(|name| name == "pilot"), "{sent:?}");
        let scopes = resources.flat_map(|spans| &spans.scope_spans);
        let spans: Vec<_> = scopes.flat_map(|scope| &scope.spans).collect();
        let mut seen: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        seen.sort_unstable();
        assert_eq!(seen, ["step", "upgrade"]);
        let of = |name: &str| *spans.iter().find(|span| span.name == name).unwrap();
        let (upgrade, step) = (of("upgrade"), of("step"));
        assert_eq!((&step.trace_id, &step.parent_span_id), (&upgrade.trace_id, &upgrade.span_id), "one trace");
        assert_eq!(text(&step.attributes, "run").as_deref(), Some("up-1"));
        assert_eq!(text(&step.events[0].attributes, "request_id").as_deref(), Some("aws-7"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_collector_that_is_away_keeps_nobody_from_ending() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (layer, traces) = send(&format!("http://{free}"), "pilot").unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || tracing::info_span!("step").in_scope(|| {}));
        let clock = crate::clock::Clock::system();
        let began = clock.mono();
        tokio::task::spawn_blocking(move || drop(traces)).await.unwrap();
        assert!(clock.mono().since(began) < Duration::from_secs(30), "{:?}", clock.mono().since(began));
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_taken_is_refused_by_name() {
        for endpoint in ["https://collector:4317", "collector:4317", ""] {
            let refused = send::<tracing_subscriber::Registry>(endpoint, "pilot").err().expect("refused");
            assert!(refused.to_string().contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{refused}");
        }
    }
}
