//! What the checks came to, for people and programs.

use serde::Serialize;

use crate::output::{Page, Tone, word};

/// The value of [`Report::schema`].
const SCHEMA: &str = "observer.doctor/v1";
/// Columns of the status and the name of a check, with the gaps behind them.
const STATUS_WIDTH: usize = 9;
const NAME_WIDTH: usize = 14;

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Observing works, but not wholly.
    Warning,
    /// Observing cannot work.
    Missing,
    /// Could not be seen, mostly for lack of privilege.
    Unseen,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What.
    pub(super) name: &'static str,
    /// How it stands.
    pub(super) status: Status,
    /// What was found.
    pub(super) found: String,
    /// What that means, where it is not plain.
    pub(super) means: Option<String>,
    /// What to do about it.
    pub(super) remedy: Option<String>,
}

/// All that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    version: &'static str,
    can_observe: bool,
    checks: Vec<Check>,
}

impl Check {
    /// As it should be.
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            found: found.into(),
            means: None,
            remedy: None,
        }
    }

    /// Not wholly as it should be.
    pub(super) fn warning(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            status: Status::Warning,
            ..Self::ok(name, found)
        }
    }

    /// Observing cannot work.
    pub(super) fn missing(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            status: Status::Missing,
            ..Self::ok(name, found)
        }
    }

    /// Could not be seen.
    pub(super) fn unseen(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            status: Status::Unseen,
            ..Self::ok(name, found)
        }
    }

    pub(super) fn means(self, means: impl Into<String>) -> Self {
        Self {
            means: Some(means.into()),
            ..self
        }
    }

    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

impl Report {
    pub(super) fn new(checks: Vec<Check>) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            can_observe: checks.iter().all(|check| check.status != Status::Missing),
            checks,
        }
    }

    /// Whether nothing is missing that observing needs.
    pub(super) const fn can_observe(&self) -> bool {
        self.can_observe
    }

    /// A line or more for each check, and the sum.
    pub(super) fn table(&self, page: Page) -> String {
        let mut lines: Vec<_> = self.checks.iter().map(|check| check.lines(page)).collect();
        lines.push(String::new());
        lines.push(self.sum(page));
        lines.join("\n")
    }

    fn sum(&self, page: Page) -> String {
        let count = |status| {
            let with_it = self.checks.iter().filter(|check| check.status == status);
            with_it.count()
        };
        let of = |status, one: &str, more: &str| match count(status) {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {more}")),
        };
        let but: Vec<_> = [
            of(Status::Missing, "thing is missing", "things are missing"),
            of(Status::Warning, "warning", "warnings"),
            of(
                Status::Unseen,
                "thing could not be seen",
                "things could not be seen",
            ),
        ]
        .into_iter()
        .flatten()
        .collect();
        let verdict = if self.can_observe {
            page.paint(Tone::Good, "observing can work here")
        } else {
            page.paint(Tone::Bad, "observing cannot work here")
        };
        match &but[..] {
            [] => verdict,
            but => format!("{verdict}: {}", but.join(", ")),
        }
    }
}

impl Check {
    fn lines(&self, page: Page) -> String {
        let Self {
            name,
            status,
            found,
            means,
            remedy,
        } = self;
        let tone = match status {
            Status::Ok => Tone::Good,
            Status::Warning | Status::Unseen => Tone::Doubt,
            Status::Missing => Tone::Bad,
        };
        let status = word(status);
        let gap = " ".repeat(STATUS_WIDTH.saturating_sub(status.len()));
        let head = format!("{}{gap}{name:<NAME_WIDTH$}", page.paint(tone, &status));
        let indent = " ".repeat(STATUS_WIDTH + NAME_WIDTH);
        let text = match means {
            Some(means) => format!("{found}: {means}"),
            None => found.clone(),
        };
        let mut lines = page.wrap(&text, &head, &indent);
        if let Some(remedy) = remedy {
            lines.push('\n');
            let first = format!("{indent}→ ");
            let next = format!("{indent}  ");
            lines.push_str(&page.wrap(remedy, &first, &next));
        }
        lines
    }
}
