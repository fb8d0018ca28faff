//! The `kps` command. The wheel and the npm package call [`run`] as well, so that all three are
//! one program.

mod audit;
mod bench;
mod config;
mod dispatch;
mod doctor;
mod documents;
mod history;
mod inbox;
mod interrupt;
mod link;
mod payload;
mod publish;
mod request;
mod serve;
mod subscribe;

use std::{ffi::OsString, path::Path, time::Duration};

use clap::{Parser, Subcommand};
use kps_proto::{Error, ErrorKind, Result};

/// Runs the command line `args` (the program's name first) and returns its exit code: 0 success,
/// 1 failure, 2 wrong usage, 130 interrupted.
///
/// A program called `kps-test` is `kps doctor`.
pub fn run(args: impl Iterator<Item = OsString>) -> i32 {
    let mut args: Vec<OsString> = args.collect();
    let is_doctor = args
        .first()
        .is_some_and(|name| Path::new(name).file_stem().is_some_and(|stem| stem == "kps-test"));
    if is_doctor {
        args.insert(1, "doctor".into());
    }
    let args = match config::expand(args) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("kps: {error}");
            return 2;
        }
    };
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let _ = error.print();
            return error.exit_code();
        }
    };
    interrupt::listen();
    let done = match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Pub(publish) => publish.run(),
        Command::Sub(subscribe) => subscribe.run(),
        Command::Request(request) => request.run(),
        Command::Dispatch(dispatch) => dispatch.run(),
        Command::Capabilities(capabilities) => capabilities.run(),
        Command::Bench(bench) => bench.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::History(history) => history.run(),
        Command::Replay(replay) => replay.run(),
        Command::Verify(verify) => verify.run(),
        Command::Audit(audit) => audit.run(),
    };
    match done {
        Ok(()) if interrupt::was_interrupted() => 130,
        Ok(()) => 0,
        Err(error) => {
            eprintln!("kps: {error}");
            1
        }
    }
}

/// The real-time bus that lives inside your program.
#[derive(Parser)]
#[command(name = "kps", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Pub(publish::Pub),
    Sub(subscribe::Sub),
    Request(request::Request),
    Dispatch(dispatch::Dispatch),
    Capabilities(dispatch::Capabilities),
    Bench(bench::Bench),
    Doctor(doctor::Doctor),
    History(history::History),
    Replay(history::Replay),
    Verify(history::Verify),
    Audit(audit::Audit),
}

/// `1.5`, `250ms`, `10s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text {
        _ if text.ends_with("ms") => (&text[..text.len() - 2], 0.001),
        _ if text.ends_with('s') => (&text[..text.len() - 1], 1.0),
        _ if text.ends_with('m') => (&text[..text.len() - 1], 60.0),
        _ => (text, 1.0),
    };
    let seconds =
        number.trim().parse::<f64>().map_err(|_| "expected like 1.5, 250ms, 10s or 2m")?;
    Duration::try_from_secs_f64(seconds * unit).map_err(|error| error.to_string())
}

/// `1000`, `64k`, `1M`, `2GiB`: powers of 1024.
fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: usize = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err("expected like 1000, 64k, 1M or 2GiB".into()),
    };
    let number: usize = digits.trim().parse().map_err(|_| "expected like 1000, 64k or 1M")?;
    number.checked_mul(unit).ok_or_else(|| "too large".into())
}

fn io_error(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_exits_with_2_and_help_with_0() {
        let run = |args: &[&str]| run(args.iter().map(OsString::from));
        assert_eq!(run(&["kps", "no-such-command"]), 2);
        assert_eq!(run(&["kps", "--help"]), 0);
        assert_eq!(run(&["kps-test", "--help"]), 0);
    }

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("-1").is_err() && duration("x").is_err());
        assert_eq!(bytes("64k"), Ok(65536));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert!(bytes("1q").is_err() && bytes("k").is_err());
    }
}
