//! The metrics of the built-in proxy; absent where there is none.

use super::metrics::Page;
use crate::cluster::ProxyFacts;

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
        "Sessions that were ended because their primary was deposed.",
        proxy.cut,
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
