//! A closure on its way through the writer. Whatever happens to it, whoever asked for it is told once.

use crate::{Tx, fail};
use std::{
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
};
use zo_traits::{Error, ErrorKind, Result};

pub(crate) const OP: &str = "store.write";

/// A closure of any type.
pub(crate) trait Job: Send {
    /// Runs the closure and keeps its result; did it succeed?
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;

    /// Tells the caller: its own result, or why the commit that it was in failed.
    fn settle(self: Box<Self>, failed: Option<&Error>);
}

pub(crate) struct Closure<T, F, D: FnOnce(Result<T>)> {
    work: F,
    result: Option<Result<T>>,
    done: Done<T, D>,
}

impl<T, F, D: FnOnce(Result<T>)> Closure<T, F, D> {
    pub(crate) fn new(work: F, done: D) -> Self {
        Self { work, result: None, done: Done { call: Some(done), result: PhantomData } }
    }
}

impl<T, F, D> Job for Closure<T, F, D>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> Result<T> + Send,
    D: FnOnce(Result<T>) + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        let result = catch_unwind(AssertUnwindSafe(|| (self.work)(tx))).unwrap_or_else(|panic| {
            let text = fail::panic_text(&panic);
            Err(Error::new(
                ErrorKind::Other("panic".into()),
                OP,
                format_args!("the closure panicked: {text}"),
            ))
        });
        let ok = result.is_ok();
        self.result = Some(result);
        ok
    }

    fn settle(self: Box<Self>, failed: Option<&Error>) {
        let Self { work, result, done } = *self;
        // The closure may hold a handle of the store: it goes first, so that a caller who then drops the last one of his
        // finds the file released. Its drop is the caller's code, and must not keep the answer back.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(work)));
        done.tell(match failed {
            Some(e) => Err(e.clone()),
            None => result.unwrap_or_else(|| Err(fail::closed(OP))),
        });
    }
}

/// Whom to tell: once, and also when the job is dropped on its way.
struct Done<T, D: FnOnce(Result<T>)> {
    call: Option<D>,
    result: PhantomData<fn(T)>,
}

impl<T, D: FnOnce(Result<T>)> Done<T, D> {
    fn tell(mut self, answer: Result<T>) {
        if let Some(call) = self.call.take() {
            call(answer);
        }
    }
}

impl<T, D: FnOnce(Result<T>)> Drop for Done<T, D> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| call(Err(fail::closed(OP)))));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    type Answer = Result<u8>;

    fn job(to: mpsc::Sender<Answer>) -> Box<dyn Job> {
        Box::new(Closure::new(|_: &mut Tx<'_>| Ok(1), move |answer: Answer| to.send(answer).unwrap()))
    }

    #[test]
    fn one_that_is_dropped_on_its_way_is_told_once_too() {
        let (to, told) = mpsc::channel();
        drop(job(to));
        assert!(told.recv().unwrap().unwrap_err().message().contains("closed"));
        assert!(told.recv().is_err());
    }

    #[test]
    fn a_settled_one_is_told_once_even_if_dropping_its_closure_panics() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("a careless caller");
            }
        }
        let (to, told) = mpsc::channel();
        let bomb = Bomb;
        let work = move |_: &mut Tx<'_>| {
            let _ = &bomb;
            Ok(1)
        };
        let mut job = Closure::new(work, move |answer: Answer| to.send(answer).unwrap());
        job.result = Some(Ok(2));
        Box::new(job).settle(None);
        assert_eq!(told.recv().unwrap().unwrap(), 2);
        assert!(told.recv().is_err());
    }
}
