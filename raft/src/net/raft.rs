//! openraft's network, over the pools.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};

use crate::net::pool::{Pool, Pools};
use crate::types::{Member, Snapshot, TypeConfig, Vote};
use crate::wire::message::{AppendAnswer, AppendBytes, BallotBytes, Lane, PieceBytes, Request, Response};
use crate::wire::stored::{EntryBytes, SnapshotHead};

/// Bytes of a snapshot in one frame.
const PIECE: usize = 1 << 20;
/// One piece, sent and answered; the last one also waits for the installation.
const PIECE_DEADLINE: Duration = Duration::from_secs(10);

/// Makes clients; connects nothing, because openraft awaits it inside its core.
pub(crate) struct Network {
    pub(crate) pools: Arc<Pools>,
    /// An append waits this long for the follower's disk. openraft's own limit (a heartbeat interval) would turn every
    /// slow sync into a retry and a new connection.
    pub(crate) append: Duration,
}

/// The way to one peer.
pub(crate) struct Client {
    pools: Arc<Pools>,
    target: u64,
    addr: String,
    rpc: Arc<Pool>,
    append: Duration,
    /// Of a client for heartbeats: one that is not answered when the next one goes is lost.
    heartbeat: Option<Duration>,
}

impl Network {
    fn client(&self, target: u64, node: &Member, lane: Lane) -> Client {
        Client {
            pools: self.pools.clone(),
            target,
            addr: node.addr.clone(),
            rpc: self.pools.pool(&node.addr, target, lane),
            append: self.append,
            heartbeat: (lane == Lane::Heartbeat).then(|| self.pools.heartbeat()),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Member) -> Client {
        self.client(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Client {
        self.client(target, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Client {
        self.client(target, node, Lane::Snapshot)
    }
}

type Failure = RPCError<TypeConfig>;

/// Always `Unreachable`: everything else makes openraft try again at once.
fn unreachable(why: impl ToString) -> Failure {
    RPCError::Unreachable(Unreachable::from_string(why))
}

fn unexpected(response: Response) -> Failure {
    match response {
        Response::Refused(why) => unreachable(why),
        other => unreachable(format!("the peer answered something else: {other:?}")),
    }
}

fn ballot(rpc: &VoteRequest<TypeConfig>) -> BallotBytes {
    BallotBytes {
        vote: (&rpc.vote).into(),
        last: rpc.last_log_id.as_ref().map(Into::into),
        transfer: rpc.leadership_transfer,
    }
}

impl Client {
    /// Every Raft request may be repeated, so whether the first one arrived does not matter.
    async fn request(&self, request: &Request, deadline: Duration) -> Result<Response, Failure> {
        self.rpc.call(request, deadline).await.map_err(unreachable)
    }

    async fn vote_request(
        &self,
        request: &Request,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        match self.request(request, option.hard_ttl()).await? {
            Response::Vote { vote, granted, last } => {
                Ok(VoteResponse::new(Vote::from(vote), last.map(Into::into), granted))
            }
            other => Err(unexpected(other)),
        }
    }

    async fn send_pieces(
        &self,
        vote: &Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, Failure> {
        let head = SnapshotHead::from(&snapshot.meta);
        let total = snapshot.snapshot.len() as u64;
        let mut offset = 0;
        let mut rest = snapshot.snapshot.as_slice();
        loop {
            let (piece, after) = rest.split_at(rest.len().min(PIECE));
            let request = Request::Piece(PieceBytes {
                vote: vote.into(),
                head: head.clone(),
                total,
                offset,
                bytes: piece.to_vec(),
            });
            let answered = match self.request(&request, PIECE_DEADLINE).await? {
                Response::Piece { vote } => Vote::from(vote),
                other => return Err(unexpected(other)),
            };
            offset += piece.len() as u64;
            rest = after;
            if rest.is_empty() || answered > *vote {
                return Ok(SnapshotResponse::new(answered));
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Failure> {
        let request = Request::Append(AppendBytes {
            vote: (&rpc.vote).into(),
            previous: rpc.prev_log_id.as_ref().map(Into::into),
            entries: rpc.entries.iter().map(EntryBytes::from).collect(),
            commit: rpc.leader_commit.as_ref().map(Into::into),
        });
        let answer = match self.heartbeat {
            Some(deadline) => self
                .rpc
                .call_at_leisure(&request, deadline)
                .await
                .map_err(unreachable)?,
            None => self.request(&request, self.append).await?,
        };
        match answer {
            Response::Append(AppendAnswer::Success) => Ok(AppendEntriesResponse::Success),
            Response::Append(AppendAnswer::Partial(id)) => {
                Ok(AppendEntriesResponse::PartialSuccess(id.map(Into::into)))
            }
            Response::Append(AppendAnswer::Conflict) => Ok(AppendEntriesResponse::Conflict),
            Response::Append(AppendAnswer::HigherVote(vote)) => {
                Ok(AppendEntriesResponse::HigherVote(vote.into()))
            }
            other => Err(unexpected(other)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.vote_request(&Request::Vote(ballot(&rpc)), &option).await
    }

    /// Asked in earnest: openraft's default would grant without asking, and a node back from a pause would depose a
    /// healthy leader.
    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failure> {
        self.vote_request(&Request::PreVote(ballot(&rpc)), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_pieces(&vote, snapshot) => sent.map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Failure> {
        let request = Request::Transfer {
            from: req.from_leader().into(),
            to: *req.to_node_id(),
            last: req.last_log_id().map(Into::into),
        };
        let pool = self.pools.pool(&self.addr, self.target, Lane::Append);
        match pool
            .call(&request, option.hard_ttl())
            .await
            .map_err(unreachable)?
        {
            Response::Transfer { accepted: true } => Ok(Ok(())),
            Response::Transfer { accepted: false } => Err(unreachable("the peer declined the leadership")),
            other => Err(unexpected(other)),
        }
    }
}
