//! Packets as no ordinary client sends them, or no quick node passes them on, through a whole node.
//!
//! Goal: a packet whose headers lie in several parts of memory, and that leaves in fragments, is
//! one connection as any other; and so is one whose answer waits on its way. Method: hand the
//! kernel such a packet by a tun device, as a network card would, or keep the client's link address
//! from the node; and look at the record.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    thread,
    time::Duration,
};

use etherparse::PacketBuilder;
use serde_json::json;
use tempfile::TempDir;
use tests::{child::poll_until, demo, observer_process::ObserverProcess, privilege};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

const CLIENT: [u8; 4] = [198, 18, 0, 9];
const DOOR: [u8; 4] = [172, 31, 0, 11];
const CLIENT_PORT: u16 = 40_000;
const DOOR_PORT: u16 = 30_080;
/// Longer than a page, or the kernel would lay it out in one piece; and than the pod's MTU.
const PAYLOAD: usize = 5_000;
/// `struct virtio_net_hdr` (`include/uapi/linux/virtio_net.h`).
const VNET_HEADER: usize = 10;
/// Bytes that the kernel puts into the linear part: the IP header, and nothing of TCP's.
const LINEAR: u16 = 20;

/// A node port of a pod on this node alone.
const LOCAL_DOOR: (Ipv4Addr, u16) = (Ipv4Addr::new(172, 31, 0, 11), 30_081);
const PATIENCE: Duration = Duration::from_secs(10);

fn device() -> io::Result<SyncDevice> {
    DeviceBuilder::new()
        .name("inject0")
        .layer(Layer::L3)
        .offload(true)
        .build_sync()
}

/// A SYN that carries data already, behind the header that says how to lay it out.
fn packet() -> Vec<u8> {
    let mut packet = vec![0; VNET_HEADER];
    // hdr_len comes after a byte of flags and a byte of segmentation offload.
    packet[2..4].copy_from_slice(&LINEAR.to_ne_bytes());
    let builder = PacketBuilder::ipv4(CLIENT, DOOR, 64)
        .tcp(CLIENT_PORT, DOOR_PORT, 0xdead_beef, 64_240)
        .syn();
    builder
        .write(&mut packet, &[0; PAYLOAD])
        .expect("fits into memory");
    // It may be cut into fragments: etherparse forbids that by default.
    packet[VNET_HEADER + 6] &= !0x40;
    let header = &mut packet[VNET_HEADER..VNET_HEADER + 20];
    header[10..12].fill(0);
    let sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from(folded).expect("folded once is enough for twenty bytes");
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

#[test]
fn headers_in_pieces_and_fragments_are_one_connection() {
    if !privilege::granted("headers_in_pieces_and_fragments_are_one_connection") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let inject = node
        .namespace
        .run(device)
        .expect("inside")
        .expect("a device");
    let client = IpAddr::from(Ipv4Addr::from(CLIENT));
    node.namespace
        .ip(&format!(
            "link set inject0 mtu 9000\nlink set inject0 up\nroute add {client}/32 dev inject0\n"
        ))
        .expect("up");

    let observer = ObserverProcess::start(node, &demo::cluster_file(), &[]).expect("observes");
    inject.send(&packet()).expect("sent");
    observer.wait_for_records(1).expect("printed");
    let finished = observer.stop().expect("stops");
    let of_ours = |record: &&serde_json::Value| {
        record.pointer("/client/port") == Some(&json!(CLIENT_PORT))
            && record.pointer("/client/ip") == Some(&json!(client))
    };
    let ours: Vec<_> = finished.records.iter().filter(of_ours).collect();
    let [record] = ours[..] else {
        panic!("one connection was opened: {ours:?}; {}", finished.stderr)
    };
    for (field, expected) in [
        ("/outcome", json!("answered")),
        ("/source_ip", json!("lost")),
        ("/service/name", json!("web")),
        ("/path/0/in", json!("inject0")),
        ("/path/0/ttl_in", json!(64)),
        ("/path/0/ttl_out", json!(63)),
    ] {
        assert_eq!(
            record.pointer(field),
            Some(&expected),
            "{field} of {record}"
        );
    }
}

/// The node asks for the link address of the client, which keeps it to itself until the observer
/// has given the answer up as one that left no more.
#[test]
fn an_answer_that_waits_within_the_node_is_told_with_its_arrival() {
    if !privilege::granted("an_answer_that_waits_within_the_node_is_told_with_its_arrival") {
        return;
    }
    let lab = demo::raise().expect("raised");
    let node = lab.node("node1").expect("a node");
    let connect = || lab.connect(LOCAL_DOOR.into(), PATIENCE);
    // From now on the client asks for no link address, which would tell its own.
    connect().expect("answered");
    let answers_to_arp = |yes| {
        let ignored = if yes { "0" } else { "8" };
        let client = lab.client();
        client.set_parameters(&[("ipv4/conf/all/arp_ignore", ignored)])
    };
    answers_to_arp(false).expect("silent");
    node.namespace
        .set_parameters(&[
            ("ipv4/neigh/eth0/mcast_solicit", "1000"),
            ("ipv4/neigh/eth0/retrans_time_ms", "20"),
        ])
        .expect("patient");
    let mut addresses = lab.client_addresses().into_iter();
    let address = addresses.find(IpAddr::is_ipv4).expect("an IPv4 address");
    let forget = format!("neighbour delete {address} dev eth0\n");
    node.namespace.ip(&forget).expect("forgotten");

    let directory = TempDir::new().expect("a directory");
    let recording = directory.path().join("recording");
    let record = ["--record", recording.to_str().expect("UTF-8")];
    let observer = ObserverProcess::start(node, &demo::cluster_file(), &record).expect("observes");
    let answer = thread::scope(|scope| {
        let opening = scope.spawn(connect);
        let given_up = || {
            let recorded = fs::read_to_string(&recording).expect("a recording");
            recorded.contains("answer_arrival").then_some(())
        };
        poll_until(PATIENCE, given_up).expect("it waited");
        answers_to_arp(true).expect("heard");
        opening.join().expect("no panic").expect("answered")
    });
    let finished = observer.stop().expect("stops");
    let [record] = &finished.records[..] else {
        panic!(
            "one connection: {:?}; {}",
            finished.records, finished.stderr
        )
    };
    for (field, expected) in [
        ("/client/port", json!(answer.local.port())),
        ("/outcome", json!("answered")),
        ("/source_ip", json!("preserved")),
        ("/path/0/reply_ttl_in", json!(64)),
    ] {
        assert_eq!(
            record.pointer(field),
            Some(&expected),
            "{field} of {record}"
        );
    }
}
