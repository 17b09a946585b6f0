//! The objects of a document: itself, or those of a List.

use serde_json::{Value, json};

use super::document::Document;
use super::{Key, Origin, Problem};
use crate::cluster::{FieldPath, Objects};

/// Lists in Lists: more nobody writes.
const DEPTH_MAX: usize = 4;

/// Kinds that are read and have no namespace.
const OF_THE_CLUSTER: [&str; 5] = [
    "Node",
    "Namespace",
    "IngressClass",
    "IngressClassParams",
    "GatewayClass",
];

/// An object as it was written.
pub(super) struct Item<'a> {
    pub(super) origin: Origin<'a>,
    pub(super) value: Value,
    /// Whether it is of a kind that is read.
    pub(super) is_read: bool,
}

/// The objects of a document; what is none is a problem.
pub(super) fn of<'a>(document: &'a Document<'a>, problems: &mut Vec<Problem>) -> Vec<Item<'a>> {
    let mut items = Vec::new();
    let mut found = Found {
        document,
        items: &mut items,
        problems,
    };
    found.add(&document.value, &FieldPath::default(), None, 0);
    items
}

struct Found<'a, 'b> {
    document: &'a Document<'a>,
    items: &'b mut Vec<Item<'a>>,
    problems: &'b mut Vec<Problem>,
}

impl Found<'_, '_> {
    /// `of_list`: version and kind of what is in a list that says them for all.
    fn add(
        &mut self,
        value: &Value,
        path: &FieldPath,
        of_list: Option<(&str, &str)>,
        depth: usize,
    ) {
        let Value::Object(fields) = value else {
            let what = format!("{} is not an object with apiVersion and kind", shown(value));
            self.problems.push(self.document.problem(&path.0, what));
            return;
        };
        let text = |name| fields.get(name).and_then(Value::as_str);
        let (inherited_version, inherited_kind) = of_list.unzip();
        let Some(kind) = text("kind").or(inherited_kind) else {
            let what = "has no kind; every manifest begins with apiVersion and kind";
            self.problems.push(self.document.problem(&path.0, what));
            return;
        };
        let Some(version) = text("apiVersion").or(inherited_version) else {
            let what = format!("has kind {} and no apiVersion", kind.escape_debug());
            self.problems.push(self.document.problem(&path.0, what));
            return;
        };
        if let (Some(of), Some(Value::Array(items))) =
            (kind.strip_suffix("List"), fields.get("items"))
            && depth < DEPTH_MAX
        {
            let of = (!of.is_empty()).then_some((version, of));
            let path = path.field("items");
            for (index, item) in items.iter().enumerate() {
                self.add(item, &path.item(index), of, depth + 1);
            }
            return;
        }
        let mut value = without_nulls(value);
        value["kind"] = json!(kind);
        value["apiVersion"] = json!(version);
        self.items.push(Item {
            origin: Origin {
                document: self.document,
                path: path.clone(),
            },
            is_read: Objects::reads(kind, Some(version)),
            value,
        });
    }
}

/// The API takes a field that is null for one that is not there.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), without_nulls(value)))
            .collect(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

impl Item<'_> {
    /// Puts it into a namespace if it names none, and is of a kind that has one.
    pub(super) fn put_into(&mut self, namespace: &str) {
        let kind = self.value["kind"].as_str().unwrap_or_default();
        if !self.is_read || OF_THE_CLUSTER.contains(&kind) {
            return;
        }
        let Some(Value::Object(metadata)) = self.value.get_mut("metadata") else {
            return;
        };
        // What is no text is told as such.
        let is_named = match metadata.get("namespace") {
            None => false,
            Some(Value::String(its)) => !its.is_empty(),
            Some(_) => true,
        };
        if !is_named {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
    }

    /// Which object it is; none without a name.
    pub(super) fn key(&self) -> Option<Key> {
        let text = |pointer| self.value.pointer(pointer).and_then(Value::as_str);
        let name = text("/metadata/name").filter(|name| !name.is_empty());
        // A Pod is named by the server if it asks for it.
        let name = name.or_else(|| text("/metadata/generateName"))?;
        Some(Key {
            kind: text("/kind")?.to_owned(),
            namespace: text("/metadata/namespace").map(str::to_owned),
            name: name.to_owned(),
        })
    }

    /// What is wrong with an object without a name: that, or what is wrong with its fields.
    pub(super) fn without_name(&self, wrong: &[(FieldPath, String)]) -> Vec<Problem> {
        if !self.is_read {
            return Vec::new();
        }
        let kind = self.value["kind"]
            .as_str()
            .unwrap_or_default()
            .escape_debug();
        let missing = (FieldPath::fields("metadata.name"), "is missing".to_owned());
        let all = if wrong.is_empty() {
            std::slice::from_ref(&missing)
        } else {
            wrong
        };
        let problem = |(path, what): &(FieldPath, String)| Problem {
            file: self.origin.document.file.into(),
            document: Some(self.origin.document.number),
            place: self.origin.place(path),
            object: Some(format!("{kind} without a name").into()),
            field: (!path.is_empty()).then(|| path.to_string().into()),
            what: what.as_str().into(),
        };
        all.iter().map(problem).collect()
    }
}

/// A value, short, on one line.
pub(super) fn shown(value: &Value) -> String {
    const LONGEST: usize = 40;
    let text = match value {
        Value::Object(_) => return "an object".to_owned(),
        Value::Array(_) => return "a list".to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() > LONGEST {
        let start: String = text.chars().take(LONGEST).collect();
        return format!("{start}…");
    }
    text
}
