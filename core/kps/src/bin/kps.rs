//! The `kps` command.

/// As in both packages, which say why.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // SAFETY: it may be called on any thread, at any time.
    kps::runtime::when_quiet(|| unsafe { libmimalloc_sys::mi_collect(true) });
    std::process::exit(kps::cli::run(std::env::args_os()));
}
