//! Prometheus, scraping an agent on a node of the lab.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    child::{ChildGuard, poll_until},
    http,
    netns::Namespace,
};

/// Where it answers, in the namespace that it runs in.
const ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);
/// What Kubernetes tells Prometheus of an agent's pod, whose metrics are at the loopback address.
const DISCOVERED: [(&str, &str); 5] = [
    ("__meta_kubernetes_namespace", "source-ip-observer"),
    ("__meta_kubernetes_pod_host_ip", "127.0.0.1"),
    (
        "__meta_kubernetes_pod_annotation_source_ip_observer_metrics_port",
        "9808",
    ),
    (
        "__meta_kubernetes_pod_annotationpresent_source_ip_observer_metrics_port",
        "true",
    ),
    ("__meta_kubernetes_pod_node_name", "node1"),
];
/// How long it may take to start.
const START: Duration = Duration::from_secs(20);

/// A Prometheus at work. Dropped, it is killed.
#[derive(Debug)]
pub struct Prometheus<'a> {
    namespace: &'a Namespace,
    /// Held for as long as it runs.
    _child: ChildGuard,
    /// Its configuration and its data.
    _folder: TempDir,
}

impl<'a> Prometheus<'a> {
    /// Starts `program` in a namespace. It scrapes the agent there every second as `job`, a scrape
    /// configuration, says, but for the discovery; and judges by `rules` as often.
    pub fn start(
        program: &Path,
        namespace: &'a Namespace,
        job: &Value,
        rules: &[PathBuf],
    ) -> Result<Self> {
        let folder = TempDir::new().context("failed to make a directory")?;
        let config = folder.path().join("prometheus.yml");
        let mut job = job.clone();
        let of_job = job.as_object_mut().context("a job is an object")?;
        of_job.remove("kubernetes_sd_configs");
        let labels: BTreeMap<_, _> = DISCOVERED.into();
        let discovered = json!([{"targets": ["nowhere:1"], "labels": labels}]);
        of_job.insert("static_configs".to_owned(), discovered);
        let text = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": [job],
        });
        // What is JSON is YAML.
        fs::write(&config, text.to_string()).context("failed to write a configuration")?;
        let child = namespace
            .command(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={ADDRESS}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let prometheus = Self {
            namespace,
            _child: ChildGuard::new(child),
            _folder: folder,
        };
        let is_ready = || {
            let answer = http::get(namespace, ADDRESS, "/-/ready", &[]).ok()?;
            (answer.status == 200).then_some(())
        };
        poll_until(START, is_ready).context("Prometheus did not start")?;
        Ok(prometheus)
    }

    /// What an expression comes to now: the elements of a vector. One that it cannot make sense of
    /// is an error.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let data = self.get(&format!("/api/v1/query?query={}", escaped(expression)))?;
        let result = data["result"].as_array().cloned();
        result.with_context(|| format!("no vector: {data}"))
    }

    /// The same, as soon as it comes to something.
    pub fn query_until_there_is(&self, expression: &str, timeout: Duration) -> Result<Vec<Value>> {
        let ask = || match self.query(expression) {
            Ok(elements) if elements.is_empty() => None,
            other => Some(other),
        };
        poll_until(timeout, ask).with_context(|| format!("there is no {expression}"))?
    }

    /// The rules that it judges by, with their state.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let data = self.get("/api/v1/rules")?;
        let groups = data["groups"].as_array().context("no groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        Ok(rules.flatten().cloned().collect())
    }

    fn get(&self, path: &str) -> Result<Value> {
        let answer = http::get(self.namespace, ADDRESS, path, &[])?;
        let Ok(mut body) = serde_json::from_str::<Value>(&answer.body) else {
            bail!("{path}: {}", answer.body);
        };
        ensure!(body["status"] == "success", "{path}: {body}");
        Ok(body["data"].take())
    }
}

/// Text as a part of a URL's query.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_query_may_not_hold_is_escaped() {
        assert_eq!(escaped("a{b=\"c\"}+1"), "a%7Bb%3D%22c%22%7D%2B1");
    }
}
