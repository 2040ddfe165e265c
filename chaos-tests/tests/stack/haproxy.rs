//! HAProxy itself, with the file in configs/ and with the lines that people already have, in front of three nodes.

use crate::{FAILOVER_S, RETURN_S, arrive, come, front, through};
use matriarch_chaos::Herd;
use matriarch_chaos::companions::{self, Running, program};
use std::path::Path;

/// A failover as seen through checks every three seconds of which three must fail, twice over.
const SLOW_CHECKS_S: u64 = FAILOVER_S + 20;

/// What the manuals of ten years told people to write.
const HABITS: &str = "
listen habit-primary
    bind *:5100
    option httpchk OPTIONS /master
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
    server node1 10.0.0.11:5432 maxconn 100 check port 8008
    server node2 10.0.0.12:5432 maxconn 100 check port 8008
    server node3 10.0.0.13:5432 maxconn 100 check port 8008

listen habit-get
    bind *:5101
    option httpchk GET /primary
    default-server inter 1s fall 2 rise 1 on-marked-down shutdown-sessions
    server node1 10.0.0.11:5432 check port 8008
    server node2 10.0.0.12:5432 check port 8008
    server node3 10.0.0.13:5432 check port 8008

listen habit-replicas
    bind *:5102
    option httpchk
    http-check connect
    http-check send meth GET uri /replica ver HTTP/1.1 hdr Host patroni
    http-check expect status 200
    default-server inter 1s fall 2 rise 1
    server node1 10.0.0.11:5432 check port 8008
    server node2 10.0.0.12:5432 check port 8008
    server node3 10.0.0.13:5432 check port 8008
";

/// A HAProxy in front of a herd, with both files; its runtime socket is in the herd's directory.
pub(crate) fn start(program: &Path, herd: &Herd) -> Running {
    let text = format!("{}\n{HABITS}", include_str!("../../../configs/haproxy.cfg"));
    companions::start_haproxy(program, herd.dir(), &companions::addresses(herd), &text)
}

async fn leads_to(herd: &Herd, port: u16, standby: bool) -> bool {
    let config = through(herd, front(herd), port);
    matches!(arrive(herd, &config).await, Some((_, _, found)) if found == standby)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_follows_a_failover_with_our_file_and_with_those_people_have() {
    let Some(program) = program("haproxy") else {
        return;
    };
    let mut herd = Herd::three().await;
    let old = herd.await_whole(RETURN_S).await;
    let _balancer = start(&program, &herd);
    for (port, standby) in [
        (5000, false),
        (5100, false),
        (5101, false),
        (5001, true),
        (5102, true),
    ] {
        let what = format!("port {port} leads to the right server");
        herd.until(&what, SLOW_CHECKS_S, async || {
            leads_to(&herd, port, standby).await
        })
        .await;
    }
    let (session, _, _) = come(&herd, &through(&herd, front(&herd), 5000)).await;
    herd.nodes[old].kill_whole();
    herd.await_primary(FAILOVER_S, |node| node != old).await;
    for port in [5000, 5101, 5100] {
        let what = format!("port {port} leads to the new primary");
        herd.until(&what, SLOW_CHECKS_S, async || leads_to(&herd, port, false).await)
            .await;
    }
    assert!(
        session.query_one("SELECT 1", &[]).await.is_err(),
        "a session of the deposed primary lives on"
    );
    herd.nodes[old].start();
    herd.await_whole(RETURN_S).await;
    herd.until("port 5001 leads to a standby", SLOW_CHECKS_S, async || {
        leads_to(&herd, 5001, true).await
    })
    .await;
}
