//! What operators and their tools ask a running process: `/livez`, `/readyz`, `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

/// Upper bounds in seconds for every duration histogram: from half a millisecond to a minute.
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Whether each part of the process can do its work, and if not, why.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<String, Result<(), String>>>>,
}

impl Readiness {
    /// Records a part's state.
    pub fn set(&self, part: &str, state: Result<(), String>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(part.to_owned(), state);
    }

    /// Whether all parts are ready, and a line for each.
    #[must_use]
    pub fn report(&self) -> (bool, String) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = !parts.is_empty() && parts.values().all(Result::is_ok);
        let line = |(part, state): (&String, &Result<(), String>)| match state {
            Ok(()) => format!("{part}: ok\n"),
            Err(why) => format!("{part}: {why}\n"),
        };
        (ready, parts.iter().map(line).collect())
    }
}

/// Installs the metrics recorder of this process.
pub fn install_metrics() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .install_recorder()?;
    inosec_ingest::metrics::describe();
    inosec_enrich::metrics::describe();
    inosec_sink::metrics::describe();
    Ok(handle)
}

/// A listener for [`serve`].
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers until the task is dropped.
pub async fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    readiness: Readiness,
) -> std::io::Result<()> {
    let router = axum::Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state((metrics, readiness));
    axum::serve(listener, router).await
}

async fn readyz(State((_, readiness)): State<(PrometheusHandle, Readiness)>) -> Response {
    let (ready, report) = readiness.report();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, report).into_response()
}

async fn scrape(State((metrics, _)): State<(PrometheusHandle, Readiness)>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    metrics.run_upkeep();
    (kind, metrics.render()).into_response()
}
