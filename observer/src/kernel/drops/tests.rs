//! Reasons of kernels made for it.

use observer_ebpf::DropLayout;

use super::{DropReasons, DropsError};
use crate::kernel::btf::Btf;
use crate::kernel::btf::builder::{Builder, kind};
use crate::observation::DropReason;

/// The BTF of a kernel whose tracepoint has so many parameters of these four.
fn kernel(parameters: u32) -> Vec<u8> {
    let mut b = Builder::new();
    let byte = b.int("unsigned char", 1);
    let short = b.int("unsigned short", 2);
    let pointer = b.other(kind::PTR, "", byte);
    let headers = b.compound(kind::STRUCT, "", 4, &[("network_header", short, 16)]);
    let members = [("head", pointer, 64), ("", headers, 128)];
    b.compound(kind::STRUCT, "sk_buff", 24, &members);
    let values: Vec<_> = [
        ("SKB_NOT_DROPPED_YET", 0),
        ("SKB_DROP_REASON_NOT_SPECIFIED", 2),
        ("SKB_DROP_REASON_NETFILTER_DROP", 8),
    ]
    .into_iter()
    .flat_map(|(name, value)| [b.string(name), value])
    .collect();
    let reason = b.add("skb_drop_reason", [kind::ENUM, 0, 3], 4, &values);
    let words = [pointer, pointer, pointer, reason].map(|of| [0, of]);
    let words = &words.as_flattened()[..2 * parameters as usize];
    let proto = b.add("", [kind::FUNC_PROTO, 0, parameters], 0, words);
    let pointer = b.other(kind::PTR, "", proto);
    b.other(kind::TYPEDEF, "btf_trace_kfree_skb", pointer);
    b.bytes()
}

#[test]
fn reasons_are_known_by_name() {
    let bytes = kernel(4);
    let reasons = DropReasons::resolve(&Btf::parse(&bytes).unwrap()).unwrap();
    let layout = DropLayout {
        head: 8,
        network_header: 18,
        not_specified: 2,
    };
    assert_eq!(reasons.layout, layout);
    let name = Some(DropReason("NETFILTER_DROP".to_owned()));
    assert_eq!(reasons.name(8), name);
    assert_eq!(reasons.name(0), None, "it is no reason");
    assert_eq!(reasons.name(0x1_0000), None, "a subsystem's");
}

#[test]
fn a_tracepoint_without_a_reason_is_told() {
    let bytes = kernel(3);
    let error = DropReasons::resolve(&Btf::parse(&bytes).unwrap()).unwrap_err();
    assert!(matches!(error, DropsError::NoReason), "{error}");
}
