//! `Group`: the handle by which the rest of the program agrees with its peers.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use openraft::{LinearizerOption, ReadPolicy};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::beats::Hurry;
use crate::errors::{AskError, NotLeading, ProposeError, StartError};
use crate::machine::{Inbox, Machine, Peer};
use crate::net::pool::CallError;
use crate::net::tls::Tls;
use crate::node::Node;
use crate::settings::Settings;
use crate::status::Status;
use crate::types::{Raft, metrics};
use crate::wire::message::{Lane, Request, Response};
use crate::{join, observe, propose, start};

/// A level voter takes over within two round trips and one sync.
const HAND_OVER: Duration = Duration::from_secs(2);
/// What is still at work on the store when the group closes is done by then.
const RELEASE: Duration = Duration::from_secs(1);

/// A running member of the group. Clones share one member; `close` ends it.
#[derive(Clone)]
pub struct Group {
    pub(crate) node: Arc<Node>,
}

fn not_leading(why: impl ToString) -> NotLeading {
    NotLeading { why: why.to_string() }
}

impl Group {
    /// Opens the store, binds the port and returns; forming or joining a group goes on in the background.
    pub async fn start(
        settings: Settings,
        machine: Box<dyn Machine>,
        inbox: Arc<dyn Inbox>,
    ) -> Result<Group, StartError> {
        Ok(Group {
            node: start::start(settings, machine, inbox).await?,
        })
    }

    /// What this node knows of the group.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.node.status.subscribe()
    }

    /// Has the group agree on a command; answers what `Machine::apply` answered on the leader. Forwarded once when
    /// another node leads; tried again until a deadline of 5 s while nobody does.
    pub async fn propose(&self, command: Vec<u8>) -> Result<Vec<u8>, ProposeError> {
        propose::propose(&self.node, command).await
    }

    /// ReadIndex: a quorum acknowledged this node's leadership after the call began, and everything committed before
    /// is applied here.
    pub async fn confirm(&self) -> Result<(), NotLeading> {
        let _hurry = self.node.beats.hurry();
        self.confirm_by(ReadPolicy::ReadIndex).await
    }

    /// The same, for whoever can wait for the heartbeat that is sent anyway: it costs no message.
    pub async fn confirm_by_heartbeat(&self) -> Result<(), NotLeading> {
        self.confirm_by(LinearizerOption::new(Some(Duration::ZERO), false))
            .await
    }

    async fn confirm_by(&self, how: impl Into<LinearizerOption>) -> Result<(), NotLeading> {
        let raft = self.leading()?;
        let deadline = Duration::from_millis(self.node.settings.election_max_ms);
        match timeout(deadline, raft.ensure_linearizable(how)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(not_leading(e)),
            Err(_) => Err(not_leading(format!("no quorum acknowledged within {deadline:?}"))),
        }
    }

    /// Waits for the next whole multiple of this period in this member's life, or rather for the heartbeat next to it, sent
    /// or heard: what is done then costs no wake-up.
    pub async fn beat(&self, period: Duration) {
        self.node.beats.next(period).await;
    }

    /// Between two heartbeats.
    pub fn heartbeat(&self) -> Duration {
        self.node.beats.heartbeat()
    }

    /// Until this is dropped, what comes at leisure is taken in as it comes.
    pub fn hurry(&self) -> Hurry {
        self.node.beats.hurry()
    }

    /// Sends a message beside the log to the peer's `Inbox`.
    pub async fn ask(&self, id: u64, message: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, AskError> {
        self.send(id, message, deadline, false).await
    }

    /// The same where message and answer may each lie until a heartbeat.
    pub async fn ask_at_leisure(
        &self,
        id: u64,
        message: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, AskError> {
        self.send(id, message, deadline, true).await
    }

    /// Has the peer's `Inbox` handle, with its next heartbeat perhaps, what needs no answer.
    pub async fn tell(&self, id: u64, message: Vec<u8>, deadline: Duration) -> Result<(), AskError> {
        let addr = self.addr_of(id).ok_or(AskError::NoSuchPeer(id))?;
        if self.node.pools.leisure(&addr) != Lane::Leisure {
            return self.send(id, message, deadline, true).await.map(drop);
        }
        let pool = self.node.pools.pool(&addr, id, Lane::Leisure);
        let told = pool.tell(&Request::Tell(message), deadline).await;
        told.map_err(|e| AskError::Unreachable {
            addr,
            why: e.to_string(),
        })
    }

    async fn send(
        &self,
        id: u64,
        message: Vec<u8>,
        deadline: Duration,
        leisure: bool,
    ) -> Result<Vec<u8>, AskError> {
        let addr = self.addr_of(id).ok_or(AskError::NoSuchPeer(id))?;
        let lane = match leisure {
            true => self.node.pools.leisure(&addr),
            false => Lane::Message,
        };
        let pool = self.node.pools.pool(&addr, id, lane);
        let unreachable = |why: String| AskError::Unreachable {
            addr: addr.clone(),
            why,
        };
        // The outer deadline is the one that fires, and closes the connection with the call.
        let request = Request::Message(message);
        let answer = async {
            match leisure {
                true => pool.call_at_leisure(&request, deadline * 2).await,
                false => pool.call(&request, deadline * 2).await,
            }
        };
        match timeout(deadline, answer).await {
            Ok(Ok(Response::Message(answer))) => Ok(answer),
            Ok(Ok(Response::Refused(why) | Response::Removed(why))) => Err(unreachable(why)),
            Ok(Ok(other)) => Err(unreachable(format!("it answered something else: {other:?}"))),
            Ok(Err(CallError::NotSent(why))) => Err(AskError::NotSent {
                addr: addr.clone(),
                why,
            }),
            Ok(Err(CallError::Lost(why))) => Err(unreachable(why)),
            Err(_) => Err(AskError::Deadline {
                addr: addr.clone(),
                deadline_ms: deadline.as_millis() as u64,
            }),
        }
    }

    /// Moves leadership to a voter that holds the whole log; answers once this node no longer leads.
    pub async fn hand_over(&self, to: u64) -> Result<(), NotLeading> {
        let raft = self.leading()?;
        let Some(term) = self.node.status.borrow().lead else {
            return Err(not_leading("no fresh quorum stands behind this node"));
        };
        let level = self.node.status.borrow().peers_level.contains(&(to, true));
        if !level {
            return Err(not_leading(format!("node {to} is not a level voter")));
        }
        raft.trigger().transfer_leader(to).await.map_err(not_leading)?;
        let gone = |status: &Status| status.lead != Some(term);
        match observe::wait(&self.node, HAND_OVER, gone).await {
            true => Ok(()),
            false => Err(not_leading(format!(
                "node {to} did not take over within {HAND_OVER:?}"
            ))),
        }
    }

    /// Reads the certificates again, for the connections to come; those that are open live on. Answers the serial number
    /// of this member's certificate when it is another one.
    ///
    /// # Errors
    /// The file that cannot be used; the old certificates stay in force.
    pub fn reload_certificates(&self) -> Result<Option<String>, StartError> {
        let settings = &self.node.settings;
        let Some(files) = &settings.tls else {
            return Ok(None);
        };
        let new = Tls::load(files, &settings.name)?;
        let serial = new.serial.clone();
        let mut tls = self
            .node
            .credentials
            .tls
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let old = tls.replace(new);
        Ok(Some(serial).filter(|serial| old.is_none_or(|old| old.serial != *serial)))
    }

    /// Takes a voter or learner out of the group; its id is never used again.
    pub async fn remove(&self, id: u64) -> Result<(), NotLeading> {
        join::remove(self.leading()?, id).await.map_err(not_leading)
    }

    /// This node's Raft id; 0 while an empty node has not yet been given one.
    pub fn id(&self) -> u64 {
        self.node.identity().id
    }

    /// Every member this node knows of, itself included, voters and learners.
    pub fn members(&self) -> Vec<Peer> {
        let Some(raft) = self.node.raft.get() else {
            return Vec::new();
        };
        let membership = metrics(raft).membership_config;
        membership
            .nodes()
            .map(|(id, member)| self.node.peer(*id, member))
            .collect()
    }

    /// Stops taking part, closes the port and the store.
    pub async fn close(&self) {
        self.node.abort_tasks();
        if let Some(raft) = self.node.raft.get()
            && let Err(e) = raft.shutdown().await
        {
            tracing::warn!("raft did not stop cleanly: {e}");
        }
        self.node.status.send_modify(|status| status.lead = None);
        let store = self
            .node
            .store
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // A snapshot that is being read or sent holds the store for a moment longer.
        let Some(store) = store else { return };
        let until = tokio::time::Instant::now() + RELEASE;
        while Arc::strong_count(&store) > 1 && tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn leading(&self) -> Result<&Raft, NotLeading> {
        self.node
            .raft
            .get()
            .ok_or_else(|| not_leading("this node has not joined a group yet"))
    }

    fn addr_of(&self, id: u64) -> Option<String> {
        let Some(raft) = self.node.raft.get() else {
            // A member without a port knows what it was told.
            let status = self.node.status.borrow();
            let mut peers = status.voters.iter().chain(&status.learners);
            return peers.find(|peer| peer.id == id).map(|peer| peer.addr.clone());
        };
        let membership = metrics(raft).membership_config;
        membership.get_node(&id).map(|member| member.addr.clone())
    }
}
