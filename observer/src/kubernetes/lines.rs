//! Lines out of the parts that a body comes in.

use std::collections::VecDeque;

/// What came of lines so far.
#[derive(Debug)]
pub struct Splitter {
    partial: Vec<u8>,
    whole: VecDeque<Vec<u8>>,
    length_max: usize,
}

/// A line is longer than any may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {0} KiB")]
pub struct TooLong(usize);

impl Splitter {
    /// Nothing yet. `length_max`: of a line, in bytes.
    pub fn new(length_max: usize) -> Self {
        Self {
            partial: Vec::new(),
            whole: VecDeque::new(),
            length_max,
        }
    }

    /// The next part.
    pub fn push(&mut self, part: &[u8]) -> Result<(), TooLong> {
        let mut lines = part.split(|byte| *byte == b'\n');
        if let Some(rest) = lines.next() {
            self.partial.extend_from_slice(rest);
        }
        for next in lines {
            let whole = std::mem::replace(&mut self.partial, next.to_vec());
            self.whole.push_back(whole);
        }
        if self.partial.len() > self.length_max {
            return Err(TooLong(self.length_max / 1_024));
        }
        Ok(())
    }

    /// The next whole line, without its end.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        self.whole.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_that_never_ends_is_an_error() {
        let mut splitter = Splitter::new(2_048);
        splitter.push(&[b'x'; 2_000]).expect("short");
        let error = splitter.push(&[b'x'; 2_000]).expect_err("long");
        assert_eq!(error.to_string(), "a line is longer than 2 KiB");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_lines_are_the_same(
            lines in prop::collection::vec("[a-z]{0,5}", 0..10),
            cuts in prop::collection::vec(1..7_usize, 1..20),
        ) {
            let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
            let mut splitter = Splitter::new(64);
            let mut rest = text.as_bytes();
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, more) = rest.split_at(cut.min(rest.len()));
                splitter.push(part).expect("short");
                rest = more;
            }
            let popped: Vec<_> = std::iter::from_fn(|| splitter.pop()).collect();
            let popped: Vec<_> = popped
                .into_iter()
                .map(|line| String::from_utf8(line).expect("text"))
                .collect();
            prop_assert_eq!(popped, lines);
        }
    }
}
