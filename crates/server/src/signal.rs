//! Wakes within one task: a flag with the task behind it, and futures that are polled only when they
//! were woken themselves.
//!
//! A connection and its session are one task made of parts. Whatever wakes the task would poll all of
//! them, although mostly one has something to do; and a part that wakes another would schedule the
//! task again, although it runs already.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// A flag that wakes the one task that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: AtomicBool,
    task: AtomicWaker,
}

impl Signal {
    /// Raises the flag. Raising it again before it is taken costs nothing.
    pub(crate) fn raise(&self) {
        if !self.raised.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }

    /// Lowers the flag; whether it was raised.
    pub(crate) fn take(&self) -> bool {
        self.raised.load(Ordering::Acquire) && self.raised.swap(false, Ordering::AcqRel)
    }

    /// Ready, and the flag is lowered, once it was raised.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.take() || self.wait(cx) && self.take() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Has the task of `cx` woken; whether the flag is raised already.
    pub(crate) fn wait(&self, cx: &Context<'_>) -> bool {
        self.task.register(cx.waker());
        self.raised.load(Ordering::Acquire)
    }

    /// The task runs: until it waits again a raised flag is only noted.
    pub(crate) fn detach(&self) {
        drop(self.task.take());
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.raise();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
    }
}

/// A signal that stands for a waker.
#[derive(Debug)]
pub(crate) struct Part {
    signal: Arc<Signal>,
    waker: Waker,
}

impl Part {
    /// A part that wants to be polled once.
    pub(crate) fn new() -> Self {
        let signal = Arc::new(Signal::default());
        signal.raise();
        Self {
            waker: Waker::from(Arc::clone(&signal)),
            signal,
        }
    }

    /// What is raised when the part wants to be polled.
    pub(crate) fn signal(&self) -> &Signal {
        &self.signal
    }

    /// For polling what the part stands for.
    pub(crate) const fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

/// A future that is polled only when it was woken itself. For what seldom has anything to say.
pub(crate) struct Quiet<F> {
    future: Pin<Box<F>>,
    part: Part,
}

impl<F: Future> Quiet<F> {
    pub(crate) fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            part: Part::new(),
        }
    }
}

impl<F: Future> Future for Quiet<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if this.part.signal.poll(cx).is_pending() {
            return Poll::Pending;
        }
        let polled = this.future.as_mut().poll(&mut this.part.context());
        if polled.is_pending() && this.part.signal.poll(cx).is_ready() {
            this.part.signal.raise();
            cx.waker().wake_by_ref();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_quiet_future_is_polled_only_when_it_was_woken() {
        let (mut polls, mut woken) = (0, None);
        let mut quiet = Quiet::new(poll_fn(|cx| {
            polls += 1;
            if polls < 3 {
                woken = Some(cx.waker().clone());
                Poll::<()>::Pending
            } else {
                Poll::Ready(())
            }
        }));
        let mut once = || Pin::new(&mut quiet).poll(&mut Context::from_waker(Waker::noop()));

        assert!(once().is_pending() && once().is_pending() && once().is_pending());
        drop(quiet);
        woken.unwrap().wake();

        assert_eq!(polls, 1);
    }

    #[tokio::test]
    async fn a_future_that_wakes_itself_is_polled_again() {
        let mut polls = 0;
        let quiet = Quiet::new(poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls < 3 {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        }));

        quiet.await;

        assert_eq!(polls, 3);
    }

    #[tokio::test]
    async fn a_flag_raised_before_or_while_somebody_waits_is_seen_once() {
        let signal = Arc::new(Signal::default());
        signal.raise();
        signal.raise();

        poll_fn(|cx| signal.poll(cx)).await;
        assert!(!signal.take());

        let other = Arc::clone(&signal);
        let raised = std::thread::spawn(move || other.raise());
        poll_fn(|cx| signal.poll(cx)).await;
        raised.join().unwrap();
        assert!(!signal.take());
    }
}
