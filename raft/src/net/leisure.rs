//! What may lie until this node is awake anyway.
//!
//! The answer to a heartbeat may, and on a lane of its own the regular report and its answer: read as they come they would
//! wake the node for each, half of all that a leader at rest is woken for.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::beats::Beats;
use crate::net::socket::Frames;

/// Sends a frame and looks for its answer with every strike, or as it comes while strikes are late or somebody is in a
/// hurry. `None` when there is none at the last strike before `until`.
pub(crate) async fn exchange(
    beats: &Beats,
    frames: &mut Frames,
    body: &[u8],
    until: Instant,
) -> Option<io::Result<Vec<u8>>> {
    let unhurried = frames.unhurried();
    let (answer, _) = with_strikes(beats, unhurried, until, frames.exchange(body)).await?;
    Some(answer)
}

/// Waits in the same way for the head of the next frame. Says for how long that may have lain there.
pub(crate) async fn head(
    beats: &Beats,
    frames: &mut Frames,
    until: Instant,
) -> Option<io::Result<(Option<usize>, Duration)>> {
    let unhurried = frames.unhurried();
    let (head, lain) = with_strikes(beats, unhurried, until, frames.head()).await?;
    Some(head.map(|head| (head, lain)))
}

/// Polls with every strike what is not woken. Says for how long nobody had looked when it was there.
async fn with_strikes<T>(
    beats: &Beats,
    unhurried: Arc<AtomicBool>,
    until: Instant,
    what: impl Future<Output = T>,
) -> Option<(T, Duration)> {
    let mut what = pin!(what);
    let mut looked = None;
    let done = loop {
        let strike = beats.strikes();
        let calm = beats.are_calm();
        unhurried.store(calm, Ordering::SeqCst);
        let now = Instant::now();
        let over = now + beats.heartbeat() / 8 >= until;
        let mut polls = 0_u32;
        let polled = poll_fn(|cx| {
            polls += 1;
            what.as_mut().poll(cx)
        });
        tokio::select! {
            biased;
            () = strike => {}
            // What is there with a later poll has woken this task.
            done = polled => break Some((done, looked.filter(|_| polls == 1))),
            () = std::future::ready(()), if over => break None,
            () = sleep_until(until), if !calm => {}
        }
        looked = calm.then_some(now);
    };
    // What comes next may be waited for.
    unhurried.store(false, Ordering::SeqCst);
    // After a longer time this process stood still: what that says of others is nothing.
    let lain = |at: Instant| at.elapsed().min(beats.patience());
    done.map(|(done, looked)| (done, looked.map_or(Duration::ZERO, lain)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;
    use crate::net::socket::Socket;
    use crate::net::tcp::Tcp;

    /// Ten times what anything here needs, and no heartbeat comes within it.
    const PATIENCE: Duration = Duration::from_secs(20);
    const RARELY: Duration = Duration::from_secs(3_600);
    /// What a woken reader would have needed to be done.
    const MOMENT: Duration = Duration::from_millis(100);

    fn beats(heartbeat: Duration) -> Arc<Beats> {
        let beats = Arc::new(Beats::new(heartbeat, 3 * heartbeat));
        tokio::spawn(beats.clone().keep());
        beats
    }

    async fn ends() -> (Frames, Frames) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (called, accepted) = tokio::join!(
            TcpStream::connect(listener.local_addr().unwrap()),
            listener.accept()
        );
        let frames = |tcp| Frames::new(Socket::Plain(Tcp::new(tcp)), 1 << 20);
        (frames(called.unwrap()), frames(accepted.unwrap().0))
    }

    async fn answer(peer: &mut Frames) {
        let asked = timeout(PATIENCE, peer.read()).await.expect("no question");
        assert_eq!(asked.unwrap(), b"how are you");
        peer.write(b"well").await.unwrap();
    }

    type Asked = JoinHandle<Option<io::Result<Vec<u8>>>>;

    fn ask(beats: &Arc<Beats>, mut mine: Frames, patience: Duration) -> Asked {
        let (beats, until) = (beats.clone(), Instant::now() + patience);
        tokio::spawn(async move { exchange(&beats, &mut mine, b"how are you", until).await })
    }

    /// A question whose answer lies in this side's kernel, and the other side.
    async fn answered(beats: &Arc<Beats>) -> (Asked, Frames) {
        let (mine, mut peer) = ends().await;
        let asked = ask(beats, mine, RARELY);
        answer(&mut peer).await;
        (asked, peer)
    }

    async fn found(asked: Asked) -> Option<io::Result<Vec<u8>>> {
        timeout(PATIENCE, asked).await.expect("it does not end").unwrap()
    }

    #[tokio::test]
    async fn an_answer_wakes_nobody_and_is_found_with_the_next_strike() {
        let beats = beats(RARELY);
        beats.strike();
        let (mut asked, _peer) = answered(&beats).await;
        assert!(timeout(MOMENT, &mut asked).await.is_err(), "it was woken");
        beats.strike();
        assert_eq!(found(asked).await.unwrap().unwrap(), b"well");
    }

    #[tokio::test]
    async fn what_comes_wakes_nobody_and_says_how_long_it_may_have_lain() {
        let beats = beats(RARELY);
        beats.strike();
        let (mut mine, mut peer) = ends().await;
        let began = Instant::now();
        let reading = tokio::spawn({
            let beats = beats.clone();
            async move {
                let read = head(&beats, &mut mine, began + RARELY).await;
                (read.unwrap().unwrap(), mine)
            }
        });
        tokio::pin!(reading);
        assert!(
            timeout(MOMENT, &mut reading).await.is_err(),
            "nothing is there yet"
        );
        peer.write(b"regular").await.unwrap();
        assert!(timeout(MOMENT, &mut reading).await.is_err(), "it was woken");
        beats.strike();
        let ((length, lain), mut mine) = timeout(PATIENCE, reading).await.expect("no strike").unwrap();
        assert_eq!(length, Some(7));
        assert!((MOMENT..=began.elapsed()).contains(&lain), "{lain:?}");
        assert_eq!(mine.body(7).await.unwrap(), b"regular");

        // Whoever hurries is woken by what comes: that has not lain.
        let _hurry = beats.hurry();
        peer.write(b"news").await.unwrap();
        let (length, lain) = head(&beats, &mut mine, Instant::now() + RARELY)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((length, lain), (Some(4), Duration::ZERO));
    }

    #[tokio::test]
    async fn whoever_hurries_finds_what_lies_there_and_what_comes() {
        let beats = beats(RARELY);
        beats.strike();
        let (asked, _peer) = answered(&beats).await;
        let hurry = beats.hurry();
        assert_eq!(found(asked).await.unwrap().unwrap(), b"well");

        let (asked, _peer) = answered(&beats).await;
        assert_eq!(found(asked).await.unwrap().unwrap(), b"well");
        drop(hurry);
        assert!(beats.are_calm());
    }

    #[tokio::test]
    async fn strikes_that_stay_away_are_not_waited_for() {
        let beats = beats(MOMENT);
        beats.strike();
        let (asked, _peer) = answered(&beats).await;
        assert_eq!(found(asked).await.unwrap().unwrap(), b"well");
    }

    #[tokio::test]
    async fn without_an_answer_it_ends_in_time_and_with_the_connection_at_once() {
        let beats = beats(MOMENT);
        beats.strike();
        let (mine, _peer) = ends().await;
        assert!(found(ask(&beats, mine, MOMENT)).await.is_none());

        beats.strike();
        let (mine, peer) = ends().await;
        drop(peer);
        assert!(found(ask(&beats, mine, RARELY)).await.unwrap().is_err());
    }
}
