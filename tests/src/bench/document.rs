//! Documents that quote what a run found: between two marks, so that no figure is written by hand.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::{chart, results::Results, table};

/// Where it is quoted, and what.
const QUOTES: [(&str, &str); 3] = [
    ("README.md", TARGETS),
    (COST, TARGETS),
    (COST, "all figures"),
];
const TARGETS: &str = "targets";
/// The document about costs.
pub const COST: &str = "docs/cost.md";
/// Its picture.
const PICTURE: &str = "docs/cost.svg";
const END: &str = "<!-- The bench ends here. -->";

/// Writes what a run found into the documents of the project at `root`.
pub fn write(root: &Path, results: &Results) -> Result<()> {
    let save = |file: &str, text: String| {
        fs::write(root.join(file), text).with_context(|| format!("failed to write {file}"))
    };
    for (file, what) in QUOTES {
        let found = match what {
            TARGETS => table::targets(&results.targets).to_string(),
            _ => table::text(results),
        };
        let found = format!("{}\n{}\n", found.trim(), table::setting(results));
        let text = fs::read_to_string(root.join(file));
        let text = text.with_context(|| format!("failed to read {file}"))?;
        save(
            file,
            replaced(&text, what, &found).with_context(|| format!("in {file}"))?,
        )?;
    }
    save(PICTURE, chart::svg(results)?)
}

/// What a document quotes.
pub fn quoted<'text>(text: &'text str, what: &str) -> Result<&'text str> {
    let begin = begin(what);
    let (_, rest) = text
        .split_once(&begin)
        .with_context(|| format!("there is no line {begin}"))?;
    let (found, _) = rest
        .split_once(END)
        .with_context(|| format!("no line {END} follows {begin}"))?;
    Ok(found)
}

fn begin(what: &str) -> String {
    format!("<!-- Written by `cargo xtask bench --document`: {what}. -->")
}

fn replaced(text: &str, what: &str, found: &str) -> Result<String> {
    let old = quoted(text, what)?;
    let begin = begin(what);
    let new = format!("\n```text\n{found}```\n");
    Ok(text.replacen(
        &format!("{begin}{old}{END}"),
        &format!("{begin}{new}{END}"),
        1,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_the_marks_is_replaced_and_nothing_else() {
        let text = format!("one\n{}\nold\n{END}\ntwo\n", begin(TARGETS));
        let new = replaced(&text, TARGETS, "new\n").expect("replaced");
        let quote = quoted(&new, TARGETS).expect("there");
        assert_eq!(quote, "\n```text\nnew\n```\n");
        assert!(
            new.starts_with("one\n") && new.ends_with("\ntwo\n"),
            "{new}"
        );
        let again = replaced(&new, TARGETS, "new\n").expect("replaced");
        assert_eq!(again, new);
    }

    #[test]
    fn a_document_without_marks_is_left_alone() {
        let error = replaced("one", TARGETS, "new\n").expect_err("no mark");
        assert!(error.to_string().contains("there is no line"), "{error}");
        let error = replaced(&begin(TARGETS), TARGETS, "new\n").expect_err("no end");
        assert!(error.to_string().contains("follows"), "{error}");
    }

    #[test]
    fn the_documents_quote_one_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the project");
        let quotes = QUOTES.map(|(file, what)| {
            let text = fs::read_to_string(root.join(file)).expect("a document");
            quoted(&text, what).expect("a quote").to_owned()
        });
        assert_eq!(quotes[0], quotes[1]);
        // Its last table is that of the targets, and its last line how it was measured.
        assert!(quotes[2].contains(quotes[0].trim_start_matches("\n```text\n")));
        for target in super::super::targets::targets().expect("parsed") {
            let words = target.what.split(' ').next().expect("a word");
            assert!(quotes[0].contains(words), "{words}");
        }
    }
}
