//! The daemon's side: finds or starts the guard, keeps the connection, passes orders, moves the deadline.

use super::page::Page;
use super::process::socket_of;
use super::wire::{Event, GuardState, Hello, LONGEST_LINE, Order, Request, StartSpec, VERSION};
use crate::cluster::{Epoch, Moment};
use nix::cmsg_space;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

/// A started guard opens its socket within this.
const START_DEADLINE: Duration = Duration::from_secs(5);
/// The guard answers at once unless it is dead or stopped.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// Killing and reaping takes as long as the kernel needs, which may be writing out a core or a full disk's queue.
const KILL_DEADLINE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(10);

/// Where the guard is and how to start one.
#[derive(Clone, Debug)]
pub struct GuardOptions {
    /// The Raft directory, which holds the socket.
    pub dir: PathBuf,
    /// The data directory.
    pub data_dir: Option<PathBuf>,
    /// This program.
    pub exe: PathBuf,
}

/// Why the guard did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GuardError {
    /// It could not be started or reached.
    #[error("the guard in {dir} cannot be reached: {why}")]
    Unreachable {
        /// The Raft directory.
        dir: PathBuf,
        /// What was tried last.
        why: String,
    },
    /// It speaks another version.
    #[error(
        "the guard in {dir} (process {pid}) speaks version {found}, this program {VERSION}: stop PostgreSQL and that guard, then start again"
    )]
    OtherVersion {
        /// The Raft directory.
        dir: PathBuf,
        /// Its process id.
        pid: u32,
        /// Its version.
        found: u32,
    },
    /// It refused.
    #[error("the guard refused: {0}")]
    Refused(String),
    /// It did not answer in time.
    #[error("the guard did not answer within {0:?}")]
    Deadline(Duration),
    /// A fence of that epoch has begun or the deadline would be shortened.
    #[error("the guard does not extend epoch {0} any more")]
    Over(Epoch),
}

type Answer = oneshot::Sender<Result<i32, String>>;

/// A handle of the guard; clones share it.
#[derive(Clone)]
pub struct Guard {
    orders: mpsc::Sender<(Order, Answer)>,
    state: watch::Receiver<GuardState>,
    page: Arc<Mutex<Option<Arc<Page>>>>,
}

struct Link {
    stream: UnixStream,
    page: Arc<Page>,
}

impl Guard {
    /// Connects to the living guard, or starts one; from then on a task keeps that so.
    pub async fn attach(options: GuardOptions) -> Result<Self, GuardError> {
        let link = connect_or_start(&options).await?;
        let page = Arc::new(Mutex::new(Some(link.page.clone())));
        let (orders, inbox) = mpsc::channel(16);
        let (publish, mut state) = watch::channel(GuardState::default());
        tokio::spawn(serve(options.clone(), link, inbox, publish, page.clone()));
        // The first state says whether anything runs; nothing may be decided before it.
        let connected = state.wait_for(|state| state.connected);
        let first = tokio::time::timeout(ANSWER_DEADLINE, connected)
            .await
            .is_ok_and(|waited| waited.is_ok());
        if !first {
            return Err(GuardError::Deadline(ANSWER_DEADLINE));
        }
        Ok(Self { orders, state, page })
    }

    /// How things are.
    pub fn watch(&self) -> watch::Receiver<GuardState> {
        self.state.clone()
    }

    /// How often the guard has passed; a number that stands still means that it does.
    pub fn heartbeat(&self) -> Option<u64> {
        self.page().map(|page| page.heartbeat())
    }

    /// The armed epoch and its deadline as they are in the page at this moment.
    pub fn armed(&self) -> Option<(Epoch, Moment)> {
        let (epoch, deadline) = self.page()?.armed()?;
        Some((epoch, Moment(deadline / 1_000_000)))
    }

    fn page(&self) -> Option<Arc<Page>> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Moves the deadline of `epoch`. Never shortens it; refused once a fence of that epoch has begun.
    pub fn arm(&self, epoch: Epoch, deadline: Moment) -> Result<(), GuardError> {
        match self.page() {
            Some(page) if page.arm(epoch, deadline) => Ok(()),
            _ => Err(GuardError::Over(epoch)),
        }
    }

    /// There is no deadline any more: nothing of a primary lives. Without effect once a fence has begun.
    pub fn disarm(&self) {
        if let Some(page) = self.page() {
            page.disarm();
        }
    }

    /// Starts a postmaster; answers its process id.
    pub async fn start(&self, spec: StartSpec) -> Result<i32, GuardError> {
        self.order(Order::Start(spec), ANSWER_DEADLINE).await
    }

    /// Sends the postmaster a signal.
    pub async fn signal(&self, signal: Signal) -> Result<(), GuardError> {
        self.order(Order::Signal(signal as i32), ANSWER_DEADLINE)
            .await
            .map(|_| ())
    }

    /// Kills everything of the data directory; answers when all of it is reaped.
    pub async fn kill_all(&self) -> Result<(), GuardError> {
        self.order(Order::KillAll, KILL_DEADLINE).await.map(|_| ())
    }

    /// Has the guard go, which it does only when nothing runs.
    pub async fn quit(self) -> Result<(), GuardError> {
        self.order(Order::Quit, ANSWER_DEADLINE).await.map(|_| ())
    }

    async fn order(&self, order: Order, deadline: Duration) -> Result<i32, GuardError> {
        let (answer, wait) = oneshot::channel();
        let asked = async {
            self.orders
                .send((order, answer))
                .await
                .map_err(|_| "its connection is closed".to_owned())?;
            wait.await.map_err(|_| "its connection broke".to_owned())?
        };
        match tokio::time::timeout(deadline, asked).await {
            Ok(answer) => answer.map_err(GuardError::Refused),
            Err(_) => Err(GuardError::Deadline(deadline)),
        }
    }
}

/// Keeps the connection for as long as a handle lives; a guard that died is replaced.
async fn serve(
    options: GuardOptions,
    mut link: Link,
    mut inbox: mpsc::Receiver<(Order, Answer)>,
    publish: watch::Sender<GuardState>,
    page: Arc<Mutex<Option<Arc<Page>>>>,
) {
    loop {
        if !converse(link.stream, &mut inbox, &publish).await {
            return;
        }
        tracing::warn!("the guard is gone; PostgreSQL dies with it, a new guard is started");
        *page.lock().unwrap_or_else(PoisonError::into_inner) = None;
        publish.send_modify(|state| {
            state.connected = false;
            state.clean = false;
        });
        link = loop {
            match connect_or_start(&options).await {
                Ok(link) => break link,
                Err(why) => tracing::error!("{why}"),
            }
            tokio::time::sleep(PAUSE * 10).await;
        };
        *page.lock().unwrap_or_else(PoisonError::into_inner) = Some(link.page.clone());
    }
}

/// Passes orders and events until the guard is gone (true) or nobody holds a handle any more (false).
async fn converse(
    stream: UnixStream,
    inbox: &mut mpsc::Receiver<(Order, Answer)>,
    publish: &watch::Sender<GuardState>,
) -> bool {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(u64::MAX)).lines();
    let mut waiting: BTreeMap<u64, (Answer, bool)> = BTreeMap::new();
    let mut next = 0_u64;
    loop {
        tokio::select! {
            asked = inbox.recv() => {
                let Some((order, answer)) = asked else { return false };
                next = next.wrapping_add(1);
                let leaves = matches!(order, Order::Quit);
                let Ok(mut line) = serde_json::to_vec(&Request { id: next, order }) else { continue };
                line.push(b'\n');
                if line.len() > LONGEST_LINE || write.write_all(&line).await.is_err() {
                    return true;
                }
                waiting.insert(next, (answer, leaves));
            }
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return true };
                match serde_json::from_str(&line) {
                    Ok(Event::State(state)) => { publish.send_replace(state); }
                    Ok(Event::Answer(id, answer)) => {
                        if let Some((waiter, leaves)) = waiting.remove(&id) {
                            let gone = leaves && answer.is_ok();
                            // Whoever asked may have given up.
                            let _ = waiter.send(answer);
                            if gone {
                                return false;
                            }
                        }
                    }
                    Err(why) => {
                        tracing::error!("the guard says something unreadable: {why}");
                        return true;
                    }
                }
            }
        }
    }
}

async fn connect_or_start(options: &GuardOptions) -> Result<Link, GuardError> {
    let unreachable = |why: String| GuardError::Unreachable {
        dir: options.dir.clone(),
        why,
    };
    if let Ok(link) = connect(options).await {
        return link;
    }
    let mut command = std::process::Command::new(&options.exe);
    command
        .arg("guard")
        .arg("--dir")
        .arg(&options.dir)
        .stdin(Stdio::null());
    if let Some(data_dir) = &options.data_dir {
        command.arg("--data-dir").arg(data_dir);
    }
    // A session of its own, so that what ends the daemon's terminal or its group does not end the guard.
    crate::sys::before_exec(&mut command, || {
        nix::unistd::setsid().map(|_| ()).map_err(io::Error::from)
    });
    let mut command = tokio::process::Command::from(command);
    let mut child = command
        .kill_on_drop(false)
        .spawn()
        .map_err(|error| unreachable(error.to_string()))?;
    let connecting = async {
        loop {
            match connect(options).await {
                Ok(link) => return link,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    let link = tokio::time::timeout(START_DEADLINE, connecting).await;
    // Collected in the background when it ends.
    tokio::spawn(async move { child.wait().await });
    link.unwrap_or_else(|_| Err(unreachable("it did not open its socket in time".to_owned())))
}

/// The outer error: nobody listens. The inner one: somebody does, and will not do.
async fn connect(options: &GuardOptions) -> io::Result<Result<Link, GuardError>> {
    let socket = socket_of(&options.dir);
    let greeted = tokio::task::spawn_blocking(move || greet(&socket))
        .await
        .map_err(io::Error::other)??;
    let (hello, page, stream) = greeted;
    if hello.version != VERSION {
        let (dir, pid, found) = (options.dir.clone(), hello.pid, hello.version);
        return Ok(Err(GuardError::OtherVersion { dir, pid, found }));
    }
    stream.set_nonblocking(true)?;
    Ok(Ok(Link {
        stream: UnixStream::from_std(stream)?,
        page: Arc::new(page),
    }))
}

/// The hello comes with the page's descriptor, so it is received the low-level way.
fn greet(socket: &std::path::Path) -> io::Result<(Hello, Page, StdStream)> {
    let stream = StdStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut line = [0_u8; 256];
    let mut space = cmsg_space!(std::os::fd::RawFd);
    let mut buffers = [IoSliceMut::new(&mut line)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut buffers, Some(&mut space), flags)?;
    let received = message.bytes;
    let fd = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let fd = fd.ok_or_else(|| io::Error::other("the hello came without the lease page"))?;
    let fd = crate::sys::own(fd);
    let page = Page::map(fd.as_fd())?;
    // The guard sends the hello and then waits for a first line or an event, so nothing follows it in this buffer
    // but what ends at the first newline.
    let text = line.get(..received).unwrap_or_default();
    let text = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let hello = serde_json::from_slice(text)?;
    Ok((hello, page, stream))
}
