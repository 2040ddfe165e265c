//! The metrics of the built-in proxy; absent where there is none.

use super::metrics::Page;
use crate::cluster::{ProxyFacts, UNMOVED};

pub(super) fn proxy_metrics(page: &mut Page, proxy: &ProxyFacts) {
    page.family(
        "matriarch_proxy_connections",
        "Sessions that are led to a server now, by the port they came to.",
        "gauge",
        "port",
        [("rw".to_owned(), proxy.rw), ("ro".to_owned(), proxy.ro)],
    );
    page.gauge(
        "matriarch_proxy_waiting",
        "New connections that wait for a server now.",
        proxy.waiting,
    );
    page.gauge(
        "matriarch_proxy_handshakes",
        "Connections that have not said what they want.",
        proxy.handshakes,
    );
    page.counter(
        "matriarch_proxy_accepted_total",
        "Connections that were accepted since the proxy began.",
        proxy.accepted,
    );
    page.counter(
        "matriarch_proxy_sessions_total",
        "Sessions that were led to a server.",
        proxy.led,
    );
    page.family(
        "matriarch_proxy_refused_total",
        "Connections that were refused: garbage or half a hand-shake, a limit, nobody who served in time.",
        "counter",
        "reason",
        [
            ("garbage".to_owned(), proxy.garbage),
            ("limit".to_owned(), proxy.crowded),
            ("no_server".to_owned(), proxy.unserved),
        ],
    );
    page.counter(
        "matriarch_proxy_cut_total",
        "Sessions that were ended because their primary was deposed or lost.",
        proxy.cut,
    );
    page.counter(
        "matriarch_proxy_moved_total",
        "Sessions that were taken to the next primary.",
        proxy.moved,
    );
    page.family(
        "matriarch_proxy_unmoved_total",
        "Sessions that ended with their primary, by why they could not be taken to the next one.",
        "counter",
        "reason",
        UNMOVED
            .iter()
            .map(|reason| (*reason).to_owned())
            .zip(proxy.unmoved),
    );
    page.counter(
        "matriarch_proxy_cancel_requests_total",
        "Requests to cancel that were passed on.",
        proxy.cancels,
    );
    page.family(
        "matriarch_proxy_bytes_total",
        "Bytes from clients and to them.",
        "counter",
        "direction",
        [
            ("in".to_owned(), proxy.bytes_in),
            ("out".to_owned(), proxy.bytes_out),
        ],
    );
}
