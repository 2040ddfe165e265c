//! Faults of the network: cuts inside the switch, proven by the packets that they swallow.

use crate::addresses::POSTGRES_PORT;
use crate::chaos::arena::{Arena, NODES};
use crate::chaos::cable::Cable;
use crate::chaos::fault::{self, Fault, Hurt, Remedy};
use crate::chaos::network::{Port, Toll, Way};
use matriarch::clock::boot_ns;
use std::time::Duration;

/// How long a cut may take to swallow its first packet: nodes speak several times a second, PostgreSQL when it has
/// something to say.
const WITNESS_NS: u64 = 5_000_000_000;

/// Makes one of them happen.
pub async fn inject(fault: Fault, arena: &mut Arena, pick: u64) -> Result<Hurt, String> {
    let (nodes, silent, ways) = ways(fault, arena, pick).await?;
    arena.cuts += 1;
    let name = format!("cut{}", arena.cuts);
    arena.network.cut(&name, &ways)?;
    let counts = match witness(arena, &name).await {
        Ok(counts) => counts,
        Err(why) => {
            arena.network.heal(&name)?;
            return Err(why);
        }
    };
    let names: Vec<&str> = nodes.iter().map(|i| arena.herd.nodes[*i].name.as_str()).collect();
    let witness = format!(
        "{}: {} ways cut, packets swallowed {counts:?}",
        names.join(" "),
        ways.len()
    );
    let hurt = Hurt::new(fault, nodes, witness, vec![Remedy::Reconnect(name)]);
    Ok(Hurt { silent, ..hurt })
}

/// Slow cables for all nodes. The proof: frames that came, among them some that had overtaken others.
pub async fn delay(arena: &mut Arena, pick: u64) -> Result<Hurt, String> {
    if !arena.cables.is_empty() {
        return Err("the cables are slow already".into());
    }
    for node in 0..NODES {
        match arena.network.long_cable(node, pick.wrapping_add(node as u64)) {
            Ok(cable) => arena.cables.push(cable),
            Err(why) => {
                hasten(arena);
                return Err(why);
            }
        }
    }
    let end = boot_ns() + WITNESS_NS;
    loop {
        let counts: Vec<[u64; 3]> = arena.cables.iter().map(Cable::counts).collect();
        if counts.iter().any(|[_, overtook, _]| *overtook > 0) {
            let witness = format!("frames late, overtaking, twice: {counts:?} so far");
            let nodes = (0..NODES).collect();
            return Ok(Hurt::new(Fault::Delay, nodes, witness, vec![Remedy::Hasten]));
        }
        if boot_ns() > end {
            hasten(arena);
            return Err(format!("no frame overtook another: {counts:?}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends it; what it says is worth showing.
pub fn hasten(arena: &mut Arena) -> Vec<String> {
    let counts: Vec<[u64; 3]> = arena.cables.drain(..).map(|cable| cable.counts()).collect();
    let mut said = vec![format!("frames late, overtaking, twice: {counts:?}")];
    said.extend((0..NODES).filter_map(|node| arena.network.short_cable(node).err()));
    said
}

type Plan = (Vec<usize>, Vec<usize>, Vec<Way>);

/// Nodes hit, nodes left without a majority, ways cut.
async fn ways(fault: Fault, arena: &Arena, pick: u64) -> Result<Plan, String> {
    let unseen = "no primary was to be seen";
    let herd = &arena.herd;
    let from_others = |node: usize| {
        let others = herd.others(node).into_iter();
        others.map(move |other| Way::one(Port::Node(other), Port::Node(node)))
    };
    let to_others = |node: usize| {
        let others = herd.others(node).into_iter();
        others.map(move |other| Way::one(Port::Node(node), Port::Node(other)))
    };
    let around = |node: usize| from_others(node).chain(to_others(node)).collect::<Vec<_>>();
    Ok(match fault {
        Fault::CutPrimary => {
            let node = herd.primary().await.ok_or(unseen)?;
            (vec![node], vec![node], around(node))
        }
        Fault::IsolatePrimary => {
            let node = herd.primary().await.ok_or(unseen)?;
            let mut ways = around(node);
            ways.extend(Way::both(Port::Node(node), Port::Clients));
            (vec![node], vec![node], ways)
        }
        Fault::CutLeader => {
            let node = herd.raft_leader().await.ok_or("no Raft leader was to be seen")?;
            (vec![node], vec![node], around(node))
        }
        Fault::CutStandby => {
            let node = fault::standby(arena, pick).await?;
            (vec![node], vec![node], around(node))
        }
        Fault::OneWayOut => {
            let node = herd.primary().await.ok_or(unseen)?;
            (vec![node], vec![node], to_others(node).collect())
        }
        Fault::OneWayIn => {
            let node = herd.primary().await.ok_or(unseen)?;
            (vec![node], vec![node], from_others(node).collect())
        }
        Fault::HalfOpen => {
            let node = herd.primary().await.ok_or(unseen)?;
            let standby = fault::standby(arena, pick).await?;
            let way = Way {
                source_port: Some(POSTGRES_PORT),
                ..Way::one(Port::Node(node), Port::Node(standby))
            };
            (vec![standby], Vec::new(), vec![way])
        }
        Fault::Ring => {
            let backwards = [(1, 0), (2, 1), (0, 2)];
            let ways = backwards.map(|(a, b)| Way::one(Port::Node(a), Port::Node(b)));
            (vec![0, 1, 2], vec![0, 1, 2], ways.to_vec())
        }
        Fault::CutLink => {
            let spared = usize::try_from(pick % 3).unwrap();
            let pair = herd.others(spared);
            let ways = Way::both(Port::Node(pair[0]), Port::Node(pair[1]));
            (pair, Vec::new(), ways.to_vec())
        }
        Fault::Lossy | Fault::SlowLink => {
            let toll = match fault {
                Fault::Lossy => Toll::Percent(25),
                _ => Toll::Above(40_000),
            };
            let ways = (0..3).flat_map(to_others).map(|way| Way { toll, ..way });
            (vec![0, 1, 2], Vec::new(), ways.collect())
        }
        _ => {
            let ways = (0..3).flat_map(to_others).collect();
            (vec![0, 1, 2], vec![0, 1, 2], ways)
        }
    })
}

/// Packets swallowed for each way, once every way has swallowed one; or once one has, at the deadline.
async fn witness(arena: &Arena, name: &str) -> Result<Vec<u64>, String> {
    let end = boot_ns() + WITNESS_NS;
    loop {
        let counts = arena.network.swallowed(name)?;
        if counts.iter().all(|count| *count > 0) {
            return Ok(counts);
        }
        if boot_ns() > end {
            // Nodes that another fault holds down say nothing.
            let any = counts.iter().any(|count| *count > 0);
            return if any {
                Ok(counts)
            } else {
                Err("the cut swallowed nothing".into())
            };
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
