//! Answers the requests of one authenticated peer.

use std::sync::Arc;
use std::time::Duration;

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use tokio::time::timeout;

use crate::join;
use crate::machine::Peer;
use crate::node::Node;
use crate::propose;
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

    /// One request, one answer.
    pub(crate) async fn serve(&mut self, node: &Arc<Node>, request: Request) -> Response {
        match request {
            Request::Standing { .. } => Response::Standing(standing(node)),
            Request::Message(message) => {
                match timeout(WORK, node.inbox.handle(self.peer.clone(), message)).await {
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
                    .raft_request(raft, raft_request)
                    .await
                    .unwrap_or_else(Response::Refused),
            },
        }
    }

    async fn raft_request(&mut self, raft: &Raft, request: Request) -> Result<Response, String> {
        match request {
            Request::Append(append) => {
                self.own(&append.vote)?;
                let answer = raft
                    .append_entries(append_request(append)?)
                    .await
                    .map_err(|e| e.to_string())?;
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
fn standing(node: &Node) -> Standing {
    let formation = node.formation.get();
    let (founders, seen) = formation
        .map(|f| (f.founders.clone(), f.seen.clone()))
        .unwrap_or_default();
    if let Some(raft) = node.raft.get() {
        let metrics = metrics(raft);
        // Any election seen means that somebody may have counted on a vote or an entry by now.
        if formation.is_none() || metrics.current_term > 0 {
            let membership = &metrics.membership_config;
            let leader = metrics.current_leader.and_then(|id| membership.get_node(&id));
            return Standing::Member {
                leader: leader.map(|m| m.addr.clone()),
                founders,
                seen,
            };
        }
    }
    match formation {
        Some(_) => Standing::Formed { founders, seen },
        None if node.settings.may_form => Standing::Empty {
            founders: node.founders.clone(),
            claim: node.claim,
        },
        None => Standing::Joiner,
    }
}
