//! Threads. Long work is a step function: production runs the steps in a thread of their own, the
//! simulation runs them inline whenever they are woken. A job that computes or waits for a disk or
//! pipe runs on a bounded pool in production and inline in the simulation.

use std::sync::Arc;

/// What one step of work came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// There may be more to do: call again at once.
    More,
    /// Nothing to do until the next [`Work::wait`] returns.
    Idle,
    /// The work has ended and will never be called again.
    Done,
}

/// Work that runs in steps.
pub trait Work: Send + 'static {
    /// Does one bounded unit of work without waiting for more of it to arrive.
    fn step(&mut self) -> Step;

    /// Waits until there may be something to do. Only a production thread calls it.
    fn wait(&mut self);
}

/// Starts work.
pub trait Spawn: Send + Sync + 'static {
    /// Runs `work` until it is done. The returned function must be called whenever something new
    /// is there to do: it does nothing in production, where [`Work::wait`] notices by itself, and
    /// runs the steps in the simulation.
    fn start(&self, name: &str, work: Box<dyn Work>) -> Arc<dyn Fn() + Send + Sync>;

    /// Runs a job beside the tasks, which must not block: on the runtime's bounded pool in
    /// production, before it returns in the simulation.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}
