//! The `kps` command.

/// As in both packages, which say why.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    std::process::exit(kps::cli::run(std::env::args_os()));
}
