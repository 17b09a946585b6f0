//! The records of a run, found by the two ends of a connection.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
};

use serde_json::Value;

use crate::protocol::Protocol;

/// The records of one run, by the node whose observer printed them.
pub type Records = BTreeMap<String, Vec<Value>>;

/// A node, a protocol, a client and a front door.
type Key = (String, String, Option<SocketAddr>, Option<SocketAddr>);

/// Records that no connection has claimed so far.
pub(super) struct Unclaimed(HashMap<Key, VecDeque<Value>>);

impl From<Records> for Unclaimed {
    fn from(records: Records) -> Self {
        let mut unclaimed: HashMap<Key, VecDeque<Value>> = HashMap::new();
        for (node, records) in records {
            for record in records {
                let key = (
                    node.clone(),
                    protocol(&record).to_owned(),
                    address(&record, "/client"),
                    address(&record, "/front_door"),
                );
                unclaimed.entry(key).or_default().push_back(record);
            }
        }
        Self(unclaimed)
    }
}

impl Unclaimed {
    /// Takes the record of a node about the connection from `client` to `front_door`: the first
    /// of them, as ports are used again.
    pub(super) fn take(
        &mut self,
        node: &str,
        protocol: Protocol,
        client: SocketAddr,
        front_door: SocketAddr,
    ) -> Option<Value> {
        let protocol = protocol.as_str().to_owned();
        let key = (node.to_owned(), protocol, Some(client), Some(front_door));
        self.0.get_mut(&key)?.pop_front()
    }

    /// What is left.
    pub(super) fn rest(self) -> Vec<(String, Value)> {
        let mut rest: Vec<(String, Value)> = self
            .0
            .into_iter()
            .flat_map(|((node, ..), records)| {
                records
                    .into_iter()
                    .map(move |record| (node.clone(), record))
            })
            .collect();
        rest.sort_by_cached_key(|(node, record)| (node.clone(), record.to_string()));
        rest
    }
}

fn protocol(record: &Value) -> &str {
    record
        .get("protocol")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The address and port at one `end` of a record; none if it is not written as RFC 5952 says.
pub(super) fn address(record: &Value, end: &str) -> Option<SocketAddr> {
    let ip = record.pointer(&format!("{end}/ip"))?.as_str()?;
    let port = record.pointer(&format!("{end}/port"))?.as_u64()?;
    let address: SocketAddr = (ip.parse::<std::net::IpAddr>().ok()?, port.try_into().ok()?).into();
    (address.ip().to_string() == ip).then_some(address)
}
