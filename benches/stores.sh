#!/usr/bin/env bash
# moorgate's own registry beside Debian's docker-registry on the same pushes: seconds, CPU time and peak memory.
#
# `./ctl.sh bench --stores` runs this. Both serve TLS themselves, with the same P-256 certificate, and keep their files
# below the same temporary directory. moorgate checks passwords and writes its access log; docker-registry does neither.
# The driver is benches/pushes.rs: one blob of 1 GiB pushed and pulled, and 2,000 blobs of 1 to 32 KiB over eight
# connections. Their turns interleave; each figure is the median of the rounds, the memory the peak over all of them.
#
# MOORGATE_BIN: the binary to measure, instead of building target/release/moorgate. PUSHES_BIN: likewise the driver.

set -euo pipefail
export LC_ALL=C

rounds=${1:-3}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || { echo "usage: ./ctl.sh bench --stores [ROUNDS]" >&2 && exit 2; }
# shellcheck source=benches/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

main() {
    local registry kind round
    need "docker-registry openssl curl procps" docker-registry openssl curl pgrep
    driver=${PUSHES_BIN:-}
    [[ -n $driver ]] || driver=$(bench_binary pushes)
    make_work_directory stores
    make_certificate -addext basicConstraints=critical,CA:FALSE
    serve_moorgate moorgate "$(moorgate_binary)" 'directory = "bench"'
    start_docker_registry
    for registry in moorgate docker-registry; do wait_for "$registry" answers "$registry"; done
    for ((round = 0; round < rounds; round++)); do
        for kind in large small; do
            for registry in moorgate docker-registry; do measure "$registry" "$kind"; done
        done
    done
    report
}

start_docker_registry() {
    ports[docker-registry]=$(free_port)
    cat >"$work/registry.yml" <<END
version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: $work/docker-registry } }
http:
  addr: 127.0.0.1:${ports[docker-registry]}
  tls: { certificate: $work/cert.pem, key: $work/key.pem }
END
    start docker-registry docker-registry serve "$work/registry.yml"
}

answers() { curl --silent --cacert "$work/cert.pem" --output /dev/null "https://localhost:${ports[$1]}/v2/"; }

# measure REGISTRY KIND: lines "KIND WHAT REGISTRY VALUE" in the results.
measure() {
    local ticks output
    ticks=$(cpu_ticks "$1")
    output=$("$driver" "127.0.0.1:${ports[$1]}" "$work/cert.pem" "bench:$password" "bench/$2" "$2")
    ticks=$(($(cpu_ticks "$1") - ticks))
    {
        awk -v kind="$2" -v registry="$1" '{ print kind, $1, registry, $2 }' <<<"$output"
        awk -v ticks="$ticks" -v hertz="$(getconf CLK_TCK)" -v kind="$2" -v registry="$1" \
            'BEGIN { printf "%s cpu %s %.2f\n", kind, registry, ticks / hertz }'
    } | tee -a "$work/results" >&2
}

peak_mebibytes() { awk '/^VmHWM:/ { printf "%.0f", $2 / 1024 }' "/proc/${pids[$1]}/status"; }

report() {
    printf '\n%-44s %12s %16s\n' "medians of $rounds rounds" moorgate docker-registry
    row "push of 1 GiB, seconds" large push
    row "pull of 1 GiB, seconds" large pull
    row "CPU time of both, seconds" large cpu
    row "push of 2,000 blobs of 1 to 32 KiB, seconds" small push
    row "CPU time of that, seconds" small cpu
    printf '%-44s %12s %16s\n' "peak memory over all, MiB" "$(peak_mebibytes moorgate)" "$(peak_mebibytes docker-registry)"
}

row() { printf '%-44s %12s %16s\n' "$1" "$(median "$2" "$3" moorgate)" "$(median "$2" "$3" docker-registry)"; }

median() {
    awk -v kind="$1" -v what="$2" -v registry="$3" '$1 == kind && $2 == what && $3 == registry { print $4 }' "$work/results" |
        sort -g | awk '{ all[NR] = $1 } END { printf "%.2f", NR % 2 ? all[(NR + 1) / 2] : (all[NR / 2] + all[NR / 2 + 1]) / 2 }'
}

main
