//! A daemon between READY and its end: what each signal does.

use std::time::Duration;

use fabric::ops::{
    config::Resolved,
    health::Phase,
    logging::Log,
    signals::{Request, Signals},
    systemd,
};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

use super::{AUDIT_FLUSH, Daemon, Keys, Loader, Ops, check};
use crate::exit::Exit;

/// What the life of a daemon refers to.
pub(super) struct Life<'a, D: Daemon> {
    pub(super) loader: &'a Loader,
    pub(super) log: &'a Log,
    pub(super) ops: &'a Ops,
    /// The configuration of the start, which keys that wait for the next one still follow.
    pub(super) started: Resolved<Keys<D>>,
    /// The configuration in force.
    pub(super) resolved: Resolved<Keys<D>>,
    pub(super) signals: Signals,
    /// Names of tasks that ended and must not.
    pub(super) failures: mpsc::Receiver<String>,
}

impl<D: Daemon> Life<'_, D> {
    /// Serves until a signal or a failure ends it.
    pub(super) async fn live(mut self, mut daemon: D) -> Exit {
        loop {
            tokio::select! {
                request = self.signals.next() => match request {
                    Request::Reload => self.reload(&mut daemon).await,
                    Request::Terminate => return self.drain(daemon, true).await,
                    Request::Drain => return self.drain(daemon, false).await,
                },
                Some(task) = self.failures.recv() => return failed(&task),
            }
        }
    }

    /// Stops being ready, lets the role finish, and leaves when `leaving`, or when a later TERM says so.
    async fn drain(mut self, mut daemon: D, mut leaving: bool) -> Exit {
        let (grace, limit) = (self.resolved.settings.0.drain_grace.0, self.resolved.settings.0.drain_timeout.0);
        self.ops.health.set_phase(Phase::Draining);
        self.ops.audit.record("draining", json!({ "leaving": leaving }));
        tracing::info!(?grace, ?limit, leaving, "draining");
        if leaving {
            systemd::stopping("draining");
        } else {
            systemd::status("draining");
        }
        let work = async {
            tokio::time::sleep(grace).await;
            if timeout(limit, daemon.drain()).await.is_err() {
                tracing::warn!(?limit, "not everything was finished in time");
            }
        };
        tokio::pin!(work);
        let mut drained = false;
        loop {
            tokio::select! {
                () = &mut work, if !drained => {
                    drained = true;
                    self.ops.health.set_phase(Phase::Drained);
                    systemd::status("drained");
                }
                request = self.signals.next() => match request {
                    Request::Terminate if leaving => break tracing::info!("asked twice, leaving at once"),
                    Request::Terminate => {
                        leaving = true;
                        systemd::stopping("draining");
                    }
                    Request::Reload => tracing::warn!("a draining process does not reload"),
                    Request::Drain => {}
                },
                Some(task) = self.failures.recv() => return failed(&task),
            }
            if drained && leaving {
                break;
            }
        }
        self.ops.health.set_phase(Phase::Stopping);
        self.ops.audit.record("stopped", json!({}));
        self.ops.audit.flush(AUDIT_FLUSH);
        tracing::info!("stopping");
        Exit::Ok
    }

    /// Reads the configuration again. Whatever is wrong with it, the old one stays in force and the board says why.
    async fn reload(&mut self, daemon: &mut D) {
        systemd::reloading();
        let began = std::time::Instant::now();
        match self.try_reload(daemon).await {
            Ok(restart_needed) => {
                let took = Duration::as_millis(&began.elapsed());
                tracing::info!(took_ms = %took, ?restart_needed, "configuration reloaded");
            }
            Err(reason) => {
                tracing::error!("the configuration was not reloaded: {reason}");
                self.ops.audit.record("config-refused", json!({ "reason": reason }));
                self.ops.board.config_refused(reason);
            }
        }
        self.ops.audit.reopen();
        systemd::ready("serving");
    }

    async fn try_reload(&mut self, daemon: &mut D) -> Result<Vec<String>, String> {
        let (sources, next) = self.loader.load(check::<D>).map_err(|problems| problems.to_string())?;
        daemon.reload(next.settings.1.clone()).await?;
        self.log.set_filter(&next.settings.0.log).map_err(|error| error.to_string())?;
        let changes = next.changes(&self.resolved);
        let since_start = next.changes(&self.started);
        let restart: Vec<_> = since_start.iter().filter(|it| it.restart).map(|it| it.key.to_owned()).collect();
        let changed: Vec<_> = changes.iter().map(|it| it.key).collect();
        self.ops.audit.record("config-reloaded", json!({ "digest": next.digest(), "changed": changed }));
        self.ops.board.config_loaded(sources.file(), next.digest(), restart.clone());
        self.resolved = next;
        Ok(restart)
    }
}

fn failed(task: &str) -> Exit {
    tracing::error!(task, "a task ended that must not");
    Exit::Internal
}
