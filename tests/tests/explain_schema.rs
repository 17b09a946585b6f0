//! The contract of `observer explain -o json`.
//!
//! Goal: a program that knows the schema can read whatever is printed. Method: the document of
//! every file of `tests/manifests`, as it is and after its changes, is compared with the schema;
//! no field is printed that the schema does not name, and none is named that nothing prints.

use std::{collections::BTreeSet, fs, path::Path};

use jsonschema::Validator;
use serde_json::{Value, json};
use tests::{
    demo, explained,
    manifest::{self, Manifest},
};

/// Fields that no manifest need lead to: what is left out unless it differs, and what a finding on
/// objects that are wrong names.
const NOT_PRINTED: [&str; 6] = [
    "/findings/object",
    "/services/load_balancer/ports",
    "/services/load_balancer/ports/adds",
    "/services/load_balancer/ports/keeps",
    "/services/load_balancer/ports/port",
    "/services/load_balancer/ports/protocol",
];

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../observer/schema/observer.explanation.v1.json");
    let text = fs::read_to_string(path).expect("the schema");
    serde_json::from_str(&text).expect("JSON")
}

fn validator(schema: &Value) -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .expect("a schema")
}

fn documents() -> Vec<(String, Value)> {
    let mut documents = Vec::new();
    let explain = |arguments: &[&str], input: &str| {
        let said = explained::run(explained::explain(arguments).expect("an observer"), input);
        said.expect("runs").json().expect("explained")
    };
    for Manifest { name, text, .. } in manifest::all().expect("manifests") {
        for more in [&[][..], &["--apply"]] {
            let arguments = [&["-f", "-", "-o", "json"], more].concat();
            documents.push((format!("{name} {more:?}"), explain(&arguments, &text)));
        }
    }
    let demo = demo::cluster_file();
    let demo = [
        "--cluster-state",
        demo.to_str().expect("UTF-8"),
        "-o",
        "json",
    ];
    documents.push(("the demo".to_owned(), explain(&demo, "")));
    documents
}

/// What a part of the schema stands for: the definition that it refers to.
fn resolved<'a>(schema: &'a Value, part: &'a Value) -> &'a Value {
    let reference = part["$ref"].as_str().and_then(|it| it.strip_prefix('#'));
    reference.map_or(part, |pointer| {
        schema.pointer(pointer).expect("a definition")
    })
}

/// All fields that a part of the schema names, by their names from above.
fn named(schema: &Value, part: &Value, at: &str, found: &mut BTreeSet<String>) {
    let part = resolved(schema, part);
    for (name, part) in part["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}/{name}");
        named(schema, part, &at, found);
        found.insert(at);
    }
    for alternative in part["oneOf"].as_array().into_iter().flatten() {
        named(schema, alternative, at, found);
    }
    if part["items"].is_object() {
        named(schema, &part["items"], at, found);
    }
}

/// The same of a document. What is merged into objects is theirs.
fn printed(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = format!("{at}/{name}");
                if name != "merge" {
                    printed(value, &at, found);
                }
                found.insert(at);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| printed(item, at, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn what_is_printed_is_what_the_schema_promises() {
    let schema = schema();
    let validator = validator(&schema);
    let mut fields = BTreeSet::new();
    for (name, document) in documents() {
        let errors: Vec<String> = validator
            .iter_errors(&document)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert_eq!(errors, [] as [String; 0], "{name}");
        printed(&document, "", &mut fields);
    }
    // Of a list of findings it is all the same whose it is.
    let all_the_same = |field: &String| field.replace("/services/findings", "/findings");
    let fields: BTreeSet<String> = fields.iter().map(all_the_same).collect();
    let mut promised = BTreeSet::new();
    named(&schema, &schema, "", &mut promised);
    let promised: BTreeSet<String> = promised.iter().map(all_the_same).collect();
    let more: Vec<_> = fields.difference(&promised).collect();
    assert_eq!(more, [] as [&String; 0], "not in the schema");
    let fewer = promised.difference(&fields).map(String::as_str);
    let fewer: Vec<_> = fewer.filter(|it| !NOT_PRINTED.contains(it)).collect();
    assert_eq!(fewer, [] as [&str; 0], "never printed");
}

#[test]
fn what_is_not_promised_is_noticed() {
    let schema = schema();
    let validator = validator(&schema);
    let manifest = Manifest::read(&Manifest::folder().join("metallb-l2-local.yaml"));
    let said = explained::explain(&["-f", "-", "-o", "json"]).expect("an observer");
    let said = explained::run(said, &manifest.expect("manifests").text).expect("runs");
    let document = said.json().expect("explained");
    assert!(validator.is_valid(&document));
    let way = "/services/0/ways/0";
    for (field, wrong) in [
        ("/schema", json!("observer.explanation/v2")),
        ("/kube_proxy/mode", json!("Iptables")),
        ("/dataplane/what", json!("magic")),
        ("/services/0/verdict/code", json!("fine")),
        ("/services/0/external_traffic_policy", json!("local")),
        ("/services/0/health_check/nodes/0/status", json!(500)),
        (&format!("{way}/door"), json!("HostPort")),
        (&format!("{way}/seen"), json!("proxy")),
        (&format!("{way}/lost_by"), json!("cni")),
        (&format!("{way}/source_ip"), json!("lost")),
        (&format!("{way}/to_port"), json!(70_000)),
        (&format!("{way}/addresses/0"), json!("[2001:db8::1]")),
        (&format!("{way}/stages"), json!([])),
        (&format!("{way}/extra_hops"), json!({"least": 0})),
        (&format!("{way}/recoverable"), json!(["forwarded"])),
    ] {
        let mut document = document.clone();
        *document.pointer_mut(field).expect(field) = wrong;
        assert!(!validator.is_valid(&document), "a wrong {field}");
    }
    for at in ["", "/services/0", "/services/0/verdict", way] {
        let names = document.pointer(at).and_then(Value::as_object);
        for name in names.expect("an object").keys() {
            let mut document = document.clone();
            let object = document.pointer_mut(at).and_then(Value::as_object_mut);
            object.expect("an object").remove(name);
            assert!(!validator.is_valid(&document), "without {at}/{name}");
        }
    }
}
