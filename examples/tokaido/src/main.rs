//! Serves the API on $PORT until SIGTERM.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use tokaido::road::Road;
use tokio::net::TcpListener;
use tokio::signal::unix::{signal, SignalKind};

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokaido: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), String> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".to_owned());
    let port: u16 = port.parse().map_err(|_| format!("PORT is {port:?}, which is no port"))?;
    let table = std::fs::read_to_string("stations.csv").map_err(|error| format!("stations.csv: {error}"))?;
    let road = Road::read(&table).map_err(|error| format!("stations.csv, {error}"))?;
    let mut stop = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(address).await.map_err(|error| format!("{address}: {error}"))?;
    println!("tokaido: listening on {address}");
    axum::serve(listener, tokaido::app(road))
        .with_graceful_shutdown(async move {
            stop.recv().await;
        })
        .await
        .map_err(|error| error.to_string())
}
