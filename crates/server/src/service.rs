//! What the service manager (systemd, by `sd_notify`) is told. Without one nothing happens.

use std::io;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// The ports answer.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Certificate and keys are being read again; [`ready`] ends it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => failed(&error),
    }
}

/// Another process serves; what it says from now on is said for the service.
pub(crate) fn succeeded_by(process: Option<u32>) {
    if let Some(process) = process {
        tell(&[NotifyState::MainPid(process)]);
    }
}

/// The process ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that the process lives, twice in each time that the manager gives it, until `stop`.
///
/// Run it where connections are served: it falls silent when their threads do. It does not look at the
/// store, because a restart does not bring a database back.
pub(crate) async fn beat(stop: CancellationToken) {
    let Some(patience) = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())
    else {
        return;
    };
    let mut beats = interval(patience / 2);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = beats.tick() => tell(&[NotifyState::Watchdog]),
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        failed(&error);
    }
}

fn failed(error: &io::Error) {
    tracing::warn!(%error, "the service manager cannot be told");
}
