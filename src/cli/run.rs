//! `inosec run`: the road, until a signal or a failure ends it.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::Failure;
use crate::config::Config;
use crate::ops::{self, Readiness};
use crate::pipeline;

#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs. The first SIGTERM or SIGINT stops gracefully: the source first, then what is in flight is
/// stored, under `shutdown.drain`. The second ends the process at once, which loses nothing either.
pub async fn run(_args: Args, config: Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = ops::install_metrics()?;
    let readiness = Readiness::default();
    readiness.set("road", Err("starting".to_owned()));
    if let Some(address) = config.metrics_listen {
        let listener = ops::listen(address).await.map_err(|error| {
            Failure::new(format!("metrics.listen {address}: {error}: choose another port"))
        })?;
        info!(%address, "serving /livez, /readyz and /metrics");
        tokio::spawn(ops::serve(listener, metrics, readiness.clone()));
    }
    let started = tokio::select! {
        started = pipeline::start(&config, &readiness) => started?,
        () = signalled(&mut terminate, &mut interrupt) => return Ok(()),
    };
    let mut running = started;
    readiness.set("road", Ok(()));
    let ended = tokio::select! {
        failure = running.failed() => Err(failure),
        () = signalled(&mut terminate, &mut interrupt) => Ok(()),
    };
    readiness.set("road", Err("stopping".to_owned()));
    if let Err(failure) = &ended {
        error!(error = %super::chain(failure), "a part of the road failed, stopping the rest");
    } else {
        info!(drain = ?config.drain, "stopping: no more is read, what was read is stored");
    }
    let stopped = tokio::select! {
        stopped = running.stop(config.drain) => stopped,
        () = signalled(&mut terminate, &mut interrupt) => {
            warn!("second signal: stopping at once; what was not stored is read again");
            return Err(Failure::new("stopped at once by a second signal"));
        }
    };
    ended?;
    stopped?;
    info!("stopped");
    Ok(())
}

async fn signalled(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
