//! Deaths around a change of membership: a standby is taken out while a node dies, and let in again while one dies.
//!
//! Who is taken out hears of it and ends; a service manager would start it again and again, and it would be refused. Here
//! it is started when it has been let in, which is asked for as soon as the cluster can decide: that may be long after
//! the fault is over, where others hold nodes down.

use crate::chaos::arena::{Arena, NODES};
use crate::chaos::fault::{self, Fault, Hurt, Remedy};
use crate::processes;
use crate::rest;
use matriarch::clock::boot_ns;
use std::time::Duration;

/// An answer to an order that takes longer is not waited for: somebody may just have died.
const ORDER: Duration = Duration::from_secs(3);

/// How long a moment is waited for in which everybody is there.
const MOMENT_NS: u64 = 10_000_000_000;

/// A member that was taken out and is to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcast {
    /// Which.
    pub node: usize,
    /// Who dies while it joins, if it can be killed then.
    pub victim: usize,
    /// So long after it was started.
    pub after_ms: u64,
}

/// Takes a standby out, and kills a node while that is carried out.
pub async fn inject(arena: &mut Arena, pick: u64) -> Result<Hurt, String> {
    if !arena.outcasts.is_empty() {
        return Err("another one is out already".into());
    }
    let end = boot_ns() + MOMENT_NS;
    while !arena.herd.is_whole().await {
        if boot_ns() > end {
            return Err("not every node was there for 10 s, and nobody takes one out then".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let primary = fault::primary(arena).await?;
    let leaving = fault::standby(arena, pick).await?;
    let third = NODES - primary - leaving;
    let victim = fault::free(arena, [third, leaving, primary][at(pick / 2, 3)])?;
    let name = arena.herd.nodes[leaving].name.clone();
    let body = format!(r#"{{"name": "{name}", "force": true}}"#);
    let (ip, port) = arena.herd.nodes[primary].rest_addr();
    let asked = tokio::spawn(async move { rest::send(ip, port, "DELETE", "/members", &body).await });
    // From before it is agreed until after the vote is gone.
    tokio::time::sleep(Duration::from_millis(pick / 6 % 400)).await;
    let killed = processes::kill_all_of(&arena.herd.nodes[victim].dir);
    arena.held[victim] = true;
    arena.herd.nodes[victim].reap();
    arena.held[leaving] = true;
    let answer = match tokio::time::timeout(ORDER, asked).await {
        Ok(Ok(Some((status, text)))) => format!("{status} {text}"),
        _ => "no answer".to_owned(),
    };
    let witness = format!(
        "{name} is taken out ({answer}), {killed} processes of {} were alive and none is left",
        arena.herd.nodes[victim].name
    );
    let outcast = Outcast {
        node: leaving,
        victim: at(pick / 3, NODES),
        after_ms: pick / 9 % 1_500,
    };
    let mut remedies = vec![Remedy::LetIn(outcast)];
    if victim != leaving {
        remedies.push(Remedy::Start(victim));
    }
    let nodes = vec![leaving, victim];
    Ok(Hurt::new(Fault::KillInMembership, nodes, witness, remedies))
}

fn at(pick: u64, count: usize) -> usize {
    usize::try_from(pick % u64::try_from(count).unwrap()).unwrap()
}

/// Asks for everybody who was taken out to be let in, and starts who was. What it says is worth showing.
pub async fn let_in(arena: &mut Arena) -> Vec<String> {
    let mut said = Vec::new();
    for outcast in arena.outcasts.clone() {
        let Some(answer) = ask(arena, outcast.node).await else {
            continue;
        };
        arena.outcasts.retain(|other| *other != outcast);
        arena.held[outcast.node] = false;
        arena.supervise();
        said.push(answer);
        said.extend(kill_meanwhile(arena, outcast).await);
    }
    said
}

/// The answer, once somebody says that it may join.
async fn ask(arena: &Arena, outcast: usize) -> Option<String> {
    let body = format!(r#"{{"name": "{}"}}"#, arena.herd.nodes[outcast].name);
    for node in (0..NODES).filter(|node| *node != outcast && !arena.held[*node]) {
        let (ip, port) = arena.herd.nodes[node].rest_addr();
        let asked = rest::send(ip, port, "POST", "/members", &body);
        if let Ok(Some((200, text))) = tokio::time::timeout(ORDER, asked).await {
            return Some(text);
        }
    }
    None
}

async fn kill_meanwhile(arena: &mut Arena, outcast: Outcast) -> Option<String> {
    let victim = fault::free(arena, outcast.victim).ok()?;
    tokio::time::sleep(Duration::from_millis(outcast.after_ms)).await;
    // It may have ended by itself meanwhile, which is noted where daemons are looked after.
    arena.supervise();
    let killed = processes::kill_all_of(&arena.herd.nodes[victim].dir);
    arena.herd.nodes[victim].reap();
    arena.supervise();
    let names = [victim, outcast.node].map(|node| arena.herd.nodes[node].name.clone());
    Some(format!(
        "{} ({killed} processes) was killed and started {} ms after {} could join",
        names[0], outcast.after_ms, names[1]
    ))
}
