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
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/moorgate-stores.XXXXXX")
declare -A pids=() ports=()

main() {
    trap clean_up EXIT
    trap 'exit 130' INT TERM
    local program registry kind round
    for program in docker-registry openssl curl; do
        command -v "$program" >/dev/null || die "$program is missing: apt-get install docker-registry openssl curl"
    done
    build
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
        -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
    password=$(openssl rand -hex 16)
    start_moorgate
    start_docker_registry
    for registry in moorgate docker-registry; do wait_for "$registry"; done
    for ((round = 0; round < rounds; round++)); do
        for kind in large small; do
            for registry in moorgate docker-registry; do measure "$registry" "$kind"; done
        done
    done
    report
}

build() {
    driver=${PUSHES_BIN:-} moorgate=${MOORGATE_BIN:-}
    if [[ -z $moorgate ]]; then
        (cd "$repository" && cargo build --quiet --release --bin moorgate)
        moorgate=${CARGO_TARGET_DIR:-$repository/target}/release/moorgate
    fi
    if [[ -z $driver ]]; then
        driver=$(cd "$repository" && cargo bench --quiet --no-run --bench pushes --message-format=json |
            sed -n '/"name":"pushes"/s/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    fi
    [[ -x $driver && -x $moorgate ]] || die "cargo built nothing"
}

start_moorgate() {
    ports[moorgate]=$(free_port)
    mkdir -p "$work/moorgate/conf.d"
    "$moorgate" htpasswd "$work/moorgate/users.htpasswd" bench <<<"$password" 2>/dev/null
    printf 'https = ["127.0.0.1:%s"]\nhttp = []\nstate = "state"\n' "${ports[moorgate]}" >"$work/moorgate/moorgate.toml"
    cat >"$work/moorgate/conf.d/bench.toml" <<END
domain = "localhost"
[tls]
certificate = "$work/cert.pem"
key = "$work/key.pem"
[auth]
htpasswd = "../users.htpasswd"
[upstream]
directory = "bench"
END
    "$moorgate" run --config "$work/moorgate" >"$work/moorgate.log" 2>&1 &
    pids[moorgate]=$!
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
    docker-registry serve "$work/registry.yml" >"$work/docker-registry.log" 2>&1 &
    pids[docker-registry]=$!
}

wait_for() {
    local attempt
    for ((attempt = 0; attempt < 100; attempt++)); do
        kill -0 "${pids[$1]}" 2>/dev/null || die "$1 ended: $(tail -n 5 "$work/$1.log")"
        ! curl --silent --cacert "$work/cert.pem" --output /dev/null "https://localhost:${ports[$1]}/v2/" || return 0
        sleep 0.1
    done
    die "$1 does not answer"
}

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

cpu_ticks() { sed 's/^.*) //' "/proc/${pids[$1]}/stat" | awk '{ print $12 + $13 }'; }

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

clean_up() {
    ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}

free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); do
        (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

die() { echo "bench: $*" >&2 && exit 1; }

main
