//! The manifests: what kubectl renders of them is what the API takes, what the agent takes, and
//! no more privilege than is said.
//!
//! Method: render every overlay with kubectl, read the objects with the API's types, and compare
//! them with each other, with the contract that other programs rely on, and with what the
//! observer says of itself.

use std::{collections::BTreeSet, fs, process::Command};

use k8s_openapi::{
    api::{
        core::v1::{Capabilities, SecurityContext},
        rbac::v1::{PolicyRule, RoleRef, Subject},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use serde_json::json;
use tests::{
    command,
    deploy::{Tool, file, manifests::Manifests, roles, tools},
    observer_process,
};

const NAME: &str = "source-ip-observer";
/// What only who looks at first bytes may read.
const ROLE: &str = "source-ip-observer-proxies";
const NAME_LABEL: &str = "app.kubernetes.io/name";
const OVERLAYS: [&str; 2] = ["capabilities", "privileged"];
/// Where the agent serves, if it is told nothing else.
const API_PORT: i32 = 9807;

/// The rendered overlays, by name; none if the tools are not here.
fn overlays(test: &str) -> Option<Vec<(&'static str, Manifests)>> {
    let [kubectl] = tools(test, [Tool::Kubectl])?;
    let render = |overlay| {
        let folder = file("overlays").join(overlay);
        (
            overlay,
            Manifests::render(&kubectl, &folder).expect("rendered"),
        )
    };
    Some(OVERLAYS.map(render).into())
}

fn help(command: &[&str]) -> String {
    let binary = observer_process::binary().expect("an observer");
    command::run(Command::new(binary).args(command).arg("--help")).expect("help")
}

fn name(metadata: &ObjectMeta) -> (Option<&str>, &str) {
    (
        metadata.namespace.as_deref(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// A rule in one line: groups, resources, names, verbs.
fn told(rule: &PolicyRule) -> String {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default().join(",");
    assert_eq!(rule.non_resource_urls, None);
    format!(
        "{}/{}/{}: {}",
        list(&rule.api_groups),
        list(&rule.resources),
        list(&rule.resource_names),
        rule.verbs.join(",")
    )
}

fn rules(rules: Option<&Vec<PolicyRule>>) -> Vec<String> {
    rules.into_iter().flatten().map(told).collect()
}

#[test]
fn names_labels_and_references_fit_together() {
    let Some(overlays) = overlays("names_labels_and_references_fit_together") else {
        return;
    };
    for (overlay, manifests) in overlays {
        for object in &manifests.objects {
            assert_eq!(
                object["metadata"]["labels"][NAME_LABEL],
                json!(NAME),
                "{overlay}: {object}"
            );
        }
        let names = manifests.namespaces.iter().map(|one| name(&one.metadata));
        assert_eq!(names.collect::<Vec<_>>(), [(None, NAME)]);
        let accounts = manifests.service_accounts.iter();
        let accounts: Vec<_> = accounts.map(|one| name(&one.metadata)).collect();
        assert_eq!(accounts, [(Some(NAME), NAME)]);
        let quotas = manifests.quotas.iter().map(|one| name(&one.metadata));
        assert_eq!(quotas.collect::<Vec<_>>(), [(Some(NAME), NAME)]);

        let daemon_set = manifests.daemon_set().expect("a daemon set");
        assert_eq!(name(&daemon_set.metadata), (Some(NAME), NAME));
        let spec = daemon_set.spec.as_ref().expect("a spec");
        let template = spec.template.metadata.as_ref().expect("metadata");
        let labels = template.labels.as_ref().expect("labels");
        let selected = spec.selector.match_labels.as_ref().expect("a selector");
        assert_eq!(selected[NAME_LABEL], NAME);
        assert!(selected.iter().all(|(key, value)| labels[key] == *value));
        let pod = manifests.pod().expect("a pod");
        assert_eq!(pod.service_account_name.as_deref(), Some(NAME));

        let subject = Subject {
            kind: "ServiceAccount".to_owned(),
            name: NAME.to_owned(),
            namespace: Some(NAME.to_owned()),
            ..Subject::default()
        };
        let reference = |kind: &str| RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: kind.to_owned(),
            name: NAME.to_owned(),
        };
        let [of_cluster] = &manifests.cluster_role_bindings[..] else {
            panic!("{:?}", manifests.cluster_role_bindings);
        };
        assert_eq!(of_cluster.role_ref, reference("ClusterRole"));
        assert_eq!(of_cluster.subjects, Some(vec![subject.clone()]));
        let [of_config] = &manifests.role_bindings[..] else {
            panic!("{:?}", manifests.role_bindings);
        };
        assert_eq!(name(&of_config.metadata), (Some("kube-system"), NAME));
        assert_eq!(of_config.role_ref, reference("Role"));
        assert_eq!(of_config.subjects, Some(vec![subject]));
    }
}

#[test]
fn nobody_may_do_more_than_is_said() {
    let Some(overlays) = overlays("nobody_may_do_more_than_is_said") else {
        return;
    };
    for (_, manifests) in overlays {
        let of_cluster: Vec<_> = manifests
            .cluster_roles
            .iter()
            .map(|role| {
                assert_eq!(role.aggregation_rule, None);
                (name(&role.metadata).1, rules(role.rules.as_ref()))
            })
            .collect();
        assert_eq!(
            of_cluster,
            [
                (
                    NAME,
                    vec![
                        "/nodes,pods,services/: get,list,watch".to_owned(),
                        "discovery.k8s.io/endpointslices/: get,list,watch".to_owned(),
                    ]
                ),
                (
                    "source-ip-observer-connections",
                    vec![
                        "/pods/: get,list,watch".to_owned(),
                        "/pods/portforward/: create,get".to_owned(),
                    ]
                ),
            ]
        );
        let of_namespaces = manifests.roles.iter();
        let of_namespaces: Vec<_> = of_namespaces
            .map(|role| (name(&role.metadata), rules(role.rules.as_ref())))
            .collect();
        let config = "/configmaps/kube-proxy,kube-proxy-config: get,list,watch";
        assert_eq!(
            of_namespaces,
            [((Some("kube-system"), NAME), vec![config.to_owned()])]
        );
    }
}

#[test]
fn each_overlay_gives_the_privileges_of_its_name() {
    let Some(overlays) = overlays("each_overlay_gives_the_privileges_of_its_name") else {
        return;
    };
    let list = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
    for (overlay, manifests) in overlays {
        let both = SecurityContext {
            read_only_root_filesystem: Some(true),
            run_as_user: Some(0),
            ..SecurityContext::default()
        };
        let expected = match overlay {
            "capabilities" => SecurityContext {
                allow_privilege_escalation: Some(false),
                capabilities: Some(Capabilities {
                    drop: list(&["ALL"]),
                    add: list(&["BPF", "PERFMON", "NET_ADMIN"]),
                }),
                ..both
            },
            _ => SecurityContext {
                privileged: Some(true),
                ..both
            },
        };
        let container = manifests.container().expect("a container");
        assert_eq!(container.security_context, Some(expected), "{overlay}");
        let pod = manifests.pod().expect("a pod");
        let profile = pod.security_context.as_ref();
        let profile = profile.and_then(|context| context.seccomp_profile.as_ref());
        assert_eq!(profile.expect("a profile").type_, "RuntimeDefault");
        // Nothing of the host but its network.
        assert_eq!(pod.host_network, Some(true));
        assert_eq!((pod.host_pid, pod.host_ipc), (None, None));
        for volume in pod.volumes.iter().flatten() {
            assert!(volume.host_path.is_none(), "{volume:?}");
        }
        assert_eq!(pod.init_containers, None);
    }
}

#[test]
fn what_others_rely_on_is_there() {
    let Some(overlays) = overlays("what_others_rely_on_is_there") else {
        return;
    };
    for (_, manifests) in overlays {
        let spec = manifests.daemon_set().expect("a daemon set").spec.as_ref();
        let spec = spec.expect("a spec");
        let container = manifests.container().expect("a container");
        assert_eq!(container.name, "observer");
        // They would be reserved on the host.
        assert_eq!(container.ports, None);
        let template = spec.template.metadata.as_ref().expect("metadata");
        let annotations = template.annotations.as_ref().expect("annotations");
        assert_eq!(
            annotations["source-ip-observer/api-port"],
            API_PORT.to_string()
        );
        for (probe, path) in [
            (&container.readiness_probe, "/readyz"),
            (&container.liveness_probe, "/healthz"),
        ] {
            let get = probe.as_ref().and_then(|probe| probe.http_get.as_ref());
            let get = get.expect("a probe");
            assert_eq!(get.host.as_deref(), Some("127.0.0.1"));
            assert_eq!(get.port, IntOrString::Int(API_PORT));
            assert_eq!(get.path.as_deref(), Some(path));
        }
        // An upgrade misses nothing only if the new agent starts before the old one ends.
        let strategy = spec.update_strategy.as_ref().expect("a strategy");
        let rolling = strategy.rolling_update.as_ref().expect("rolling");
        assert_eq!(rolling.max_surge, Some(IntOrString::Int(1)));
        assert_eq!(rolling.max_unavailable, Some(IntOrString::Int(0)));
        let version = format!(
            "observer {}",
            container
                .image
                .as_deref()
                .and_then(|image| image.split_once(':'))
                .expect("an image with a tag")
                .1
        );
        let binary = observer_process::binary().expect("an observer");
        let own = command::run(Command::new(binary).arg("--version")).expect("a version");
        assert_eq!(own.trim(), version);
    }
}

#[test]
fn the_agent_knows_what_it_is_told() {
    let test = "the_agent_knows_what_it_is_told";
    let Some([kubectl]) = tools(test, [Tool::Kubectl]) else {
        return;
    };
    let resources = file("overlays/capabilities");
    let manifests = Manifests::compose(&kubectl, &resources, &[file("components/metrics")]);
    let manifests = manifests.expect("rendered");
    let container = manifests.container().expect("a container");
    assert_eq!(
        container.command.as_deref(),
        Some(&["observer".to_owned(), "agent".to_owned()][..])
    );
    let help = help(&["agent"]);
    let known: BTreeSet<&str> = help.split_whitespace().collect();
    let mut given = Vec::new();
    for argument in container.args.iter().flatten() {
        let (option, _) = argument.split_once('=').expect("an option with its value");
        assert!(known.contains(option), "{option} is not in:\n{help}");
        given.push(option);
    }
    assert_eq!(given, ["--state-dir", "--metrics-listen"]);
    let variables = container.env.iter().flatten();
    let variables: Vec<&str> = variables.map(|variable| &*variable.name).collect();
    assert_eq!(variables, ["NODE_NAME", "HOST_IP"]);
    assert!(help.contains("NODE_NAME"), "{help}");
    assert!(help.contains(&format!("127.0.0.1:{API_PORT}")), "{help}");
    let volumes = container.volume_mounts.iter().flatten();
    let volumes: Vec<&str> = volumes.map(|volume| &*volume.mount_path).collect();
    assert_eq!(volumes, ["/state"]);

    let metadata = manifests.daemon_set().expect("a daemon set").spec.as_ref();
    let metadata = metadata.and_then(|spec| spec.template.metadata.as_ref());
    let annotations = metadata.and_then(|metadata| metadata.annotations.as_ref());
    let annotations = annotations.expect("annotations");
    assert_eq!(annotations["source-ip-observer/metrics-port"], "9808");
    assert!(help.contains("127.0.0.1:9808"), "{help}");
}

/// With first bytes it may read what ingress controllers are told to expect, by their names.
#[test]
fn who_looks_at_first_bytes_may_read_what_proxies_expect() {
    let test = "who_looks_at_first_bytes_may_read_what_proxies_expect";
    let Some([kubectl]) = tools(test, [Tool::Kubectl]) else {
        return;
    };
    let resources = file("overlays/capabilities");
    let manifests = Manifests::compose(&kubectl, &resources, &[file("components/payload")]);
    let manifests = manifests.expect("rendered");
    let container = manifests.container().expect("a container");
    let arguments = container.args.as_deref().unwrap_or_default();
    assert_eq!(arguments, ["--state-dir=/state", "--payload=known"]);
    let help = help(&["agent"]);
    assert!(
        help.contains("--payload") && help.contains("known"),
        "{help}"
    );

    let of_proxies = |metadata: &ObjectMeta| name(metadata).1 == ROLE;
    let mut roles = manifests.cluster_roles.iter();
    let role = roles.find(|role| of_proxies(&role.metadata));
    let names = "ingress-nginx-controller,nginx-configuration,haproxy-ingress,\
                 haproxy-kubernetes-ingress";
    assert_eq!(
        rules(role.expect("a role").rules.as_ref()),
        [format!("/configmaps/{names}: get,list")]
    );
    let mut bindings = manifests.cluster_role_bindings.iter();
    let binding = bindings.find(|binding| of_proxies(&binding.metadata));
    let binding = binding.expect("a binding");
    assert_eq!(binding.role_ref.name, ROLE);
    let subjects = binding.subjects.iter().flatten();
    let subjects: Vec<_> = subjects.map(|one| (&*one.kind, &*one.name)).collect();
    assert_eq!(subjects, [("ServiceAccount", NAME)]);

    // As the agent asks.
    let asked = |role, kind, name| {
        let request = format!(
            "200 /api/v1/namespaces/ingress-nginx/{kind}?limit=500&fieldSelector=metadata.name%3D{name}"
        );
        roles::allowing(&manifests, role, &request)
    };
    assert_eq!(asked(ROLE, "configmaps", "ingress-nginx-controller"), 1);
    assert_eq!(asked(ROLE, "configmaps", "passwords"), 0);
    assert_eq!(asked(ROLE, "secrets", "ingress-nginx-controller"), 0);
    assert_eq!(asked(NAME, "configmaps", "ingress-nginx-controller"), 0);
    assert_eq!(asked(NAME, "pods", "ingress-nginx-controller-0"), 1);
}

#[test]
fn the_image_is_built_with_the_rust_that_the_workspace_needs() {
    let read = |path| fs::read_to_string(path).expect("read");
    let workspace = read(file("../Cargo.toml"));
    let version = workspace
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = \""))
        .and_then(|rest| rest.strip_suffix('"'))
        .expect("a version");
    let dockerfile = read(file("Dockerfile"));
    let image = format!("ARG BUILD_IMAGE=rust:{version}-bookworm\n");
    assert!(dockerfile.contains(&image), "{dockerfile}");
}
