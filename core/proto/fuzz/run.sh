#!/bin/sh
# Fuzzes every decoder for SECONDS each (default 10), on stable Rust.
#
# usage: core/proto/fuzz/run.sh [SECONDS]
#
# A crash leaves its input in artifacts/; hand that file to the built program to see it again.
set -eu
seconds=${1:-10}
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../../target}/fuzz"
# What cargo-fuzz passes, less the address sanitizer: it needs nightly, and the code under test has
# no `unsafe`.
export RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
# With a target named, the flags do not reach build scripts and macros.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --target "$host"

fuzz() {
    target=$1
    shift
    mkdir -p "corpus/$target" artifacts
    log=artifacts/$target.log
    if ! cargo run --quiet --release --target "$host" --bin "$target" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target-" "corpus/$target" "$@" >"$log" 2>&1; then
        tail -n 40 "$log"
        exit 1
    fi
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, none bad"
}

python3 seeds.py corpus/vectors
fuzz v1 corpus/vectors
fuzz kps_json -dict=kps_json.dict
