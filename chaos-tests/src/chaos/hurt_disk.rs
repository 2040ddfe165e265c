//! Faults of disks: full, without power, and a Raft store that is lost or damaged.

use crate::chaos::arena::{Arena, NODES};
use crate::chaos::fault::{self, Fault, Hurt, Remedy};
use crate::chaos::hurt_process::kill_nodes;
use crate::processes;
use matriarch::clock::boot_ns;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A daemon that still runs after this long has accepted its store.
const REFUSAL_NS: u64 = 3_000_000_000;

/// Makes one of them happen.
pub async fn inject(fault: Fault, arena: &mut Arena, pick: u64) -> Result<Hurt, String> {
    match fault {
        Fault::DiskFull => {
            let node = fault::primary(arena).await?;
            let disk = arena.disk(node)?;
            if disk.is_filled() {
                return Err("it is full already".into());
            }
            disk.fill()?;
            let witness = format!("{}: a write failed", arena.herd.nodes[node].name);
            Ok(Hurt::new(fault, vec![node], witness, vec![Remedy::Empty(node)]))
        }
        Fault::DiskDead => {
            let node = fault::primary(arena).await?;
            arena.disk(node)?.cut_power()?;
            // What runs there is left alone; what ends there cannot be started before the disk is back.
            arena.held[node] = true;
            let witness = format!("{}: a file could not be made", arena.herd.nodes[node].name);
            Ok(Hurt::new(fault, vec![node], witness, vec![Remedy::Repair(node)]))
        }
        Fault::PowerOne => {
            let node = fault::any(arena, pick)?;
            cut_power(fault, arena, &[node])
        }
        Fault::PowerTwo => {
            let spared = fault::any(arena, pick)?;
            let others = arena.herd.others(spared);
            let hurt = cut_power(fault, arena, &others)?;
            Ok(Hurt {
                silent: vec![spared],
                ..hurt
            })
        }
        Fault::PowerAll => cut_power(fault, arena, &(0..NODES).collect::<Vec<_>>()),
        Fault::RaftLost => {
            let node = one_store_only(arena, pick).await?;
            let hurt = kill_nodes(fault, arena, &[node])?;
            arena.herd.nodes[node].wipe_raft();
            Ok(Hurt {
                witness: "its Raft directory existed and is gone".into(),
                ..hurt
            })
        }
        _ => {
            let node = one_store_only(arena, pick).await?;
            let hurt = kill_nodes(fault, arena, &[node])?;
            let witness = damage(fault, &arena.herd.nodes[node].dir.join("raft"), pick)?;
            Ok(Hurt {
                witness,
                remedies: vec![Remedy::StartDamaged(node)],
                ..hurt
            })
        }
    }
}

/// A node whose store may be taken: only while all others have theirs. Two of three stores are the group's memory, and
/// who loses both must be asked, not healed.
async fn one_store_only(arena: &Arena, pick: u64) -> Result<usize, String> {
    let node = fault::any(arena, pick)?;
    if arena.herd.is_whole().await {
        Ok(node)
    } else {
        Err("not every node is there, and a second store must not be lost".into())
    }
}

fn cut_power(fault: Fault, arena: &mut Arena, nodes: &[usize]) -> Result<Hurt, String> {
    let mut disks = Vec::new();
    for node in nodes {
        fault::free(arena, *node)?;
        disks.push(arena.disk(*node)?);
    }
    // A machine without power does not see its disk fail: everything stands still before the disk does.
    let freezers: Vec<_> = nodes
        .iter()
        .filter_map(|node| arena.freezer(*node).ok())
        .collect();
    for freezer in &freezers {
        freezer.set(true)?;
    }
    for disk in &disks {
        disk.cut_power()?;
    }
    let hurt = kill_nodes(fault, arena, nodes);
    for freezer in &freezers {
        freezer.set(false)?;
    }
    for disk in &disks {
        disk.restore_power()?;
    }
    let hurt = hurt?;
    let witness = format!("a write failed on each disk; {}", hurt.witness);
    Ok(Hurt { witness, ..hurt })
}

/// Brings a dead disk back as it was, and the node with it.
pub fn repair(arena: &mut Arena, node: usize) -> Result<(), String> {
    processes::kill_all_of(&arena.herd.nodes[node].dir);
    if arena.herd.nodes[node].has_daemon() {
        arena.herd.nodes[node].reap();
    }
    arena.disk(node)?.restore_power()?;
    arena.held[node] = false;
    arena.supervise();
    Ok(())
}

/// Damages the largest file of a store, where the choice says.
fn damage(fault: Fault, store: &Path, pick: u64) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut files = Vec::new();
    collect(store, &mut files);
    let (_, path) = files.into_iter().max().ok_or("the store has no file")?;
    let name = path.strip_prefix(store).unwrap_or(&path).display().to_string();
    // The engine writes ahead into zeros: what lies behind the last byte that is not zero says nothing to anybody.
    let bytes = std::fs::read(&path).map_err(text)?;
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let size = u64::try_from(used).unwrap();
    if size < 2 {
        return Err("the store's largest file is empty".into());
    }
    let mut position = pick % size;
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(text)?;
    if fault == Fault::RaftTruncated {
        position = size / 2 + position / 2;
        file.set_len(position).map_err(text)?;
        return Ok(format!("{name} had {size} bytes in use and has {position}"));
    }
    let mut byte = [0_u8];
    file.seek(SeekFrom::Start(position)).map_err(text)?;
    file.read_exact(&mut byte).map_err(text)?;
    let flipped = [byte[0] ^ (1 << (pick % 8))];
    file.seek(SeekFrom::Start(position)).map_err(text)?;
    file.write_all(&flipped).map_err(text)?;
    Ok(format!(
        "{name}: byte {position} of {size} was {:#x} and is {:#x}",
        byte[0], flipped[0]
    ))
}

fn collect(dir: &Path, files: &mut Vec<(u64, PathBuf)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => collect(&path, files),
            Ok(meta) => files.push((meta.len(), path)),
            Err(_) => {}
        }
    }
}

/// Starts a node whose store is damaged. If it refuses, the store is removed as an operator would do it.
pub async fn start_damaged(arena: &mut Arena, node: usize) -> String {
    arena.herd.nodes[node].start();
    let end = boot_ns() + REFUSAL_NS;
    let name = arena.herd.nodes[node].name.clone();
    while boot_ns() < end {
        if let Some(status) = arena.herd.nodes[node].exit() {
            let last = arena.herd.nodes[node].log_tail(1);
            processes::kill_all_of(&arena.herd.nodes[node].dir);
            arena.herd.nodes[node].wipe_raft();
            arena.held[node] = false;
            arena.supervise();
            return format!("{name} refused its damaged store ({status}: {last}); the store was removed");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    arena.held[node] = false;
    format!("{name} accepted its damaged store")
}
