//! The `kps` command.

fn main() {
    std::process::exit(kps::cli::run(std::env::args_os()));
}
