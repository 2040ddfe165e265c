//! The daemon's background task: it keeps the guard connected, carries requests and publishes its state.

use super::door::Names;
use super::handle::{GuardOptions, Shared};
use super::launch::may_inherit;
use super::page::Page;
use super::process::ANOTHER_LIVES;
use super::wire::{Answer, Ask, Event, Greeting, LINE_LIMIT, NAMES, PROTOCOL, Request, Told, describe_exit};
use super::{GuardError, GuardState};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

/// From a first look at the socket to a state: a guard answers at once, a new one needs a fork and an exec.
const ATTACH_MS: u64 = 5000;
/// Between two attempts to get a guard again.
const RETRY_MS: u64 = 200;
/// A guard that does not take a request within this time is as good as gone.
const SEND_MS: u64 = 2000;

/// A request and where its answer goes.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) ask: Ask,
    pub(super) answer: oneshot::Sender<Result<i32, GuardError>>,
}

/// Gets a guard, then keeps it in a task that ends when all handles are gone or the guard was told to quit.
pub(super) async fn begin(
    options: GuardOptions,
    shared: Arc<Shared>,
    calls: mpsc::Receiver<Call>,
) -> Result<watch::Receiver<GuardState>, GuardError> {
    let (state, watched) = watch::channel(GuardState::default());
    let mut link = Link {
        options,
        shared,
        calls,
        state,
        pid: 0,
        exits_before: 0,
    };
    let line = link.connect().await?;
    tokio::spawn(async move { link.run(line).await });
    Ok(watched)
}

struct Link {
    options: GuardOptions,
    shared: Arc<Shared>,
    calls: mpsc::Receiver<Call>,
    state: watch::Sender<GuardState>,
    /// The guard that was connected last.
    pid: i32,
    /// Exits seen by guards before this one.
    exits_before: u64,
}

/// One connection.
struct Line {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// Why a connection is over.
enum Over {
    Broken(io::Error),
    Finished,
}

impl Link {
    async fn run(mut self, mut line: Line) {
        loop {
            let over = self.serve(line).await;
            self.shared.disconnect();
            self.state.send_modify(|state| state.connected = false);
            match over {
                Over::Finished => return,
                Over::Broken(error) => warn!("the connection to the guard broke: {error}"),
            }
            line = loop {
                match self.connect().await {
                    Ok(line) => break line,
                    Err(error) => warn!("no guard, PostgreSQL cannot be kept: {error}"),
                }
                if !self.refuse_calls_for(Duration::from_millis(RETRY_MS)).await {
                    return;
                }
            };
        }
    }

    /// Carries requests and events until the connection breaks.
    async fn serve(&mut self, mut line: Line) -> Over {
        let mut open: HashMap<u64, oneshot::Sender<Result<i32, GuardError>>> = HashMap::new();
        let (mut last, mut quitting) = (0, None);
        let mut text = Vec::new();
        loop {
            tokio::select! {
                call = self.calls.recv() => {
                    let Some(Call { ask, answer }) = call else { return Over::Finished };
                    last += 1;
                    if matches!(ask, Ask::Quit) {
                        quitting = Some(last);
                    }
                    if let Err(error) = line.send(&Request { id: last, ask }).await {
                        return Over::Broken(error);
                    }
                    open.insert(last, answer);
                }
                event = line.event(&mut text) => match event {
                    Ok(Event::State(told)) => self.publish(told),
                    Ok(Event::Answer(Answer { id, result })) => {
                        let quit = quitting == Some(id) && result.is_ok();
                        if let Some(answer) = open.remove(&id) {
                            let _ = answer.send(result.map_err(GuardError::Refused));
                        }
                        if quit {
                            return Over::Finished;
                        }
                    }
                    Err(error) => return Over::Broken(error),
                },
            }
        }
    }

    /// Answers requests while there is no guard; false when nobody can ask any more.
    async fn refuse_calls_for(&mut self, time: Duration) -> bool {
        let pause = tokio::time::sleep(time);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return true,
                call = self.calls.recv() => match call {
                    Some(call) => drop(call.answer.send(Err(GuardError::Absent))),
                    None => return false,
                },
            }
        }
    }

    fn publish(&self, told: Told) {
        let exits = self.exits_before + told.exits;
        self.state.send_modify(|state| {
            let died_with_guard = state.last_exit.take().filter(|_| told.last_exit.is_none());
            *state = GuardState {
                connected: true,
                postmaster: told.postmaster,
                exits,
                last_exit: told.last_exit.map(describe_exit).or(died_with_guard),
                clean: told.clean,
                fencing: told.fencing,
                fenced: told.fenced.max(state.fenced),
                heartbeat: told.heartbeat,
                armed: told.armed,
                watchdog: told.watchdog,
                takes_orders: told.level >= 1,
                adopts: told.level >= 2,
            };
        });
    }

    /// Finds or spawns a guard, takes its page and its first state.
    async fn connect(&mut self) -> Result<Line, GuardError> {
        let limit = Duration::from_millis(ATTACH_MS);
        match tokio::time::timeout(limit, self.try_connect()).await {
            Ok(done) => done,
            Err(_) => Err(GuardError::TimedOut {
                what: "attach",
                ms: ATTACH_MS,
            }),
        }
    }

    async fn try_connect(&mut self) -> Result<Line, GuardError> {
        let stream = match self.knock().await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                self.spawn().await?;
                self.knock().await.map_err(|error| self.unusable(&error))?
            }
            Err(error) => return Err(self.unusable(&error)),
        };
        let (greeting, memory) = greet(&stream).await.map_err(|error| self.unusable(&error))?;
        if greeting.protocol != PROTOCOL {
            return Err(GuardError::Unusable(format!(
                "the guard (pid {}) speaks protocol {}, this program {PROTOCOL}: stop PostgreSQL with the version \
                 that started it, or run that version",
                greeting.pid, greeting.protocol
            )));
        }
        let page = Page::open(memory.as_fd()).map_err(|error| self.unusable(&error))?;
        let (reader, writer) = stream.into_split();
        let mut line = Line {
            reader: BufReader::new(reader),
            writer,
        };
        let told = match line.event(&mut Vec::new()).await {
            Ok(Event::State(told)) => told,
            Ok(Event::Answer(_)) => return Err(GuardError::Lost),
            Err(error) => return Err(self.unusable(&error)),
        };
        self.succeed(greeting.pid);
        self.shared.connect(page, greeting.pid);
        self.publish(told);
        Ok(line)
    }

    /// Another guard counts from zero; what ran under the one before has ended with it.
    fn succeed(&mut self, pid: i32) {
        if self.pid != 0 && self.pid != pid {
            self.state.send_modify(|state| {
                if state.postmaster.take().is_some() {
                    state.exits += 1;
                    state.last_exit = Some("its guard died".to_owned());
                }
                self.exits_before = state.exits;
            });
        }
        self.pid = pid;
    }

    async fn knock(&self) -> io::Result<UnixStream> {
        knock(&self.options.dir, NAMES).await
    }

    async fn spawn(&self) -> Result<(), GuardError> {
        let GuardOptions { dir, data_dir, exe } = &self.options;
        let mut arguments = vec![OsStr::new("guard"), OsStr::new("--dir"), dir.as_os_str()];
        if let Some(data_dir) = data_dir {
            arguments.extend([OsStr::new("--data-dir"), data_dir.as_os_str()]);
        }
        if spawn(exe, &arguments).await.map_err(GuardError::Unusable)? {
            info!("a guard was started for {}", dir.display());
        }
        Ok(())
    }

    fn unusable(&self, error: &io::Error) -> GuardError {
        GuardError::Unusable(format!(
            "the guard of {} cannot be used: {error}",
            self.options.dir.display()
        ))
    }
}

/// Connects to a process that outlives its daemons, if it is our own user's.
pub(crate) async fn knock(dir: &Path, names: Names) -> io::Result<UnixStream> {
    // Through an open directory: the path of a socket may be 107 bytes long at most.
    let dir = std::fs::File::open(dir)?;
    let stream = UnixStream::connect(super::door::reachable(dir.as_fd()).join(names.socket())).await?;
    if !super::door::is_ours(stream.peer_cred()?.uid()) {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "it is another user's process",
        ));
    }
    Ok(stream)
}

/// Starts a process that detaches itself. False: another one lives already.
pub(crate) async fn spawn(exe: &Path, arguments: &[&OsStr]) -> Result<bool, String> {
    let what = arguments.first().unwrap_or(&OsStr::new("")).display();
    let mut command = tokio::process::Command::new(exe);
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| !may_inherit(name.as_bytes())) {
        command.env_remove(name);
    }
    let status = command
        .status()
        .await
        .map_err(|error| format!("{} could not be executed as {what}: {error}", exe.display()))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(code) if code == i32::from(ANOTHER_LIVES) => Ok(false),
        _ => Err(format!(
            "the {what} did not start ({status}); its reason stands on standard error"
        )),
    }
}

impl Line {
    async fn send(&mut self, request: &Request) -> io::Result<()> {
        let mut text = serde_json::to_vec(request)?;
        text.push(b'\n');
        let sent = tokio::time::timeout(Duration::from_millis(SEND_MS), self.writer.write_all(&text));
        sent.await.map_err(|_| io::Error::from(ErrorKind::TimedOut))?
    }

    /// The next event. What was read of a line stays in `text` when this is cancelled.
    async fn event(&mut self, text: &mut Vec<u8>) -> io::Result<Event> {
        let room = u64::try_from(LINE_LIMIT.saturating_sub(text.len())).unwrap_or(0);
        (&mut self.reader).take(room).read_until(b'\n', text).await?;
        if text.last() != Some(&b'\n') {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let event = serde_json::from_slice(text);
        text.clear();
        Ok(event?)
    }
}

/// Reads the greeting and the descriptor of the page that comes with it.
async fn greet(stream: &UnixStream) -> io::Result<(Greeting, OwnedFd)> {
    let mut bytes = [0; Greeting::BYTES];
    let receive = || crate::sys::receive_with_fd(stream.as_fd(), &mut bytes);
    let (length, memory) = stream.async_io(Interest::READABLE, receive).await?;
    let greeting = bytes.get(..length).and_then(Greeting::decode);
    let greeting = greeting.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it is no guard"))?;
    let memory = memory.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it sent no lease page"))?;
    Ok((greeting, memory))
}
