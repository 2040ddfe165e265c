//! Faults of one program's syncs: what was written stays, and the program is told that it may not.

use crate::chaos::arena::{Arena, NODES};
use crate::chaos::fault::{self, Fault, Hurt, Remedy};
use crate::rest;
use matriarch::clock::boot_ns;
use std::time::Duration;

/// Load makes PostgreSQL sync all the time; a daemon does so when something is agreed.
const WITNESS_NS: u64 = 15_000_000_000;

/// How often something is agreed so that a daemon has something to sync.
const AGREE_NS: u64 = 500_000_000;

/// Has the cluster agree on something that changes nothing. Nobody waits for the answer: who gives it may be about to end.
fn agree(arena: &Arena, except: usize, turn: u64) {
    let other = &arena.herd.nodes[(except + 1) % NODES];
    let ((ip, port), body) = (
        other.rest_addr(),
        format!(r#"{{"loop_wait": {}}}"#, 10 + turn % 20),
    );
    tokio::spawn(async move { rest::send(ip, port, "PATCH", "/config", &body).await });
}

/// Makes one of them happen.
pub async fn inject(fault: Fault, arena: &mut Arena, pick: u64) -> Result<Hurt, String> {
    // The primary's PostgreSQL is where it matters most, and a standby's acknowledges commits.
    let node = match pick % 3 {
        0 | 1 if fault == Fault::SyncPostgres => fault::primary(arena).await?,
        _ => fault::any(arena, pick / 3 % u64::try_from(NODES).unwrap())?,
    };
    let (program, word) = match fault {
        Fault::SyncPostgres => ("postgres", "PANIC:"),
        _ => ("matriarch", "Error:"),
    };
    let syncs = arena.syncs(node)?;
    let mark = arena.herd.nodes[node].log().len();
    syncs.begin(program)?;
    if fault == Fault::SyncDaemon {
        // Nobody starts it before its disk is well again.
        arena.held[node] = true;
    }
    let end = boot_ns() + WITNESS_NS;
    let (mut agreed, mut turn) = (boot_ns(), pick % 100);
    let said = loop {
        let log = arena.herd.nodes[node].log_since(mark);
        let line = log.lines().find(|line| line.contains(word)).map(str::to_owned);
        if syncs.refused(program) > 0
            && let Some(line) = line
        {
            break line;
        }
        if fault == Fault::SyncDaemon && boot_ns() > agreed {
            agreed = boot_ns() + AGREE_NS;
            turn += 1;
            agree(arena, node, turn);
        }
        if boot_ns() > end {
            break "it has said nothing of it yet".to_owned();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let refused = syncs.refused(program);
    if refused == 0 {
        syncs.end(program);
        return Err(format!(
            "{program} of {} synced nothing",
            arena.herd.nodes[node].name
        ));
    }
    let name = &arena.herd.nodes[node].name;
    let witness = format!("{refused} syncs of {program} on {name} have failed: {said}");
    Ok(Hurt::new(
        fault,
        vec![node],
        witness,
        vec![Remedy::Sync(node, program)],
    ))
}
