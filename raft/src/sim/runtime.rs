//! A runtime for openraft with one thread, a clock of its own and a scheduler that draws from a seed.
//!
//! ```text
//!   ready tasks --draw one--> poll --> wakes others, sets timers
//!        ^                                      |
//!        '------ none ready: the clock moves to the next timer
//! ```
//!
//! Each poll takes a microsecond. Which of the ready tasks is next is drawn, and the set that it is drawn from is ordered,
//! so that neither the order of wakes nor anything else outside matters: the same seed gives the same run, which the hash
//! of the trace shows. Every task belongs to a *host*, one life of one node; a host can be paused, as a machine is, and
//! crashed, which drops its tasks where they are.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use openraft::async_runtime::{AsyncRuntime, Instant};
use openraft::{OptionalSend, TokioRuntime};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// One life of one node: its id, and how often it has been started. Node 0 is the world outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Host(pub(super) u64, pub(super) u64);

/// Who has no node: clients, disks' interrupts, faults.
pub(super) const OUTSIDE: Host = Host(0, 0);

thread_local! {
    static CURRENT: RefCell<Option<Arc<Executor>>> = const { RefCell::new(None) };
}

/// The executor of the simulation that runs on this thread.
pub(super) fn executor() -> Option<Arc<Executor>> {
    CURRENT.with_borrow(Clone::clone)
}

fn here() -> Arc<Executor> {
    executor().expect("only tasks of a simulation ask for its runtime")
}

struct Task {
    host: Host,
    /// `None` while it is being polled.
    future: Option<BoxFuture<'static, ()>>,
    waker: Waker,
}

struct State {
    now: Duration,
    rng: SmallRng,
    tasks: BTreeMap<u64, Task>,
    timers: BTreeMap<(Duration, u64), Waker>,
    paused: BTreeSet<Host>,
    /// The task that is being polled, and its host.
    current: (u64, Host),
    next_id: u64,
    trace: DefaultHasher,
    lines: Option<Vec<String>>,
}

type AfterPoll = Box<dyn Fn(Host) + Send>;

/// The tasks of one simulation. It is used by one thread; the locks only satisfy the compiler.
pub(super) struct Executor {
    state: Mutex<State>,
    ready: Arc<Mutex<BTreeSet<u64>>>,
    /// Called after each poll of a task, with its host.
    after_poll: Mutex<Option<AfterPoll>>,
}

struct TaskWaker {
    id: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.lock().insert(self.id);
    }
}

/// Makes this thread's runtime; another simulation may follow once it is dropped.
pub(super) struct Entered(Arc<Executor>);

impl Entered {
    /// A simulation whose every choice follows from `seed`. `keeps_lines`: whether the trace is kept as text too.
    pub(super) fn new(seed: u64, keeps_lines: bool) -> Self {
        let state = State {
            // Far from zero, so that openraft may look back.
            now: Duration::from_secs(1_000_000),
            rng: SmallRng::seed_from_u64(seed),
            tasks: BTreeMap::new(),
            timers: BTreeMap::new(),
            paused: BTreeSet::new(),
            current: (0, OUTSIDE),
            next_id: 1,
            trace: DefaultHasher::new(),
            lines: keeps_lines.then(Vec::new),
        };
        let executor =
            Arc::new(Executor { state: Mutex::new(state), ready: Arc::default(), after_poll: Mutex::default() });
        CURRENT.set(Some(Arc::clone(&executor)));
        Self(executor)
    }

    pub(super) fn executor(&self) -> &Arc<Executor> {
        &self.0
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        *self.0.after_poll.lock() = None;
        let hosts: BTreeSet<Host> = self.0.state.lock().tasks.values().map(|task| task.host).collect();
        hosts.into_iter().for_each(|host| self.0.crash(host));
        CURRENT.set(None);
    }
}

impl Executor {
    /// Runs until `future` is done.
    ///
    /// # Panics
    /// When nothing can happen any more, or after `polls_max` polls: a simulation that does not end has failed.
    pub(super) fn run<T: Send + 'static>(&self, polls_max: u64, future: impl Future<Output = T> + Send + 'static) -> T {
        let mut result = self.spawn_on(OUTSIDE, future);
        for _ in 0..polls_max {
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(done) = Pin::new(&mut result).poll(&mut context) {
                return done.expect("nobody crashes the outside");
            }
            self.step();
        }
        panic!("the simulation goes on and on: {:?} of its time is over", self.now());
    }

    fn step(&self) {
        let Some(id) = self.draw() else {
            let mut state = self.state.lock();
            let Some((&(time, _), _)) = state.timers.first_key_value() else { panic!("nothing can happen any more") };
            state.now = state.now.max(time);
            drop(state);
            return self.fire();
        };
        let taken = {
            let mut state = self.state.lock();
            state.now += Duration::from_micros(1);
            let now = state.now;
            (id, now).hash(&mut state.trace);
            state.tasks.get_mut(&id).and_then(|task| Some((task.future.take()?, task.waker.clone(), task.host)))
        };
        self.fire();
        let Some((mut future, waker, host)) = taken else { return };
        let before = std::mem::replace(&mut self.state.lock().current, (id, host));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        self.state.lock().current = before;
        match polled {
            Poll::Ready(()) => drop(self.state.lock().tasks.remove(&id)),
            Poll::Pending => {
                // A task may have been crashed meanwhile, by itself even; then it is dropped here.
                let mut state = self.state.lock();
                match state.tasks.get_mut(&id) {
                    Some(task) => task.future = Some(future),
                    None => {
                        drop(state);
                        drop(future);
                    }
                }
            }
        }
        if let Some(after_poll) = &*self.after_poll.lock() {
            after_poll(host);
        }
    }

    /// One of the tasks that can go on.
    fn draw(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let mut ready = self.ready.lock();
        ready.retain(|id| state.tasks.contains_key(id));
        let can_go_on = |id: &&u64| state.tasks.get(id).is_some_and(|task| !state.paused.contains(&task.host));
        let candidates: Vec<u64> = ready.iter().filter(can_go_on).copied().collect();
        if candidates.is_empty() {
            return None;
        }
        let id = candidates[state.rng.random_range(0..candidates.len())];
        ready.remove(&id);
        Some(id)
    }

    /// Wakes those whose time has come.
    fn fire(&self) {
        loop {
            let waker = {
                let mut state = self.state.lock();
                match state.timers.first_key_value() {
                    Some((&(time, _), _)) if time <= state.now => state.timers.pop_first().map(|(_, waker)| waker),
                    _ => None,
                }
            };
            match waker {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    /// Begins a task of a host.
    pub(super) fn spawn_on<F>(&self, host: Host, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let future = async move {
            // Nobody may wait.
            let _ = sender.send(future.await);
        };
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        let waker = Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(&self.ready) }));
        state.tasks.insert(id, Task { host, future: Some(Box::pin(future)), waker });
        self.ready.lock().insert(id);
        JoinHandle(receiver)
    }

    /// Drops all tasks of a host, where they are.
    pub(super) fn crash(&self, host: Host) {
        let ids: Vec<u64> = {
            let state = self.state.lock();
            state.tasks.iter().filter(|(_, task)| task.host == host).map(|(id, _)| *id).collect()
        };
        for id in ids {
            let task = self.state.lock().tasks.remove(&id);
            // Outside of the lock: what it holds may wake others.
            drop(task);
        }
        self.state.lock().paused.remove(&host);
    }

    /// Whether a host has tasks, and so is alive.
    pub(super) fn has_tasks(&self, host: Host) -> bool {
        self.state.lock().tasks.values().any(|task| task.host == host)
    }

    /// The host of the task that is being polled.
    pub(super) fn current_host(&self) -> Host {
        self.state.lock().current.1
    }

    /// Stops a host's tasks, as a machine that is suspended, or has them go on.
    pub(super) fn pause(&self, host: Host, pause: bool) {
        let mut state = self.state.lock();
        if pause {
            state.paused.insert(host);
        } else {
            state.paused.remove(&host);
        }
    }

    pub(super) fn set_after_poll(&self, after_poll: impl Fn(Host) + Send + 'static) {
        *self.after_poll.lock() = Some(Box::new(after_poll));
    }

    /// The time since an arbitrary moment before the simulation.
    pub(super) fn now(&self) -> Duration {
        self.state.lock().now
    }

    /// A number below `bound`.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.state.lock().rng.random_range(0..bound)
    }

    /// A time between two others.
    pub(super) fn between(&self, from: Duration, to: Duration) -> Duration {
        let span = (to - from).as_micros() as u64;
        from + Duration::from_micros(self.below(span + 1))
    }

    /// Writes down what has happened.
    pub(super) fn trace(&self, event: &dyn fmt::Display) {
        let mut state = self.state.lock();
        let text = event.to_string();
        text.hash(&mut state.trace);
        let now = state.now - Duration::from_secs(1_000_000);
        if let Some(lines) = &mut state.lines {
            lines.push(format!("{:>11.6} {text}", now.as_secs_f64()));
        }
    }

    /// What the run was like: equal for equal runs.
    pub(super) fn trace_hash(&self) -> u64 {
        self.state.lock().trace.finish()
    }

    /// The trace as text, where it is kept.
    pub(super) fn trace_lines(&self) -> Vec<String> {
        self.state.lock().lines.clone().unwrap_or_default()
    }
}

/// Sleeps in the simulation's time.
pub(super) async fn sleep(time: Duration) {
    SimRuntime::sleep(time).await;
}

/// What openraft runs on in a simulation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SimRuntime;

/// A moment of the simulation's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SimInstant(Duration);

impl Instant for SimInstant {
    fn now() -> Self {
        Self(here().now())
    }
}

impl Add<Duration> for SimInstant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

impl AddAssign<Duration> for SimInstant {
    fn add_assign(&mut self, time: Duration) {
        self.0 += time;
    }
}

impl Sub<Duration> for SimInstant {
    type Output = Self;

    fn sub(self, time: Duration) -> Self {
        Self(self.0 - time)
    }
}

impl SubAssign<Duration> for SimInstant {
    fn sub_assign(&mut self, time: Duration) {
        self.0 -= time;
    }
}

impl Sub for SimInstant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Done at a moment.
pub(super) struct Sleep {
    deadline: Duration,
    timer: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let executor = here();
        let mut state = executor.state.lock();
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        let key = match self.timer {
            Some(key) => key,
            None => {
                let key = (self.deadline, state.next_id);
                state.next_id += 1;
                key
            }
        };
        state.timers.insert(key, context.waker().clone());
        drop(state);
        self.timer = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // A value that outlives its simulation has nothing to give back.
        if let (Some(key), Some(executor)) = (self.timer, executor()) {
            executor.state.lock().timers.remove(&key);
        }
    }
}

/// A future with a deadline.
pub(super) struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(done) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(done));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(Elapsed))
    }
}

/// A deadline is over.
#[derive(Debug)]
pub(super) struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the deadline is over")
    }
}

/// The result of a task; a handle that is dropped changes nothing.
pub(super) struct JoinHandle<T>(tokio::sync::oneshot::Receiver<T>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Crashed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|result| result.map_err(|_| Crashed))
    }
}

/// The task's host has crashed.
#[derive(Debug)]
pub(super) struct Crashed;

impl fmt::Display for Crashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host of the task has crashed")
    }
}

impl AsyncRuntime for SimRuntime {
    type JoinError = Crashed;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = SimInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = SmallRng;
    // Channels need no runtime.
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let executor = here();
        let (_, host) = executor.state.lock().current;
        executor.spawn_on(host, future)
    }

    fn sleep(time: Duration) -> Sleep {
        Sleep { deadline: here().now() + time, timer: None }
    }

    fn sleep_until(deadline: SimInstant) -> Sleep {
        Sleep { deadline: deadline.0, timer: None }
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(time: Duration, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep(time) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: SimInstant, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep_until(deadline) }
    }

    fn is_panic(_: &Crashed) -> bool {
        false
    }

    fn thread_rng() -> SmallRng {
        let seed = here().below(u64::MAX);
        SmallRng::seed_from_u64(seed)
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, _future: F) -> T
    where
        F: Future<Output = T>,
    {
        unreachable!("a simulation is run by its executor")
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, std::io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        std::future::ready(Ok(work()))
    }
}
