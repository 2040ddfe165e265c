//! The sites, their lives and deaths, and who uses them.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use matriarch_storage::{Log, Meta};
use tokio::time::{Instant, sleep, timeout};

use crate::errors::ProposeError;
use crate::form;
use crate::group::Group;
use crate::machine::{Halt, Inbox, Machine, Peer};
use crate::model::dice::Dice;
use crate::model::disk::{Disk, commands};
use crate::model::judge::Judge;
use crate::model::net::{Weather, Wire};
use crate::node::Node;
use crate::settings::Settings;
use crate::start::{assemble, known};
use crate::status::Lead;
use crate::store::log::LogStore;
use crate::types::Runtime;
use crate::wire::envelope::seal;
use crate::wire::stored::NodeBytes;
use crate::{join, observe, ticks};

/// A protection that is left out, so that the judge must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bend {
    Nothing,
    /// Entries are acknowledged before they are on the disk.
    AnswersBeforeSync,
    /// Votes are given before they are on the disk.
    VoteNotSynced,
    /// A leader believes in itself instead of asking the quorum.
    NotConfirmed,
}

/// A place where a node lives.
struct Site {
    addr: String,
    disk: Arc<Disk>,
    /// Counts the node's lives; what an earlier one still does reaches nobody.
    life: u64,
    node: Option<Arc<Node>>,
    applied: Arc<AtomicUsize>,
}

/// Everything of one run.
pub(crate) struct World {
    pub(crate) bend: Bend,
    sites: Mutex<Vec<Site>>,
    dice: Mutex<Dice>,
    judge: Mutex<Judge>,
    weather: Mutex<Weather>,
    /// The clients have gone home.
    over: AtomicBool,
    next: AtomicUsize,
    /// The next voter that gives its vote to another dies of it.
    pub(crate) trap: AtomicBool,
}

/// The replicated machine: the list of commands. Answers where each one stands.
struct List {
    world: Arc<World>,
    site: usize,
    life: u64,
    commands: Vec<u64>,
    count: Arc<AtomicUsize>,
}

impl List {
    fn counts(&self) {
        self.count.store(self.commands.len(), Ordering::SeqCst);
    }

    fn lives(&self) -> bool {
        self.world.sites()[self.site].life == self.life
    }
}

impl Machine for List {
    fn apply(&mut self, lead: Lead, command: &[u8]) -> Result<Vec<u8>, Halt> {
        let position = self.commands.len();
        let command = commands(command).next().unwrap();
        self.commands.push(command);
        if self.lives() {
            self.world.judge().applied(self.site, position, lead, command);
            self.counts();
        }
        Ok((position as u64).to_le_bytes().to_vec())
    }

    fn snapshot(&self) -> Vec<u8> {
        self.commands.iter().flat_map(|c| c.to_le_bytes()).collect()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        self.commands = commands(bytes).collect();
        if self.lives() {
            self.world.judge().restored(self.site, &self.commands);
            self.counts();
        }
        Ok(())
    }
}

struct Deaf;

impl Inbox for Deaf {
    fn handle(&self, _: Peer, _: Vec<u8>, _: Duration) -> Pin<Box<dyn Future<Output = Vec<u8>> + Send + '_>> {
        Box::pin(async { Vec::new() })
    }
}

impl World {
    pub(crate) fn new(seed: u64, sites: usize, bend: Bend) -> Arc<World> {
        let site = |i| Site {
            addr: format!("site{i}:1"),
            disk: Arc::default(),
            life: 0,
            node: None,
            applied: Arc::default(),
        };
        Arc::new(World {
            bend,
            sites: Mutex::new((0..sites).map(site).collect()),
            dice: Mutex::new(Dice::new(seed)),
            judge: Mutex::new(Judge::new()),
            weather: Mutex::new(Weather::fair(sites)),
            over: AtomicBool::new(false),
            next: AtomicUsize::new(1),
            trap: AtomicBool::new(false),
        })
    }

    fn sites(&self) -> MutexGuard<'_, Vec<Site>> {
        self.sites.lock().unwrap()
    }

    pub(crate) fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap()
    }

    pub(crate) fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap()
    }

    pub(crate) fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap()
    }

    pub(crate) fn count(&self) -> usize {
        self.sites().len()
    }

    pub(crate) fn site_at(&self, addr: &str) -> usize {
        self.sites().iter().position(|site| site.addr == addr).unwrap()
    }

    /// The node at a site, if it still lives that life.
    pub(crate) fn node(&self, site: usize, life: u64) -> Option<Arc<Node>> {
        let sites = self.sites();
        sites[site].node.clone().filter(|_| sites[site].life == life)
    }

    pub(crate) fn living(&self, site: usize) -> Option<Arc<Node>> {
        self.sites()[site].node.clone()
    }

    pub(crate) fn id_of(&self, site: usize) -> u64 {
        self.living(site).map_or(0, |node| node.identity().id)
    }

    /// Who leads with a quorum behind it.
    pub(crate) fn leader(&self) -> Option<usize> {
        (0..self.count()).find(|i| {
            self.living(*i)
                .is_some_and(|node| node.status.borrow().lead.is_some())
        })
    }

    fn settings(&self, site: usize) -> Settings {
        let sites = self.sites();
        let others = sites.iter().enumerate().filter(|(i, _)| *i != site);
        Settings {
            cluster: "model".to_owned(),
            name: format!("node{site}"),
            self_addr: sites[site].addr.clone(),
            bind_addr: None,
            partners: others.map(|(_, site)| site.addr.clone()).collect(),
            data_dir: "/nonexistent".into(),
            password: Some("secret".to_owned()),
            tls: None,
            heartbeat_ms: 50,
            election_min_ms: 200,
            election_max_ms: 400,
            may_form: true,
        }
    }

    /// `start::start` without a port.
    pub(crate) fn start(self: &Arc<World>, site: usize) {
        let (disk, life, count) = {
            let mut sites = self.sites();
            let site = &mut sites[site];
            site.life += 1;
            site.applied = Arc::default();
            (site.disk.clone(), site.life, site.applied.clone())
        };
        let settings = self.settings(site);
        let store: Arc<dyn Log> = Arc::new(disk.open(self.clone(), site));
        let machine = Box::new(List {
            world: self.clone(),
            site,
            life,
            commands: Vec::new(),
            count,
        });
        if store.get(Meta::Node).unwrap().is_none() {
            // The claim would be drawn from the system.
            let record = NodeBytes {
                addr: settings.self_addr.clone(),
                incarnation: self.dice().next().max(1),
                generation: 0,
                foundation: 0,
                admitted: false,
            };
            store.put(Meta::Node, seal(&record).unwrap()).unwrap();
        }
        let known = known(store.as_ref(), &settings).unwrap();
        let vote = LogStore::new(store.clone()).stored_vote().unwrap();
        let node = Arc::new(assemble(settings, None, Arc::new(Deaf), store, &known.record));
        node.pools.travel_by(Wire {
            world: self.clone(),
            site,
            life,
        });
        node.settled.store(known.settled(), Ordering::SeqCst);
        self.sites()[site].node = Some(node.clone());
        self.judge()
            .starts(site, vote.map(|v| (v.leader_id.term, v.leader_id.node_id)));
        let seed = self.dice().next();
        node.spawn(observe::observe(node.clone()));
        node.spawn(node.beats.clone().keep());
        node.spawn(ticks::pace(node.clone()));
        node.spawn(join::tend(node.clone()));
        node.spawn(Runtime::scope(seed, form::enter(node.clone(), machine, known)));
    }

    /// Its processes and memory are gone, now.
    pub(crate) fn crash(self: &Arc<World>, site: usize) {
        let (node, disk) = {
            let mut sites = self.sites();
            let site = &mut sites[site];
            let Some(node) = site.node.take() else { return };
            site.life += 1;
            (node, site.disk.clone())
        };
        self.judge().note(&format!("node{site} crashes"));
        disk.crash(&mut self.dice());
        node.abort_tasks();
        let seed = self.dice().next();
        // Its disk refuses everything and nobody hears it: what is left of it only has to end.
        tokio::spawn(Runtime::scope(seed, async move {
            if let Some(raft) = node.raft.get() {
                let _ = raft.shutdown().await;
            }
        }));
    }

    /// Crashed and its disk lost.
    pub(crate) fn wipe(self: &Arc<World>, site: usize) {
        self.crash(site);
        self.sites()[site].disk.wipe();
        self.judge().forgets(site);
    }

    /// It has just given its vote.
    pub(crate) fn voted(self: &Arc<World>, site: usize) {
        if !self.trap.swap(false, Ordering::SeqCst) {
            return;
        }
        let (world, dies) = (self.clone(), self.dice().within(1, 4));
        tokio::spawn(async move {
            sleep(Duration::from_millis(dies)).await;
            world.crash(site);
            sleep(Duration::from_millis(20)).await;
            if world.living(site).is_none() {
                world.start(site);
            }
        });
    }

    /// In order, as an upgrade does it.
    pub(crate) async fn stop(self: &Arc<World>, site: usize) {
        let Some(node) = self.living(site) else { return };
        self.judge().note(&format!("node{site} stops"));
        Group { node }.close().await;
        self.crash(site);
    }

    /// Proposes at one site, for as long as the run lasts.
    pub(crate) async fn client(self: Arc<World>, site: usize) {
        while !self.over.load(Ordering::SeqCst) {
            let pause = self.dice().within(5, 120);
            sleep(Duration::from_millis(pause)).await;
            self.propose(site).await;
        }
    }

    /// One command; true when it was acknowledged.
    pub(crate) async fn propose(self: &Arc<World>, site: usize) -> bool {
        let Some(node) = self.living(site) else {
            return false;
        };
        let command = self.next.fetch_add(1, Ordering::SeqCst) as u64;
        let answer = Group { node }.propose(command.to_le_bytes().to_vec()).await;
        match answer {
            Ok(position) => {
                let position = commands(&position).next().unwrap() as usize;
                self.judge().acknowledges(command, position);
                return true;
            }
            Err(ProposeError::Refused(_)) => self.judge().refuses(command),
            Err(ProposeError::Unknown(_) | ProposeError::Stopped(_)) => {
                self.judge().note(&format!("{command} is in doubt"));
            }
        }
        false
    }

    /// Asks one site again and again whether it leads.
    pub(crate) async fn reader(self: Arc<World>, site: usize) {
        while !self.over.load(Ordering::SeqCst) {
            let pause = self.dice().within(5, 80);
            sleep(Duration::from_millis(pause)).await;
            let (node, life, count) = {
                let sites = self.sites();
                let site = &sites[site];
                (site.node.clone(), site.life, site.applied.clone())
            };
            let Some(node) = node else { continue };
            let when_asked = self.judge().agreed.len();
            let leads = match self.bend {
                Bend::NotConfirmed => node.status.borrow().lead.is_some(),
                _ if pause.is_multiple_of(2) => Group { node }.confirm_by_heartbeat().await.is_ok(),
                _ => Group { node }.confirm().await.is_ok(),
            };
            if leads && self.node(site, life).is_some() {
                let applied = count.load(Ordering::SeqCst);
                self.judge().confirmed(site, when_asked, applied);
            }
        }
    }

    /// Everybody is up, somebody leads, and a command that is proposed now reaches every machine.
    pub(crate) async fn whole(self: &Arc<World>, within: Duration) -> bool {
        let begun = Instant::now();
        let whole = async {
            for site in 0..self.count() {
                while !self.propose(site).await {
                    sleep(Duration::from_millis(20)).await;
                }
            }
            while !self.level() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let whole = timeout(within, whole).await.is_ok();
        let mut judge = self.judge();
        match whole {
            true => judge.healed_in = judge.healed_in.max(Some(begun.elapsed())),
            false => judge.blame(format!(
                "liveness: not whole {within:?} after everything was mended"
            )),
        }
        whole
    }

    fn level(&self) -> bool {
        let agreed = self.judge().agreed.len();
        let mut sites = self.sites();
        sites
            .iter_mut()
            .all(|site| site.applied.load(Ordering::SeqCst) == agreed)
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// Every site's voters, as the leader sees them.
    pub(crate) fn voters(&self) -> HashMap<String, u64> {
        let Some(node) = self.leader().and_then(|site| self.living(site)) else {
            return HashMap::new();
        };
        let status = node.status.borrow();
        status
            .voters
            .iter()
            .map(|peer| (peer.addr.clone(), peer.id))
            .collect()
    }
}
