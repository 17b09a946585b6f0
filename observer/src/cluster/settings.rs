//! How a setting that decided is written down.

use super::front::Setting;

/// One that is set.
pub(super) fn set(
    name: impl Into<String>,
    value: impl Into<String>,
    source: &'static str,
) -> Setting {
    Setting {
        name: name.into(),
        value: value.into(),
        is_default: false,
        source,
    }
}

/// One that is not, with what holds then.
pub(super) fn unset(
    name: impl Into<String>,
    default: impl Into<String>,
    source: &'static str,
) -> Setting {
    Setting {
        is_default: true,
        ..set(name, default, source)
    }
}

/// One that may be set.
pub(super) fn setting(
    name: impl Into<String>,
    value: Option<&str>,
    default: &str,
    source: &'static str,
) -> Setting {
    match value {
        Some(value) => set(name, value, source),
        None => unset(name, default, source),
    }
}
