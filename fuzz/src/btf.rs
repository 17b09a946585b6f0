//! The kernel's description of its own types, and a module's on top of it.

use observer::kernel::btf::{Btf, Kind, TypeId};
use observer::kernel::layout;
use observer_ebpf::KernelLayout;

/// `struct btf_header` without what later kernels added.
const HEADER_LEN: u32 = 24;
const MAGIC: [u8; 2] = [0x9f, 0xeb];
const VERSION: u8 = 1;

/// Reads the bytes as they are; and as the sections of a kernel's description and of a module's,
/// so that what is behind sound headers is reached at once.
pub fn run(bytes: &[u8]) {
    if let Ok(btf) = Btf::parse(bytes) {
        ask(&btf);
    }
    split(bytes);
}

/// Reads the bytes as two descriptions: three lengths of 16 bits cut what follows them into types
/// and strings of a kernel, and of a module. The layout that both tell, if they do.
pub fn split(bytes: &[u8]) -> Option<KernelLayout> {
    let [kernel_types, kernel_strings, module_types, module_strings] = sections(bytes)?;
    let kernel = description(kernel_types, kernel_strings);
    let module = description(module_types, module_strings);
    let kernel = Btf::parse(&kernel).ok()?;
    ask(&kernel);
    let module = Btf::parse_split(&kernel, &module).ok()?;
    ask(&module);
    layout::resolve(&module).ok()
}

fn sections(bytes: &[u8]) -> Option<[&[u8]; 4]> {
    let (lengths, mut rest) = bytes.split_first_chunk::<6>()?;
    let mut cut = |length: usize| {
        let len = u16::from_le_bytes([lengths[length], lengths[length + 1]]);
        let (section, after) = rest.split_at(usize::from(len).min(rest.len()));
        rest = after;
        section
    };
    let [types, strings, module_types] = [0, 2, 4].map(&mut cut);
    Some([types, strings, module_types, rest])
}

fn description(types: &[u8], strings: &[u8]) -> Vec<u8> {
    let len = |section: &[u8]| u32::try_from(section.len()).unwrap_or(u32::MAX);
    let mut bytes = [&MAGIC[..], &[VERSION, 0]].concat();
    for word in [HEADER_LEN, 0, len(types), len(types), len(strings)] {
        bytes.extend(word.to_le_bytes());
    }
    [&bytes, types, strings].concat()
}

/// Asks everything there is to ask, of every type and of some that are not there; what the
/// answers say of each other must hold.
fn ask(btf: &Btf<'_>) {
    for id in btf.ids().chain([TypeId(0), TypeId(u32::MAX)]) {
        let resolved = btf.resolve(id);
        if let Ok(resolved) = resolved {
            assert_eq!(btf.resolve(resolved), Ok(resolved));
            // The way from there is shorter, and may end where the longer one is too deep.
            if let Ok(size) = btf.size(id) {
                assert_eq!(btf.size(resolved), Ok(size));
            }
        }
        if let Ok(array) = btf.array(id) {
            let _ = btf.size(array.element);
        }
        let Ok(found) = btf.get(id) else { continue };
        let first = btf.find(found.kind, found.name);
        assert!(
            first.is_some_and(|first| first <= id),
            "{id:?} is not found"
        );
        if let Ok(members) = btf.members(id) {
            for member in members {
                // Of two of one name the first counts, or what is wrong before it.
                let again = btf.member(id, member.name);
                assert!(member.name.is_empty() || again != Ok(None), "{id:?}");
            }
        }
    }
    for kind in [Kind::Struct, Kind::Other(0)] {
        let _ = btf.find(kind, "sk_buff");
    }
    let _ = layout::resolve(btf);
}
