//! The maps are as large as they were asked for, and what a small one lets go is counted.

use aya::maps::{IterableMap as _, MapInfo};
use observer_ebpf::FLOW_ENTRIES;

use super::sampling::{opening, segment};
use super::*;

const SMALL: Sizes = Sizes {
    pending: 1_024,
    udp_flows: 256,
    ring_buffer: 1 << 21,
};
const OPENINGS: u32 = 4_096;

fn max_entries(map: &MapData) -> u32 {
    map.info()
        .map(|info: MapInfo| info.max_entries())
        .expect("told")
}

#[test]
fn maps_are_as_large_as_asked_for() {
    let test = "maps_are_as_large_as_asked_for";
    let mut taken = Vec::new();
    for sizes in [SMALL, Sizes::default()] {
        let load = Load {
            sizes,
            ..Load::default()
        };
        let Some((programs, rings)) = load_to(test, load) else {
            return;
        };
        assert_eq!(max_entries(programs.arrivals.map()), sizes.pending);
        let flows = sizes.udp_flows * FLOW_ENTRIES;
        assert_eq!(max_entries(programs.flows.map()), flows);
        let memory = programs.memory(&rings).expect("told");
        let ring_buffer = u64::from(sizes.ring_buffer);
        // Its positions are pages of their own.
        assert!(
            (ring_buffer..ring_buffer * 2).contains(&memory.ring_buffer),
            "{memory:?}"
        );
        let sum = memory.pending + memory.udp_flows + memory.ring_buffer;
        assert!(sum < memory.all, "{memory:?}");
        taken.push(memory);
    }
    let [small, default] = [taken[0], taken[1]];
    assert!(small.pending * 16 < default.pending, "{taken:?}");
    assert!(small.udp_flows * 16 < default.udp_flows, "{taken:?}");
}

#[test]
fn what_a_small_map_lets_go_is_counted() {
    let test = "what_a_small_map_lets_go_is_counted";
    let load = Load {
        sizes: SMALL,
        ..Load::default()
    };
    let Some((mut programs, _rings)) = load_to(test, load) else {
        return;
    };
    for sequence in 0..OPENINGS {
        run(
            &mut programs,
            ETHERNET[0],
            &segment(false, opening(sequence)),
        );
    }
    let Usage {
        arrivals,
        arrivals_evicted,
        ..
    } = programs.usage().expect("counted");
    let lost = programs.counters().expect("counted");
    let lost = lost.get(Counter::ArrivalsLost);
    assert!(arrivals <= u64::from(SMALL.pending), "{arrivals}");
    assert_eq!(arrivals + arrivals_evicted + lost, u64::from(OPENINGS));
}
