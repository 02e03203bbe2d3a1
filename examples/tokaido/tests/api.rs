//! The API as its callers see it.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{json, Value};
use tower::ServiceExt;

use tokaido::road::Road;

fn road() -> Road {
    Road::read(include_str!("../stations.csv")).expect("the table is good")
}

async fn get(path: &str) -> (StatusCode, Vec<u8>) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let answer = tokaido::app(road()).oneshot(request).await.expect("an answer");
    let status = answer.status();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, body.to_vec())
}

async fn get_json(path: &str) -> (StatusCode, Value) {
    let (status, body) = get(path).await;
    (status, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test]
async fn the_stations_are_listed_in_their_order() {
    let (status, stations) = get_json("/").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(stations[0]["name"], "Nihonbashi");
    assert_eq!(stations[10]["name"], "Hakone");
}

#[tokio::test]
async fn a_walk_over_hakone_passes_the_checkpoint() {
    let (status, walk) = get_json("/walk?from=odawara&to=Mishima").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        walk,
        json!({"from": "Odawara", "to": "Mishima", "kilometres": 31.4, "days": 1, "checkpoint": true})
    );
}

#[tokio::test]
async fn a_walk_is_as_far_in_both_directions() {
    let (_, there) = get_json("/walk?from=Nihonbashi&to=Fuchu").await;
    let (_, back) = get_json("/walk?from=Fuchu&to=Nihonbashi").await;
    assert_eq!(there["kilometres"], back["kilometres"]);
    assert_eq!(there["days"], 5);
}

#[tokio::test]
async fn an_unknown_station_is_named() {
    let (status, answer) = get_json("/walk?from=Nihonbashi&to=Osaka").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["error"], "There is no station \"Osaka\"; GET / names them.");
}

#[tokio::test]
async fn health_is_said() {
    assert_eq!(get("/healthz").await, (StatusCode::OK, b"ok\n".to_vec()));
}

#[test]
fn a_damaged_table_is_refused_with_its_line() {
    let read = |table: &str| Road::read(table).expect_err("damaged");
    assert_eq!(read("number,name,ri\n0,Nihonbashi\n"), "line 2: not three columns");
    assert_eq!(read("number,name,ri\n0,Nihonbashi,far\n"), "line 2: the distance is none");
    assert_eq!(read("number,name,ri\n"), "there is no station");
    assert_eq!(read("n,n,r\n0,A,2\n1,B,1\n"), "the stations are not in the order of the road");
}
