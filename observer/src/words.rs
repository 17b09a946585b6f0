//! What is said to people, in their language. The sentences are data: `words/en.ftl` and
//! `words/ko.ftl`, in Fluent's syntax; a test holds them complete.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use clap::ValueEnum;
use fluent_bundle::{FluentArgs, FluentBundle, FluentResource};
use serde::Serialize;
use serde_json::Value;
use strum::VariantNames as _;
use unic_langid::LanguageIdentifier;

use crate::verdict::advice::ChangeCode;

const ENGLISH: &str = include_str!("../words/en.ftl");
const KOREAN: &str = include_str!("../words/ko.ftl");

/// A language that there are words in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// English.
    En,
    /// Korean.
    Ko,
}

/// The words of one language.
pub struct Words {
    bundle: FluentBundle<FluentResource>,
    /// Sentences into which nothing is set, as they were said: they are said over and over.
    said: RefCell<HashMap<String, String>>,
}

impl Language {
    /// The one that the environment asks for (`LC_ALL`, `LC_MESSAGES`, `LANG`, in this order:
    /// POSIX.1-2024, 8.2); English if there are no words in it.
    pub fn of(environment: impl Fn(&str) -> Option<String>) -> Self {
        let names = ["LC_ALL", "LC_MESSAGES", "LANG"];
        let set = names
            .into_iter()
            .find_map(|name| environment(name).filter(|value| !value.is_empty()));
        match set.as_deref().and_then(|value| value.get(..2)) {
            Some("ko") => Self::Ko,
            _ => Self::En,
        }
    }

    /// Its sentences, and its name by BCP 47.
    const fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::En => (ENGLISH, "en"),
            Self::Ko => (KOREAN, "ko"),
        }
    }
}

impl Words {
    /// Those of a language.
    pub fn of(language: Language) -> Self {
        let (source, name) = language.source();
        let identifier: LanguageIdentifier = name.parse().unwrap_or_default();
        let mut bundle = FluentBundle::new(vec![identifier]);
        // The marks that it would put around what is set in are no characters of a name.
        bundle.set_use_isolating(false);
        // A mistake in the file leaves the rest; the tests have none.
        let resource = match FluentResource::try_new(source.to_owned()) {
            Ok(resource) | Err((resource, _)) => resource,
        };
        bundle.add_resource_overriding(resource);
        Self {
            bundle,
            said: RefCell::default(),
        }
    }

    /// A sentence by its name, with what is set into it. The name itself if there is none.
    pub fn say(&self, name: &str, set: &[(&str, &str)]) -> String {
        if set.is_empty() {
            return self.say_again(name);
        }
        let mut arguments = FluentArgs::new();
        for (key, value) in set {
            arguments.set(*key, *value);
        }
        self.format(name, None, &arguments)
    }

    fn say_again(&self, name: &str) -> String {
        if let Some(said) = self.said.borrow().get(name) {
            return said.clone();
        }
        let text = self.format(name, None, &FluentArgs::new());
        let mut said = self.said.borrow_mut();
        said.insert(name.to_owned(), text.clone());
        text
    }

    /// The same, with a number by which the sentence may differ.
    pub fn count(&self, name: &str, key: &str, number: usize, set: &[(&str, &str)]) -> String {
        let mut arguments = FluentArgs::new();
        arguments.set(key, number);
        for (key, value) in set {
            arguments.set(*key, *value);
        }
        self.format(name, None, &arguments)
    }

    /// Whether there is such a sentence.
    pub fn has(&self, name: &str) -> bool {
        self.bundle.has_message(name)
    }

    /// The price of a change.
    pub fn price(&self, name: &str) -> String {
        self.format(name, Some("price"), &FluentArgs::new())
    }

    /// What a value with a code says, which is set into the sentence by its fields: `prefix-code`.
    /// A field that is itself a word (`system`, `by`, `why`) is said in the language.
    pub fn tell(&self, prefix: &str, value: &impl Serialize) -> String {
        let value = serde_json::to_value(value).unwrap_or_default();
        let mut arguments = FluentArgs::new();
        for (key, field) in value.as_object().into_iter().flatten() {
            let text = match field {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let mut words = prefixes(key).map(|prefix| format!("{prefix}-{text}"));
            let word = words.find(|word| self.has(word));
            let text = word.map_or(text, |word| self.say(&word, &[]));
            arguments.set(key.clone(), text);
        }
        let code = value["code"].as_str().unwrap_or_default();
        self.format(&format!("{prefix}-{code}"), None, &arguments)
    }

    fn format(&self, name: &str, attribute: Option<&str>, arguments: &FluentArgs<'_>) -> String {
        let message = self.bundle.get_message(name);
        let pattern = message.and_then(|message| match attribute {
            Some(attribute) => message.get_attribute(attribute).map(|it| it.value()),
            None => message.value(),
        });
        let Some(pattern) = pattern else {
            return name.to_owned();
        };
        let mut errors = Vec::new();
        let text = self
            .bundle
            .format_pattern(pattern, Some(arguments), &mut errors);
        debug_assert!(errors.is_empty(), "{name}: {errors:?}");
        text.into_owned()
    }
}

/// How the names of the words begin that a field may be.
fn prefixes(field: &str) -> impl Iterator<Item = &str> {
    let prefixes = match field {
        "why" => ["reason", ""],
        "system" | "by" | "before" | "reader" => ["system", "controller"],
        other => [other, ""],
    };
    prefixes.into_iter().filter(|prefix| !prefix.is_empty())
}

/// A change and its price, in English.
pub(crate) fn change(code: ChangeCode) -> (&'static str, &'static str) {
    /// In the order of the codes.
    static CHANGES: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
        let words = Words::of(Language::En);
        let said = ChangeCode::VARIANTS.iter().map(|code| {
            let name = format!("change-{code}");
            (words.say(&name, &[]), words.price(&name))
        });
        said.collect()
    });
    let said = CHANGES.get(code as usize);
    said.map_or(("", ""), |(change, price)| (change, price))
}

#[cfg(test)]
mod tests;
