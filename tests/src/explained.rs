//! What `observer explain` says, taken apart again: it folds what is alike.

use serde_json::{Value, json};

/// kube-proxy's part of every way: a cell for each front door, node and client, as `node`,
/// `front_door` (`kind`, `ip`, `port`), `service`, `protocol`, `client`, and what is predicted.
pub fn cells(document: &Value) -> Vec<Value> {
    let mut cells = Vec::new();
    for service in array(&document["services"]) {
        for way in array(&service["ways"]) {
            if way["kube_proxy"].is_null() || way["door"] == "Proxy" {
                continue;
            }
            for node in array(&way["nodes"]) {
                for address in array(&way["addresses"]) {
                    let mut cell = way["kube_proxy"].clone();
                    cell["service"] = service["service"].clone();
                    cell["node"] = node.clone();
                    cell["client"] = way["client"].clone();
                    cell["protocol"] = way["protocol"].clone();
                    cell["front_door"] = json!({
                        "kind": way["door"], "ip": address, "port": way["to_port"],
                    });
                    cells.push(cell);
                }
            }
        }
    }
    cells
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
