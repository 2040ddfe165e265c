//! For tests: small HTTP servers on loopback that answer as a cluster did, and the program run against them.

use super::called::Called;
use super::talk::Talk;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{Cursor, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The entity tag of `/config`.
pub(super) const CONFIG_TAG: &str = "\"c0ffee\"";

/// One request as a node heard it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Heard {
    /// Index of the node.
    pub(super) node: usize,
    /// Verb and path.
    pub(super) what: String,
    /// The body; null when there is none.
    pub(super) body: Value,
    /// Whether name and password came with it.
    pub(super) authorization: Option<String>,
    /// The entity tag of what it was meant for.
    pub(super) if_match: Option<String>,
}

/// What the nodes answer: documents for GET, and a list of replies for what changes something.
#[derive(Debug, Default)]
pub(super) struct World {
    /// `/cluster`; `{node0}` in an address is replaced by that of the node.
    pub(super) cluster: Value,
    /// `/config`.
    pub(super) config: Value,
    /// `/history`.
    pub(super) history: Value,
    /// Documents that take the place of `cluster` as soon as something was changed.
    pub(super) then: Option<Value>,
    /// Replies to whatever changes something, the first one first.
    pub(super) replies: Vec<(u16, String)>,
    /// Everything that changes something.
    pub(super) heard: Vec<Heard>,
}

/// Three nodes.
pub(super) struct Stage {
    /// What they answer.
    pub(super) world: Arc<Mutex<World>>,
    /// Where they are.
    pub(super) urls: Vec<String>,
    stop: Arc<AtomicBool>,
    nodes: Vec<JoinHandle<()>>,
}

impl Stage {
    /// Three nodes that know nothing yet.
    pub(super) fn open() -> Self {
        let listeners: Vec<TcpListener> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let urls: Vec<String> = listeners
            .iter()
            .map(|listener| format!("http://{}", listener.local_addr().unwrap()))
            .collect();
        let world = Arc::new(Mutex::new(World::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let nodes = listeners
            .into_iter()
            .enumerate()
            .map(|(node, listener)| {
                let (world, urls, stop) = (Arc::clone(&world), urls.clone(), Arc::clone(&stop));
                std::thread::spawn(move || {
                    for stream in listener.incoming() {
                        if stop.load(Ordering::SeqCst) {
                            break;
                        }
                        serve(stream.unwrap(), node, &world, &urls);
                    }
                })
            })
            .collect();
        Self {
            world,
            urls,
            stop,
            nodes,
        }
    }

    /// Runs the program; returns all it printed and its exit code. `{nodes}` in an argument is replaced by the addresses.
    pub(super) fn run(&self, called: Called, line: &[&str], typed: &str) -> (String, u8) {
        let shown = Shared::default();
        let mut arguments: Vec<OsString> = [called.program(), "-d", &self.urls.join(",")]
            .map(Into::into)
            .to_vec();
        arguments.extend(line.iter().map(OsString::from));
        let mut talk = Talk {
            called,
            input: &mut Cursor::new(typed.to_owned()),
            output: &mut shown.clone(),
            notes: &mut shown.clone(),
            watched: false,
        };
        let code = super::run(&arguments, &mut talk);
        let text = String::from_utf8(shown.0.borrow().clone()).unwrap();
        (text, code)
    }

    /// What changed something since the last time this was asked.
    pub(super) fn heard(&self) -> Vec<Heard> {
        std::mem::take(&mut self.world.lock().unwrap().heard)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for (url, node) in self.urls.iter().zip(self.nodes.drain(..)) {
            let _ = TcpStream::connect(url.trim_start_matches("http://"));
            node.join().unwrap();
        }
    }
}

/// Output and notes in the order in which a terminal shows them.
#[derive(Clone, Debug, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn serve(mut stream: TcpStream, node: usize, world: &Mutex<World>, urls: &[String]) {
    let Some((head, body)) = read(&mut stream) else {
        return;
    };
    let what = head.split(" HTTP/").next().unwrap_or_default().to_owned();
    let header = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name).map(str::to_owned))
    };
    let heard = Heard {
        node,
        body: serde_json::from_str(&body).unwrap_or(Value::Null),
        authorization: header("authorization: "),
        if_match: header("if-match: "),
        what,
    };
    let tag = if heard.what == "GET /config" {
        format!("ETag: {CONFIG_TAG}\r\n")
    } else {
        String::new()
    };
    let (status, text) = world.lock().unwrap().answer(heard);
    let text = urls.iter().enumerate().fold(text, |text, (node, url)| {
        text.replace(&format!("{{node{node}}}"), url)
    });
    // As old servers do: no length, and the connection ends.
    let _ = write!(
        stream,
        "HTTP/1.0 {status} Any\r\nContent-Type: text/html\r\n{tag}\r\n{text}"
    );
}

fn read(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
                .unwrap_or(0);
            if body.len() >= length {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

impl World {
    fn answer(&mut self, heard: Heard) -> (u16, String) {
        match heard.what.as_str() {
            "GET /cluster" => (200, self.cluster.to_string()),
            "GET /config" => (200, self.config.to_string()),
            "GET /history" => (200, self.history.to_string()),
            "GET /patroni" => (200, self.status(heard.node).to_string()),
            what if what.starts_with("GET ") => (503, "{}".to_owned()),
            _ => {
                self.heard.push(heard);
                if let Some(next) = self.then.take() {
                    self.cluster = next;
                }
                if self.replies.is_empty() {
                    (500, "nothing more was recorded".to_owned())
                } else {
                    self.replies.remove(0)
                }
            }
        }
    }

    fn status(&self, node: usize) -> Value {
        let mut status = json!({
            "state": "running",
            "server_version": 150_018,
            "database_system_identifier": "7710449293417045261",
            "patroni": {"version": "4.1.4", "scope": "demo", "name": format!("node{node}")},
        });
        if let (Some(status), Some(pause)) = (status.as_object_mut(), self.cluster.get("pause")) {
            status.insert("pause".to_owned(), pause.clone());
        }
        status
    }
}
