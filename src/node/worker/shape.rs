//! The one shape of all workers, and what runs them. Owns the order of working and waiting, the
//! pause after an error, and what the board says of a worker meanwhile; what there is to do is each
//! worker's own.
//!
//! Invariant: between two pieces a worker is asked for news, so none can hide behind work that
//! never ends, and only [`Worker::wait`] is ever cancelled.

use super::board::{Board, Report};
use crate::node::Shared;
use crate::sys::{Clock, Time};
use crate::wire::control::WorkerState;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// The pause after the first error in a row; half as long again after each further one …
const BACK_OFF: Duration = Duration::from_secs(1);
/// … at most.
const BACK_OFF_MAX: Duration = Duration::from_secs(600);

/// What a worker does after a piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Next {
    /// The next piece, at once.
    More,
    /// The next piece at this time, to keep a pace, unless news come.
    Pause(Time),
    /// Nothing itself, because what it began is under way; news tell when that ends.
    UnderWay(Option<Time>),
    /// Nothing before this time, unless news come.
    Idle(Time),
    /// Nothing unless news come.
    Wait,
}

/// What a piece of work comes to.
pub(in crate::node) type Worked = Result<Next, Box<dyn Error + Send + Sync>>;

/// Work that nobody waits for.
pub(in crate::node) trait Worker: Send {
    /// Its name on the board: one word.
    const NAME: &'static str;

    /// Does one bounded piece. Is called at the start, then as it says itself or when news came.
    /// After an error it is called again, after a pause that grows; errors that need no pause go to
    /// [`Shared::worker_failed`].
    fn work(&mut self) -> impl Future<Output = Worked> + Send;

    /// Ends when there is news. May be cancelled wherever it waits, and forgets nothing then.
    fn wait(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// What the board says of it, asked after each piece.
    fn report(&self) -> Report {
        Report::default()
    }
}

/// Runs a worker for as long as the node lives.
pub(in crate::node) async fn run<W: Worker>(shared: Arc<Shared>, worker: W) {
    drive(&shared.board, &*shared.sys.clock, worker).await;
}

async fn drive<W: Worker>(board: &Board, clock: &dyn Clock, mut worker: W) {
    let mut back_off = BACK_OFF;
    loop {
        board.state(W::NAME, WorkerState::Busy, None);
        let worked = worker.work().await;
        let now = clock.now();
        board.report(W::NAME, now, worker.report());
        let next = match worked {
            Ok(next) => next,
            Err(err) => {
                tracing::warn!(worker = W::NAME, %err, "a worker failed; it will try again");
                board.failed(W::NAME, now, &*err);
                board.state(W::NAME, WorkerState::Idle, Some(now + back_off));
                tokio::time::sleep(back_off).await;
                back_off = BACK_OFF_MAX.min(back_off * 3 / 2);
                continue;
            }
        };
        back_off = BACK_OFF;
        let (state, until) = match next {
            Next::More => (WorkerState::Busy, Some(now)),
            Next::Pause(until) => (WorkerState::Throttled, Some(until)),
            Next::UnderWay(until) => (WorkerState::Busy, until),
            Next::Idle(until) => (WorkerState::Idle, Some(until)),
            Next::Wait => (WorkerState::Waiting, None),
        };
        board.state(W::NAME, state, until.filter(|until| *until > now));
        tokio::select! {
            biased;
            () = worker.wait() => {}
            () = pause(now, until) => {}
        }
    }
}

/// Lets others have their turn, or time pass.
async fn pause(now: Time, until: Option<Time>) {
    match until {
        None => std::future::pending().await,
        Some(until) if until <= now => tokio::task::yield_now().await,
        Some(until) => tokio::time::sleep(until.since(now)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::time::Instant;

    /// The runtime's own time, which stands still while somebody works.
    struct Paused(Instant);

    impl Clock for Paused {
        fn now(&self) -> Time {
            Time::ZERO + self.0.elapsed()
        }

        fn wall_ms(&self) -> u64 {
            0
        }
    }

    /// Plays what each piece comes to, and notes when each began.
    struct Player {
        plays: Vec<Result<Next, &'static str>>,
        news: Vec<Duration>,
        began: Arc<Mutex<Vec<u64>>>,
        zero: Instant,
    }

    impl Worker for Player {
        const NAME: &'static str = "player";

        async fn work(&mut self) -> Worked {
            self.began.lock().unwrap().push(self.zero.elapsed().as_secs());
            if self.plays.is_empty() { Ok(Next::Wait) } else { Ok(self.plays.remove(0)?) }
        }

        async fn wait(&mut self) {
            let Some(next) = self.news.first() else { return std::future::pending().await };
            tokio::time::sleep_until(self.zero + *next).await;
            self.news.remove(0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_follows_the_time_the_news_and_the_errors() {
        let (began, zero) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let plays = vec![
            Ok(Next::More),
            Ok(Next::Idle(at(5))),
            Ok(Next::Idle(at(100))),
            Err("the first"),
            Err("the second, after a longer pause"),
            Ok(Next::Pause(at(40))),
            Ok(Next::UnderWay(None)),
        ];
        // That at 9 s comes while it pauses because of an error, and waits for the pause to end.
        let news = [7, 9, 50].map(Duration::from_secs).to_vec();
        let player = Player { plays, news, began: began.clone(), zero };
        let board = Board::default();
        let clock = Paused(zero);
        let hour = Duration::from_secs(3_600);
        assert!(tokio::time::timeout(hour, drive(&board, &clock, player)).await.is_err());
        assert_eq!(*began.lock().unwrap(), [0, 0, 5, 7, 8, 9, 9, 50]);
    }
}
