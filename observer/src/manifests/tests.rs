//! From text to objects, and all that is wrong on the way.

mod complete;
mod problems;

use super::{Source, read};
use crate::cluster::Objects;

fn source(name: &str, text: &str) -> Source {
    Source {
        name: name.to_owned(),
        bytes: text.as_bytes().to_vec(),
    }
}

/// The objects of a text with which nothing is wrong.
fn objects(text: &str) -> Objects {
    match read(&[source("it.yaml", text)], "default") {
        Ok(objects) => objects,
        Err(problems) => panic!("{problems}"),
    }
}

/// What is wrong with a text, a line each.
fn wrong(text: &str) -> String {
    let problems = read(&[source("it.yaml", text)], "default").expect_err("something is wrong");
    for problem in &problems.shown {
        assert_eq!(problem.to_string().lines().count(), 1, "{problem}");
    }
    problems.to_string()
}
