//! Answers that are ready together leave together.
//!
//! A request's task wakes its connection's when it has an answer, and tokio runs first what was woken last: the
//! connection would write each answer by itself, with a call of the system, while the tasks with the next ones
//! stand behind it. So while other requests of it are being answered, a connection that is woken lets all go first
//! that are ready, and then takes all that there is.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// When a connection's turn is.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// What is waited for: others go first, and nothing is done before it has come, whoever wakes the task.
    turn: Option<Arc<Turn>>,
}

/// Comes when nothing else is ready.
#[derive(Debug)]
struct Turn {
    has_come: AtomicBool,
    task: Waker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.has_come.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl Gather {
    /// Polls the connection, if it is its turn.
    pub(super) fn poll<F: Future>(
        &mut self,
        context: &mut Context<'_>,
        connection: Pin<&mut F>,
        is_answering: bool,
    ) -> Poll<F::Output> {
        if self.turn.is_none() && is_answering {
            self.turn = give_way(context);
        }
        if let Some(turn) = &self.turn
            && !turn.has_come.load(Ordering::Acquire)
        {
            return Poll::Pending;
        }
        self.turn = None;
        connection.poll(context)
    }
}

/// Lets others go first, if there may be any.
fn give_way(context: &Context<'_>) -> Option<Arc<Turn>> {
    let turn = Arc::new(Turn {
        has_come: AtomicBool::new(false),
        task: context.waker().clone(),
    });
    let waker = Waker::from(Arc::clone(&turn));
    let others = pin!(tokio::task::yield_now());
    let is_first = others.poll(&mut Context::from_waker(&waker)).is_ready();
    (!is_first).then_some(turn)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::mpsc;

    use super::*;

    const ANSWERS: usize = 16;

    /// How many answers a connection takes each time, when tasks that are ready at the same time answer one each.
    async fn taken(is_gathered: bool) -> Vec<usize> {
        let (answer, mut answers) = mpsc::channel(ANSWERS);
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let connection = tokio::spawn(async move {
            let (mut gather, mut taken, mut ready) = (Gather::default(), Vec::new(), Some(ready));
            let mut connection = pin!(poll_fn(move |context| {
                let mut now = 0;
                while let Poll::Ready(Some(())) = answers.poll_recv(context) {
                    now += 1;
                }
                taken.extend((now > 0).then_some(now));
                if let Some(ready) = ready.take() {
                    ready.send(()).expect("the test waits");
                }
                match taken.iter().sum::<usize>() {
                    ANSWERS => Poll::Ready(std::mem::take(&mut taken)),
                    _ => Poll::Pending,
                }
            }));
            poll_fn(|context| gather.poll(context, connection.as_mut(), is_gathered)).await
        });
        is_ready.await.expect("the connection waits for answers");
        // The scheduler prefers what was woken last only a few times in a row.
        tokio::task::yield_now().await;
        for _ in 0..ANSWERS {
            let answer = answer.clone();
            let _detached =
                tokio::spawn(
                    async move { answer.send(()).await.expect("the connection is there") },
                );
        }
        connection.await.expect("it ends")
    }

    /// On one thread, so that it is the scheduler's order that is seen.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_is_ready_together_is_taken_together() {
        let spawned = |is_gathered| tokio::spawn(taken(is_gathered));
        assert_eq!(spawned(true).await.unwrap(), [ANSWERS]);
        let one_by_one = spawned(false).await.unwrap();
        assert!(
            one_by_one.len() > 1,
            "{one_by_one:?}: then this is of no use"
        );
    }
}
