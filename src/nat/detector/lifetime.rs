//! How long a mapping lives when nothing passes, and which direction keeps it alive (RFC 4787 section 4.3, RFC 5780
//! section 4.6).
//!
//! A mapping that was probed may have been refreshed by the probe, so each is probed once: many sockets make their mapping
//! at the same time, and the one for age *a* is tried when it is that old. Another socket asks the server to answer to the
//! mapped port (RESPONSE-PORT); the answer arrives or the mapping is gone. Ages lie at half seconds, so that a lifetime of
//! whole seconds falls between two. Two more sockets are kept busy in one direction each; when the idle ones have died,
//! they tell what refreshes. All of it takes as long as the lifetime and one second.

use std::time::{Duration, Instant};

use super::{Detector, Phase};
use crate::nat::behaviour::{Dependence, Fact};
use crate::nat::client::{Ask, Budget, ExchangeId, Outcome, Request, Slot};

/// Ages up to this one are a second apart; above, as much further as keeps them within one part in sixty.
const FINE: Duration = Duration::from_secs(60);
/// The longest lifetime that is looked for.
const LONGEST: Duration = Duration::from_secs(600);
/// Tries of a check: all of them lost by chance are one in a hundred thousand at 5 % loss each way.
const TRIES: u8 = 5;
/// Between two packets that keep a mapping busy.
const BUSY: Duration = Duration::from_secs(1);
/// Between two sockets that make their mapping.
const SPACING: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
struct Idle {
    slot: Slot,
    made: Option<ExchangeId>,
    age: Duration,
    check: Option<ExchangeId>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Lifetime {
    is_planned: bool,
    next_at: Option<Instant>,
    /// Asks the server to answer to others.
    asker: Option<Slot>,
    asker_made: Option<ExchangeId>,
    idle: Vec<Idle>,
    /// Shows that the server answers to another port at all.
    control: Option<(Slot, ExchangeId, Option<ExchangeId>)>,
    /// Hears from the server and says nothing.
    listener: Option<(Slot, ExchangeId)>,
    listens: Vec<ExchangeId>,
    /// Speaks to the server and hears nothing.
    speaker: Option<(Slot, ExchangeId)>,
    busy_at: Option<Instant>,
    /// The last check of the speaker, once an idle mapping is gone.
    last_word: Option<ExchangeId>,
    last_listen: Option<ExchangeId>,
}

fn ages(longest: Duration) -> Vec<Duration> {
    let mut ages = Vec::new();
    let mut age = Duration::from_millis(500);
    while age <= longest.min(LONGEST) {
        ages.push(age);
        age += if age < FINE { Duration::from_secs(1) } else { age / 60 };
    }
    ages
}

impl Detector {
    pub(super) fn wake_for_lifetime(&self) -> Option<Instant> {
        if self.phase != Phase::Lifetime {
            return None;
        }
        let now = self.now?;
        let due = self.lifetime.idle.iter().filter(|idle| idle.check.is_none()).filter_map(|idle| self.due(idle));
        let next = [self.lifetime.next_at, self.lifetime.busy_at].into_iter().flatten().chain(due);
        next.filter(|at| *at > now).min().or_else(|| now.checked_add(Duration::from_millis(50)))
    }

    /// Begins, where there is anything to find out; whether it did.
    pub(super) fn begin_lifetime(&mut self, now: Instant) -> bool {
        let Some(longest) = self.config.lifetime else { return false };
        let nothing_expires = self.nat_fact().value == Some(false)
            && self.filters(super::weight::CORE) == [Dependence::EndpointIndependent];
        if self.home().is_none() || nothing_expires {
            return false;
        }
        let ages = ages(longest);
        let count = u16::try_from(ages.len()).unwrap_or(u16::MAX).saturating_add(8);
        self.config.sockets = self.next_slot.saturating_add(count);
        for _ in 0..6 {
            self.want_socket(None);
        }
        let packets = self.stats().sent.saturating_add(u32::from(count).saturating_mul(12)).saturating_add(2_000);
        self.client.set_budget(Budget { packets, bytes: u64::MAX });
        for age in ages {
            let Some(slot) = self.want_socket(None) else { break };
            // Not for others to take.
            self.depth.companions.insert(slot);
            self.lifetime.idle.push(Idle { slot, made: None, age, check: None });
        }
        self.lifetime.next_at = now.checked_add(SPACING);
        self.phase = Phase::Lifetime;
        true
    }

    pub(super) fn advance_lifetime(&mut self, now: Instant) {
        let Some(home) = self.home() else { return self.finish(now) };
        if !self.lifetime.is_planned {
            if self.idle.len() < 4 && !self.opening.is_empty() {
                return;
            }
            let fresh: Vec<Slot> = std::iter::from_fn(|| self.take_fresh()).take(4).collect();
            let [asker, control, listener, speaker] = *fresh.as_slice() else { return self.finish(now) };
            self.lifetime.is_planned = true;
            self.lifetime.asker = Some(asker);
            self.lifetime.asker_made = Some(self.ask_mapped(now, asker, home, TRIES));
            self.lifetime.control = Some((control, self.ask_mapped(now, control, home, TRIES), None));
            self.lifetime.listener = Some((listener, self.ask_mapped(now, listener, home, TRIES)));
            self.lifetime.speaker = Some((speaker, self.ask_mapped(now, speaker, home, TRIES)));
            self.lifetime.busy_at = now.checked_add(BUSY);
        }
        while self.lifetime.next_at.is_some_and(|at| now >= at) {
            let next = self.lifetime.idle.iter().position(|idle| idle.made.is_none());
            let Some(position) = next else {
                self.lifetime.next_at = None;
                break;
            };
            let slot = self.lifetime.idle.get(position).map(|idle| idle.slot);
            let made = slot.map(|slot| self.ask_mapped(now, slot, home, TRIES));
            if let Some(idle) = self.lifetime.idle.get_mut(position) {
                idle.made = made;
            }
            self.lifetime.next_at = self.lifetime.next_at.and_then(|at| at.checked_add(SPACING));
        }
        self.check_control(now);
        self.check_the_idle(now);
        self.keep_busy(now);
        self.have_the_last_word(now);
        if self.lifetime_is_done() {
            self.finish(now);
        }
    }

    /// Asks the server to answer to the mapping of another socket.
    fn call(&mut self, now: Instant, made: ExchangeId, at: Slot) -> Option<ExchangeId> {
        let (home, asker) = (self.home()?, self.lifetime.asker?);
        let mapped = self.client.exchange(made)?.answer()?.mapped()?;
        let own = self.client.exchange(self.lifetime.asker_made?)?.answer()?.mapped()?;
        if own.ip() != mapped.ip() {
            return None;
        }
        let mut request = Request::new(asker, home, Ask::AnswerTo(mapped.port()), TRIES);
        request.answer_at = Some(at);
        Some(self.client.start(now, request))
    }

    fn check_control(&mut self, now: Instant) {
        if let Some((slot, made, None)) = self.lifetime.control
            && let Some(check) = self.call(now, made, slot)
        {
            self.lifetime.control = Some((slot, made, Some(check)));
        }
    }

    /// When an idle mapping is as old as it is to be tried at.
    fn due(&self, idle: &Idle) -> Option<Instant> {
        let made = self.client.exchange(idle.made?)?;
        made.answer()?;
        made.tries.last()?.sent_at.checked_add(idle.age)
    }

    fn check_the_idle(&mut self, now: Instant) {
        if self.first_dead().is_some() {
            return;
        }
        for position in 0..self.lifetime.idle.len() {
            let Some(idle) = self.lifetime.idle.get(position).cloned() else { break };
            if idle.check.is_some() || self.due(&idle).is_none_or(|at| now < at) {
                continue;
            }
            let Some(made) = idle.made else { continue };
            let check = self.call(now, made, idle.slot);
            if let Some(idle) = self.lifetime.idle.get_mut(position) {
                idle.check = check;
            }
        }
    }

    fn keep_busy(&mut self, now: Instant) {
        if self.first_dead().is_some() || self.lifetime.busy_at.is_none_or(|at| now < at) {
            return;
        }
        self.lifetime.busy_at = now.checked_add(BUSY);
        if let (Some((slot, _)), Some(home)) = (self.lifetime.speaker, self.home()) {
            self.client.start(now, Request::new(slot, home, Ask::Indication, 1));
        }
        if let Some((slot, made)) = self.lifetime.listener {
            let call = self.call(now, made, slot);
            self.lifetime.listens.extend(call);
        }
    }

    fn have_the_last_word(&mut self, now: Instant) {
        if self.first_dead().is_none() || self.lifetime.last_word.is_some() {
            return;
        }
        if let Some((slot, made)) = self.lifetime.speaker {
            self.lifetime.last_word = self.call(now, made, slot);
        }
        if let Some((slot, made)) = self.lifetime.listener {
            self.lifetime.last_listen = self.call(now, made, slot);
        }
    }

    fn is_alive(&self, check: ExchangeId) -> Option<bool> {
        match self.outcome(check)? {
            Outcome::Answered { answer, .. } => Some(answer.error.is_none()),
            Outcome::Silent => Some(false),
            Outcome::Refused(_) | Outcome::OverBudget => None,
        }
    }

    fn control_works(&self) -> Option<bool> {
        self.is_alive(self.lifetime.control?.2?)
    }

    /// The youngest age at which a mapping was found gone, with everything asked later of the server answered.
    fn first_dead(&self) -> Option<Duration> {
        self.control_works().filter(|works| *works)?;
        let dead =
            self.lifetime.idle.iter().filter(|idle| idle.check.and_then(|check| self.is_alive(check)) == Some(false));
        dead.map(|idle| idle.age).min()
    }

    fn lifetime_is_done(&self) -> bool {
        if self.control_works() == Some(false) || self.made_in_vain() {
            return true;
        }
        let settled = |id: Option<ExchangeId>| id.is_some_and(|id| self.outcome(id).is_some());
        if self.first_dead().is_some() {
            return self.lifetime.last_word.is_none_or(|id| settled(Some(id)))
                && self.lifetime.last_listen.is_none_or(|id| settled(Some(id)));
        }
        !self.lifetime.idle.is_empty() && self.lifetime.idle.iter().all(|idle| settled(idle.check))
    }

    /// Whether the asker or the control never got a mapping, or has one on another address.
    fn made_in_vain(&self) -> bool {
        let made = [self.lifetime.asker_made, self.lifetime.control.map(|(_, made, _)| made)];
        let answered = made.into_iter().flatten().map(|id| {
            self.outcome(id)?;
            self.client.exchange(id)?.answer()?.mapped().map(|mapped| Some(mapped.ip())).or(Some(None))
        });
        let settled = made.into_iter().flatten().all(|id| self.outcome(id).is_some());
        let addresses: Vec<_> = answered.collect();
        settled && (addresses.iter().any(Option::is_none) || addresses.first() != addresses.last())
    }

    pub(super) fn lifetime_fact(&self) -> Fact<f64> {
        if self.config.lifetime.is_none() {
            return Fact::unknown("not asked for (--lifetime)");
        }
        if !self.lifetime.is_planned {
            return Fact::unknown("there is nothing that could expire, or nobody to ask");
        }
        if self.control_works() != Some(true) {
            return Fact::unknown("no server answers to another port of this host (RESPONSE-PORT of RFC 5780)");
        }
        let alive =
            self.lifetime.idle.iter().filter(|idle| idle.check.and_then(|check| self.is_alive(check)) == Some(true));
        let oldest = alive.map(|idle| idle.age).max().unwrap_or_default();
        let packets = self.lifetime.idle.iter().filter_map(|idle| idle.check);
        let packets =
            packets.filter_map(|id| self.client.exchange(id)).flat_map(|exchange| exchange.packets()).collect();
        match self.first_dead() {
            Some(dead) if dead < oldest => {
                Fact::unknown(format!("a mapping was gone after {dead:?} and another alive after {oldest:?}"))
            }
            Some(dead) => {
                let value = f64::midpoint(dead.as_secs_f64(), oldest.as_secs_f64());
                let because = format!(
                    "an idle mapping was alive after {:.1} s and gone after {:.1} s",
                    oldest.as_secs_f64(),
                    dead.as_secs_f64()
                );
                Fact::known((value * 10.0).round() / 10.0, because, packets)
            }
            None => Fact::unknown(format!("longer than {:.1} s, which was the limit", oldest.as_secs_f64())),
        }
    }

    pub(super) fn refresh_fact(&self, check: Option<ExchangeId>, direction: &str) -> Fact<bool> {
        let long_enough = self.first_dead().is_some_and(|dead| dead >= BUSY * 2);
        let known = check.and_then(|check| self.is_alive(check)).filter(|_| long_enough);
        let packets = || check.and_then(|id| self.client.exchange(id)).map(|it| it.packets()).unwrap_or_default();
        match known {
            Some(true) => {
                Fact::known(true, format!("kept alive by {direction} packets past the idle lifetime"), packets())
            }
            Some(false) => Fact::known(false, format!("gone in spite of {direction} packets once a second"), packets()),
            None => Fact::unknown("no lifetime to compare with"),
        }
    }

    pub(super) fn refreshes(&self) -> (Fact<bool>, Fact<bool>) {
        (
            self.refresh_fact(self.lifetime.last_word, "outgoing"),
            self.refresh_fact(self.lifetime.last_listen, "incoming"),
        )
    }
}
