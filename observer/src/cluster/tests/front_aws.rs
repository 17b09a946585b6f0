//! AWS' load balancers. Documents: AWS load balancer controller, docs/guide/service;
//! cloud-provider-aws, `docs/service_controller.md`; Elastic Load Balancing's user guides; Amazon EKS
//! user guide, automode.

use rstest::rstest;
use serde_json::{Value, json};

use super::super::Protocol;
use super::super::front::{Delivers, System};
use super::front::{codes, found, front, line, node_of, on, parse, told, told_on, web};
use super::{objects, service};

const AWS: &str = "aws:///eu-west-1a/i-0";

/// A Service with annotations of the prefix `aws-load-balancer-`.
fn web_with(annotations: &[(&str, &str)], spec: Value) -> Value {
    let annotations: Vec<_> = annotations
        .iter()
        .map(|(name, value)| {
            (
                format!("service.beta.kubernetes.io/aws-load-balancer-{name}"),
                *value,
            )
        })
        .collect();
    let annotations: Vec<_> = annotations.iter().map(|(n, v)| (n.as_str(), *v)).collect();
    web(&annotations, spec)
}

/// Who makes it, and to what it leads (docs/guide/service/annotations.md, "lb-type" and
/// "nlb-target-type").
#[rstest]
#[case::nothing(&[], "aws-classic node-port own out")]
#[case::in_tree(&[("type", "nlb")], "aws-nlb node-port client out")]
#[case::controller(&[("type", "external")], "aws-nlb node-port client out")]
#[case::instance(
    &[("type", "external"), ("nlb-target-type", "instance")],
    "aws-nlb node-port client out"
)]
#[case::ip(&[("type", "external"), ("nlb-target-type", "ip")], "aws-nlb pod own out")]
#[case::deprecated(&[("type", "nlb-ip")], "aws-nlb pod own out")]
#[case::in_tree_knows_no_ip(
    &[("type", "nlb"), ("nlb-target-type", "ip")],
    "aws-nlb node-port client out"
)]
#[case::no_such_target(
    &[("type", "external"), ("nlb-target-type", "pod")],
    "aws-nlb unknown unknown"
)]
#[case::no_such_type(&[("type", "alb")], "aws-classic node-port own out")]
#[case::either_to_nodes(&[("scheme", "internet-facing")], "aws node-port unknown out")]
#[case::either(&[("nlb-target-type", "ip")], "aws unknown unknown out")]
fn which_it_is(#[case] annotations: &[(&str, &str)], #[case] expected: &str) {
    assert_eq!(told_on(AWS, web_with(annotations, Value::Null)), expected);
}

/// What neither of two controllers would do otherwise is known; both settings are told
/// (docs/deploy/installation.md).
#[test]
fn what_shows_no_controller() {
    let annotations = [("scheme", "internet-facing")];
    let front = front(&on(AWS, web_with(&annotations, Value::Null))).expect("it has one");
    assert_eq!((front.system, &*front.name()), (System::Other, "aws"));
    let names: Vec<_> = front.because.iter().map(|it| it.name.as_str()).collect();
    for name in ["spec.loadBalancerClass", "source address"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

/// What the cloud provider refuses is not made.
#[rstest]
#[case::affinity(&[], json!({"sessionAffinity": "ClientIP"}))]
#[case::datagrams(&[], json!({"ports": [{"port": 53, "protocol": "UDP"}]}))]
#[case::mixed(
    &[("type", "nlb")],
    json!({"ports": [{"port": 53}, {"port": 53, "protocol": "UDP"}]})
)]
fn what_is_refused(#[case] annotations: &[(&str, &str)], #[case] spec: Value) {
    let front = front(&on(AWS, web_with(annotations, spec))).expect("it has one");
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        assert_eq!(front.at(protocol, 53).delivers, Delivers::Nothing);
    }
}

/// Client IP preservation: edit-target-group-attributes, "Default settings".
#[rstest]
#[case::instance_off("instance", "preserve_client_ip.enabled=false", "node-port own")]
#[case::instance_on("instance", "preserve_client_ip.enabled=true", "node-port client")]
#[case::ip_on("ip", "preserve_client_ip.enabled=true", "pod client")]
#[case::ip_on_among_others(
    "ip",
    "deregistration_delay.timeout_seconds=80, preserve_client_ip.enabled=true",
    "pod client"
)]
#[case::ip_off("ip", "preserve_client_ip.enabled=false", "pod own")]
#[case::not_a_switch("ip", "preserve_client_ip.enabled=yes", "pod unknown")]
#[case::another("ip", "stickiness.enabled=true", "pod own")]
#[case::header("ip", "proxy_protocol_v2.enabled=true", "pod own proxy-v2")]
#[case::both(
    "instance",
    "preserve_client_ip.enabled=false,proxy_protocol_v2.enabled=true",
    "node-port own proxy-v2"
)]
fn target_group_attributes(#[case] target: &str, #[case] attributes: &str, #[case] expected: &str) {
    let service = web_with(
        &[
            ("type", "external"),
            ("nlb-target-type", target),
            ("target-group-attributes", attributes),
        ],
        Value::Null,
    );
    assert_eq!(told_on(AWS, service), format!("aws-nlb {expected} out"));
}

/// "Proxy protocol": which annotation goes before which.
#[rstest]
#[case::all(&[("proxy-protocol", "*")], "proxy-v2", "proxy-v2")]
#[case::no_such_value(&[("proxy-protocol", "80")], "", "")]
#[case::ports(&[("proxy-protocol-per-target-group", "80, 22")], "proxy-v2", "")]
#[case::ports_before_attribute(
    &[
        ("proxy-protocol-per-target-group", "443"),
        ("target-group-attributes", "proxy_protocol_v2.enabled=true"),
    ],
    "",
    "proxy-v2"
)]
#[case::all_before_ports(
    &[("proxy-protocol", "*"), ("proxy-protocol-per-target-group", "443")],
    "proxy-v2",
    "proxy-v2"
)]
#[case::of_a_port(
    &[
        ("target-group-attributes", "proxy_protocol_v2.enabled=true"),
        ("target-group-attributes.443", "proxy_protocol_v2.enabled=false"),
    ],
    "proxy-v2",
    ""
)]
#[case::an_empty_one_is_none(
    &[
        ("target-group-attributes", "proxy_protocol_v2.enabled=true"),
        ("target-group-attributes.443", "proxy_protocol_v2.enabled="),
    ],
    "proxy-v2",
    "proxy-v2"
)]
fn headers_by_port(
    #[case] annotations: &[(&str, &str)],
    #[case] of_80: &str,
    #[case] of_443: &str,
) {
    let service = web_with(
        annotations,
        json!({"loadBalancerClass": "service.k8s.aws/nlb"}),
    );
    let front = front(&on(AWS, service)).expect("it has one");
    let adds = |port| {
        let at = front.at(Protocol::Tcp, port);
        at.adds.iter().map(ToString::to_string).collect::<String>()
    };
    assert_eq!((adds(80), adds(443)), (of_80.to_owned(), of_443.to_owned()));
}

/// UDP, `TCP_UDP` and QUIC: "enabled, and can't be disabled".
#[rstest]
#[case::each_its_own(&[], "tcp:own udp:client")]
#[case::set_off(
    &[("target-group-attributes", "preserve_client_ip.enabled=false")],
    "tcp:own udp:client"
)]
#[case::one_listener(&[("enable-tcp-udp-listener", "true")], "tcp:client udp:client")]
#[case::quic(&[("quic-enabled-ports", "53")], "tcp:client udp:client")]
#[case::preserved(
    &[("target-group-attributes", "preserve_client_ip.enabled=true")],
    "tcp:client udp:client"
)]
fn datagrams_keep_the_client(#[case] annotations: &[(&str, &str)], #[case] expected: &str) {
    let mut all = vec![("type", "external"), ("nlb-target-type", "ip")];
    all.extend(annotations);
    let ports = json!([
        {"name": "dns-tcp", "port": 53},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]);
    let front = front(&on(AWS, web_with(&all, json!({"ports": ports})))).expect("it has one");
    let keeps = |protocol| front.at(protocol, 53).keeps;
    let told = format!("tcp:{} udp:{}", keeps(Protocol::Tcp), keeps(Protocol::Udp));
    assert_eq!(told, expected);
}

#[test]
fn what_differs_by_port_is_not_known_of_the_whole() {
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 53, "protocol": "UDP"}]);
    let annotations = [("type", "nlb-ip")];
    let front = front(&on(AWS, web_with(&annotations, json!({"ports": ports}))));
    let front = front.expect("it has one");
    assert_eq!(line(&front), "aws-nlb pod unknown out");
    assert_eq!(line(&front.at(Protocol::Tcp, 80)), "aws-nlb pod own out");
    assert_eq!(line(&front.at(Protocol::Udp, 53)), "aws-nlb pod client out");
}

/// TLS is like TCP, whatever the certificate.
#[rstest]
#[case::instance("instance", "aws-nlb node-port client out")]
#[case::ip("ip", "aws-nlb pod own out")]
fn tls_listeners(#[case] target: &str, #[case] expected: &str) {
    let annotations = [
        ("type", "external"),
        ("nlb-target-type", target),
        ("ssl-cert", "arn:aws:acm:eu-west-1:0:certificate/0"),
        ("ssl-ports", "443"),
    ];
    assert_eq!(told_on(AWS, web_with(&annotations, Value::Null)), expected);
}

/// Classic Load Balancers: enable-proxy-protocol, x-forwarded-headers, and `buildListener`.
#[rstest]
#[case::plain(&[], "", "")]
#[case::header(&[("proxy-protocol", "*")], "proxy-v1", "proxy-v1")]
#[case::http(&[("backend-protocol", "http")], "x-forwarded-for", "x-forwarded-for")]
#[case::https_without_certificate(&[("backend-protocol", "https")], "", "")]
#[case::https(
    &[("backend-protocol", "https"), ("ssl-cert", "arn"), ("ssl-ports", "https")],
    "",
    "x-forwarded-for"
)]
#[case::tcp(&[("backend-protocol", "tcp"), ("ssl-cert", "arn")], "", "")]
fn classic(#[case] annotations: &[(&str, &str)], #[case] of_80: &str, #[case] of_443: &str) {
    let front = front(&on(AWS, web_with(annotations, Value::Null))).expect("it has one");
    let adds = |port| {
        let at = front.at(Protocol::Tcp, port);
        at.adds.iter().map(ToString::to_string).collect::<String>()
    };
    assert_eq!(front.system.to_string(), "aws-classic");
    assert_eq!((adds(80), adds(443)), (of_80.to_owned(), of_443.to_owned()));
}

/// Amazon EKS user guide: "The default targeting mode is IP Mode", and what it does not support.
#[rstest]
#[case::default(&[], "aws-nlb pod own out")]
#[case::instance(&[("nlb-target-type", "instance")], "aws-nlb node-port client out")]
#[case::not_read(&[("proxy-protocol", "*")], "aws-nlb pod own out")]
#[case::instead(
    &[("attributes", "proxy_protocol.v2.enabled=true")],
    "aws-nlb pod own proxy-v2 out"
)]
fn eks_auto_mode(#[case] annotations: &[(&str, &str)], #[case] expected: &str) {
    let service = web_with(
        annotations,
        json!({"loadBalancerClass": "eks.amazonaws.com/nlb"}),
    );
    assert_eq!(told_on(AWS, service), expected);
    // Nodes of its own tell it too, for what is not created yet.
    let mut node = node_of(AWS);
    node["metadata"]["labels"]["eks.amazonaws.com/compute-type"] = json!("auto");
    let objects = objects(&[web_with(annotations, Value::Null), node]);
    assert_eq!(told(&objects), expected);
}

/// Its webhook gives its class to what is created ("Legacy Cloud Provider").
#[test]
fn the_controller_takes_what_names_nobody() {
    let annotations = [("scheme", "internet-facing"), ("nlb-target-type", "ip")];
    let mut objects = on(AWS, web_with(&annotations, Value::Null));
    assert_eq!(told(&objects), "aws unknown unknown out");
    objects.around.deployments.push(parse(json!({
        "metadata": {"name": "aws-load-balancer-controller"},
        "spec": {"selector": {}, "template": {"spec": {"containers": [{
            "name": "aws-load-balancer-controller",
            "image": "public.ecr.aws/eks/aws-load-balancer-controller:v2.13.0",
        }]}}},
    })));
    assert_eq!(told(&objects), "aws-nlb pod own out");
}

/// Health checks: "healthcheck-port".
#[rstest]
#[case::default(None, "out")]
#[case::traffic(Some("traffic-port"), "out")]
#[case::the_services_own(Some("30200"), "out")]
#[case::another(Some("10256"), "")]
fn health_checks(#[case] port: Option<&str>, #[case] expected: &str) {
    let mut annotations = vec![("type", "nlb")];
    annotations.extend(port.map(|port| ("healthcheck-port", port)));
    let spec = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 30200});
    let told = told_on(AWS, web_with(&annotations, spec));
    assert_eq!(
        told.trim_start_matches("aws-nlb node-port client").trim(),
        expected
    );
}

/// `TargetGroupBinding`, for Services of any type
/// (docs/guide/targetgroupbinding/targetgroupbinding.md).
#[rstest]
#[case::nlb_instance(
    json!({"targetType": "instance", "targetGroupProtocol": "TCP"}),
    "aws-nlb node-port unknown"
)]
#[case::nlb_ip(
    json!({"targetType": "ip", "targetGroupProtocol": "TCP"}),
    "aws-nlb pod unknown out"
)]
#[case::nlb_ip_udp(
    json!({"targetType": "ip", "targetGroupProtocol": "UDP"}),
    "aws-nlb pod client out"
)]
#[case::alb_instance(
    json!({"targetType": "instance", "targetGroupProtocol": "HTTP"}),
    "aws-alb node-port own x-forwarded-for"
)]
#[case::alb_ip(
    json!({"targetType": "ip", "targetGroupProtocol": "HTTPS"}),
    "aws-alb pod own x-forwarded-for out"
)]
#[case::of_either_kind(json!({"targetType": "ip"}), "aws-target-group pod unknown out")]
#[case::of_either_kind_to_nodes(
    json!({"targetType": "instance"}),
    "aws-target-group node-port unknown"
)]
#[case::no_type(json!({}), "aws-target-group unknown unknown")]
fn bound(#[case] spec: Value, #[case] expected: &str) {
    let mut binding = json!({
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"serviceRef": {"name": "web", "port": 80}},
    });
    let all = binding["spec"].as_object_mut().expect("an object");
    all.extend(spec.as_object().expect("an object").clone());
    let ports =
        json!([{"name": "tcp", "port": 80}, {"name": "udp", "port": 80, "protocol": "UDP"}]);
    let ports = json!({"type": "ClusterIP", "clusterIP": "10.96.0.10", "ports": ports});
    let mut objects = on(AWS, service("web", ports));
    assert_eq!(told(&objects), "none");
    objects.around.target_group_bindings = vec![parse(binding.clone())];
    assert_eq!(told(&objects), expected);

    // Those that the controller writes for an Ingress are told there.
    binding["metadata"]["labels"] = json!({"ingress.k8s.aws/stack": "web"});
    objects.around.target_group_bindings = vec![parse(binding)];
    assert_eq!(told(&objects), "none");
}

/// A binding holds for the port that it names, by its number or its name; of others no load
/// balancer is known.
#[rstest]
#[case::by_number(&[json!(80)], Delivers::Pod, Delivers::Nothing)]
#[case::by_name(&[json!("https")], Delivers::Nothing, Delivers::Pod)]
#[case::both(&[json!(80), json!("https")], Delivers::Pod, Delivers::Pod)]
#[case::neither(&[json!(8080)], Delivers::Nothing, Delivers::Nothing)]
fn bound_for_a_port(
    #[case] bound: &[Value],
    #[case] of_80: Delivers,
    #[case] of_443: Delivers,
    #[values("NodePort", "ClusterIP")] kind: &str,
) {
    let ports = json!([{"name": "http", "port": 80}, {"name": "https", "port": 443}]);
    let spec = json!({"type": kind, "clusterIP": "10.96.0.10", "ports": ports});
    let mut objects = on(AWS, service("web", spec));
    let binding = |port: &Value| {
        parse(json!({
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {
                "serviceRef": {"name": "web", "port": port},
                "targetType": "ip", "targetGroupProtocol": "HTTP",
            },
        }))
    };
    objects.around.target_group_bindings = bound.iter().map(binding).collect();
    let front = front(&objects).expect("it has one");
    let at = |port| front.at(Protocol::Tcp, port).delivers;
    assert_eq!((at(80), at(443)), (of_80, of_443));
    assert_eq!(front.system, System::AwsAlb);
}

/// A Service of another type that asks the controller for one (docs/guide/service/nlb.md).
#[rstest]
#[case::ip("ClusterIP", "ip", "aws-nlb pod own out")]
#[case::instance("NodePort", "instance", "aws-nlb node-port client out")]
fn other_types(#[case] kind: &str, #[case] target: &str, #[case] expected: &str) {
    let annotations = [("type", "external"), ("nlb-target-type", target)];
    let service = web_with(&annotations, json!({"type": kind}));
    assert_eq!(told_on(AWS, service), expected);
}

/// What its settings alone tell.
#[rstest]
#[case::internal_by_default(&[("type", "external"), ("nlb-target-type", "instance")], json!({}), &[
    "hairpin-through-load-balancer",
])]
#[case::internet_facing(
    &[("type", "external"), ("nlb-target-type", "instance"), ("scheme", "internet-facing")],
    json!({}),
    &[]
)]
#[case::internal_without_the_client(
    &[("type", "external"), ("nlb-target-type", "ip"), ("scheme", "internal")],
    json!({}),
    &[]
)]
#[case::in_tree_internal(&[("type", "nlb"), ("internal", "true")], json!({}), &[
    "hairpin-through-load-balancer",
])]
#[case::in_tree(&[("type", "nlb")], json!({}), &[])]
#[case::in_tree_reads_no_header(&[("type", "nlb"), ("proxy-protocol", "*")], json!({}), &[
    "setting-ignored",
])]
#[case::in_tree_ranges(
    &[("type", "nlb"), ("target-group-attributes", "preserve_client_ip.enabled=false")],
    json!({"loadBalancerSourceRanges": ["198.51.100.0/24"]}),
    &["source-ranges-see-the-load-balancer", "source-ranges-do-not-fence-node-ports"]
)]
#[case::attributes_of_a_classic_one(
    &[("target-group-attributes", "preserve_client_ip.enabled=true")],
    json!({}),
    &["setting-ignored"]
)]
#[case::target_type_without_a_controller(&[("nlb-target-type", "ip")], json!({}), &[])]
#[case::no_such_type(&[("type", "alb")], json!({}), &["value-not-understood"])]
#[case::no_such_switch(
    &[("type", "nlb-ip"), ("target-group-attributes", "preserve_client_ip.enabled=yes")],
    json!({}),
    &["value-not-understood"]
)]
#[case::no_such_header(
    &[("type", "nlb-ip"), ("proxy-protocol", "v2")],
    json!({}),
    &["value-not-understood"]
)]
#[case::always_preserved(
    &[("type", "nlb-ip"), ("target-group-attributes", "preserve_client_ip.enabled=false"),
      ("scheme", "internet-facing")],
    json!({"ports": [{"port": 53, "protocol": "UDP"}]}),
    &["setting-ignored"]
)]
#[case::two_families(
    &[("type", "nlb-ip"), ("ip-address-type", "dualstack")],
    json!({}),
    &["family-translated"]
)]
#[case::checks_with_a_header(
    &[("type", "external"), ("nlb-target-type", "instance"), ("proxy-protocol", "*"),
      ("scheme", "internet-facing")],
    json!({"externalTrafficPolicy": "Local"}),
    &["proxy-protocol-not-read"]
)]
#[case::policy_past_kube_proxy(
    &[("type", "nlb-ip")],
    json!({"externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP"}),
    &["policy-does-not-apply", "policy-does-not-apply"]
)]
#[case::local_behind_a_classic_one(&[], json!({"externalTrafficPolicy": "Local"}), &[
    "local-behind-replacing-load-balancer",
])]
#[case::affinity_is_refused(&[], json!({"sessionAffinity": "ClientIP"}), &[
    "load-balancer-refused",
])]
#[case::affinity_is_refused_by_nlb(&[("type", "nlb")], json!({"sessionAffinity": "ClientIP"}), &[
    "load-balancer-refused",
])]
#[case::classic_has_no_datagrams(
    &[],
    json!({"ports": [{"port": 53, "protocol": "UDP"}]}),
    &["load-balancer-refused"]
)]
#[case::no_node_ports(
    &[("type", "external"), ("nlb-target-type", "instance"), ("scheme", "internet-facing")],
    json!({"allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]}),
    &["target-needs-node-port"]
)]
#[case::no_node_ports_needed(
    &[("type", "nlb-ip")],
    json!({"allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]}),
    &[]
)]
fn findings(#[case] annotations: &[(&str, &str)], #[case] spec: Value, #[case] expected: &[&str]) {
    let mut codes = codes(&on(AWS, web_with(annotations, spec)));
    codes.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(codes, expected);
}

#[test]
fn a_finding_names_setting_and_value() {
    let annotations = [
        ("type", "nlb-ip"),
        ("target-group-attributes", "preserve_client_ip.enabled=yes"),
    ];
    let found = found(&on(AWS, web_with(&annotations, Value::Null)));
    let found = serde_json::to_value(found).expect("findings are values");
    assert_eq!(
        found,
        json!([{
            "code": "value-not-understood",
            "object": "Service shop/web",
            "name": "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes",
            "value": "preserve_client_ip.enabled=yes",
        }])
    );
}
