//! What the service manager is told (sd_notify(3)). Without one, every call is a no-op.

use std::time::Duration;

use sd_notify::NotifyState;

use super::health::Health;

/// Start-up or a reload is finished.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins. [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now, NotifyState::Status("reloading")]),
        Err(error) => tracing::debug!(%error, "no monotonic clock for the service manager"),
    }
}

/// The process is on its way out.
pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// A line for `systemctl status`.
pub fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// Feeds the watchdog, where there is one, for as long as `health` says the process lives. Never returns.
pub async fn feed_watchdog(health: Health) {
    let Some(period) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut tick = tokio::time::interval((period / 3).max(Duration::from_millis(1)));
    loop {
        tick.tick().await;
        feed(&health, || send(&[NotifyState::Watchdog]));
    }
}

/// One turn of the watchdog: a loop that has fallen silent must not be covered up by a timer that has not.
fn feed(health: &Health, send: impl FnOnce()) {
    let report = health.liveness();
    if report.ok {
        send();
    } else {
        let silent: Vec<_> = report.checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect();
        tracing::error!(?silent, "the watchdog is not fed");
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::health::LIVE_LIMIT;

    #[test]
    fn f24_the_watchdog_is_fed_only_while_every_loop_beats() {
        let health = Health::default();
        let pulse = health.heartbeat("data path");
        let mut fed = 0;
        feed(&health, || fed += 1);
        assert_eq!(fed, 1);
        pulse.stall(LIVE_LIMIT + Duration::from_secs(1));
        feed(&health, || fed += 1);
        assert_eq!(fed, 1);
        pulse.beat();
        feed(&health, || fed += 1);
        assert_eq!(fed, 2);
    }
}
