//! A program of somebody else on a hook: it counts its runs and returns one verdict.

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

const PROGRAM: &str = "neighbour";

/// What a program returns (`include/uapi/linux/pkt_cls.h`, `TC_ACT_`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next program decides.
    Unspecified = -1,
    /// The packet is dropped.
    Drop = 2,
}

/// A program at work. Taken off when it is dropped.
#[derive(Debug)]
pub struct Neighbour<'lab> {
    namespace: &'lab Namespace,
    program: Option<Ebpf>,
    id: u32,
    /// The kernel counts runs as long as it is open.
    _statistics: std::os::fd::OwnedFd,
}

impl<'lab> Neighbour<'lab> {
    /// Puts one on a side of an interface of a namespace.
    pub fn attach(
        namespace: &'lab Namespace,
        interface: &str,
        side: TcAttachType,
        options: TcAttachOptions,
        verdict: Verdict,
    ) -> Result<Self> {
        let statistics = enable_stats(Stats::RunTime).context("the kernel counts no runs")?;
        let attach = || {
            let mut ebpf = Ebpf::load(&program(verdict)?)?;
            let program = ebpf.program_mut(PROGRAM).context("it is missing")?;
            let program: &mut SchedClassifier = program.try_into()?;
            program.load()?;
            program.attach_with_options(interface, side, options)?;
            let id = program.info()?.id();
            Ok((ebpf, id))
        };
        let attached: Result<_> = namespace.run(attach)?;
        let (ebpf, id) =
            attached.with_context(|| format!("failed to put a program on {interface}"))?;
        Ok(Self {
            namespace,
            program: Some(ebpf),
            id,
            _statistics: statistics,
        })
    }

    /// The kernel's id of the program.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How often it ran.
    pub fn runs(&self) -> Result<u64> {
        let program = self.program.as_ref().and_then(|it| it.program(PROGRAM));
        Ok(program.context("it is missing")?.info()?.run_count())
    }
}

impl Drop for Neighbour<'_> {
    fn drop(&mut self) {
        let program = self.program.take();
        // A filter is removed by the number of its interface, which outside is another's.
        if let Err(error) = self.namespace.run(|| drop(program))
            && !std::thread::panicking()
        {
            panic!("failed to take a program off: {error:#}");
        }
    }
}

/// An object with the program `r0 = verdict; exit`.
fn program(verdict: Verdict) -> Result<Vec<u8>> {
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
    let symbol = object.add_symbol(Symbol {
        name: PROGRAM.as_bytes().to_vec(),
        value: 0,
        size: 0,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    object.add_symbol_data(symbol, section, &instructions, 8);
    object.write().context("the program makes no object")
}
