//! The built-in proxy alone, in front of a server that does nothing: what crowds cost it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code: an expectation that fails ends the test with its message"
)]

use matriarch_chaos::addresses::{Addresses, POSTGRES_PORT};
use matriarch_chaos::lone_proxy::{LoneProxy, Orders};
use matriarch_chaos::sink::{self, Sink};
use matriarch_chaos::{crowd, processes};
use std::net::Ipv4Addr;
use std::time::Duration;

const PORT: u16 = 5_000;
/// A tenth of what is promised for 10,000 clients (150 MiB).
const MOST_KIB: u64 = 15 << 10;
/// Memory that an allocator keeps of a crowd that has gone.
const KEPT_KIB: u64 = 3 << 10;
const GONE_S: u64 = 20;
/// Counters are told every half a second.
const TOLD: Duration = Duration::from_secs(30);

struct Site {
    proxy: LoneProxy,
    at: Ipv4Addr,
    _sink: Sink,
    _dir: tempfile::TempDir,
    _addresses: Addresses,
}

impl Site {
    async fn open(handshake_ms: u64) -> Self {
        crowd::raise_limit();
        let addresses = Addresses::take(1);
        let at = addresses.ip(0);
        let dir = tempfile::tempdir().unwrap();
        let orders = Orders {
            handshake_ms,
            ..Orders::new(at, PORT, (at, POSTGRES_PORT))
        };
        Self {
            _sink: Sink::open(at, POSTGRES_PORT).await,
            proxy: LoneProxy::start(dir.path(), &orders),
            at,
            _dir: dir,
            _addresses: addresses,
        }
    }

    fn resident_kib(&self) -> u64 {
        processes::usage(self.proxy.pid).resident_kib
    }

    async fn counted(&self, name: &str, least: u64) {
        let counted = async {
            while self.proxy.counter(name) < least {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let counted = tokio::time::timeout(TOLD, counted).await;
        assert!(counted.is_ok(), "{name}: {} of {least}", self.proxy.counter(name));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_that_rest_cost_less_than_fifteen_mebibytes() {
    let site = Site::open(60_000).await;
    let before = site.resident_kib();
    let there = crowd::open(site.at, PORT, crowd::room(1_000)).await.unwrap();
    let taken = site.resident_kib() - before;
    let allowed = MOST_KIB * u64::try_from(there.len()).unwrap() / 1_000;
    assert!(taken < allowed, "{taken} KiB for {} clients", there.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_sessions_that_have_gone() {
    let site = Site::open(60_000).await;
    let descriptors = site.proxy.descriptors();
    crowd::come_and_go(site.at, PORT, 1_000).await.unwrap();
    site.proxy.await_descriptors(descriptors, GONE_S).await;
    let early = site.resident_kib();
    crowd::come_and_go(site.at, PORT, 5_000).await.unwrap();
    site.proxy.await_descriptors(descriptors, GONE_S).await;
    let late = site.resident_kib();
    assert!(
        late < early + KEPT_KIB,
        "{early} KiB after 1,000 sessions, {late} after 6,000"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_cost_a_counter_and_nobody_waits_for_them() {
    let site = Site::open(2_000).await;
    let descriptors = site.proxy.descriptors();
    let mut client = sink::log_in(site.at, PORT).await.unwrap();
    let there = crowd::strangers(site.at, PORT, crowd::room(2_000)).await.unwrap();
    crowd::answers_in_us(&mut client).await.unwrap();
    drop(sink::log_in(site.at, PORT).await.unwrap());
    let count = u64::try_from(there.len()).unwrap();
    // Those that began to shake hands are shown out when their time is over, though they stay at the door.
    site.counted("garbage", count).await;
    site.proxy.await_descriptors(descriptors + 2, GONE_S).await;
    crowd::answers_in_us(&mut client).await.unwrap();
}
