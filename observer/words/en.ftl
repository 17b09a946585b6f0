### What `observer explain` says, in English. `ko.ftl` says the same in Korean.

## Why kube-proxy does what it does

why-no-endpoints = no endpoint is ready anywhere: kube-proxy rejects
why-local-rejected = the policy is Local and no endpoint is ready on this node: its virtual server rejects
why-local-past-this-node = the policy is Local and no endpoint is ready on this node: in IPVS mode it is sent to another node all the same, and the reply does not return by this one
why-local-dropped = the policy is Local and no endpoint is ready on this node: kube-proxy drops
why-source-ranges = the client is in none of loadBalancerSourceRanges: kube-proxy drops
why-not-a-node-port-address = kube-proxy serves no node ports at this address (nodePortAddresses): the node itself answers
why-not-through = it does not get through
why-marked-in-vain = kube-proxy marks it for masquerade, but what is delivered to the node itself never reaches that rule
why-node-local-client = kube-proxy masquerades what the node itself sends; which address the backend sees is a matter of the node's routes
why-hairpin = whoever reaches itself through a Service is masqueraded, or its replies would never pass the node
why-external-traffic-policy-cluster = externalTrafficPolicy is Cluster: kube-proxy masquerades whatever enters here
why-masquerade-all = kube-proxy runs with masqueradeAll: it masquerades whatever goes to a cluster IP
why-outside-cluster-cidr = kube-proxy masquerades what it does not take for a pod's on its way to a cluster IP
why-some-rule = a rule masquerades it
why-answered-past-this-node = it reaches the pod with the address of its own pod, to which the reply goes past this node: nobody translates it back
why-may-be-answered-past-this-node = no rule of kube-proxy masquerades it: it is answered if its endpoint is on this node, and else the reply goes past it
why-no-rule-unless-itself = no rule of kube-proxy masquerades it, unless the pod is chosen to answer itself
why-no-rule-but-the-plugin = no rule of kube-proxy masquerades it; whether the network plugin does that to a pod that leaves the pod network, no object tells
why-no-rule = no rule of kube-proxy masquerades it

## Who loses the client's address

lost-by-load-balancer = the load balancer
lost-by-kube-proxy = kube-proxy
lost-by-cni = the network plugin, in kube-proxy's place
lost-by-proxy = the proxy, which opens connections of its own
lost-by-mesh = the sidecar in the pod

## Why a setting says nothing

reason-past-kube-proxy = the load balancer delivers to pods, past kube-proxy
reason-policy-cluster = it is read under externalTrafficPolicy Local only
reason-classic-load-balancer = a Classic Load Balancer has no such setting
reason-in-tree-controller = the cloud provider's own controller makes this load balancer, and does not read it
reason-eks-auto-mode = EKS Auto Mode makes this load balancer, and does not read it
reason-always-preserved = for this protocol the client's address is always preserved
reason-needs-use-forwarded-headers = it is read only with use-forwarded-headers
reason-needs-forwarded-headers-or-proxy-protocol = it is read only with use-forwarded-headers, enable-real-ip or use-proxy-protocol

## Systems

system-aws-nlb = AWS Network Load Balancer
system-aws-alb = AWS Application Load Balancer
system-aws-classic = AWS Classic Load Balancer
system-metallb-l2 = MetalLB, by ARP and NDP
system-metallb-bgp = MetalLB, by BGP
system-metallb = MetalLB
system-kube-vip = kube-vip
system-k3s-servicelb = k3s servicelb
system-gke-passthrough = GKE passthrough load balancer
system-gke-container-native = GKE container-native load balancer
system-gke-proxy = GKE proxy load balancer
system-azure-load-balancer = Azure load balancer
system-cilium-lb = Cilium LB-IPAM
system-other = another provider's load balancer
system-nobody = no load balancer
system-unknown = a load balancer of which no object tells which

controller-ingress-nginx = ingress-nginx
controller-aws-alb = AWS Application Load Balancer
controller-aws-nlb = AWS Network Load Balancer
controller-gke = GKE's load balancer
controller-traefik = Traefik
controller-istio = an Istio gateway
controller-envoy-gateway = Envoy Gateway
controller-haproxy = HAProxy
controller-other = another controller
controller-unknown = a controller of which no object tells which

delivers-node-port = delivers to node ports
delivers-virtual-ip = delivers to nodes, with its own address
delivers-pod = delivers to pods
delivers-relay = delivers through a pod of its own
delivers-nothing = delivers nothing
delivers-unknown = whom it delivers to, no object tells

dataplane-kube-proxy = kube-proxy
dataplane-cilium-snat = Cilium, masquerading
dataplane-cilium-dsr = Cilium, by direct server return
dataplane-cilium-hybrid = Cilium, TCP by direct server return
dataplane-cilium = Cilium
dataplane-calico-ebpf = Calico eBPF
dataplane-gke-dataplane-v2 = GKE Dataplane V2
dataplane-antrea-nat = Antrea, masquerading
dataplane-antrea-dsr = Antrea, by direct server return
dataplane-ovn-kubernetes = OVN-Kubernetes
dataplane-kube-router = kube-router

carrier-x-forwarded-for = X-Forwarded-For
carrier-proxy-v1 = the PROXY protocol, version 1
carrier-proxy-v2 = the PROXY protocol, version 2

seen-client = the client's
seen-load-balancer = the load balancer's
seen-entry-node = the entry node's
seen-relay = the relaying pod's
seen-proxy = the proxy's
seen-loopback = the pod's own loopback
seen-unknown = no object tells whose

stage-client = client
stage-load-balancer = load balancer
stage-relay = relaying pod
stage-node = node
stage-proxy = proxy
stage-mesh = sidecar
stage-pod = pod

## The verdict of a Service

verdict-preserved = PRESERVED: pods see the client's address.
verdict-lost = LOST by { $who }: pods see another address than the client's.
verdict-lost-because = LOST by { $who }: { $why }.
verdict-lost-because-of = LOST by { $who }, for { $service }: { $why }.
verdict-depends = IT DEPENDS: by some ways pods see the client's address, by others not (lost by { $who }).
verdict-unreachable = UNREACHABLE: no connection comes through.
verdict-broken = BROKEN: connections come through, and requests fail; see below.
verdict-unknown = UNKNOWN: the objects do not tell whose address pods see.
verdict-unknown-by-some = UNKNOWN: by some ways pods see the client's address, of others the objects do not tell.
verdict-by-nodes = What goes to the node ports is { $fate }: { $why }.
verdict-inside-preserved = INSIDE ONLY: reached from pods, whose addresses its pods see.
verdict-no-address = NO ADDRESS of its own: no packet passes kube-proxy for it.
verdict-recoverable = The pods can find the client in { $carriers }.
verdict-closed = { $nodes ->
    [one] One node lets nothing through
   *[other] { $nodes } nodes let nothing through
  }: { $why }.
verdict-closed-somewhere = By some ways nothing comes through: { $why }.

source-ip-preserved = preserved
source-ip-lost = lost
source-ip-unknown = unknown

## What is printed around it

label-left-out = left out
label-range = { $least } to { $most }

label-kube-proxy-unknown = kube-proxy's configuration is not known: taken to be as kubeadm sets it up, in mode iptables
label-findings = Findings
label-advice = What to change
label-prices = What it costs
label-price-of = { $change }: { $price }
label-price = Price: { $price }
label-health = healthCheckNodePort { $port }
label-health-serves = { $nodes } { $count ->
    [0] answers 503: no endpoint is ready there
    [1] answers 200: 1 endpoint is ready there
   *[other] answers 200: { $count } endpoints are ready there
  }
label-health-used = A load balancer that asks uses: { $nodes }
label-health-nobody = no node
label-health-agrees = { $node } ({ $address }): answered { $status }, as expected
label-health-differs = { $node } ({ $address }): answered { $status }, expected { $expected }: { $body }
label-health-silent = { $node } ({ $address }): no answer: { $error }
label-hosts = Ports of nodes that lead to pods past any Service
label-host-network = in its node's network: no NAT, the client's address stays
label-host-port = host port: translated on the node, by the CNI plugin portmap or what stands in its place; the client's address stays for clients outside
label-assumed = Assumed, since the manifests do not say
label-changed = Applied: { $what }
label-not-changed = { $service }: no change with a patch that could be tried
label-every = every
label-and-others = and { $count } others

severity-broken = broken
severity-loses = loses
severity-note = note

## Findings

finding-load-balancer-pending = { $service } has type LoadBalancer, and nothing in the cluster makes one: its address stays <pending>
finding-load-balancer-refused = { $service }: { $name } is { $value }, which the maker of the { $system } refuses: there will be none
finding-target-needs-node-port = { $by } delivers to node ports, and { $service } has none
finding-proxy-protocol-not-read = { $by } sends a PROXY header, and { $reader } does not read it: every request fails
finding-proxy-protocol-not-sent = { $reader } waits for a PROXY header, and { $by } sends none: every request fails
finding-proxy-protocol-nobody-sends = { $reader } waits for a PROXY header, and clients come straight to it: every request fails
finding-missing-service = { $by } leads to Service { $service }, which is not there
finding-missing-port = { $by } leads to port { $port } of Service { $service }, which it does not have
finding-route-not-granted = { $by } leads to Service { $service } in another namespace, and no ReferenceGrant there allows it: the Gateway refuses it
finding-no-endpoints = { $service } has no endpoint that is ready
finding-local-without-endpoints = { $service } has policy Local, and no endpoint on any node that is announced
finding-host-port-conflict = { $one } and { $other } both want port { $port } of one node: one of them will not be scheduled
finding-pod-security-forbids = the Pod Security level { $level } of namespace { $namespace } forbids { $what }, which { $workload } asks for: its pods are refused
finding-hairpin-through-load-balancer = { $service }: a pod or node that is a target of the { $system } and connects to it may get itself: then it waits for ever, since its own address is kept
finding-family-translated = { $service }: the { $system } takes both families and delivers in one: clients of the other come with the load balancer's address
finding-nothing-announces = { $service }: no L2Advertisement or BGPAdvertisement of MetalLB covers its pool: nobody answers for its address
finding-local-behind-replacing-load-balancer = { $service } has policy Local, but the { $system } puts its own address in place of the client's: the policy keeps the load balancer's
finding-forwarded-header-overwritten = { $by } replaces the X-Forwarded-For that { $before } wrote: the client is lost there
finding-forwarded-header-spoofable = { $by } believes an X-Forwarded-For that any client can write: the address that pods log may be anyone's invention
finding-source-ranges-see-the-load-balancer = { $service }: loadBalancerSourceRanges are compared with the address of the { $system }, not with the client's
finding-affinity-sees-the-load-balancer = { $service }: sessionAffinity ClientIP goes by the address of the { $system }: many clients are one to it
finding-source-ranges-do-not-fence-node-ports = { $service }: loadBalancerSourceRanges do not hold for its node ports, which stay open to everyone
finding-policy-does-not-apply = { $service }: { $field } changes nothing here: { $why }
finding-host-network-dns-policy = { $workload } is in its node's network with dnsPolicy ClusterFirst: it does not find the cluster's names; set ClusterFirstWithHostNet
finding-external-name = { $service } is a DNS alias of { $to }: clients go there themselves, and no traffic policy applies
finding-headless = { $service } is headless: clients go to its pods themselves, and no rule of kube-proxy touches them
finding-pods-bypass-the-load-balancer = { $service }: clients in the cluster that use the address of the { $system } never reach it, and bring no PROXY header: pods that expect one refuse them
finding-controller-unknown = { $by } is served by a controller that is not known here ({ $class }): what it does to addresses cannot be told
finding-controller-not-told = no object tells which controller serves { $by }: what it does to addresses cannot be told
finding-value-not-understood = { $object }: { $name } is { $value }, which is none of its values
finding-setting-ignored = { $object }: { $name } changes nothing here: { $why }

## What is assumed beside manifests

assumption-nodes = the nodes { $nodes }: no Node is given
assumption-node-address = node { $node } has the address { $ip }
assumption-pods = pods of { $workload } on { $nodes }
assumption-cluster-ip = { $service } gets the cluster IP { $ips }
assumption-node-port = { $service }, port { $port }, gets the node port { $node_port }
assumption-health-check-node-port = { $service } gets healthCheckNodePort { $node_port }
assumption-load-balancer-address = the load balancer of { $service } gets the address { $ip }
assumption-endpoints = a pod of { $service } on { $node }: nothing that it selects is given

## Changes, and their price

change-set-local = Set externalTrafficPolicy: Local
    .price = nodes without a pod drop what comes, so the load balancer must ask healthCheckNodePort (or clients must know the nodes); balance is by node, not by pod: a node with one of five pods gets as much as one with four
change-preserve-client-ip = Let the target group keep the client's address (preserve_client_ip.enabled=true)
    .price = the pods' security groups must let the clients in, not only the load balancer; a target that connects to its own load balancer may get itself and wait for ever; targets must be in the load balancer's VPC
change-target-pods = Let the load balancer deliver to pods (target type ip), past kube-proxy
    .price = needs pods with addresses of the VPC (Amazon VPC CNI), and security groups of theirs that let the clients in; a pod that connects to its own load balancer may get itself and wait for ever; targets change with every rollout, so use readiness gates
change-send-proxy-protocol = Let the load balancer send a PROXY header, and read it behind
    .price = both sides must switch together: in between every connection fails; whatever connects without the load balancer (health checks, pods) must send the header too, or use another port
change-read-proxy-protocol = Read the PROXY header that is sent
    .price = both sides must switch together; whatever connects without the load balancer must send the header too; believe it only from the load balancer's addresses
change-stop-proxy-protocol = Do not send the PROXY header
    .price = the client's address is then lost, unless another change keeps it
change-expect-no-proxy-protocol = Do not expect a PROXY header
    .price = the client's address is then what the connection comes with
change-believe-forwarded-for = Let the proxy believe the X-Forwarded-For of the load balancer in front of it
    .price = only the load balancer may reach the proxy, or its addresses must be the only trusted ones (proxy-real-ip-cidr): else clients write what they like
change-read-forwarded-for = Take the client from X-Forwarded-For in the application
    .price = HTTP only; believe only entries that known proxies added, counted from the right, never the leftmost by habit
change-proxy-on-nodes = Run the proxy in its nodes' network (hostNetwork DaemonSet)
    .price = it takes ports 80 and 443 of the nodes; needs dnsPolicy ClusterFirstWithHostNet and a namespace whose Pod Security level is privileged; clients must reach the nodes
change-run-everywhere = Run a pod on every node that clients can enter by (a DaemonSet, or topologySpreadConstraints)
    .price = as many pods as nodes
change-set-cluster = Set externalTrafficPolicy: Cluster
    .price = every node lets clients in, but kube-proxy puts the node's address in place of the client's, and there may be one more hop
change-set-internal-cluster = Set internalTrafficPolicy: Cluster
    .price = pods may get an endpoint on another node: one more hop, perhaps another zone
change-direct-return = Let Cilium answer from the node of the pod (direct server return, bpf-lb-mode: dsr)
    .price = needs native routing or Geneve; networks that check source addresses must let replies of the Service's address out of every node
change-no-masquerade-all = Run kube-proxy without masqueradeAll
    .price = kube-proxy must be restarted on every node; replies of pods must find their way back without it
change-mend-cluster-cidr = Give kube-proxy a cluster CIDR that holds the pods (clusterCIDR, or detectLocal)
    .price = kube-proxy must be restarted on every node
change-intercept-by-tproxy = Let the sidecar intercept by TPROXY (Istio: sidecar.istio.io/interceptionMode: TPROXY)
    .price = the sidecar needs CAP_NET_ADMIN; pods must be made anew
change-install-load-balancer = Install what makes load balancers (MetalLB, kube-vip), or use type NodePort or hostNetwork
    .price = another component, and addresses of your network that are its own
change-announce = Announce the pool (an L2Advertisement or BGPAdvertisement that names it)
    .price = none: without it the address is of no use
change-add-node-port = Give the Service a node port (type NodePort, or allocateLoadBalancerNodePorts), or let the load balancer deliver to pods (target-type: ip)
    .price = a port of every node is open, and kube-proxy's masquerade adds to the load balancer's
change-replace-servicelb = Use another load balancer than k3s' servicelb (k3s --disable servicelb, and MetalLB)
    .price = another component, and addresses of your network that are its own
