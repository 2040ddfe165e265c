//! What operators ask for: another primary, a pause and its end, another ttl; and what must become of it.

use super::agent::place;
use super::faults::{Fault, Who};
use super::postgres::Proc;
use super::world::{Event, World};
use matriarch::cluster::{Act, Command, HandoverOrder, State, Vote};
use matriarch::lead::desk::Agreed;
use std::rc::Rc;

/// Later than this after its time nothing that was scheduled begins: one and a half `loop_wait`, and a proposal.
const LATE_MS: u64 = 21_000;
/// By then every leader that can promote anybody has heard of a tag.
const TAG_HEARD_US: u64 = 11_500_000;
/// An operator tries again so soon.
const AGAIN_MS: u64 = 200;

/// The time of a story, which begins in 1970, as an operator types it.
fn iso(ms: u64) -> String {
    let (minutes, seconds) = (ms / 60_000, ms / 1_000 % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    format!(
        "1970-01-01T{hours:02}:{minutes:02}:{seconds:02}.{:03}+00:00",
        ms % 1_000
    )
}

impl World {
    /// What was judged is agreed on, unless something else is first.
    pub fn order(&mut self, act: impl FnOnce(&mut Self, usize, &Rc<State>) -> Option<Act>) {
        let leader = self.who(Who::Leader);
        let node = &self.nodes[leader];
        let Some(term) = node.raft.lead(self.now, true).filter(|_| node.daemon.is_some()) else {
            return;
        };
        let state = node.state.clone();
        let Some(act) = act(self, leader, &state) else {
            return;
        };
        let rule = match &act {
            Act::Ask(asked) => asked.word(),
            Act::Dismiss { .. } => "member-remove",
            Act::Readmit { .. } => "member-add",
            _ => "configure",
        };
        let command = Command {
            expected: Some(state.revision),
            vote: Vote {
                term,
                node: leader as u64 + 1,
            },
            rule: rule.to_owned(),
            reason: String::new(),
            at_ms: 0,
            act,
        };
        if let Some((_, _, out)) = self.nodes[leader].raft.propose(Rc::new(command), self.now) {
            self.send_raft(leader, out);
            self.after_raft(leader);
        }
    }

    /// At once, or in so many milliseconds.
    pub fn switchover(&mut self, to: Option<Who>, in_ms: Option<u64>) {
        let candidate = to.map(|who| self.nodes[self.who(who)].name.0.clone());
        let holder = self.agreed().primacy.last().map(|(holder, _)| holder.0.clone());
        self.ask(HandoverOrder {
            failover: false,
            leader: holder,
            candidate,
            scheduled_at: in_ms.map(|in_ms| iso(self.now / 1_000 + in_ms)),
            accept_data_loss: false,
        });
    }

    /// Nobody says so of a machine that runs, and it is said for one that does.
    pub fn accept_loss(&mut self, to: Who) {
        let (lost, first, count) = (self.who(Who::Primary), self.who(to), self.nodes.len());
        let mut others = (first..first + count).map(|n| n % count);
        let fit = |n: &usize| *n != lost && self.nodes[*n].up && !self.nodes[*n].witness;
        if !self.nodes[lost].up
            && let Some(to) = others.find(fit)
        {
            self.failover(Who::Node(to), true);
        }
    }

    /// In a pause the word that accepts a loss says too that the primary is gone: no operator of ours lies.
    pub fn failover(&mut self, to: Who, accept_data_loss: bool) {
        let primary = &self.nodes[self.who(Who::Primary)];
        if accept_data_loss && self.agreed().pause.is_unbounded() && primary.pg.proc != Proc::Down {
            return;
        }
        let candidate = Some(self.nodes[self.who(to)].name.0.clone());
        self.ask(HandoverOrder {
            failover: true,
            leader: None,
            candidate,
            scheduled_at: None,
            accept_data_loss,
        });
    }

    pub fn unschedule(&mut self) {
        self.order(|_, _, state| {
            let asked = state.handover.as_ref()?;
            asked
                .under_way
                .is_none()
                .then_some(Act::CallOff { asked: asked.asked })
        });
    }

    fn ask(&mut self, order: HandoverOrder) {
        self.order(|world, leader, state| {
            let (now, wall_ms) = (world.moment(leader), world.now / 1_000);
            let node = &world.nodes[leader];
            let settings = node.settings.clone();
            let agreed = Agreed {
                state,
                settings: &settings,
                voters: world.nodes.len(),
            };
            let desk = &node.daemon.as_ref()?.desk;
            let judged = desk.look(&agreed, now, wall_ms, |view| {
                matriarch::lead::asked_handover(view, &order)
            })?;
            match judged {
                Ok(asked) => {
                    world.oracle.handovers += 1;
                    Some(Act::Ask(asked))
                }
                Err(refused) => {
                    world.say(|| format!("{leader}: refuses {order:?}: {}", refused.text));
                    None
                }
            }
        });
    }

    fn configure(&mut self, paused: bool, ttl_ms: Option<u64>) {
        self.order(|_, _, state| {
            let ttl_ms = ttl_ms.unwrap_or(state.ttl_ms);
            Some(Act::Configure {
                paused,
                config: super::with_ttl(&state.config, ttl_ms),
                ttl_ms,
            })
        });
    }

    pub fn configure_ttl(&mut self, ttl_ms: u64) {
        let paused = self.agreed().pause.is_on();
        self.configure(paused, Some(ttl_ms));
    }

    pub fn pause(&mut self) {
        self.configure(true, None);
    }

    /// Asked for until it is agreed, also where the pause itself was proposed and nobody knows what becomes of it.
    pub fn resume(&mut self) {
        let pauses = |act: &Act| matches!(act, Act::Configure { paused: true, .. });
        if !self.agreed().pause.is_on() && !self.is_under_way(pauses) {
            return;
        }
        self.configure(false, None);
        self.soon(AGAIN_MS, AGAIN_MS + 1, Event::Fault(Fault::Resume));
    }

    /// Some voter's log has this act, which that voter has not applied yet: it may still be agreed.
    pub fn is_under_way(&self, act: impl Fn(&Act) -> bool) -> bool {
        self.nodes.iter().any(|node| {
            let mut open = node.raft.log.iter().skip(node.raft.applied);
            open.any(|entry| entry.command.as_ref().is_some_and(|command| act(&command.act)))
        })
    }

    /// P5: what an operator asked for has an end, and the cluster serves.
    pub fn check_settled(&mut self) {
        if let Some(asked) = &self.agreed().handover {
            let what = format!("P5: a {} asked for in calm is not over: {asked:?}", asked.word());
            return self.break_promise(what);
        }
        if self.oracle.gate_answer_at + 1_000_000 < self.now {
            self.break_promise("P5: nobody serves after what was asked for in calm".to_owned());
        }
    }

    /// P7: in a pause nobody starts, stops, rewinds or copies a server but for an operator.
    pub fn check_hands_off(&mut self, n: usize, what: &str) {
        let node = &self.nodes[n];
        let Some(daemon) = node.daemon.as_ref().filter(|daemon| daemon.caught_up) else {
            return;
        };
        if node.state.pause.is_on() && !daemon.finishing {
            self.break_promise(format!("P7: {n} {what} in a pause"));
        }
    }

    /// P7: in a pause primacy moves for nobody but an operator, or where it was on its way.
    pub fn check_unmoved(&mut self, n: usize, before: &State, command: &Command) {
        let moves = matches!(
            command.act,
            Act::Promote { .. } | Act::Restart { .. } | Act::Fence { .. } | Act::Elect { .. }
        );
        let ordered = before
            .handover
            .as_ref()
            .is_some_and(|asked| asked.under_way.is_some());
        let under_way = before.primacy.fencing().is_some();
        if moves && before.pause.is_on() && !ordered && !under_way {
            self.break_promise(format!("P7: {n} applied {:?} in a pause", command.act));
        }
    }

    /// What operators said bounds what is decided: looked at where a command is applied first.
    pub fn check_ordered(&mut self, n: usize, before: &State, command: &Command) {
        if self.agreed().revision != before.revision {
            return;
        }
        match &command.act {
            Act::Begin { .. } => self.check_begun(n, before),
            Act::Promote { member, epoch, .. } | Act::Elect { member, epoch, .. } => {
                let lossy = before.handover.as_ref().is_some_and(|asked| asked.accept_loss);
                if lossy && command.rule == "manual failover" {
                    self.oracle.may_lose(*epoch);
                }
                let to = place(before, member);
                let tagged =
                    self.oracle.tagged_since[to].is_some_and(|since| self.now > since + TAG_HEARD_US);
                if tagged {
                    self.break_promise(format!(
                        "P3: {n} makes {to} primary, which is never to be promoted"
                    ));
                }
                if before.is_removed(member) {
                    self.break_promise(format!("P3: {n} makes {to} primary, which is taken out"));
                }
            }
            _ => {}
        }
    }

    /// P5: what is scheduled begins at its time, P7: and not in a pause.
    fn check_begun(&mut self, n: usize, before: &State) {
        self.oracle.scheduled += 1;
        let at = before.handover.as_ref().and_then(|asked| asked.at.as_ref());
        let (at_ms, now_ms) = (at.map_or(0, |at| at.ms), self.now / 1_000);
        if now_ms < at_ms || now_ms > at_ms + LATE_MS {
            self.break_promise(format!(
                "P5: {n} begins at {now_ms} ms what is scheduled for {at_ms} ms"
            ));
        }
        if before.pause.is_on() {
            self.break_promise(format!("P7: {n} begins a scheduled switchover in a pause"));
        }
    }
}
