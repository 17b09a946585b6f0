//! Builds the BPF object that `kernel::programs` embeds.

#[path = "../observer-ebpf/object.rs"]
mod object;

fn main() {
    if let Err(why) = object::build("observer-programs", &["src"]) {
        println!("cargo::error={why}");
    }
}
