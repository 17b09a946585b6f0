//! Programs of somebody else on a hook: each counts its runs and returns one verdict.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{SchedClassifier, TcAttachType, tc::TcAttachOptions},
    sys::{Stats, enable_stats},
};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, StandardSegment, Symbol, SymbolSection},
};

use crate::netns::Namespace;

/// What a program returns (`include/uapi/linux/pkt_cls.h`, `TC_ACT_`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next program decides.
    Unspecified = -1,
    /// The packet is dropped.
    Drop = 2,
}

/// One or more programs at work. Taken off when this is dropped.
#[derive(Debug)]
pub struct Neighbours<'lab> {
    namespace: &'lab Namespace,
    object: Option<Ebpf>,
    ids: Vec<u32>,
    /// The kernel counts runs as long as it is open.
    _statistics: OwnedFd,
}

impl<'lab> Neighbours<'lab> {
    /// Puts one on a side of an interface of a namespace.
    pub fn one(
        namespace: &'lab Namespace,
        interface: &str,
        side: TcAttachType,
        options: TcAttachOptions,
        verdict: Verdict,
    ) -> Result<Self> {
        Self::attach(namespace, interface, side, [options], verdict)
    }

    /// Puts one there for each of `options`.
    pub fn attach(
        namespace: &'lab Namespace,
        interface: &str,
        side: TcAttachType,
        options: impl IntoIterator<Item = TcAttachOptions>,
        verdict: Verdict,
    ) -> Result<Self> {
        let statistics = enable_stats(Stats::RunTime).context("the kernel counts no runs")?;
        let options: Vec<_> = options.into_iter().collect();
        let attach = || {
            let mut object = Ebpf::load(&object(options.len(), verdict)?)?;
            let mut ids = Vec::new();
            for (number, options) in options.into_iter().enumerate() {
                let program = object.program_mut(&name(number)).context("it is missing")?;
                let program: &mut SchedClassifier = program.try_into()?;
                program.load()?;
                program.attach_with_options(interface, side, options)?;
                ids.push(program.info()?.id());
            }
            Ok((object, ids))
        };
        let attached: Result<_> = namespace.run(attach)?;
        let (object, ids) =
            attached.with_context(|| format!("failed to put programs on {interface}"))?;
        Ok(Self {
            namespace,
            object: Some(object),
            ids,
            _statistics: statistics,
        })
    }

    /// The kernel's ids of the programs.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How often they ran, together.
    pub fn runs(&self) -> Result<u64> {
        let programs = self.object.iter().flat_map(Ebpf::programs);
        programs
            .map(|(_, program)| Ok(program.info()?.run_count()))
            .sum()
    }
}

impl Drop for Neighbours<'_> {
    fn drop(&mut self) {
        let object = self.object.take();
        // A filter is removed by the number of its interface, which outside is another's.
        if let Err(error) = self.namespace.run(|| drop(object))
            && !std::thread::panicking()
        {
            panic!("failed to take programs off: {error:#}");
        }
    }
}

fn name(number: usize) -> String {
    format!("neighbour{number}")
}

/// An object with `count` programs, each `r0 = verdict; exit`.
fn object(count: usize, verdict: Verdict) -> Result<Vec<u8>> {
    const MOV64_IMMEDIATE_R0: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    let [a, b, c, d] = (verdict as i32).to_le_bytes();
    let instructions = [
        [MOV64_IMMEDIATE_R0, 0, 0, 0, a, b, c, d],
        [EXIT, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let segment = object.segment_name(StandardSegment::Text).to_vec();
    let section = object.add_section(segment, b"classifier".to_vec(), SectionKind::Text);
    for number in 0..count {
        let symbol = object.add_symbol(Symbol {
            name: name(number).into_bytes(),
            value: 0,
            size: 0,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
        object.add_symbol_data(symbol, section, &instructions, 8);
    }
    object.write().context("the programs make no object")
}
