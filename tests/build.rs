//! Builds the BPF object that `bench::yardstick` embeds.

#[path = "../observer-ebpf/object.rs"]
mod object;

fn main() {
    if let Err(why) = object::build("yardstick", &["src/bin"]) {
        println!("cargo::error={why}");
    }
}
