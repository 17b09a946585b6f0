//! The programs that the observer is held against (`observer-ebpf/src/bin/yardstick.rs`).

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::PerCpuHashMap,
    programs::{LinkOrder, SchedClassifier, tc::TcAttachOptions},
};

use crate::{attached::SIDES, netns::Namespace};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/yardstick"));

/// A program and where it is attached, until it is dropped.
#[derive(Debug)]
pub struct Yardstick {
    ebpf: Ebpf,
    name: &'static str,
}

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Returns at once.
    Floor,
    /// Counts every packet by its flow.
    Naive,
}

impl Yardstick {
    /// Loads one.
    pub fn load(kind: Kind) -> Result<Self> {
        let name = match kind {
            Kind::Floor => "floor",
            Kind::Naive => "naive",
        };
        let mut loader = EbpfLoader::new();
        if kind == Kind::Floor {
            // The map is the other's.
            loader.map_max_entries("COUNTS", 1);
        }
        let ebpf = loader
            .load(OBJECT)
            .context("the yardstick does not parse")?;
        let mut yardstick = Self { ebpf, name };
        yardstick
            .program_mut()?
            .load()
            .with_context(|| format!("the kernel does not take the program {name}"))?;
        Ok(yardstick)
    }

    /// Attaches it to both sides of interfaces, by TCX (Linux 6.6).
    pub fn attach(&mut self, namespace: &Namespace, interfaces: &[String]) -> Result<()> {
        let program = self.program_mut()?;
        let attach = || -> Result<()> {
            for interface in interfaces {
                for side in SIDES {
                    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
                    program
                        .attach_with_options(interface, side, options)
                        .with_context(|| format!("failed to attach to {interface}"))?;
                }
            }
            Ok(())
        };
        namespace.run(attach)?
    }

    /// The program.
    pub fn program(&self) -> Result<&SchedClassifier> {
        let program = self.ebpf.program(self.name);
        let program = program.with_context(|| format!("there is no program {}", self.name))?;
        Ok(program.try_into()?)
    }

    /// The kernel's number of it.
    pub fn id(&self) -> Result<u32> {
        Ok(self.program()?.info()?.id())
    }

    /// How many packets [`Kind::Naive`] counted, of all flows that it still knows.
    pub fn packets(&self) -> Result<u64> {
        let map = self.ebpf.map("COUNTS").context("there is no map COUNTS")?;
        let counts = PerCpuHashMap::<_, [u32; 10], [u64; 2]>::try_from(map)?;
        let mut packets = 0;
        for counted in &counts {
            let (_, of_each_cpu) = counted?;
            packets += of_each_cpu.iter().map(|count| count[0]).sum::<u64>();
        }
        Ok(packets)
    }

    fn program_mut(&mut self) -> Result<&mut SchedClassifier> {
        let program = self.ebpf.program_mut(self.name);
        let program = program.with_context(|| format!("there is no program {}", self.name))?;
        Ok(program.try_into()?)
    }
}
