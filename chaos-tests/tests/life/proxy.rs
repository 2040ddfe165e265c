//! The built-in proxy on three nodes: where it leads, and what clients notice of failovers, switchovers and dead daemons.

use crate::{FAILOVER_S, RETURN_S};
use matriarch_chaos::{Herd, Node, Options, Pinned, processes, writer};
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};

const RW: u16 = 15_000;
const RO: u16 = 15_001;
/// Longer than a lease: whoever goes on after it has heard that the lease was renewed.
const SILENCE: Duration = Duration::from_secs(8);
/// A connection that waits out a whole failover takes no longer.
const PATIENCE: Duration = Duration::from_secs(40);
/// What may pass between the new primary's first commit and a waiting client's first answer, milliseconds: ten times
/// what forty clients at once take on a busy machine and as long again, and less than any of them is held.
const SERVED_MS: u64 = 4_000;

fn options() -> Options {
    Options {
        sections: format!(
            "proxy:\n  listen: '{{ip}}'\n  rw: {RW}\n  ro: {RO}\n  hold_timeout: 30s\n  handshake_timeout: 2s\n"
        ),
        ..Options::calm()
    }
}

/// A session through this node's proxy.
async fn session(node: &Node, port: u16) -> Result<Client, Error> {
    open(&through(node, &[port])).await
}

/// How a client connects to these ports of this node's proxy, the first that fits.
fn through(node: &Node, ports: &[u16]) -> Config {
    let direct = node.client_config();
    let mut config = Config::new();
    config
        .user("postgres")
        .password(direct.get_password().expect("a password"))
        .dbname("postgres");
    for port in ports {
        config.host(node.ip.to_string()).port(*port);
    }
    config
}

async fn open(config: &Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// When a server answers a client of this address for the first time, with a demand for its password: the arithmetic of
/// passwords, which the clients do, takes longer than everything else. Called on a thread of its own, which that
/// arithmetic does not keep from looking.
fn answered_at(address: (Ipv4Addr, u16)) -> u64 {
    let asked = || {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // The length, protocol 3.0, the user, the end.
        stream.write_all(b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok::<_, std::io::Error>(first)
    };
    assert_eq!(asked().expect("answered in time"), *b"R");
    matriarch::clock::boot_ns()
}

/// How long so many clients wait for a server that they ask directly and at once: each needs a process of its own.
async fn floor_ms(node: &Node, clients: usize) -> u64 {
    let port = node.client_config().get_ports()[0];
    let begun = matriarch::clock::boot_ns();
    let address = (node.ip, port);
    let asking = |_| spawn_blocking(move || answered_at(address));
    let mut latest = begun;
    for client in (0..clients).map(asking).collect::<Vec<_>>() {
        latest = latest.max(client.await.unwrap());
    }
    (latest - begun) / 1_000_000
}

/// Where a session has ended up.
async fn server(client: &Client) -> Result<(String, bool), Error> {
    let statement = "SELECT host(inet_server_addr()), pg_is_in_recovery()";
    let row = client.query_one(statement, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

/// How many were shown out because what they sent was nonsense.
async fn refused(node: &Node) -> u64 {
    let deadline = matriarch::clock::now().plus(20_000);
    loop {
        let text = node.get("/metrics").await.unwrap_or_default().1;
        let garbage =
            |line: &&str| line.starts_with("matriarch_proxy_refused_total") && line.contains("garbage");
        let value = text.lines().find(garbage).and_then(|line| line.rsplit_once(' '));
        if let Some((_, value)) = value {
            return value.parse().unwrap();
        }
        assert!(matriarch::clock::now() < deadline, "no such metric:\n{text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn listening(herd: &Herd) {
    herd.until("every proxy leads to the primary", 20, async || {
        for node in &herd.nodes {
            let led = tokio::time::timeout(Duration::from_secs(1), session(node, RW)).await;
            if !matches!(led, Ok(Ok(_))) {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_leads_writers_to_the_primary_and_readers_to_replicas() {
    let herd = Herd::grown(3, options()).await;
    let primary = herd.await_whole(RETURN_S).await;
    listening(&herd).await;
    // Both standbys stand among the servers of every proxy.
    herd.until("every proxy leads two readers to two replicas", 20, async || {
        for node in &herd.nodes {
            let (one, two) = (reader(node).await, reader(node).await);
            let places = one.zip(two).map(|((_, one), (_, two))| (one, two));
            if places.is_none_or(|(one, two)| one == two) {
                return false;
            }
        }
        true
    })
    .await;
    let mut readers = Vec::new();
    for node in &herd.nodes {
        let writer = session(node, RW).await.unwrap();
        let (at, standby) = server(&writer).await.unwrap();
        assert_eq!((at, standby), (herd.nodes[primary].ip.to_string(), false));
        for _ in 0..2 {
            let reader = session(node, RO).await.unwrap();
            assert!(server(&reader).await.unwrap().1, "a reader at the primary");
            readers.push(reader);
        }
    }
    let mut places = Vec::new();
    for reader in readers.iter().take(2) {
        places.push(server(reader).await.unwrap().0);
    }
    assert_ne!(places[0], places[1], "the second goes where fewer are");
    // A client that looks for a writer itself is content with the first port, and passes the second by.
    let mut picky = through(&herd.nodes[0], &[RO, RW]);
    picky.target_session_attrs(TargetSessionAttrs::ReadWrite);
    assert!(!server(&open(&picky).await.unwrap()).await.unwrap().1);
    a_statement_is_cancelled(&herd.nodes[0]).await;
    garbage_costs_a_counter(&herd.nodes[1]).await;
}

/// A session of a reader, and the replica at which it stands.
async fn reader(node: &Node) -> Option<(Client, String)> {
    let client = session(node, RO).await.ok()?;
    let (place, standby) = server(&client).await.ok()?;
    standby.then_some((client, place))
}

async fn a_statement_is_cancelled(node: &Node) {
    let client = session(node, RW).await.unwrap();
    let token = client.cancel_token();
    let sleeping = client.batch_execute("SELECT pg_sleep(60)");
    let cancelling = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            token.cancel_query(NoTls).await.unwrap();
        }
    };
    let outcome = tokio::select! {
        outcome = sleeping => outcome,
        () = cancelling => Ok(()),
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("not cancelled in 20 s"),
    };
    let error = outcome.expect_err("it was cancelled");
    assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error:?}");
}

/// What is no client is shown out and counted, and clients notice nothing.
async fn garbage_costs_a_counter(node: &Node) {
    let before = refused(node).await;
    let address = (node.ip, RW);
    let mut halves = Vec::new();
    for _ in 0..500 {
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(&[0, 0, 0]).await.unwrap();
        halves.push(half);
    }
    for _ in 0..500 {
        let mut nonsense = TcpStream::connect(address).await.unwrap();
        let _ = nonsense.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        let _ = nonsense.read(&mut [0; 16]).await;
    }
    server(&session(node, RW).await.unwrap()).await.unwrap();
    let deadline = matriarch::clock::now().plus(20_000);
    loop {
        let counted = refused(node).await;
        if counted - before == 1_000 {
            break;
        }
        assert!(
            matriarch::clock::now() < deadline,
            "only {} of 1000 were counted in 20 s",
            counted - before
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_wait_through_a_failover_are_served_by_the_next_primary() {
    let mut herd = Herd::grown(3, options()).await;
    let old = herd.await_whole(RETURN_S).await;
    listening(&herd).await;
    writer::prepare(&herd).await;
    let pinned = Pinned::start_all(&herd);
    let others = herd.others(old);
    let held = session(&herd.nodes[others[0]], RW).await.unwrap();
    // One that is in a transaction cannot be taken along, and is told so in a word.
    held.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let killed = matriarch::clock::boot_ns();
    herd.nodes[old].kill_whole();
    let (mut waiting, mut knocking) = (Vec::new(), Vec::new());
    for i in 0..20 {
        let node = &herd.nodes[others[i % 2]];
        let config = through(node, &[RW]);
        waiting.push(tokio::spawn(async move {
            let client = open(&config).await?;
            server(&client).await
        }));
        let address = (node.ip, RW);
        knocking.push(spawn_blocking(move || answered_at(address)));
    }
    let error = tokio::time::timeout(PATIENCE, held.query_one("SELECT 1", &[])).await;
    let error = error.expect("not left hanging").expect_err("its primary is gone");
    let code = error.code().map(SqlState::code);
    assert!(matches!(code, None | Some("57P01" | "40003")), "{error:?}");
    for client in waiting {
        let (at, standby) = tokio::time::timeout(PATIENCE, client)
            .await
            .expect("served in time")
            .unwrap()
            .expect("a client that waits gets no error");
        assert!(!standby);
        assert_ne!(at, herd.nodes[old].ip.to_string());
    }
    let mut served = Vec::new();
    for client in knocking {
        served.push(client.await.unwrap());
    }
    let new = herd.await_primary(FAILOVER_S, |node| node != old).await;
    herd.until("the new primary's first commit", 20, async || {
        pinned[new].last_ack().is_some_and(|at| at > killed)
    })
    .await;
    let writes = Pinned::stop_all(pinned).await;
    let of_new = writes
        .iter()
        .filter(|write| write.node == new && write.is_acked());
    let first = of_new
        .map(|write| write.ended)
        .filter(|at| *at > killed)
        .min()
        .unwrap();
    let after_ms = |at: &u64| at.saturating_sub(first) / 1_000_000;
    let (soonest, latest) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    eprintln!(
        "served {} to {} ms after the first commit; so many at once take {} ms without a proxy",
        after_ms(soonest),
        after_ms(latest),
        floor_ms(&herd.nodes[new], served.len()).await
    );
    assert!(
        after_ms(latest) < SERVED_MS,
        "the last was served {} ms after",
        after_ms(latest)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_connections_notice_nothing_of_a_switchover() {
    let herd = Herd::grown(3, options()).await;
    let old = herd.await_whole(RETURN_S).await;
    listening(&herd).await;
    let to = herd.others(old)[0];
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = herd
        .nodes
        .iter()
        .map(|node| {
            let config = through(node, &[RW]);
            let stopped = stopped.clone();
            tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                let (mut places, mut half_done) = (Vec::new(), 0);
                while !*stopped.borrow() {
                    let begun = matriarch::clock::boot_ns();
                    // What it asks may be cut when the primary stops, and once its log-in, half done at that moment.
                    let client = match open(&config).await {
                        Ok(client) => client,
                        Err(error) => {
                            half_done += 1;
                            assert_eq!(half_done, 1, "one more that failed: {error:?}");
                            continue;
                        }
                    };
                    longest = longest.max(Duration::from_nanos(matriarch::clock::boot_ns() - begun));
                    if let Ok((at, _)) = server(&client).await
                        && places.last() != Some(&at)
                    {
                        places.push(at);
                    }
                    // A pace at which the machine has time for the nodes.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                (longest, places)
            })
        })
        .collect();
    herd.switch_over(old, to).await;
    herd.await_primary(FAILOVER_S, |node| node == to).await;
    herd.await_whole(RETURN_S).await;
    stop.send_replace(true);
    for client in clients {
        let (longest, places) = client.await.unwrap();
        eprintln!("longest {longest:?} through {places:?}");
        assert_eq!(places.last(), Some(&herd.nodes[to].ip.to_string()));
    }
}

/// A session that asks all the time; its longest wait for an answer, once it is stopped.
fn asking(
    client: Client,
) -> (
    tokio::sync::watch::Sender<bool>,
    tokio::task::JoinHandle<Result<Duration, Error>>,
) {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let task = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        while !*stopped.borrow() {
            let begun = matriarch::clock::boot_ns();
            client.query_one("SELECT 1", &[]).await?;
            longest = longest.max(Duration::from_nanos(matriarch::clock::boot_ns() - begun));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(longest)
    });
    (stop, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_go_on_while_the_daemon_beside_them_hangs_dies_and_comes_back() {
    let mut herd = Herd::grown(3, options()).await;
    let primary = herd.await_whole(RETURN_S).await;
    listening(&herd).await;
    let beside = herd.others(primary)[0];
    let proxy = proxy_pid(&herd.nodes[beside]).expect("a proxy runs");
    let (stop, writer) = asking(session(&herd.nodes[beside], RW).await.unwrap());
    herd.nodes[beside].freeze_daemon();
    tokio::time::sleep(SILENCE).await;
    server(&session(&herd.nodes[beside], RW).await.unwrap())
        .await
        .unwrap();
    herd.nodes[beside].thaw_daemon();
    herd.nodes[beside].kill_daemon();
    tokio::time::sleep(SILENCE).await;
    herd.nodes[beside].start();
    // On the primary's own node the lease has to be renewed in time, by the next daemon.
    herd.nodes[primary].kill_daemon();
    herd.nodes[primary].start();
    herd.await_whole(RETURN_S).await;
    stop.send_replace(true);
    let longest = writer.await.unwrap().expect("the session goes on");
    eprintln!("longest wait {longest:?}");
    assert_eq!(
        proxy_pid(&herd.nodes[beside]),
        Some(proxy),
        "the proxy was replaced"
    );
    // Asked to end, the daemon takes its proxy along.
    herd.nodes[beside].terminate();
    let dir = herd.nodes[beside].dir.clone();
    herd.until("the proxy of a stopped daemon ends", 20, async || {
        !processes::of(&dir).iter().any(is_proxy)
    })
    .await;
}

fn is_proxy(process: &processes::Process) -> bool {
    process.args.get(1).is_some_and(|arg| arg == "proxy")
}

fn proxy_pid(node: &Node) -> Option<i32> {
    processes::of(&node.dir)
        .iter()
        .find(|process| is_proxy(process))
        .map(|process| process.pid)
}
