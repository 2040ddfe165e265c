//! A database that was there before: its primary founds the cluster and its standbys follow, without a copy or a restart.

use crate::FAILOVER_S;
use matriarch_chaos::{FORM_S, Herd, Node, Options, plain};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;

/// Where the nodes' PostgreSQL listens.
const PORT: u16 = matriarch_chaos::addresses::POSTGRES_PORT;

fn append(node: &Node, file: &str, text: &str) {
    let path = node.data_dir().join(file);
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn lives_at(node: &Node) {
    let (ip, dir) = (node.ip, node.dir.display());
    append(
        node,
        "postgresql.conf",
        &format!("listen_addresses = '{ip}'\nport = {PORT}\nunix_socket_directories = '{dir}/socket'\n"),
    );
}

/// A plain production database, made by hand.
async fn production(node: &Node) {
    plain::initdb(&node.data_dir());
    lives_at(node);
    append(
        node,
        "postgresql.conf",
        "max_connections = 44\nwork_mem = 7MB\nmax_replication_slots = 23\nshared_buffers = 16MB\n",
    );
    append(
        node,
        "pg_hba.conf",
        "host all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n",
    );
    plain::start(&node.data_dir(), "");
    for statement in [
        "CREATE TABLE ledger (id int PRIMARY KEY)",
        "INSERT INTO ledger SELECT generate_series(1, 1000)",
        "CREATE ROLE replicator LOGIN REPLICATION",
    ] {
        node.sql(statement).await.unwrap();
    }
}

/// Its streaming standby, made by hand.
fn standby_by_hand(node: &Node, of: &Node) {
    plain::run(
        "pg_basebackup",
        &[
            "-D",
            &node.data_dir().display().to_string(),
            "-d",
            &format!(
                "host={} port={PORT} user=postgres application_name=by-hand",
                of.ip
            ),
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
        ],
    );
    lives_at(node);
    plain::start(&node.data_dir(), "");
}

fn inode(node: &Node) -> u64 {
    std::fs::metadata(node.data_dir().join("PG_VERSION"))
        .unwrap()
        .ino()
}

async fn demand_rows(herd: &Herd, node: usize) {
    let rows = herd.nodes[node].sql("SELECT count(*) FROM ledger").await.unwrap();
    assert_eq!(rows, "1000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_primary_and_its_standby_become_a_cluster_without_a_restart_or_a_copy() {
    let mut herd = Herd::new(3, Options::calm());
    production(&herd.nodes[1]).await;
    standby_by_hand(&herd.nodes[0], &herd.nodes[1]);
    let before: Vec<_> = [0, 1]
        .map(|i| (herd.nodes[i].postmaster_pid(), inode(&herd.nodes[i])))
        .to_vec();
    // The standby's node alone founds nothing, with an empty one neither.
    herd.nodes[0].start();
    herd.nodes[2].start();
    herd.until("the standby's node says whom it waits for", 20, async || {
        let standing = herd.nodes[0].explain("/standing/reason").await;
        standing.is_some_and(|text| text.contains("standby's data"))
    })
    .await;
    assert!(
        herd.nodes[2].postmaster_pid().is_none(),
        "an empty node made a database beside data"
    );
    herd.nodes[1].start();
    assert_eq!(
        herd.await_whole(FORM_S).await,
        1,
        "the primary founds the cluster"
    );
    for (i, (pid, inode_before)) in before.iter().enumerate() {
        assert_eq!(
            herd.nodes[i].postmaster_pid(),
            *pid,
            "{} was restarted",
            herd.nodes[i].name
        );
        assert_eq!(
            inode(&herd.nodes[i]),
            *inode_before,
            "{} was copied",
            herd.nodes[i].name
        );
    }
    demand_rows(&herd, 2).await;
    let config: serde_json::Value = serde_json::from_str(&herd.latest(0, "/config").await).unwrap();
    assert_eq!(config["postgresql"]["parameters"]["max_replication_slots"], "23");
    let whole = |node: &Node| node.data_dir().join("postgresql.base.conf").exists();
    herd.until("both configurations are ours", 20, async || {
        whole(&herd.nodes[0]) && whole(&herd.nodes[1])
    })
    .await;

    herd.nodes[1].kill_whole();
    let new = herd.await_primary(FAILOVER_S, |i| i != 1).await;
    demand_rows(&herd, new).await;
    herd.nodes[new]
        .sql("INSERT INTO ledger VALUES (0)")
        .await
        .unwrap();
    herd.nodes[1].start();
    herd.await_whole(FORM_S).await;
    assert_eq!(
        inode(&herd.nodes[0]),
        before[0].1,
        "the standby was copied after the failover"
    );
    assert_eq!(herd.nodes[1].sql("SHOW work_mem").await.unwrap(), "7MB");
    herd.await_streaming(1, FORM_S).await;
    assert_eq!(
        herd.nodes[1].sql("SELECT count(*) FROM ledger").await.unwrap(),
        "1001"
    );
}

/// What Patroni leaves behind in a directory when it is stopped.
fn as_patroni_leaves_it(node: &Node) {
    let dir = node.data_dir();
    plain::stop(&dir);
    std::fs::rename(dir.join("postgresql.conf"), dir.join("postgresql.base.conf")).unwrap();
    let text = "# Do not edit this file manually!\n# It will be overwritten by Patroni!\ninclude \
                'postgresql.base.conf'\n\nmax_connections = '101'\nrecovery_target_timeline = 'latest'\n";
    std::fs::write(dir.join("postgresql.conf"), text).unwrap();
    std::fs::write(
        dir.join("patroni.dynamic.json"),
        r#"{"ttl":3,"maximum_lag_on_failover":4711}"#,
    )
    .unwrap();
    for name in ["postgresql.conf", "postgresql.base.conf", "patroni.dynamic.json"] {
        matriarch_chaos::herd::give_to_postgres(&dir.join(name));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_that_patroni_left_are_taken_over_with_its_dynamic_configuration() {
    let mut herd = Herd::new(3, Options::default());
    production(&herd.nodes[2]).await;
    standby_by_hand(&herd.nodes[0], &herd.nodes[2]);
    standby_by_hand(&herd.nodes[1], &herd.nodes[2]);
    herd.until("the standbys have all", 20, async || {
        let mut all = true;
        for node in [0, 1] {
            let rows = herd.nodes[node].sql("SELECT count(*) FROM ledger").await;
            all &= rows.is_ok_and(|rows| rows == "1000");
        }
        all
    })
    .await;
    for node in [2, 0, 1] {
        as_patroni_leaves_it(&herd.nodes[node]);
    }
    let before: Vec<_> = herd.nodes.iter().map(inode).collect();
    herd.nodes.iter_mut().for_each(Node::start);
    assert_eq!(herd.await_whole(FORM_S).await, 2, "the former primary goes on");
    let after: Vec<_> = herd.nodes.iter().map(inode).collect();
    assert_eq!(before, after, "data was copied");
    let config: serde_json::Value = serde_json::from_str(&herd.latest(0, "/config").await).unwrap();
    assert_eq!(config["maximum_lag_on_failover"], 4711);
    for node in 0..3 {
        demand_rows(&herd, node).await;
        assert_eq!(herd.nodes[node].sql("SHOW max_connections").await.unwrap(), "101");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_on_another_port_is_refused_and_left_running() {
    let mut herd = Herd::new(3, Options::default());
    let node = &mut herd.nodes[0];
    plain::initdb(&node.data_dir());
    lives_at(node);
    plain::start(&node.data_dir(), "-c port=5999");
    let pid = node.postmaster_pid();
    node.start();
    herd.until("the daemon refuses", 20, async || {
        herd.nodes[0]
            .log()
            .contains("listens on port 5999 and postgresql.listen says")
    })
    .await;
    assert_eq!(
        herd.nodes[0].postmaster_pid(),
        pid,
        "somebody else's server was stopped"
    );
    plain::stop(&herd.nodes[0].data_dir());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_outside_the_data_directory_stays_there() {
    let mut herd = Herd::new(3, Options::default());
    production(&herd.nodes[0]).await;
    let (data, etc) = (herd.nodes[0].data_dir(), herd.nodes[0].dir.join("etc"));
    plain::stop(&data);
    std::fs::create_dir(&etc).unwrap();
    matriarch_chaos::herd::give_to_postgres(&etc);
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        std::fs::rename(data.join(name), etc.join(name)).unwrap();
    }
    let dirs = format!(
        "data_directory = '{}'\nhba_file = '{1}/pg_hba.conf'\nident_file = '{1}/pg_ident.conf'\n",
        data.display(),
        etc.display()
    );
    let mut file = std::fs::File::options()
        .append(true)
        .open(etc.join("postgresql.conf"))
        .unwrap();
    file.write_all(dirs.as_bytes()).unwrap();
    plain::start(
        &data,
        &format!("-c config_file={}/postgresql.conf", etc.display()),
    );
    // Without the right key it is refused, and the sentence names the key.
    herd.nodes[0].start();
    let hint = format!("set postgresql.config_dir: {}", etc.display());
    herd.until("the refusal", 20, async || herd.nodes[0].log().contains(&hint))
        .await;
    for node in &mut herd.nodes {
        let text = std::fs::read_to_string(node.file()).unwrap();
        let etc = node.dir.join("etc");
        let text = text.replace(
            "postgresql:\n  listen",
            &format!("postgresql:\n  config_dir: {}\n  listen", etc.display()),
        );
        std::fs::write(node.file(), text).unwrap();
    }
    herd.nodes[0].reap();
    let pid = herd.nodes[0].postmaster_pid();
    herd.nodes.iter_mut().for_each(Node::start);
    assert_eq!(herd.await_whole(FORM_S).await, 0);
    assert_eq!(herd.nodes[0].postmaster_pid(), pid);
    herd.until("the configuration is ours", 20, async || {
        etc.join("postgresql.base.conf").exists()
    })
    .await;
    // The copies got the files they lacked, and any node can be primary.
    herd.nodes[0].kill_whole();
    let new = herd.await_primary(FAILOVER_S, |i| i != 0).await;
    assert_eq!(herd.nodes[new].sql("SHOW work_mem").await.unwrap(), "7MB");
    let read = herd.nodes[new].sql("SHOW config_file").await.unwrap();
    assert_eq!(
        read,
        herd.nodes[new]
            .dir
            .join("etc/postgresql.conf")
            .display()
            .to_string()
    );
    herd.nodes[0].start();
    herd.await_whole(FORM_S).await;
}
