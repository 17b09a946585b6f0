//! How large `trace` and `agent` have the maps in the kernel made, and what `doctor` tries.

use std::ops::RangeInclusive;

use clap::Args;

use crate::kernel::programs::Sizes;

/// Under which heading the options are.
const HEADING: &str = "Kernel memory";
const MEBIBYTE: u32 = 1 << 20;

/// Fewer would be pushed out before an observer looks.
const PENDING: RangeInclusive<u32> = 1_024..=4_194_304;
const UDP_FLOWS: RangeInclusive<u32> = 256..=1_048_576;
/// In MiB.
const RING_BUFFER: RangeInclusive<u32> = 1..=256;

/// How much of what passes the kernel keeps.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct SizeOptions {
    /// How many packets that open or answer connections may be on their way through this node, or
    /// stay here unanswered, at once. Of more the oldest are forgotten, and that is told. 128 bytes
    /// of the kernel's memory each.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = Sizes::default().pending,
        value_parser = pending,
        help_heading = HEADING
    )]
    max_pending: u32,
    /// How many UDP flows are known at once. Of more those that were silent longest are forgotten,
    /// and told again if they go on. 512 bytes of the kernel's memory each.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = Sizes::default().udp_flows,
        value_parser = udp_flows,
        help_heading = HEADING
    )]
    max_udp_flows: u32,
    /// The size of the ring buffer from the kernel to this process in MiB, a power of two. One has
    /// room for 7,700 observations; what finds it full is lost, and that is told.
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = Sizes::default().ring_buffer / MEBIBYTE,
        value_parser = ring_buffer,
        help_heading = HEADING
    )]
    ring_buffer_size: u32,
}

impl From<SizeOptions> for Sizes {
    fn from(options: SizeOptions) -> Self {
        let SizeOptions {
            max_pending,
            max_udp_flows,
            ring_buffer_size,
        } = options;
        Self {
            pending: max_pending,
            udp_flows: max_udp_flows,
            ring_buffer: ring_buffer_size * MEBIBYTE,
        }
    }
}

fn pending(text: &str) -> Result<u32, String> {
    within(text, &PENDING)
}

fn udp_flows(text: &str) -> Result<u32, String> {
    within(text, &UDP_FLOWS)
}

fn ring_buffer(text: &str) -> Result<u32, String> {
    let size = within(text, &RING_BUFFER)?;
    if !size.is_power_of_two() {
        let above = size.next_power_of_two();
        return Err(format!(
            "it must be a power of two: {} or {above}",
            above / 2
        ));
    }
    Ok(size)
}

fn within(text: &str, range: &RangeInclusive<u32>) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("it must be from {} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1", Ok(1))]
    #[case("64", Ok(64))]
    #[case("256", Ok(256))]
    #[case("3", Err("it must be a power of two: 2 or 4"))]
    #[case("0", Err("it must be from 1 to 256"))]
    #[case("512", Err("it must be from 1 to 256"))]
    #[case("4294967296", Err("it must be from 1 to 256"))]
    #[case("1MiB", Err("it must be from 1 to 256"))]
    fn a_ring_buffers_size_is_a_power_of_two(
        #[case] text: &str,
        #[case] expected: Result<u32, &str>,
    ) {
        assert_eq!(ring_buffer(text), expected.map_err(str::to_owned));
    }

    #[test]
    fn numbers_are_within_bounds() {
        assert_eq!(pending("1024"), Ok(1_024));
        let refused = "it must be from 1024 to 4194304";
        assert_eq!(pending("1023"), Err(refused.to_owned()));
        assert_eq!(udp_flows("1048576"), Ok(1_048_576));
        let refused = "it must be from 256 to 1048576";
        assert_eq!(udp_flows("-1"), Err(refused.to_owned()));
    }
}
