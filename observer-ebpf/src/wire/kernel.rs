//! What the programs read of the kernel's own, and where it keeps that.

/// Where the kernel keeps what the programs read of conntrack, in bytes. Resolved by userspace from
/// BTF, and the only element of the map `LAYOUT` once it is known; until then `nfct` is zero, no entry
/// is read, and the tuples of every observation are the packets' own.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLayout {
    /// Offset of `sk_buff._nfct`.
    pub nfct: u32,
    /// Offset of `nf_conn.tuplehash[IP_CT_DIR_ORIGINAL].tuple`.
    pub original: u32,
    /// Offset of `nf_conn.tuplehash[IP_CT_DIR_REPLY].tuple`.
    pub reply: u32,
    /// Offset of `nf_conn.zone`; [`NO_ZONES`] if the kernel is built without
    /// (`CONFIG_NF_CONNTRACK_ZONES`).
    pub zone: u32,
}

/// Where the kernel keeps what the program for dropped packets reads, resolved as [`KernelLayout`]
/// is. The only element of the map `DROP_LAYOUT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropLayout {
    /// Offset of `sk_buff.head`.
    pub head: u32,
    /// Offset of `sk_buff.network_header`.
    pub network_header: u32,
    /// The value of `SKB_DROP_REASON_NOT_SPECIFIED`, which says nothing and is not kept.
    pub not_specified: u32,
}

/// [`KernelLayout::zone`] of a kernel without zones. No field of interest is at offset zero: that
/// is the entry's reference count.
pub const NO_ZONES: u32 = 0;
/// Key of the only element of the map `LAYOUT`.
pub const LAYOUT_KEY: u32 = 0;

/// The kernel's `struct nf_conntrack_tuple` (`include/net/netfilter/nf_conntrack_tuple.h`),
/// read whole in one call. Userspace checks these offsets against BTF before it hands over a
/// [`KernelLayout`].
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NfConntrackTuple {
    /// `src.u3`: an IPv4 address fills the first four bytes.
    pub source: [u8; 16],
    /// `src.u.all`, network order.
    pub source_port: u16,
    /// `src.l3num`: `AF_INET` or `AF_INET6`; zero in a template, which is no connection's entry.
    pub l3num: u16,
    /// `dst.u3`.
    pub destination: [u8; 16],
    /// `dst.u.all`, network order.
    pub destination_port: u16,
    /// `dst.protonum`.
    pub protonum: u8,
    /// `dst.dir`.
    pub dir: u8,
}

/// The kernel's `struct nf_conntrack_zone` (`include/net/netfilter/nf_conntrack_zones.h`), read
/// and checked as [`NfConntrackTuple`] is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NfConntrackZone {
    /// `id`.
    pub id: u16,
    /// `flags`.
    pub flags: u8,
    /// `dir`: bit 0 if the zone is that of the original direction, bit 1 of the reply.
    pub dir: u8,
}

/// What the programs read of the kernel's `struct nf_conn` (`include/net/netfilter/nf_conntrack.h`):
/// the fields from `zone` on, as they lie on kernels of 64 bits from 5.10 to 7.2. Where the
/// [`KernelLayout`] says so, they are read whole in one call; else one by one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NfConn {
    /// `zone`.
    pub zone: NfConntrackZone,
    /// `tuplehash[IP_CT_DIR_ORIGINAL].hnnode`.
    pub original_node: [u32; 4],
    /// `tuplehash[IP_CT_DIR_ORIGINAL].tuple`.
    pub original: NfConntrackTuple,
    /// `tuplehash[IP_CT_DIR_REPLY].hnnode`.
    pub reply_node: [u32; 4],
    /// `tuplehash[IP_CT_DIR_REPLY].tuple`.
    pub reply: NfConntrackTuple,
}

const _: () = {
    assert!(size_of::<KernelLayout>() == 16 && align_of::<KernelLayout>() == 4);
    assert!(size_of::<DropLayout>() == 12 && align_of::<DropLayout>() == 4);
    assert!(size_of::<NfConntrackTuple>() == 40 && align_of::<NfConntrackTuple>() == 4);
    assert!(size_of::<NfConn>() == 116 && align_of::<NfConn>() == 4);
    assert!(size_of::<NfConntrackZone>() == 4 && align_of::<NfConntrackZone>() == 2);
};
