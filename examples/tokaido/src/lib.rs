//! A small API: the stations of the Tokaido, and how far it is between two of them.

pub mod road;

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use road::{Road, Station, Walk};

#[derive(Deserialize)]
struct Between {
    from: String,
    to: String,
}

#[derive(Serialize)]
struct Problem {
    error: String,
}

type Answer<T> = Result<Json<T>, (StatusCode, Json<Problem>)>;

/// The routes of the API.
pub fn app(road: Road) -> Router {
    Router::new()
        .route("/", get(stations))
        .route("/walk", get(walk))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Arc::new(road))
}

async fn stations(State(road): State<Arc<Road>>) -> Json<Vec<Station>> {
    Json(road.stations().to_vec())
}

async fn walk(State(road): State<Arc<Road>>, Query(between): Query<Between>) -> Answer<Walk> {
    let find = |name: &str| {
        road.station(name).ok_or_else(|| {
            let error = format!("There is no station {name:?}; GET / names them.");
            (StatusCode::NOT_FOUND, Json(Problem { error }))
        })
    };
    Ok(Json(road.walk(find(&between.from)?, find(&between.to)?)))
}
