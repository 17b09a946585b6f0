//! Manifests, as somebody wrote them.

use observer::cluster::Index;
use observer::manifests::{Source, complete, missing, read as objects};

/// Reads manifests, completes them as a cluster would, and builds the index of that. What is wrong
/// with them is lines.
pub fn run(bytes: &[u8]) {
    read(bytes);
}

/// The index of manifests, if nothing is wrong with them.
pub fn read(bytes: &[u8]) -> Option<Index> {
    let source = Source {
        name: "any.yaml".to_owned(),
        bytes: bytes.to_vec(),
    };
    match objects(&[source], "default") {
        Ok(objects) => {
            assert_eq!(missing(&objects), [], "it would have been an error");
            let (objects, _) = complete(objects);
            // What is complete stays as it is.
            let (again, assumed) = complete(objects.clone());
            assert_eq!(assumed, []);
            assert!(again == objects, "something was completed twice");
            Some(Index::build(&objects))
        }
        Err(problems) => {
            assert!(!problems.shown.is_empty());
            for problem in &problems.shown {
                let line = problem.to_string();
                assert_eq!(line.lines().count(), 1, "{line:?}");
            }
            None
        }
    }
}
