//! Answers the requests of one authenticated peer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use tokio::time::{Instant, timeout};

use crate::join;
use crate::machine::Peer;
use crate::node::Node;
use crate::portless;
use crate::propose;
use crate::store::log::LogStore;
use crate::types::{Entry, Raft, Snapshot, SnapshotMeta, TypeConfig, Vote, metrics};
use crate::wire::message::{AppendAnswer, AppendBytes, BallotBytes, PieceBytes, Request, Response, Standing};
use crate::wire::stored::{EntryBytes, SnapshotHead, VoteBytes};

/// Longest a peer's message may be worked on; its own deadline is shorter as a rule.
const WORK: Duration = Duration::from_secs(30);
/// Largest snapshot a peer may announce.
const SNAPSHOT_LIMIT: u64 = 1 << 30;

/// One connection's state: who it is, and the snapshot it is sending.
pub(crate) struct Session {
    pub(crate) peer: Peer,
    incoming: Option<Incoming>,
}

/// A snapshot of which some pieces have arrived.
struct Incoming {
    head: SnapshotHead,
    total: u64,
    bytes: Vec<u8>,
}

impl Session {
    pub(crate) fn new(peer: Peer) -> Session {
        Session { peer, incoming: None }
    }

    /// A message that nobody answers; of whoever has no place in the group it is not taken in.
    pub(crate) async fn told(&self, node: &Node, message: Vec<u8>, lain: Duration) {
        if node.inbox.admits(&self.peer).is_ok() {
            let heard = node.inbox.handle(self.peer.clone(), message, lain);
            let _ = timeout(WORK, heard).await;
        }
    }

    /// One request, which may have lain unread for so long, and one answer.
    pub(crate) async fn serve(&mut self, node: &Arc<Node>, request: Request, lain: Duration) -> Response {
        // Whoever was taken out may know that there is a group: then it asks to join, and hears why not.
        if let Request::Standing { .. } = request {
            return standing(node);
        }
        if let Err(why) = node.inbox.admits(&self.peer) {
            return Response::Removed(why);
        }
        match request {
            Request::Watch { applied, leader } => portless::tell(node, applied, leader).await,
            Request::Message(message) => {
                match timeout(WORK, node.inbox.handle(self.peer.clone(), message, lain)).await {
                    Ok(answer) => Response::Message(answer),
                    Err(_) => Response::Refused(format!("the message was not answered within {WORK:?}")),
                }
            }
            Request::Join { addr, incarnation } => {
                if addr != self.peer.addr {
                    return Response::Refused(format!("{} asks to join as {addr}", self.peer.addr));
                }
                Response::Join(join::admit(node, &addr, incarnation).await)
            }
            Request::Propose(command) => Response::Propose(propose::as_leader(node, command).await),
            raft_request => match node.raft.get() {
                None => Response::Refused("this node has not joined a group yet".to_owned()),
                Some(raft) => self
                    .raft_request(node, raft, raft_request)
                    .await
                    .unwrap_or_else(Response::Refused),
            },
        }
    }

    async fn raft_request(&mut self, node: &Node, raft: &Raft, request: Request) -> Result<Response, String> {
        match request {
            Request::Append(append) => {
                self.own(&append.vote)?;
                let at = Instant::now();
                let answer = raft
                    .append_entries(append_request(append)?)
                    .await
                    .map_err(|e| e.to_string())?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    node.heard(at);
                }
                Ok(Response::Append(append_answer(answer)))
            }
            Request::Vote(ballot) => {
                self.own(&ballot.vote)?;
                let answer = raft.vote(vote_request(ballot)).await.map_err(|e| e.to_string())?;
                Ok(vote_answer(answer))
            }
            // openraft's own answer to a pre-vote: granted only to a log that is not older than ours, and only when we
            // have not heard from a leader within the election timeout.
            Request::PreVote(ballot) => {
                self.own(&ballot.vote)?;
                let answer = raft
                    .pre_vote(vote_request(ballot))
                    .await
                    .map_err(|e| e.to_string())?;
                Ok(vote_answer(answer))
            }
            Request::Transfer { from, to, last } => {
                self.own(&from)?;
                let request = TransferLeaderRequest::new(from.into(), to, last.map(Into::into));
                let answer = raft
                    .handle_transfer_leader(request)
                    .await
                    .map_err(|e| e.to_string())?;
                Ok(Response::Transfer {
                    accepted: answer.is_ok(),
                })
            }
            Request::Piece(piece) => self.piece(raft, piece).await,
            other => Err(format!("not a request of Raft: {other:?}")),
        }
    }

    /// A peer speaks for itself only.
    fn own(&self, vote: &VoteBytes) -> Result<(), String> {
        match vote.node == self.peer.id {
            true => Ok(()),
            false => Err(format!("node {} speaks for node {}", self.peer.id, vote.node)),
        }
    }

    async fn piece(&mut self, raft: &Raft, piece: PieceBytes) -> Result<Response, String> {
        self.own(&piece.vote)?;
        if piece.total > SNAPSHOT_LIMIT {
            return Err(format!("a snapshot of {} bytes exceeds the limit", piece.total));
        }
        if piece.offset == 0 {
            self.incoming = Some(Incoming {
                head: piece.head.clone(),
                total: piece.total,
                bytes: Vec::new(),
            });
        }
        let incoming = self
            .incoming
            .as_mut()
            .ok_or("the snapshot's first piece is missing")?;
        let fits = incoming.head == piece.head
            && incoming.total == piece.total
            && incoming.bytes.len() as u64 == piece.offset
            && piece.offset + piece.bytes.len() as u64 <= piece.total;
        if !fits {
            self.incoming = None;
            return Err("the snapshot's pieces do not fit each other".to_owned());
        }
        incoming.bytes.extend_from_slice(&piece.bytes);
        if (incoming.bytes.len() as u64) < incoming.total {
            // The sender's vote unchanged says: go on.
            return Ok(Response::Piece { vote: piece.vote });
        }
        let Some(whole) = self.incoming.take() else {
            return Err("the snapshot is gone".to_owned());
        };
        let meta = SnapshotMeta::try_from(whole.head).map_err(|e| e.to_string())?;
        let snapshot = Snapshot {
            meta,
            snapshot: whole.bytes,
        };
        let vote = Vote::from(piece.vote);
        let answer = raft
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(|e| e.to_string())?;
        Ok(Response::Piece {
            vote: (&answer.vote).into(),
        })
    }
}

fn append_request(append: AppendBytes) -> Result<AppendEntriesRequest<TypeConfig>, String> {
    let entries: Result<Vec<Entry>, _> = append.entries.into_iter().map(EntryBytes::into_entry).collect();
    Ok(AppendEntriesRequest {
        vote: append.vote.into(),
        prev_log_id: append.previous.map(Into::into),
        entries: entries.map_err(|e| e.to_string())?,
        leader_commit: append.commit.map(Into::into),
    })
}

fn append_answer(answer: AppendEntriesResponse<TypeConfig>) -> AppendAnswer {
    match answer {
        AppendEntriesResponse::Success => AppendAnswer::Success,
        AppendEntriesResponse::PartialSuccess(id) => AppendAnswer::Partial(id.as_ref().map(Into::into)),
        AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
        AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote((&vote).into()),
    }
}

fn vote_request(ballot: BallotBytes) -> VoteRequest<TypeConfig> {
    let mut request = VoteRequest::new(ballot.vote.into(), ballot.last.map(Into::into));
    request.leadership_transfer = ballot.transfer;
    request
}

fn vote_answer(answer: openraft::raft::VoteResponse<TypeConfig>) -> Response {
    Response::Vote {
        vote: (&answer.vote).into(),
        granted: answer.vote_granted,
        last: answer.last_log_id.as_ref().map(Into::into),
    }
}

/// How far this node is, for a partner that is still looking for its group.
fn standing(node: &Node) -> Response {
    let Some(raft) = node.raft.get() else {
        return match (node.settled.load(Ordering::SeqCst), node.settings.may_form) {
            // Whether it saw an election will be known in a moment; until then it says nothing.
            (true, _) => Response::Refused("this node is starting".to_owned()),
            (false, true) => {
                let founders = node.founders.clone();
                Response::Standing(Standing::Empty {
                    founders,
                    claim: node.claim,
                })
            }
            (false, false) => Response::Standing(Standing::Joiner),
        };
    };
    let formation = node.formation.get();
    let (founders, seen) = formation
        .map(|f| (f.founders.clone(), f.seen.clone()))
        .unwrap_or_default();
    // From the store too: openraft's first metrics precede what it loads.
    let stored = node.store().and_then(|store| LogStore::new(store).stored_vote());
    let Ok(stored) = stored else {
        return Response::Refused("this node's store cannot be read".to_owned());
    };
    let metrics = metrics(raft);
    // Any election seen means that somebody may have counted on a vote or an entry by now.
    let saw_election = metrics.current_term > 0 || stored.is_some_and(|vote| vote.leader_id.term > 0);
    if formation.is_some() && !saw_election {
        return Response::Standing(Standing::Formed { founders, seen });
    }
    let leader = metrics
        .current_leader
        .and_then(|id| metrics.membership_config.get_node(&id));
    let leader = leader.map(|m| m.addr.clone());
    Response::Standing(Standing::Member {
        leader,
        founders,
        seen,
    })
}
