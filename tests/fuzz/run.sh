#!/usr/bin/env bash
# Runs every fuzz target for so many seconds, one on each core: tests/fuzz/run.sh SECONDS [TARGET...]
# A failing input is in tests/fuzz/artifacts/; it becomes a test beside the code.

set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")"

seconds=$1
targets=("${@:2}")
if ((${#targets[@]} == 0)); then
    for file in fuzz_targets/*.rs; do
        file=${file##*/}
        targets+=("${file%.rs}")
    done
fi

# The versions of the product.
cp ../../Cargo.lock Cargo.lock
# With --target, so that build scripts and macros are not instrumented.
host=$(rustc --version --verbose | sed -n 's/^host: //p')
flags=(-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table
    -C llvm-args=-sanitizer-coverage-trace-compares)
RUSTFLAGS="${flags[*]}" cargo build --quiet --release --target "$host" "${targets[@]/#/--bin=}"

directory=${CARGO_TARGET_DIR:-target}/$host/release
mkdir -p artifacts
failed=$(mktemp)
trap 'rm -f -- "$failed"' EXIT

fuzz() {
    local name=$1 log
    mkdir -p "corpus/$name"
    log=$(mktemp)
    if "$directory/$name" "corpus/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -artifact_prefix="artifacts/$name-" -print_final_stats=1 >"$log" 2>&1; then
        echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs"
    else
        echo "$name failed" | tee -a "$failed"
        tail -n 60 -- "$log"
    fi
    rm -f -- "$log"
}

for name in "${targets[@]}"; do
    while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
    fuzz "$name" &
done
wait
[[ ! -s $failed ]]
