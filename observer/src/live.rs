//! A node observed live: the programs attached, their observations read and judged, the records
//! handed to a [`Sink`].

mod asked;
mod clock;
mod crowded;
mod first_bytes;
mod found;
mod interfaces;
mod missed;
mod pace;
mod rewritten;
mod sampling;
mod session;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use observer_ebpf::KernelLayout;
use tokio::sync::watch;

use self::asked::Asked;
pub use self::clock::{epoch, now};
pub use self::interfaces::Whereabouts;
use self::interfaces::{Choice, Interfaces};
pub use self::missed::{Loss, Lost, Missed, Standing};
pub use self::sampling::Sampled;
use self::session::Awaited;
pub use self::session::{Begin, Ended, Ring, Session, Stop};
use crate::cluster::{LocalAddresses, Protocol, Snapshot};
use crate::kernel::capabilities;
use crate::kernel::drops::DropReasons;
use crate::kernel::layout::{LayoutError, Resolver};
use crate::kernel::links::Links;
use crate::kernel::programs::{self, Hook, Load, Ports, Programs, Sizes};
use crate::kubernetes::Cluster;
use crate::notice::{say, warn};
use crate::observation::Moment;
use crate::observe::{Observer, Settings, Whose};
use crate::record::Record;
use crate::recording::Writer;

/// Where records go.
pub trait Sink {
    /// Takes one. `opened_at`: when its opening packet came, if that was seen.
    fn take(&mut self, opened_at: Option<Moment>, record: Arc<Record>) -> anyhow::Result<()>;

    /// Nothing more comes for now: what was taken goes on.
    fn flush(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Whether nobody wants more.
    fn is_done(&self) -> bool;

    /// From this moment on no connection is missed.
    fn attached(&mut self, _at: Moment) {}

    /// The run is to end at this moment; what still comes may have been opened later. Whether it may
    /// go on until what was opened before is through: somebody else has the rest.
    fn ends(&mut self, _at: Moment) -> bool {
        false
    }

    /// How often it wants to know how the run stands; `None`: never.
    fn standing_interval(&self) -> Option<Duration> {
        None
    }

    /// How the run stands.
    fn standing(&mut self, _standing: &Standing) {}
}

/// What is known of the cluster, and how more of it becomes known.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    /// From the beginning.
    pub cluster: Option<Arc<Snapshot>>,
    /// From now on.
    pub changes: Option<watch::Receiver<Cluster>>,
}

/// How a node is to be observed.
#[derive(Debug)]
pub struct Setup {
    /// The interfaces to observe; none: chosen by addresses and routes.
    pub interfaces: Vec<String>,
    /// Attach by this hook or not at all.
    pub hook: Option<Hook>,
    /// Where the kernel shows itself and its types.
    pub sysfs: PathBuf,
    /// Print the programs' own debug lines.
    pub debug_programs: bool,
    /// How large the maps in the kernel are.
    pub sizes: Sizes,
}

/// What is observed.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The interfaces' names, uplinks first.
    pub interfaces: Vec<String>,
    /// By which hook.
    pub hook: Option<Hook>,
}

impl Setup {
    /// Attaches to the node's interfaces. From when this returns no connection is missed.
    pub async fn attach<S: Sink>(
        self,
        settings: Settings,
        knowledge: Knowledge,
        recorder: Option<Writer>,
        sink: S,
    ) -> anyhow::Result<(Session<S>, Ring, Attached)> {
        let Self {
            interfaces,
            hook,
            sysfs,
            debug_programs,
            sizes,
        } = self;
        capabilities::check()?;
        let (layout, awaited) = layout(Resolver::new(sysfs.clone()))?;
        // Before anything is attached, so that nothing stays when the run is ended early.
        let stop = Stop::new()?;
        match programs::sweep() {
            Ok(0) => {}
            Ok(swept) => say(&format!(
                "removed {swept} filters of an observer that was killed"
            )),
            Err(error) => warn(&error, "filters of an observer that was killed may remain"),
        }
        let (mut programs, rings) = Programs::load(Load {
            debug_lines: debug_programs,
            first_bytes: settings.first_bytes.whose != Whose::Off,
            sizes,
        })?;
        if let Some(hook) = hook {
            programs.only_by(hook);
        }
        if let Some(layout) = &layout {
            programs.set_layout(layout)?;
        }
        note_drops(&mut programs, &sysfs);
        let Knowledge { cluster, changes } = knowledge;
        programs.follow_udp(&udp_ports(cluster.as_deref(), settings.all))?;
        let links = Links::read().await?;
        let local = LocalAddresses::new(settings.node.as_str(), links.interfaces().addresses);
        let asked = Asked::of(
            &settings.first_bytes,
            cluster.as_deref(),
            settings.all,
            &local,
        );
        asked.tell(0);
        programs.hand_on(&asked.first_bytes)?;
        let interfaces = Interfaces::new(Choice(interfaces), cluster.clone());
        let epoch = settings.epoch;
        let mut session = Session::new(session::Parts {
            programs,
            all: settings.all,
            asking: settings.first_bytes.clone(),
            local,
            answer_timeout_ns: settings.answer_timeout_ns,
            observer: Observer::new(settings, cluster.clone()),
            cluster,
            sources_left_out: asked.left_out,
            away_since: None,
            epoch,
            changes,
            sink,
            recorder,
            awaited,
            interfaces,
            ring_buffer: sizes.ring_buffer,
        });
        let (interfaces, hook) = session.attach(&links)?;
        let ring = Ring {
            observations: rings.observations,
            segments: rings.segments,
            stop,
            debug_programs,
        };
        Ok((session, ring, Attached { interfaces, hook }))
    }
}

/// The UDP ports to look at: of all, if it is not known what is a front door, or if all is asked
/// for.
fn udp_ports(cluster: Option<&Snapshot>, all: bool) -> Ports {
    match cluster {
        Some(cluster) if !all => Ports::Only(cluster.index.ports(Protocol::Udp)),
        _ => Ports::All,
    }
}

/// Evidence only, and no condition: where it is not to be had, `observer doctor` says why.
fn note_drops(programs: &mut Programs, sysfs: &Path) {
    if let Ok(reasons) = DropReasons::read(sysfs) {
        let _doctor_says_why = programs.note_drops(reasons);
    }
}

/// Where conntrack keeps its entries, and what is missing until its module is loaded.
fn layout(resolver: Resolver) -> anyhow::Result<(Option<KernelLayout>, Option<Awaited>)> {
    match resolver.resolve() {
        Ok(layout) => {
            let is_loaded = resolver.is_loaded();
            let awaited = (!is_loaded).then_some(Awaited::Module(resolver));
            Ok((Some(layout), awaited))
        }
        Err(error @ LayoutError::NotLoaded) => {
            warn(&error, "until it is, nothing is rewritten here");
            Ok((None, Some(Awaited::Types(resolver))))
        }
        Err(error) if error.is_harmless() => {
            warn(&error, "nothing is rewritten here");
            Ok((None, None))
        }
        // A rewrite that cannot be followed would be told as no rewrite.
        Err(error) => Err(error.into()),
    }
}
