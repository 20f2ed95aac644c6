//! Whether the process lives and whether it is ready, from checks and heartbeats instead of hope.
//!
//! A loop that carries data owns a [`Heartbeat`] and beats it on every turn, at least twice a second. Readiness is lost
//! when a beat is missing for [`READY_LIMIT`], liveness when it is missing for [`LIVE_LIMIT`]: then a restart is due, and
//! the watchdog of the service manager is no longer fed.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use utoipa::ToSchema;

/// How long a loop may be silent before it counts as not ready.
pub const READY_LIMIT: Duration = Duration::from_millis(1500);
/// How long a loop may be silent before it counts as dead.
pub const LIVE_LIMIT: Duration = Duration::from_secs(15);
/// How often a loop should beat: well within [`READY_LIMIT`].
pub const BEAT: Duration = Duration::from_millis(400);

/// Where in its life the process is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Listeners are being opened.
    Starting,
    /// Serving.
    Serving,
    /// Finishing what was begun; nothing new should be sent here.
    Draining,
    /// Drained and still there.
    Drained,
    /// On the way out.
    Stopping,
}

/// The outcome of one check.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// What is wrong, where something is.
    pub detail: Option<String>,
}

/// What all checks say together.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
pub struct Report {
    /// Whether every check is well and the process is serving.
    pub ok: bool,
    /// Where in its life the process is.
    pub phase: Phase,
    /// Each check by itself.
    pub checks: Vec<Check>,
}

type Probe = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The health of one process. Cheap to clone; all clones are the same health.
#[derive(Clone)]
pub struct Health(Arc<Shared>);

struct Shared {
    epoch: Instant,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    probes: BTreeMap<String, Probe>,
    beats: BTreeMap<String, Arc<AtomicU64>>,
}

impl Default for Health {
    fn default() -> Self {
        let state = State { phase: Phase::Starting, probes: BTreeMap::new(), beats: BTreeMap::new() };
        Self(Arc::new(Shared { epoch: Instant::now(), state: Mutex::new(state) }))
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health").field(&self.readiness()).finish()
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of another thread leaves the maps whole, so its poison is ignored.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a readiness check under a name; a check of the same name is replaced. It runs on every question, so it must
    /// not block.
    pub fn add_check(&self, name: impl Into<String>, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.state().probes.insert(name.into(), Box::new(probe));
    }

    /// Drops the check or heartbeat of this name.
    pub fn remove(&self, name: &str) {
        let mut state = self.state();
        state.probes.remove(name);
        state.beats.remove(name);
    }

    /// Adds a loop that must beat from now on.
    #[must_use]
    pub fn heartbeat(&self, name: impl Into<String>) -> Heartbeat {
        let beat = Heartbeat { epoch: self.0.epoch, last: Arc::new(AtomicU64::new(0)) };
        beat.beat();
        self.state().beats.insert(name.into(), Arc::clone(&beat.last));
        beat
    }

    /// Where in its life the process is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Moves to another phase.
    pub fn set_phase(&self, phase: Phase) {
        self.state().phase = phase;
    }

    /// Whether requests should be sent here: serving, every check well, every loop beating.
    #[must_use]
    pub fn readiness(&self) -> Report {
        let state = self.state();
        let mut checks = self.beats(&state, READY_LIMIT);
        for (name, probe) in &state.probes {
            let detail = probe().err();
            checks.push(Check { name: name.clone(), ok: detail.is_none(), detail });
        }
        let ok = state.phase == Phase::Serving && checks.iter().all(|check| check.ok);
        Report { ok, phase: state.phase, checks }
    }

    /// Whether the process should be left alive: every loop has beaten within [`LIVE_LIMIT`].
    #[must_use]
    pub fn liveness(&self) -> Report {
        let state = self.state();
        let checks = self.beats(&state, LIVE_LIMIT);
        Report { ok: checks.iter().all(|check| check.ok), phase: state.phase, checks }
    }

    fn beats(&self, state: &State, limit: Duration) -> Vec<Check> {
        let now = millis_since(self.0.epoch);
        let check = |(name, last): (&String, &Arc<AtomicU64>)| {
            let silent = Duration::from_millis(now.saturating_sub(last.load(Ordering::Relaxed)));
            let detail = (silent > limit).then(|| format!("silent for {} ms", silent.as_millis()));
            Check { name: name.clone(), ok: detail.is_none(), detail }
        };
        state.beats.iter().map(check).collect()
    }
}

/// The pulse of one loop.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    epoch: Instant,
    last: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Says that the loop is turning. Costs one clock read and one store.
    pub fn beat(&self) {
        self.last.store(millis_since(self.epoch), Ordering::Relaxed);
    }
}

/// Milliseconds since `epoch`, plus a minute: a beat can then be set back in a test of a process that has just started.
fn millis_since(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(60_000)
}

#[cfg(test)]
impl Heartbeat {
    /// Makes it look as if the last beat was `ago` in the past.
    pub(crate) fn stall(&self, ago: Duration) {
        let then = millis_since(self.epoch).saturating_sub(ago.as_millis() as u64);
        self.last.store(then, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn a3_readiness_follows_every_check_at_once() {
        let health = Health::default();
        assert!(!health.readiness().ok, "starting is not ready");
        health.set_phase(Phase::Serving);
        let broken = Arc::new(AtomicBool::new(false));
        for name in ["udp", "tcp"] {
            let broken = Arc::clone(&broken);
            health.add_check(
                name,
                move || {
                    if broken.load(Ordering::Relaxed) { Err("no answer".to_owned()) } else { Ok(()) }
                },
            );
        }
        assert!(health.readiness().ok);
        broken.store(true, Ordering::Relaxed);
        let report = health.readiness();
        assert!(!report.ok);
        assert_eq!(report.checks.iter().filter(|check| check.detail.as_deref() == Some("no answer")).count(), 2);
        broken.store(false, Ordering::Relaxed);
        assert!(health.readiness().ok);
        health.set_phase(Phase::Draining);
        assert!(!health.readiness().ok && health.liveness().ok);
    }

    #[test]
    fn f24_a_silent_loop_loses_readiness_first_and_liveness_later() {
        let health = Health::default();
        health.set_phase(Phase::Serving);
        let pulse = health.heartbeat("loop");
        assert!(health.readiness().ok && health.liveness().ok);
        pulse.stall(READY_LIMIT + Duration::from_millis(500));
        assert!(!health.readiness().ok && health.liveness().ok);
        pulse.stall(LIVE_LIMIT + Duration::from_millis(500));
        assert!(!health.liveness().ok);
        assert!(health.liveness().checks[0].detail.as_deref().unwrap().starts_with("silent for 15"));
        pulse.beat();
        assert!(health.readiness().ok && health.liveness().ok);
        pulse.stall(LIVE_LIMIT * 2);
        health.remove("loop");
        assert!(health.liveness().ok);
    }
}
