//! The same done with several things at once.

use std::{panic, thread};

/// Does `work` with each of these, each in a thread of its own, and returns what came of them in
/// their order. A panic in one is a panic here.
pub fn at_once<W: Send, T: Send>(
    all: impl IntoIterator<Item = W>,
    work: impl Fn(W) -> T + Sync,
) -> Vec<T> {
    let work = &work;
    thread::scope(|scope| {
        let running: Vec<_> = all
            .into_iter()
            .map(|one| scope.spawn(move || work(one)))
            .collect();
        running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::at_once;

    #[test]
    fn all_are_at_work_at_once_and_come_back_in_order() {
        let barrier = Barrier::new(3);
        let doubled = at_once(1..=3, |number| {
            barrier.wait();
            number * 2
        });
        assert_eq!(doubled, [2, 4, 6]);
    }

    #[test]
    #[should_panic(expected = "one of them")]
    fn a_panic_comes_back_too() {
        at_once([1, 2], |number| assert_ne!(number, 2, "one of them"));
    }
}
