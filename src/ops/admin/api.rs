//! The paths of the admin listener and the OpenAPI document made from them.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::ops::{
    health::Report,
    metrics::{Metrics, OPENMETRICS, PLAIN},
    status::{Board, Status},
};

/// What the handlers share.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) board: Board,
    pub(super) metrics: Metrics,
    document: Arc<str>,
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "nzc admin",
        description = "Health, metrics and status of one nzc process. Read-only; on loopback unless configured otherwise.",
        license(name = "MIT OR Apache-2.0")
    ),
    tags((name = "health", description = "Probes"), (name = "telemetry", description = "What is going on inside"))
)]
struct Api;

/// The router, complete with its description.
pub(super) fn router(board: Board, metrics: Metrics) -> Router {
    let (router, api) = described().split_for_parts();
    let document = api.to_json().unwrap_or_else(|error| {
        tracing::error!(%error, "the API cannot be described");
        "{}".to_owned()
    });
    router.with_state(Context { board, metrics, document: document.into() })
}

/// The OpenAPI document that `/openapi.json` serves.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    described().split_for_parts().1
}

fn described() -> OpenApiRouter<Context> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(livez))
        .routes(routes!(readyz))
        .routes(routes!(healthz))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
        .routes(routes!(status))
}

/// Whether the process should be left alive.
#[utoipa::path(get, path = "/livez", tag = "health",
    params(("verbose" = Option<String>, Query, description = "List each check")),
    responses(
        (status = 200, description = "Every loop is turning", body = String, content_type = "text/plain; charset=utf-8"),
        (status = 503, description = "A loop is stuck", body = String, content_type = "text/plain; charset=utf-8")))]
async fn livez(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    verdict(&context.board.health().liveness(), query.as_deref())
}

/// Whether requests should be sent here.
#[utoipa::path(get, path = "/readyz", tag = "health",
    params(("verbose" = Option<String>, Query, description = "List each check")),
    responses(
        (status = 200, description = "Every listener answers", body = String, content_type = "text/plain; charset=utf-8"),
        (status = 503, description = "Starting, draining, or a check fails", body = String, content_type = "text/plain; charset=utf-8")))]
async fn readyz(State(context): State<Context>, RawQuery(query): RawQuery) -> Response {
    verdict(&context.board.health().readiness(), query.as_deref())
}

/// The same as `/readyz`, under the name older probes use.
#[utoipa::path(get, path = "/healthz", tag = "health",
    params(("verbose" = Option<String>, Query, description = "List each check")),
    responses(
        (status = 200, description = "Every listener answers", body = String, content_type = "text/plain; charset=utf-8"),
        (status = 503, description = "Starting, draining, or a check fails", body = String, content_type = "text/plain; charset=utf-8")))]
async fn healthz(state: State<Context>, query: RawQuery) -> Response {
    readyz(state, query).await
}

/// The metrics, in OpenMetrics where the reader accepts it and in the text format 0.0.4 where it does not.
#[utoipa::path(get, path = "/metrics", tag = "telemetry",
    responses((status = 200, description = "All metrics", content(
        (String = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (String = "text/plain; version=0.0.4; charset=utf-8")))))]
async fn metrics(State(context): State<Context>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("application/openmetrics-text") {
        ([(header::CONTENT_TYPE, OPENMETRICS)], context.metrics.openmetrics()).into_response()
    } else {
        ([(header::CONTENT_TYPE, PLAIN)], context.metrics.plain()).into_response()
    }
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "telemetry",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value, content_type = "application/json")))]
async fn openapi(State(context): State<Context>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], context.document.to_string()).into_response()
}

/// Who this process is, where it listens and which configuration is in force.
#[utoipa::path(get, path = "/v1/status", tag = "telemetry",
    responses((status = 200, description = "The state of the process", body = Status)))]
async fn status(State(context): State<Context>) -> Json<Status> {
    Json(context.board.status())
}

fn verdict(report: &Report, query: Option<&str>) -> Response {
    let verbose = query.unwrap_or_default().split('&').any(|pair| pair.split('=').next() == Some("verbose"));
    let mut text = String::new();
    for check in report.checks.iter().filter(|check| verbose || !check.ok) {
        let sign = if check.ok { '+' } else { '-' };
        let detail = check.detail.as_deref().unwrap_or("ok");
        let _ = writeln!(text, "[{sign}] {}: {detail}", check.name);
    }
    let phase = serde_json::to_value(report.phase).unwrap_or_default();
    let _ = writeln!(text, "{}, {}", if report.ok { "ok" } else { "not ok" }, phase.as_str().unwrap_or_default());
    let code = if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_openapi_3_1_and_names_every_path() {
        let document = serde_json::to_value(document()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
        let paths: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(paths, ["/healthz", "/livez", "/metrics", "/openapi.json", "/readyz", "/v1/status"]);
        let status = &document["components"]["schemas"]["Status"]["properties"];
        assert!(status["listeners"].is_object() && status["configuration"].is_object(), "{status}");
    }
}
