//! A question whose answer may lie until this node is awake anyway.
//!
//! The answer to a heartbeat is such a one, and what a peer that does not lead says to a report: read as it comes it would
//! wake the node for each, a third of all that a leader at rest is woken for.

use std::io;
use std::pin::pin;
use std::sync::atomic::Ordering;

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
    let answer = {
        let mut answer = pin!(frames.exchange(body));
        loop {
            let strike = beats.strikes();
            let (calm, late) = (beats.are_calm(), beats.late());
            unhurried.store(calm, Ordering::SeqCst);
            let over = Instant::now() + beats.heartbeat() / 8 >= until;
            tokio::select! {
                biased;
                answer = &mut answer => break Some(answer),
                () = std::future::ready(()), if over => break None,
                () = strike => {}
                () = sleep_until(if calm { late } else { until }) => {}
            }
        }
    };
    // The next question may be one whose answer is waited for.
    unhurried.store(false, Ordering::SeqCst);
    answer
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
        let beats = Arc::new(Beats::new(RARELY));
        beats.strike();
        let (mut asked, _peer) = answered(&beats).await;
        assert!(timeout(MOMENT, &mut asked).await.is_err(), "it was woken");
        beats.strike();
        assert_eq!(found(asked).await.unwrap().unwrap(), b"well");
    }

    #[tokio::test]
    async fn whoever_hurries_finds_what_lies_there_and_what_comes() {
        let beats = Arc::new(Beats::new(RARELY));
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
        let beats = Arc::new(Beats::new(MOMENT));
        beats.strike();
        let (asked, _peer) = answered(&beats).await;
        assert_eq!(found(asked).await.unwrap().unwrap(), b"well");
    }

    #[tokio::test]
    async fn without_an_answer_it_ends_in_time_and_with_the_connection_at_once() {
        let beats = Arc::new(Beats::new(MOMENT));
        beats.strike();
        let (mine, _peer) = ends().await;
        assert!(found(ask(&beats, mine, MOMENT)).await.is_none());

        beats.strike();
        let (mine, peer) = ends().await;
        drop(peer);
        assert!(found(ask(&beats, mine, RARELY)).await.unwrap().is_err());
    }
}
