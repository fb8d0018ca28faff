#!/bin/sh
# Fuzzes the HTTP side, the upgrade and the gateway, for SECONDS (default 10), on stable Rust.
#
# usage: core/kps/fuzz/run.sh [SECONDS]
#
# A crash leaves its input in artifacts/; hand that file to the built program to see it again.
set -eu
seconds=${1:-10}
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/../../../target}/fuzz"
# The same as for kps-proto; see there.
export RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --target "$host"

mkdir -p corpus/upgrade artifacts
printf 'GET /ws/bus HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n%s\r\n\r\n' \
    'Sec-WebSocket-Version: 13' 'Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==' >corpus/upgrade/whole
for asked in 'POST /v1/publish/a?id=b&ttl=1&header=c:d' 'POST /v1/request/a?timeout=0.01' 'POST /v1/dispatch/kps.ping' \
    'PUT /v1/documents/a' 'POST /v1/documents/a/operations' 'POST /v1/documents/a/presence'; do
    body='{"kind":"text","op_id":"1","base_version":"W/\"0\"","edit":{"type":"append","text":"a"},"state":{}}'
    printf '%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %s\r\n\r\n%s' "$asked" "${#body}" "$body" \
        >"corpus/upgrade/$(echo "$asked" | tr -c 'a-zA-Z0-9\n' _)"
done
for asked in '/v1/events?topic=a.%3E&topic=b&start=last' '/v1/documents/a?version=W/%220%22' '/openapi.json'; do
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: a-1-\r\n\r\n' "$asked" \
        >"corpus/upgrade/$(echo "$asked" | tr -c 'a-zA-Z0-9\n' _)"
done
log=artifacts/upgrade.log
if ! cargo run --quiet --release --target "$host" --bin upgrade -- \
    -max_total_time="$seconds" -max_len=4096 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
    -dict=upgrade.dict -artifact_prefix=artifacts/upgrade- corpus/upgrade >"$log" 2>&1; then
    tail -n 40 "$log"
    exit 1
fi
echo "upgrade: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, none bad"
