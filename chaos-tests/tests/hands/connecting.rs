//! A standby whose receiver is only connecting when it is told to stream from nobody: it is no receiver yet that
//! `pg_stat_wal_receiver` shows, and may be one in a moment.

use super::site::{Server, Site, until};
use matriarch_chaos::processes;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// A standby that connects to somebody who neither answers nor hangs up, and the connection.
async fn connecting(site: &Site) -> (Server, TcpListener, TcpStream) {
    let primary = site.primary(0).await;
    let mut standby = site.server(1);
    standby.copy(&primary).await.unwrap();
    let silent = site.setup(2);
    let listener = TcpListener::bind((silent.listen_addresses.as_str(), silent.port))
        .await
        .unwrap();
    let mut conf = standby.conf(Some(&primary));
    let upstream = conf.upstream.as_mut().unwrap();
    (upstream.host, upstream.port) = (silent.listen_addresses, silent.port);
    standby.postgres.write_conf(&conf).await.unwrap();
    standby.postgres.set_standby_signal(true).unwrap();
    standby.start().await;
    let (held, _) = timeout(Duration::from_secs(20), listener.accept())
        .await
        .expect("no receiver connects")
        .unwrap();
    let probe = standby.probed().await;
    assert_eq!(
        probe.wal_receiver, None,
        "PostgreSQL shows what is only connecting"
    );
    assert!(!receives_nothing(&standby).await);
    (standby, listener, held)
}

/// A look that was late on a busy machine has seen nothing.
async fn receives_nothing(standby: &Server) -> bool {
    matches!(standby.session.receives_nothing().await, Ok(true))
}

async fn tell(standby: &Server) {
    standby.configure(None).await;
    standby.session.reload().await.unwrap();
}

async fn is_over(mut held: TcpStream, listener: &TcpListener) {
    let mut sent = Vec::new();
    let end = timeout(Duration::from_secs(10), held.read_to_end(&mut sent)).await;
    assert!(
        end.is_ok(),
        "the connection outlives the word that nothing receives"
    );
    // It would be tried again after 100 ms.
    let again = timeout(Duration::from_secs(1), listener.accept()).await;
    assert!(again.is_err(), "it connects again");
}

#[tokio::test]
async fn a_receiver_that_is_connecting_is_ended_before_nothing_receives() {
    let site = Site::new();
    let (standby, listener, held) = connecting(&site).await;
    tell(&standby).await;
    until("nothing receives", 20, async || receives_nothing(&standby).await).await;
    is_over(held, &listener).await;
}

#[tokio::test]
async fn a_receiver_that_cannot_be_ended_is_seen_for_as_long_as_it_lives() {
    let site = Site::new();
    let (standby, listener, held) = connecting(&site).await;
    let receiver = processes::of(standby.data_dir())
        .into_iter()
        .find(|process| process.title().contains("walreceiver"))
        .expect("it has a process");
    processes::freeze(receiver.pid);
    tell(&standby).await;
    until("the new configuration holds", 10, async || {
        standby
            .number("SELECT (current_setting('primary_conninfo') = '')::int::bigint")
            .await
            == 1
    })
    .await;
    for _ in 0..50 {
        let nothing = receives_nothing(&standby).await;
        assert!(!nothing, "a frozen receiver is taken for gone");
    }
    processes::thaw(receiver.pid);
    until("nothing receives", 20, async || receives_nothing(&standby).await).await;
    is_over(held, &listener).await;
}
