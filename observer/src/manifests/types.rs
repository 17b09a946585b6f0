//! Values of the wrong type: all of an object, with their fields.

use serde_json::{Value, json};

use super::item::shown;
use crate::cluster::{FieldPath, Objects, Step, Unreadable};

/// More of one object help nobody.
const WRONG_MAX: usize = 50;

/// Takes an object, and tells what in it is of a wrong type. Such a value is taken out, so that
/// the rest is still looked at.
pub(super) fn take(object: &mut Value, objects: &mut Objects) -> Vec<(FieldPath, String)> {
    let mut wrong: Vec<(FieldPath, String)> = Vec::new();
    while wrong.len() < WRONG_MAX {
        let Err(Unreadable { path, reason, .. }) = objects.add(object) else {
            break;
        };
        let is_stuck = wrong.last().is_some_and(|(last, _)| *last == path);
        if !is_stuck {
            let value = path.of(object).unwrap_or(&Value::Null);
            wrong.push((path.clone(), message(value, &reason.to_string())));
        }
        if !mend(object, &path, is_stuck) {
            break;
        }
    }
    wrong
}

/// Puts something harmless in the place of a value. `again`: what was put there was wrong too.
fn mend(object: &mut Value, path: &FieldPath, again: bool) -> bool {
    let Some((last, before)) = path.0.split_last() else {
        return false;
    };
    let parent = FieldPath(before.to_vec());
    match (last, parent.of_mut(object)) {
        (Step::Field(name), Some(Value::Object(fields))) => fields.remove(name).is_some(),
        // To take it out would give the others other numbers.
        (Step::Item(index), Some(Value::Array(items))) => match items.get_mut(*index) {
            Some(item) if !again => {
                *item = json!({});
                true
            }
            Some(item) if item.is_object() => {
                *item = json!("");
                true
            }
            Some(_) | None => false,
        },
        _ => false,
    }
}

/// From serde's words, `invalid type: string "80", expected i32`, to those of who writes YAML.
fn message(value: &Value, reason: &str) -> String {
    let reason = reason.escape_debug().to_string().replace("\\\"", "\"");
    let Some((_, expected)) = reason
        .strip_prefix("invalid type: ")
        .and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return match reason.strip_prefix("invalid value: ") {
            Some(_) if value.is_number() => {
                format!("{} is out of range", shown(value))
            }
            _ => reason,
        };
    };
    let is = match value {
        Value::Null => "is null",
        Value::Bool(_) => "is a boolean",
        Value::Number(number) if number.is_f64() => "is a number with a fraction",
        Value::Number(_) => "is a number",
        Value::String(_) => "is a string",
        Value::Array(_) | Value::Object(_) => "is several values",
    };
    let needed = match needed(expected) {
        "a number" if value.is_f64() => "a whole number",
        other => other,
    };
    let hint = match (value, needed) {
        (Value::String(text), "a number") if text.parse::<i64>().is_ok() => {
            ": write it without quotes"
        }
        (Value::String(text), "true or false") if matches!(&**text, "true" | "false") => {
            ": write it without quotes"
        }
        (Value::Bool(_) | Value::Number(_), "a string") => ": write it in quotes",
        _ => "",
    };
    if value.is_object() || value.is_array() {
        return format!("is {}; {needed} is needed", shown(value));
    }
    format!("{} {is}; {needed} is needed{hint}", shown(value))
}

fn needed(expected: &str) -> &str {
    match expected {
        "i32" | "i64" | "u16" | "u32" | "u64" | "f64" => "a number",
        "a string" | "str" | "String" => "a string",
        "a boolean" | "bool" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        "IntOrString" => "a number or a string",
        // The names of structs.
        other if other.starts_with(|c: char| c.is_ascii_uppercase()) => "an object",
        other => other,
    }
}
