//! What PostgreSQL itself needs: two plain servers, the first is killed, the second promoted.

use matriarch::clock::boot_ns;
use matriarch_chaos::addresses::{Addresses, POSTGRES_PORT};
use matriarch_chaos::node_file::PASSWORD;
use matriarch_chaos::{herd, plain, processes};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// The promoted server must write within this time.
const DEADLINE_NS: u64 = 30_000_000_000;

/// Seconds from the order to promote until the first acknowledged row, once for each trial.
pub(crate) async fn promotion(trials: usize) -> Vec<f64> {
    let addresses = Addresses::take(2);
    let dir = tempfile::Builder::new()
        .prefix("floor-")
        .tempdir()
        .expect("a temporary directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))
        .expect("mode of the directory");
    herd::give_to_postgres(dir.path());
    // Dropped before `dir`: the servers end before their directory is removed.
    let _end = EndServers(dir.path());
    let mut measured = Vec::new();
    for trial in 1..=trials {
        let seconds = one(
            &dir.path().join(format!("trial{trial}")),
            addresses.ip(0),
            addresses.ip(1),
        )
        .await;
        eprintln!("promotion until the first commit {trial}/{trials}: {seconds:.3} s");
        measured.push(seconds);
    }
    measured
}

/// Ends the servers of a directory when a trial ends early.
struct EndServers<'a>(&'a Path);

impl Drop for EndServers<'_> {
    fn drop(&mut self) {
        processes::kill_all_of(self.0);
    }
}

async fn one(dir: &Path, first: Ipv4Addr, second: Ipv4Addr) -> f64 {
    std::fs::create_dir(dir).expect("directory of the trial");
    herd::give_to_postgres(dir);
    let (primary, standby) = (dir.join("primary"), dir.join("standby"));
    plain::initdb(&primary);
    let hba = "local all all trust\nhost all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n";
    std::fs::write(primary.join("pg_hba.conf"), hba).expect("pg_hba.conf is written");
    plain::start(&primary, &options(first, &primary));
    let client = connect(first).await;
    client
        .batch_execute("CREATE TABLE floor (n int)")
        .await
        .expect("the table is made");
    let source = format!("host={first} port={POSTGRES_PORT} user=postgres password={PASSWORD}");
    plain::run(
        "pg_basebackup",
        &[
            "-D",
            &standby.display().to_string(),
            "-d",
            &source,
            "-R",
            "-c",
            "fast",
            "-X",
            "stream",
        ],
    );
    plain::start(&standby, &options(second, &standby));
    let second_client = connect(second).await;
    for n in 0..200 {
        client
            .execute("INSERT INTO floor VALUES ($1)", &[&n])
            .await
            .expect("a row before the fault");
    }
    assert!(
        processes::kill_all_of(&primary) > 0,
        "the plain primary did not run"
    );
    let begun = boot_ns();
    second_client
        .batch_execute("SELECT pg_promote(false)")
        .await
        .expect("the order to promote");
    while second_client
        .execute("INSERT INTO floor VALUES (-1)", &[])
        .await
        .is_err()
    {
        assert!(
            boot_ns() - begun < DEADLINE_NS,
            "the promoted server does not write"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let taken = boot_ns() - begun;
    processes::kill_all_of(&standby);
    std::fs::remove_dir_all(dir).expect("the trial is removed");
    Duration::from_nanos(taken).as_secs_f64()
}

fn options(ip: Ipv4Addr, data_dir: &Path) -> String {
    // Beside the data directory: a base backup would carry along a socket's lock file that lay inside.
    let sockets = data_dir.with_extension("socket");
    std::fs::create_dir(&sockets).expect("directory of the socket");
    herd::give_to_postgres(&sockets);
    format!(
        "-c listen_addresses={ip} -p {POSTGRES_PORT} -c unix_socket_directories={} -c shared_buffers=16MB \
         -c wal_retrieve_retry_interval=100ms",
        sockets.display()
    )
}

async fn connect(ip: Ipv4Addr) -> Client {
    let (client, connection) = tokio_postgres::Config::new()
        .host(ip.to_string())
        .port(POSTGRES_PORT)
        .user("postgres")
        .dbname("postgres")
        .connect(NoTls)
        .await
        .expect("a plain server answers");
    // Ends with the server or the client, whichever goes first.
    tokio::spawn(connection);
    client
}
