### `observer explain`이 하는 말, 한국어. `en.ftl`이 같은 것을 영어로 말함.

## kube-proxy가 그렇게 하는 까닭

why-no-endpoints = 준비된 엔드포인트가 어디에도 없음: kube-proxy가 거부함(REJECT)
why-local-rejected = 정책이 Local이고 이 노드에 준비된 엔드포인트가 없음: 가상 서버가 거부함
why-local-past-this-node = 정책이 Local이고 이 노드에 준비된 엔드포인트가 없음: IPVS 모드에서는 그래도 다른 노드로 보내지고, 응답은 이 노드로 돌아오지 않음
why-local-dropped = 정책이 Local이고 이 노드에 준비된 엔드포인트가 없음: kube-proxy가 버림(DROP)
why-source-ranges = 클라이언트가 loadBalancerSourceRanges 어디에도 속하지 않음: kube-proxy가 버림
why-not-a-node-port-address = kube-proxy가 이 주소에서는 노드 포트를 제공하지 않음(nodePortAddresses): 노드 자신이 응답함
why-not-through = 통과하지 못함
why-marked-in-vain = kube-proxy가 마스커레이드 표시를 하지만, 노드 자신에게 전달되는 것은 그 규칙에 닿지 않음
why-node-local-client = 노드 자신이 보내는 것은 kube-proxy가 마스커레이드함; 백엔드가 보는 주소는 노드의 경로에 달려 있음
why-hairpin = Service를 거쳐 자기 자신에게 닿는 연결은 마스커레이드됨: 그러지 않으면 응답이 노드를 지나지 않음
why-external-traffic-policy-cluster = externalTrafficPolicy가 Cluster임: 여기로 들어오는 것은 모두 kube-proxy가 마스커레이드함
why-masquerade-all = kube-proxy가 masqueradeAll로 실행됨: 클러스터 IP로 가는 것은 모두 마스커레이드함
why-outside-cluster-cidr = 클러스터 IP로 가는 것 가운데 파드의 것으로 여기지 않는 것은 kube-proxy가 마스커레이드함
why-some-rule = 어떤 규칙이 마스커레이드함
why-answered-past-this-node = 자기 파드의 주소로 파드에 닿고, 응답은 이 노드를 지나지 않음: 아무도 되돌려 변환하지 않음
why-may-be-answered-past-this-node = kube-proxy의 어떤 규칙도 마스커레이드하지 않음: 엔드포인트가 이 노드에 있으면 응답되고, 아니면 응답이 이 노드를 지나지 않음
why-no-rule-unless-itself = kube-proxy의 어떤 규칙도 마스커레이드하지 않음; 다만 파드가 자기 자신에게 연결되는 경우는 예외
why-no-rule-but-the-plugin = kube-proxy의 어떤 규칙도 마스커레이드하지 않음; 파드 네트워크를 벗어나는 파드를 네트워크 플러그인이 마스커레이드하는지는 어떤 오브젝트도 알려 주지 않음
why-no-rule = kube-proxy의 어떤 규칙도 마스커레이드하지 않음

## 클라이언트의 주소를 잃는 곳

lost-by-load-balancer = 로드 밸런서
lost-by-kube-proxy = kube-proxy
lost-by-cni = kube-proxy를 대신하는 네트워크 플러그인
lost-by-proxy = 스스로 연결을 여는 프록시
lost-by-mesh = 파드 안의 사이드카

## 설정이 아무것도 정하지 않는 까닭

reason-past-kube-proxy = 로드 밸런서가 kube-proxy를 거치지 않고 파드로 전달함
reason-policy-cluster = externalTrafficPolicy가 Local일 때만 읽힘
reason-classic-load-balancer = Classic Load Balancer에는 그런 설정이 없음
reason-in-tree-controller = 이 로드 밸런서는 클라우드 제공자 자체의 컨트롤러가 만들며, 그 설정을 읽지 않음
reason-eks-auto-mode = 이 로드 밸런서는 EKS Auto Mode가 만들며, 그 설정을 읽지 않음
reason-always-preserved = 이 프로토콜에서는 클라이언트의 주소가 항상 유지됨
reason-needs-use-forwarded-headers = use-forwarded-headers가 켜져 있을 때만 읽힘
reason-needs-forwarded-headers-or-proxy-protocol = use-forwarded-headers, enable-real-ip 또는 use-proxy-protocol이 켜져 있을 때만 읽힘

## 시스템

system-aws-nlb = AWS Network Load Balancer
system-aws-alb = AWS Application Load Balancer
system-aws-classic = AWS Classic Load Balancer
system-metallb-l2 = MetalLB(ARP와 NDP)
system-metallb-bgp = MetalLB(BGP)
system-metallb = MetalLB
system-kube-vip = kube-vip
system-k3s-servicelb = k3s servicelb
system-gke-passthrough = GKE 패스스루 로드 밸런서
system-gke-container-native = GKE 컨테이너 네이티브 로드 밸런서
system-gke-proxy = GKE 프록시 로드 밸런서
system-azure-load-balancer = Azure 로드 밸런서
system-cilium-lb = Cilium LB-IPAM
system-other = 다른 제공자의 로드 밸런서
system-nobody = 로드 밸런서 없음
system-unknown = 어떤 오브젝트도 알려 주지 않는 로드 밸런서

controller-ingress-nginx = ingress-nginx
controller-aws-alb = AWS Application Load Balancer
controller-aws-nlb = AWS Network Load Balancer
controller-gke = GKE의 로드 밸런서
controller-traefik = Traefik
controller-istio = Istio 게이트웨이
controller-envoy-gateway = Envoy Gateway
controller-haproxy = HAProxy
controller-other = 다른 컨트롤러
controller-unknown = 어떤 오브젝트도 알려 주지 않는 컨트롤러

delivers-node-port = 노드 포트로 전달
delivers-virtual-ip = 자신의 주소를 그대로 두고 노드로 전달
delivers-pod = 파드로 전달
delivers-relay = 자신의 파드를 거쳐 전달
delivers-nothing = 아무것도 전달하지 않음
delivers-unknown = 어디로 전달하는지 어떤 오브젝트도 알려 주지 않음

dataplane-kube-proxy = kube-proxy
dataplane-cilium-snat = Cilium(마스커레이드)
dataplane-cilium-dsr = Cilium(DSR, 직접 서버 응답)
dataplane-cilium-hybrid = Cilium(TCP는 DSR)
dataplane-cilium = Cilium
dataplane-calico-ebpf = Calico eBPF
dataplane-gke-dataplane-v2 = GKE Dataplane V2
dataplane-antrea-nat = Antrea(마스커레이드)
dataplane-antrea-dsr = Antrea(DSR, 직접 서버 응답)
dataplane-ovn-kubernetes = OVN-Kubernetes
dataplane-kube-router = kube-router

carrier-x-forwarded-for = X-Forwarded-For
carrier-proxy-v1 = PROXY 프로토콜 버전 1
carrier-proxy-v2 = PROXY 프로토콜 버전 2

seen-client = 클라이언트의 주소
seen-load-balancer = 로드 밸런서의 주소
seen-entry-node = 진입 노드의 주소
seen-relay = 중계 파드의 주소
seen-proxy = 프록시의 주소
seen-loopback = 파드 자신의 루프백
seen-unknown = 어떤 오브젝트도 알려 주지 않음

stage-client = 클라이언트
stage-load-balancer = 로드 밸런서
stage-relay = 중계 파드
stage-node = 노드
stage-proxy = 프록시
stage-mesh = 사이드카
stage-pod = 파드

## Service의 판정

verdict-preserved = 보존됨: 파드가 클라이언트의 주소를 봄.
verdict-lost = 잃음({ $who }): 파드가 클라이언트가 아닌 다른 주소를 봄.
verdict-lost-because = 잃음({ $who }): { $why }.
verdict-lost-because-of = 잃음({ $service }에서, { $who }): { $why }.
verdict-depends = 경우에 따라 다름: 어떤 길로는 파드가 클라이언트의 주소를 보고, 다른 길로는 보지 못함(잃는 곳: { $who }).
verdict-unreachable = 도달 불가: 어떤 연결도 통과하지 못함.
verdict-broken = 고장: 연결은 통과하지만 요청이 실패함; 아래를 볼 것.
verdict-unknown = 알 수 없음: 파드가 누구의 주소를 보는지 오브젝트가 알려 주지 않음.
verdict-unknown-by-some = 알 수 없음: 어떤 길로는 파드가 클라이언트의 주소를 보고, 다른 길은 오브젝트가 알려 주지 않음.
verdict-by-nodes = 노드 포트로 가는 것은 { $fate }: { $why }.
verdict-inside-preserved = 클러스터 내부 전용: 파드에서만 접근하며, 대상 파드는 클라이언트 파드의 주소를 봄.
verdict-no-address = 자신의 주소 없음: 이 Service의 패킷은 kube-proxy를 지나지 않음.
verdict-recoverable = 파드는 { $carriers }에서 클라이언트를 찾을 수 있음.
verdict-closed = { $nodes ->
    [one] 노드 하나가
   *[other] 노드 { $nodes }개가
  } 아무것도 통과시키지 않음: { $why }.
verdict-closed-somewhere = 어떤 길로는 아무것도 통과하지 못함: { $why }.

source-ip-preserved = 보존됨
source-ip-lost = 잃음
source-ip-unknown = 알 수 없음

## 그 주위에 출력되는 것

label-left-out = 제외됨
label-range = { $least }~{ $most }

label-kube-proxy-unknown = kube-proxy의 설정을 알 수 없음: kubeadm의 기본 설정, iptables 모드로 가정함
label-findings = 발견된 문제
label-advice = 바꿀 것
label-prices = 대가와 주의점
label-price-of = { $change }: { $price }
label-price = 대가와 주의점: { $price }
label-health = healthCheckNodePort { $port }
label-health-serves = { $nodes }: { $count ->
    [0] 503 응답, 준비된 엔드포인트가 없음
    [1] 200 응답, 준비된 엔드포인트 1개
   *[other] 200 응답, 준비된 엔드포인트 { $count }개
  }
label-health-used = 상태를 묻는 로드 밸런서가 쓰는 노드: { $nodes }
label-health-nobody = 없음
label-health-agrees = { $node } ({ $address }): 예상대로 { $status } 응답
label-health-differs = { $node } ({ $address }): { $status } 응답, 예상은 { $expected }: { $body }
label-health-silent = { $node } ({ $address }): 응답 없음: { $error }
label-hosts = Service를 거치지 않고 파드로 이어지는 노드의 포트
label-host-network = 노드의 네트워크에 있음: NAT 없음, 클라이언트의 주소가 유지됨
label-host-port = 호스트 포트: 노드에서 CNI 플러그인 portmap이나 그것을 대신하는 것이 변환하며, 외부 클라이언트의 주소는 유지됨
label-assumed = 매니페스트에 없어 가정한 것
label-changed = 적용함: { $what }
label-not-changed = { $service }: 시험해 볼 수 있는 패치가 있는 변경이 없음
label-every = 모두
label-and-others = 외 { $count }개

severity-broken = 고장
severity-loses = 손실
severity-note = 참고

## 발견된 문제

finding-load-balancer-pending = { $service }의 유형이 LoadBalancer인데 클러스터의 아무것도 로드 밸런서를 만들지 않음: 주소가 <pending>에 머묾
finding-load-balancer-refused = { $service }: { $name }의 값이 { $value }인데, { $system }을(를) 만드는 쪽이 거부함: 만들어지지 않음
finding-target-needs-node-port = { $by }은(는) 노드 포트로 전달하는데 { $service }에는 노드 포트가 없음
finding-proxy-protocol-not-read = { $by }이(가) PROXY 헤더를 보내는데 { $reader }이(가) 읽지 않음: 모든 요청이 실패함
finding-proxy-protocol-not-sent = { $reader }이(가) PROXY 헤더를 기다리는데 { $by }이(가) 보내지 않음: 모든 요청이 실패함
finding-proxy-protocol-nobody-sends = { $reader }이(가) PROXY 헤더를 기다리는데 클라이언트가 직접 그곳으로 옴: 모든 요청이 실패함
finding-missing-service = { $by }이(가) 가리키는 Service { $service }이(가) 없음
finding-missing-port = { $by }이(가) 가리키는 Service { $service }의 포트 { $port }이(가) 없음
finding-route-not-granted = { $by }이(가) 다른 네임스페이스의 Service { $service }을(를) 가리키는데, 그곳의 어떤 ReferenceGrant도 허용하지 않음: Gateway가 거부함
finding-no-endpoints = { $service }에 준비된 엔드포인트가 없음
finding-local-without-endpoints = { $service }의 정책이 Local인데, 광고되는 어느 노드에도 엔드포인트가 없음
finding-host-port-conflict = { $one }와(과) { $other }이(가) 한 노드의 같은 포트 { $port }을(를) 원함: 둘 중 하나는 스케줄되지 않음
finding-pod-security-forbids = 네임스페이스 { $namespace }의 Pod Security 수준 { $level }이(가) { $workload }이(가) 요구하는 { $what }을(를) 금지함: 파드가 거부됨
finding-hairpin-through-load-balancer = { $service }: { $system }의 대상인 파드나 노드가 그 로드 밸런서로 연결하면 자기 자신에게 갈 수 있고, 자신의 주소가 유지되므로 끝없이 기다림
finding-family-translated = { $service }: { $system }은(는) 두 주소 패밀리(IPv4/IPv6)를 받지만 하나로만 전달함: 다른 패밀리의 클라이언트는 로드 밸런서의 주소로 들어옴
finding-nothing-announces = { $service }: MetalLB의 어떤 L2Advertisement나 BGPAdvertisement도 그 풀을 광고하지 않음: 그 주소에 아무도 응답하지 않음
finding-local-behind-replacing-load-balancer = { $service }의 정책은 Local이지만 { $system }이(가) 클라이언트의 주소를 자신의 주소로 바꿈: 정책이 지키는 것은 로드 밸런서의 주소임
finding-forwarded-header-overwritten = { $by }이(가) { $before }이(가) 쓴 X-Forwarded-For를 덮어씀: 클라이언트는 거기서 사라짐
finding-forwarded-header-spoofable = { $by }은(는) 아무 클라이언트나 쓸 수 있는 X-Forwarded-For를 믿음: 파드가 기록하는 주소는 누군가 지어낸 것일 수 있음
finding-source-ranges-see-the-load-balancer = { $service }: loadBalancerSourceRanges는 클라이언트가 아니라 { $system }의 주소와 비교됨
finding-affinity-sees-the-load-balancer = { $service }: sessionAffinity ClientIP는 { $system }의 주소를 따름: 많은 클라이언트가 하나로 보임
finding-source-ranges-do-not-fence-node-ports = { $service }: loadBalancerSourceRanges는 노드 포트에 적용되지 않음: 노드 포트는 모두에게 열려 있음
finding-policy-does-not-apply = { $service }: { $field }은(는) 여기서 아무것도 바꾸지 않음: { $why }
finding-host-network-dns-policy = { $workload }은(는) dnsPolicy ClusterFirst로 노드의 네트워크에 있음: 클러스터의 이름을 찾지 못함; ClusterFirstWithHostNet으로 설정할 것
finding-external-name = { $service }은(는) { $to }의 DNS 별칭임: 클라이언트가 직접 그곳으로 가고, 어떤 트래픽 정책도 적용되지 않음
finding-headless = { $service }은(는) 헤드리스임: 클라이언트가 직접 파드로 가고, kube-proxy의 어떤 규칙도 닿지 않음
finding-pods-bypass-the-load-balancer = { $service }: { $system }의 주소를 쓰는 클러스터 안의 클라이언트는 로드 밸런서에 닿지 않고 PROXY 헤더도 가져오지 않음: 헤더를 기다리는 파드는 거부함
finding-controller-unknown = { $by }을(를) 처리하는 컨트롤러를 여기서는 알지 못함({ $class }): 주소에 무엇을 하는지 말할 수 없음
finding-controller-not-told = { $by }을(를) 어느 컨트롤러가 처리하는지 어떤 오브젝트도 알려 주지 않음: 주소에 무엇을 하는지 말할 수 없음
finding-value-not-understood = { $object }: { $name }의 값이 { $value }인데, 가능한 값이 아님
finding-setting-ignored = { $object }: { $name }은(는) 여기서 아무것도 바꾸지 않음: { $why }

## 매니페스트 밖에서 가정한 것

assumption-nodes = 노드 { $nodes }: 주어진 Node가 없음
assumption-node-address = 노드 { $node }의 주소는 { $ip }
assumption-pods = { $workload }의 파드는 { $nodes }에 있음
assumption-cluster-ip = { $service }은(는) 클러스터 IP { $ips }을(를) 받음
assumption-node-port = { $service }의 포트 { $port }은(는) 노드 포트 { $node_port }을(를) 받음
assumption-health-check-node-port = { $service }은(는) healthCheckNodePort { $node_port }을(를) 받음
assumption-load-balancer-address = { $service }의 로드 밸런서는 주소 { $ip }을(를) 받음
assumption-endpoints = { $service }의 파드 하나가 { $node }에 있음: 선택할 대상이 주어지지 않음

## 변경과 대가

change-set-local = externalTrafficPolicy: Local로 설정
    .price = 파드가 없는 노드는 들어오는 것을 버리므로 로드 밸런서가 healthCheckNodePort를 물어야 함(또는 클라이언트가 노드를 알아야 함); 균형은 파드가 아니라 노드 단위임: 다섯 파드 중 하나가 있는 노드가 넷이 있는 노드만큼 받음
change-preserve-client-ip = 대상 그룹이 클라이언트의 주소를 유지하게 함(preserve_client_ip.enabled=true)
    .price = 파드의 보안 그룹이 로드 밸런서뿐 아니라 클라이언트를 허용해야 함; 자신의 로드 밸런서로 연결하는 대상은 자기 자신에게 가서 끝없이 기다릴 수 있음; 대상은 로드 밸런서의 VPC에 있어야 함
change-target-pods = 로드 밸런서가 kube-proxy를 거치지 않고 파드로 전달하게 함(대상 유형 ip)
    .price = VPC의 주소를 가진 파드(Amazon VPC CNI)와 클라이언트를 허용하는 파드의 보안 그룹이 필요함; 자신의 로드 밸런서로 연결하는 파드는 자기 자신에게 가서 끝없이 기다릴 수 있음; 롤아웃마다 대상이 바뀌므로 readiness gate를 쓸 것
change-send-proxy-protocol = 로드 밸런서가 PROXY 헤더를 보내고 뒤에서 읽게 함
    .price = 양쪽이 동시에 바뀌어야 함: 그 사이의 모든 연결이 실패함; 로드 밸런서를 거치지 않는 연결(상태 확인, 파드)도 헤더를 보내거나 다른 포트를 써야 함
change-read-proxy-protocol = 보내지는 PROXY 헤더를 읽음
    .price = 양쪽이 동시에 바뀌어야 함; 로드 밸런서를 거치지 않는 연결도 헤더를 보내야 함; 로드 밸런서의 주소에서 온 것만 믿을 것
change-stop-proxy-protocol = PROXY 헤더를 보내지 않음
    .price = 다른 변경이 지키지 않는 한 클라이언트의 주소를 잃음
change-expect-no-proxy-protocol = PROXY 헤더를 기다리지 않음
    .price = 클라이언트의 주소는 연결이 가져오는 주소가 됨
change-believe-forwarded-for = 프록시가 앞에 있는 로드 밸런서의 X-Forwarded-For를 믿게 함
    .price = 로드 밸런서만 프록시에 닿을 수 있거나, 그 주소만 믿어야 함(proxy-real-ip-cidr): 아니면 클라이언트가 마음대로 씀
change-read-forwarded-for = 애플리케이션이 X-Forwarded-For에서 클라이언트를 읽음
    .price = HTTP에만 해당; 알려진 프록시가 더한 항목만 오른쪽부터 세어 믿고, 습관적으로 가장 왼쪽을 믿지 말 것
change-proxy-on-nodes = 프록시를 노드의 네트워크에서 실행(hostNetwork DaemonSet)
    .price = 노드의 80과 443 포트를 차지함; dnsPolicy ClusterFirstWithHostNet과 Pod Security 수준이 privileged인 네임스페이스가 필요함; 클라이언트가 노드에 닿아야 함
change-run-everywhere = 클라이언트가 들어올 수 있는 모든 노드에 파드를 둠(DaemonSet 또는 topologySpreadConstraints)
    .price = 노드 수만큼의 파드
change-set-cluster = externalTrafficPolicy: Cluster로 설정
    .price = 모든 노드가 클라이언트를 받지만, kube-proxy가 클라이언트의 주소를 노드의 주소로 바꾸고 홉이 하나 늘 수 있음
change-set-internal-cluster = internalTrafficPolicy: Cluster로 설정
    .price = 파드가 다른 노드의 엔드포인트로 갈 수 있음: 홉이 하나 늘고, 다른 존일 수 있음
change-direct-return = Cilium이 파드의 노드에서 바로 응답하게 함(DSR, 직접 서버 응답, bpf-lb-mode: dsr)
    .price = 네이티브 라우팅 또는 Geneve가 필요함; 출발지 주소를 검사하는 네트워크는 모든 노드에서 Service 주소로 나가는 응답을 허용해야 함
change-no-masquerade-all = kube-proxy를 masqueradeAll 없이 실행
    .price = 모든 노드에서 kube-proxy를 다시 시작해야 함; 파드의 응답이 그것 없이도 돌아갈 길을 찾아야 함
change-mend-cluster-cidr = 파드를 포함하는 클러스터 CIDR을 kube-proxy에 줌(clusterCIDR 또는 detectLocal)
    .price = 모든 노드에서 kube-proxy를 다시 시작해야 함
change-intercept-by-tproxy = 사이드카가 TPROXY로 가로채게 함(Istio: sidecar.istio.io/interceptionMode: TPROXY)
    .price = 사이드카에 CAP_NET_ADMIN이 필요함; 파드를 새로 만들어야 함
change-install-load-balancer = 로드 밸런서를 만드는 것을 설치(MetalLB, kube-vip)하거나, NodePort 유형 또는 hostNetwork를 씀
    .price = 구성 요소가 하나 늘고, 그것이 쓸 네트워크 주소가 필요함
change-announce = 풀을 광고함(그 이름을 적은 L2Advertisement 또는 BGPAdvertisement)
    .price = 없음: 광고하지 않는 주소는 쓸모가 없음
change-add-node-port = Service에 노드 포트를 주거나(유형 NodePort 또는 allocateLoadBalancerNodePorts), 로드 밸런서가 파드로 전달하게 함(target-type: ip)
    .price = 모든 노드의 포트가 열리고, 로드 밸런서의 변환에 kube-proxy의 마스커레이드가 더해짐
change-replace-servicelb = k3s의 servicelb 대신 다른 로드 밸런서를 씀(k3s --disable servicelb와 MetalLB)
    .price = 구성 요소가 하나 늘고, 그것이 쓸 네트워크 주소가 필요함
