//! [`Worker`]: a queue and one thread that works it off. The thread starts with the first item, so that an engine that needs none has
//! none, and ends with the worker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

/// The items that wait. The thread and whoever gives it work share it.
pub(super) struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    wake: Condvar,
    is_over: AtomicBool,
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self { items: Mutex::default(), wake: Condvar::new(), is_over: AtomicBool::new(false) }
    }

    /// Puts an item behind all others.
    pub(super) fn push(&self, item: T) {
        self.items.lock().push_back(item);
        self.wake.notify_one();
    }

    /// Waits for the next item; `None` once the worker is dropped, whatever is left.
    pub(super) fn next(&self) -> Option<T> {
        let mut items = self.items.lock();
        loop {
            if self.is_over() {
                return None;
            }
            if let Some(item) = items.pop_front() {
                return Some(item);
            }
            self.wake.wait(&mut items);
        }
    }

    /// Whether the worker is dropped, for work that takes long.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

/// See the module.
pub(super) struct Worker<T> {
    /// The thread's.
    name: &'static str,
    queue: Arc<Queue<T>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<T: Send + 'static> Worker<T> {
    /// A worker without a thread; `name` is what its thread will be called.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, queue: Arc::new(Queue::new()), thread: Mutex::new(None) }
    }

    /// What waits.
    pub(super) fn queue(&self) -> &Arc<Queue<T>> {
        &self.queue
    }

    /// Gives the worker an item. `run` is what the thread does, until [`Queue::next`] has no more; it is called where there is
    /// no thread yet. Where none can be started, the item stays in the queue and the next one tries again.
    pub(super) fn push(&self, item: T, run: impl FnOnce() + Send + 'static) {
        self.queue.push(item);
        let mut thread = self.thread.lock();
        if thread.is_none() {
            match std::thread::Builder::new().name(self.name.into()).spawn(run) {
                Ok(spawned) => *thread = Some(spawned),
                Err(error) => {
                    tracing::warn!(%error, "the thread {} cannot be started; its work is left undone", self.name);
                }
            }
        }
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        {
            // Nobody is between its look at the queue and its wait for more.
            let _items = self.queue.items.lock();
            self.queue.is_over.store(true, Ordering::SeqCst);
            self.queue.wake.notify_all();
        }
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread {} has failed", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn one_thread_works_everything_off_in_order() {
        let worker = Worker::new("cairn-test");
        let (tell, told) = channel();
        for item in 0..100 {
            let (queue, tell) = (Arc::clone(worker.queue()), tell.clone());
            worker.push(item, move || {
                while let Some(item) = queue.next() {
                    tell.send((item, std::thread::current().id())).unwrap();
                }
            });
        }
        let done: Vec<_> = told.iter().take(100).collect();
        assert_eq!(done.iter().map(|(item, _)| *item).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert!(done.iter().all(|(_, thread)| *thread == done[0].1));
    }

    #[test]
    fn a_worker_that_is_dropped_ends_its_thread_and_leaves_the_rest() {
        let worker = Worker::new("cairn-test");
        let (queue, (tell, told)) = (Arc::clone(worker.queue()), channel());
        let of_thread = Arc::clone(&queue);
        worker.push(0, move || {
            while let Some(item) = of_thread.next() {
                tell.send(item).unwrap();
            }
        });
        assert_eq!(told.recv(), Ok(0));
        drop(worker);
        queue.push(1);
        assert!(told.recv().is_err(), "the thread is gone, and did nothing more");
        assert!(queue.is_over() && queue.next().is_none());
    }
}
