//! A standby that was away for longer than its primary keeps its log.

use matriarch_chaos::{FORM_S, Herd, Node, Options};
use std::os::unix::fs::MetadataExt;

/// Tells one copy of a node's data from another.
pub(crate) fn inode(node: &Node) -> u64 {
    std::fs::metadata(node.data_dir().join("PG_VERSION"))
        .unwrap()
        .ino()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_copied_again_by_itself_and_says_why() {
    let options = Options {
        use_slots: false,
        ..Options::short_log()
    };
    let mut herd = Herd::grown(3, options).await;
    let primary = herd.await_whole(FORM_S).await;
    let away = herd.others(primary)[0];
    herd.nodes[away].kill_whole();
    let before = inode(&herd.nodes[away]);
    herd.fill_log(primary, 8).await;
    for _ in 0..2 {
        herd.nodes[primary].sql("CHECKPOINT").await.unwrap();
    }
    herd.nodes[away].start();
    herd.await_streaming(away, FORM_S).await;
    assert_ne!(
        inode(&herd.nodes[away]),
        before,
        "the primary had kept its log after all"
    );
    assert!(
        herd.nodes[away]
            .log()
            .contains("this standby cannot go on: it needs the log from")
    );
    let rows = herd.nodes[away].sql("SELECT count(*) FROM filler").await.unwrap();
    assert_eq!(rows, "8");
}
