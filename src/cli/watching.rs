//! `-W` and `-w`: looking again and again.

use clap::Args;
use std::time::Duration;

/// `-W` looks again this often.
const OFTEN_S: f64 = 2.0;

/// Options of a command that can be watched.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Watching {
    /// Look again after this many seconds, for ever
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    watch: Option<f64>,
    /// The same every 2 seconds
    #[arg(short = 'W')]
    watch_often: bool,
}

impl Watching {
    /// How long to wait before the next look; `None` looks once.
    pub(super) fn period(&self) -> Option<Duration> {
        let seconds = self.watch.or(self.watch_often.then_some(OFTEN_S));
        seconds.map(Duration::from_secs_f64)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=86_400.0).contains(&value) => Ok(value),
        _ => Err("a number of seconds is needed, at most a day".to_owned()),
    }
}
