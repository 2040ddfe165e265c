//! At most one log line per cause and interval, so that a broken or hostile peer cannot fill the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(10);
const CAUSES: usize = 256;

/// Remembers when each cause was last told.
#[derive(Default)]
pub(crate) struct Throttle {
    told: Mutex<HashMap<String, (Instant, u64)>>,
}

impl Throttle {
    /// `Some(n)`: say it now, and that n like it went unsaid since the last time.
    pub(crate) fn admit(&self, cause: &str) -> Option<u64> {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= CAUSES {
            told.retain(|_, (at, _)| now.duration_since(*at) < INTERVAL);
        }
        if told.len() >= CAUSES && !told.contains_key(cause) {
            return None;
        }
        match told.get_mut(cause) {
            Some((at, unsaid)) if now.duration_since(*at) < INTERVAL => {
                *unsaid += 1;
                None
            }
            Some((at, unsaid)) => {
                *at = now;
                Some(std::mem::take(unsaid))
            }
            None => {
                told.insert(cause.to_owned(), (now, 0));
                Some(0)
            }
        }
    }
}
