//! Steady ticks, one wake-up each.
//!
//! tokio sorts its timers into slots of 64 ms and looks at a slot when it begins: a sleep that crosses such a border, three of
//! four sleeps of 50 ms, wakes its thread twice. The kernel's own timer (timerfd_create(2)) wakes it once.

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;
use nix::unistd::read;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

/// Ticks at every multiple of its period; those of one process at the same moments, those of two at different ones.
pub struct Metronome {
    period: Duration,
    /// None where the kernel gives none; then tokio's timers do.
    timer: Option<AsyncFd<OwnedFd>>,
}

impl Metronome {
    /// The first tick comes within a period. Needs a tokio runtime with input and output.
    pub fn new(period: Duration) -> Metronome {
        Metronome {
            period,
            timer: (!modelled())
                .then(|| timer(period))
                .transpose()
                .inspect_err(|why| tracing::warn!("no timerfd, ticks cost more: {why}"))
                .unwrap_or_default(),
        }
    }

    /// Waits for the next tick; those that nobody waited for are one.
    pub async fn tick(&mut self) {
        let Some(timer) = &self.timer else {
            return sleep(self.period).await;
        };
        loop {
            let Ok(mut ready) = timer.readable().await else {
                return sleep(self.period).await;
            };
            match ready.try_io(|timer| Ok(read(timer.get_ref(), &mut [0; 8])?)) {
                Ok(Ok(_times)) => {
                    // Nothing is left of it, so it is not read once more to learn that.
                    ready.clear_ready();
                    return;
                }
                Ok(Err(_)) => return sleep(self.period).await,
                Err(_too_early) => {}
            }
        }
    }
}

/// In a modelled world only tokio's clock stands still.
fn modelled() -> bool {
    cfg!(test)
}

fn timer(period: Duration) -> std::io::Result<AsyncFd<OwnedFd>> {
    let timer = TimerFd::new(
        ClockId::CLOCK_MONOTONIC,
        TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
    )?;
    let now = Duration::from(clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?);
    let origin = Duration::from_millis(u64::from(std::process::id()) * 7);
    // From now on, not at a time: whoever tells this process another time (libfaketime does) tells the kernel nothing of it.
    let wait = left(now, period, origin);
    timer.set(
        Expiration::IntervalDelayed(TimeSpec::from_duration(wait), TimeSpec::from_duration(period)),
        TimerSetTimeFlags::empty(),
    )?;
    // SAFETY: the descriptor is this value's alone, until both are dropped together.
    let timer = unsafe { AsyncFd::register(OwnedFd::from(timer)) };
    Ok(timer?)
}

/// From now until the next multiple of this period, counted from `origin`.
fn left(now: Duration, period: Duration, origin: Duration) -> Duration {
    let since = now.as_nanos() + period.as_nanos() - origin.as_nanos() % period.as_nanos().max(1);
    let over = since.checked_rem(period.as_nanos()).unwrap_or(0);
    Duration::from_nanos(u64::try_from(period.as_nanos().saturating_sub(over)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_one_process_fall_together() {
        let ms = Duration::from_millis;
        for (now, period, origin, expected) in [
            (1_000, 50, 0, 50),
            (1_001, 50, 0, 49),
            (1_049, 50, 0, 1),
            (1_049, 100, 0, 51),
            (1_049, 50, 7, 8),
            (1_049, 100, 7, 58),
            (1_049, 200, 7, 158),
            (3, 50, 10_007, 4),
        ] {
            assert_eq!(
                left(ms(now), ms(period), ms(origin)),
                ms(expected),
                "{now} {period} {origin}"
            );
        }
    }

    #[tokio::test]
    async fn the_kernel_ticks_as_often_as_it_was_told() {
        let period = Duration::from_millis(20);
        let mut metronome = Metronome {
            period,
            timer: Some(timer(period).unwrap()),
        };
        let began = tokio::time::Instant::now();
        for _ in 0..5 {
            let tick = tokio::time::timeout(Duration::from_secs(10), metronome.tick());
            tick.await.expect("no tick");
        }
        assert!(began.elapsed() >= 4 * period, "{:?}", began.elapsed());
    }

    /// libfaketime's place in Debian's and Ubuntu's package of that name.
    fn libfaketime() -> Option<String> {
        let library = format!(
            "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1",
            std::env::consts::ARCH
        );
        std::path::Path::new(&library).exists().then_some(library)
    }

    /// It answers a timer that is set for a time by a clock of its own: then this process was told one, and never woken.
    #[test]
    fn whoever_is_told_another_time_hears_its_ticks() {
        let Some(library) = libfaketime() else {
            eprintln!("left out: there is no libfaketime");
            return;
        };
        let told = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "metronome::tests::the_kernel_ticks_as_often_as_it_was_told",
            ])
            .envs([
                ("LD_PRELOAD", library.as_str()),
                ("FAKETIME", "+30 x1"),
                ("DONT_FAKE_MONOTONIC", "1"),
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&told.stdout);
        assert!(told.status.success() && said.contains("1 passed"), "{said}");
    }
}
