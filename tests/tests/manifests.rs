//! What is explained of manifests, and what documents say of them.
//!
//! Goal: for every system and trap that is named, what `observer explain` says of the manifests
//! is what the system's own documents say. Method: each file of `tests/manifests` begins with what
//! a document says, the explanation is compared with it field by field, and what people get to
//! read is kept beside, so that a change of it is seen. `INSTA_UPDATE=always` accepts such a
//! change; no variable accepts what contradicts a document.

use std::{path::PathBuf, process::Command};

use rstest::rstest;
use tests::{command, manifest::Manifest, observer_process};

/// So many are promised.
const MANIFESTS: usize = 100;

/// What `observer explain` says of the manifests on its standard input, in English.
fn explain(manifests: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(observer_process::binary()?);
    command
        .args(["explain", "-f", "-"])
        .args(arguments)
        .env_remove("LANGUAGE")
        .env_remove("LC_ALL")
        .env_remove("LC_MESSAGES")
        .env("LANG", "en_US.UTF-8");
    command::run_with_input(&mut command, manifests)
}

#[rstest]
fn what_is_explained_is_what_documents_say(#[files("manifests/*.yaml")] path: PathBuf) {
    let manifest = Manifest::read(&path).expect("manifests");
    let text = explain(&manifest.text, &["-o", "json"]).expect("explained");
    let explanation = serde_json::from_str(&text).expect("JSON");
    let disagreements = manifest.disagreements(&explanation);
    assert!(
        disagreements.is_empty(),
        "{}\nsource: {}\n\n{}\n",
        manifest.expectation.says,
        manifest.expectation.source,
        disagreements.join("\n")
    );
    let table = explain(&manifest.text, &[]).expect("explained");
    let mut settings = insta::Settings::clone_current();
    settings.set_description(manifest.expectation.says.trim());
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(manifest.name.as_str(), table));
}

#[rstest]
fn manifests_are_what_the_api_takes(#[files("manifests/*.yaml")] path: PathBuf) {
    let manifest = Manifest::read(&path).expect("manifests");
    manifest.check().expect("taken");
}

#[test]
fn all_that_are_promised_are_there() {
    let folder = Manifest::folder();
    let files = folder.read_dir().expect("the folder").count();
    assert!(files >= MANIFESTS, "only {files} manifests");
}
