//! What the programs' maps take of the kernel's memory.

use std::{fs, io};

/// In bytes, of all maps that this process holds: what the kernel shows of each file descriptor
/// (`kernel/bpf/syscall.c`, `bpf_map_show_fdinfo`: `memlock`).
///
/// Minimum kernel: 5.10. Before 6.4 it is an estimate, which leaves little out.
pub(super) fn of_maps() -> io::Result<u64> {
    let mut bytes = 0;
    let mut counted = Vec::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // One that is closed meanwhile, as that of this very folder, is no map's.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        if let Some((id, memory)) = map(&text)
            && !counted.contains(&id)
        {
            counted.push(id);
            bytes += memory;
        }
    }
    Ok(bytes)
}

/// A map's number and memory, if that is what a file descriptor is of.
pub(super) fn map(text: &str) -> Option<(u64, u64)> {
    let value = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    Some((value("map_id:")?, value("memlock:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_maps_are_counted() {
        let shown = "pos:\t0\nflags:\t02000002\nmap_type:\t27\nmemlock:\t1052672\nmap_id:\t7\n";
        assert_eq!(map(shown), Some((7, 1_052_672)));
        assert_eq!(map("prog_type:\t3\nmemlock:\t4096\nprog_id:\t9\n"), None);
    }
}
