#!/usr/bin/env bash
# What a request, a connection and a GiB cost moorgate in CPU time, beside nginx, HAProxy and Caddy on the same work.
#
# `./ctl.sh bench` runs this. Every proxy stands in front of the same local origin (benches/origin.rs), with the same
# P-256 certificate and as many threads as there are cores, tuned as a good administrator would. Their turns
# interleave, so that a noisy machine is noisy for all. The CPU time is utime + stime of the proxy and its children
# from /proc/PID/stat; that of the drivers and of the origin does not count. Each figure is the median of the rounds.
#
# moorgate checks passwords and writes its access log; the peers do neither (--access-log turns their logs on). All get
# the same request bytes, Authorization included. All drivers speak TLS 1.3 with X25519 and AES-128-GCM, as Docker's
# clients do, so that no proxy wins by its choice of cipher.
#
# `small-bearer` compares moorgate with itself: the same small request to an origin that wants a token, which moorgate
# exchanges once, beside that to one that wants nothing. The limit of the ratio is 1.05.
#
# Drivers: wrk for small requests over HTTP/1.1, h2load over HTTP/2, curl for streams. New connections are bursts of
# h2load, each connection for one request: wrk resumes its TLS sessions, h2load never does.
#
# Not measured here: what authentication costs moorgate. It has no mode without it, and a 401 is different work; the
# limit of 5 % is below the noise of whole processes and belongs to benches/hot_path.rs.
#
# MOORGATE_BIN: the binary to measure, instead of building target/release/moorgate. ORIGIN_BIN: likewise the origin.
# BASELINE_BIN: an older moorgate to measure in the same run.

set -euo pipefail
export LC_ALL=C

# shellcheck source=benches/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=benches/peers.sh
source "$(dirname "${BASH_SOURCE[0]}")/peers.sh"

readonly ALL_WORKLOADS="small-h1 small-h2 small-bearer connect down-h1 down-h2 up-h1 up-h2"
readonly ALL_PROXIES="moorgate baseline nginx haproxy caddy"
readonly BLOB=/v2/big/blobs/sha256:49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14
readonly UPLOADS=/v2/big/blobs/uploads/
readonly MANIFEST=/v2/small/manifests/latest

usage() {
    cat <<EOF
usage: ./ctl.sh bench [--quick] [--only WORKLOAD[,...]] [--proxies NAME[,...]] [--rounds N] [--access-log]

  --quick       one round of short runs: to see that it works, not to quote
  --only        of: $ALL_WORKLOADS
  --proxies     of: $ALL_PROXIES (default: moorgate and those installed;
                baseline is the moorgate that BASELINE_BIN names)
  --rounds N    default 3
  --access-log  the peers write access logs as moorgate does
EOF
}

main() {
    parse_options "$@"
    need "wrk nghttp2-client curl openssl procps" wrk h2load curl openssl pgrep awk
    make_work_directory bench
    prepare_material
    build_origin
    start_origin
    local proxy
    for proxy in $proxies; do
        "start_$proxy"
        wait_until_ready "$proxy"
    done
    if [[ " $workloads " == *" small-bearer "* ]]; then
        start_bearer
        wait_until_ready bearer
    fi
    warn_of_other_work
    measure_all
    report
    [[ ! -e $work/failed ]]
}

parse_options() {
    rounds=3 quick=no access_log=no workloads=$ALL_WORKLOADS proxies=
    while (($#)); do
        case $1 in
        --quick) quick=yes rounds=1 ;;
        --access-log) access_log=yes ;;
        --only | --proxies | --rounds)
            (($# > 1)) || wrong_usage "$1 needs a value"
            case $1 in
            --only) workloads=${2//,/ } ;;
            --proxies) proxies=${2//,/ } ;;
            --rounds) rounds=$2 ;;
            esac
            shift
            ;;
        -h | --help) usage && exit 0 ;;
        *) wrong_usage "unknown option $1" ;;
        esac
        shift
    done
    [[ $rounds =~ ^[1-9][0-9]*$ ]] || wrong_usage "--rounds needs a number"
    local word
    for word in $workloads; do
        [[ " $ALL_WORKLOADS " == *" $word "* ]] || wrong_usage "unknown workload $word"
    done
    for word in $proxies; do
        [[ " $ALL_PROXIES " == *" $word "* ]] || wrong_usage "unknown proxy $word"
    done
    [[ -n $proxies ]] || proxies=$(installed_proxies)
    [[ " $proxies " == *" moorgate "* ]] || workloads=$(without small-bearer "$workloads")
    [[ -n $workloads ]] || wrong_usage "small-bearer needs moorgate"
    [[ " $proxies " != *" baseline "* || -n ${BASELINE_BIN:-} ]] || wrong_usage "baseline needs BASELINE_BIN"
    # The fixed work of one measurement.
    if [[ $quick == yes ]]; then
        small_seconds=1 small_requests=20000 bursts=20 gibibytes=1
    else
        small_seconds=5 small_requests=100000 bursts=40 gibibytes=3
    fi
}

# without WORD WORDS
without() { tr ' ' '\n' <<<"$2" | { grep -vxF "$1" || true; } | paste -sd ' '; }

installed_proxies() {
    local proxy
    for proxy in $ALL_PROXIES; do
        case $proxy in
        moorgate) echo "$proxy" ;;
        baseline) [[ -z ${BASELINE_BIN:-} ]] || echo "$proxy" ;;
        *) ! find_program "$proxy" >/dev/null || echo "$proxy" ;;
        esac
    done | paste -sd ' '
}

# -- the parts ---------------------------------------------------------------------------------------------------------

# One certificate for all, one credential, one file to upload, and the TLS settings of all drivers.
prepare_material() {
    make_certificate
    cat "$work/cert.pem" "$work/key.pem" >"$work/both.pem"
    authorization="Authorization: Basic $(printf 'bench:%s' "$password" | openssl base64 -A)"
    truncate -s 1G "$work/layer"
    cat >"$work/driver.cnf" <<EOF
openssl_conf = init
[init]
ssl_conf = modules
[modules]
system_default = driver
[driver]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
EOF
}

build_origin() {
    origin_binary=${ORIGIN_BIN:-}
    [[ -z $origin_binary ]] || return 0
    note "building the origin"
    origin_binary=$(bench_binary origin)
}

start_origin() {
    origin_port=$(free_port)
    token_port=$(free_port)
    while [[ $token_port == "$origin_port" ]]; do token_port=$(free_port); done
    start origin "$origin_binary" "127.0.0.1:$origin_port" "127.0.0.1:$token_port"
    wait_for origin curl --silent --fail --output /dev/null "http://127.0.0.1:$origin_port/v2/"
    wait_for origin curl --silent --fail --output /dev/null "http://127.0.0.1:$token_port/token"
}

start_moorgate() { serve_moorgate moorgate "$(moorgate_binary)" "url = \"http://127.0.0.1:$origin_port\""; }

start_baseline() { serve_moorgate baseline "$BASELINE_BIN" "url = \"http://127.0.0.1:$origin_port\""; }

# moorgate once more, before the origin that wants tokens.
start_bearer() {
    serve_moorgate bearer "$(moorgate_binary)" "url = \"http://127.0.0.1:$token_port\"
username = \"gate\"
password = \"inside\""
}

is_peer() { [[ $1 != moorgate && $1 != baseline && $1 != bearer ]]; }

# The proxies that a workload is for.
measured_by() {
    case $1 in
    small-bearer) echo moorgate bearer ;;
    *) echo "$proxies" ;;
    esac
}

# Ready is: answers the measured request. For moorgate also that it refuses a request without a login, or its figures
# would mean nothing.
wait_until_ready() {
    local proxy=$1 anonymous
    wait_for "$proxy" fetch "$proxy" --http1.1 --fail "$MANIFEST"
    anonymous=$(authorization="X-Nobody: 1" fetch "$proxy" --http1.1 "$MANIFEST")
    is_peer "$proxy" || [[ $anonymous == 401\ * ]] || die "$proxy answered $anonymous without a password"
}

# -- the workloads: do the work against a proxy, print how many units were done, fail unless every answer was right ----

drive_small-h1() {
    local output
    output=$(driver wrk --threads 1 --connections 16 --duration "${small_seconds}s" --header "$authorization" \
        "$(url "$1" "$MANIFEST")")
    ! grep -E 'Non-2xx|Socket errors' <<<"$output" >&2 || return 1
    awk '/ requests in / { print $1 }' <<<"$output"
}

drive_small-h2() {
    run_h2load "$1" --requests "$small_requests" --clients 8 --max-concurrent-streams 32
}

drive_small-bearer() { drive_small-h1 "$1"; }

drive_connect() {
    local burst count done=0
    for ((burst = 0; burst < bursts; burst++)); do
        count=$(run_h2load "$1" --h1 --requests 32 --clients 32) || return 1
        done=$((done + count))
    done
    echo "$done"
}

drive_down-h1() { stream "$1" "200 1.1" --http1.1 "$BLOB"; }
drive_down-h2() { stream "$1" "200 2" --http2 "$BLOB"; }
drive_up-h1() { stream "$1" "202 1.1" --http1.1 --request PATCH --upload-file "$work/layer" "$(upload "$1")"; }
drive_up-h2() { stream "$1" "202 2" --http2 --request PATCH --upload-file "$work/layer" "$(upload "$1")"; }

# upload PROXY: where an upload goes on that was begun through it. moorgate's has its user's tag.
upload() {
    driver curl --silent --show-error --fail --cacert "$work/cert.pem" \
        --resolve "localhost:${ports[$1]}:127.0.0.1" --header "$authorization" --request POST \
        --output /dev/null --dump-header - "$(url "$1" "$UPLOADS")" |
        awk 'tolower($1) == "location:" { sub(/\r$/, ""); sub(/^https?:\/\/[^\/]*/, "", $2); print $2 }'
}

# run_h2load PROXY OPTION...
run_h2load() {
    local proxy=$1 output
    shift
    output=$(driver h2load --threads 1 --connect-to "127.0.0.1:${ports[$proxy]}" --header "$authorization" "$@" \
        "$(url "$proxy" "$MANIFEST")")
    awk '/^requests:/ { total = $2 } /^status codes:/ { good = $3 }
         END { if (total == 0 || good != total) exit 1; print good }' <<<"$output"
}

# stream PROXY ANSWER OPTION... PATH: whole GiBs, one after the other.
stream() {
    local proxy=$1 expected="$2 1073741824" count outcome
    shift 2
    for ((count = 0; count < gibibytes; count++)); do
        outcome=$(fetch "$proxy" "$@")
        [[ $outcome == "$expected" ]] || { note "$proxy answered $outcome instead of $expected" && return 1; }
    done
    echo "$gibibytes"
}

# fetch PROXY OPTION... PATH: one request; prints status, HTTP version and the bytes of the larger direction.
fetch() {
    local proxy=$1 path=${*: -1}
    driver curl --silent --show-error --cacert "$work/cert.pem" --resolve "localhost:${ports[$proxy]}:127.0.0.1" \
        --output /dev/null --header "$authorization" --header "Expect:" "${@:2:$#-2}" \
        --write-out '%{http_code} %{http_version} %{size_download} %{size_upload}' "$(url "$proxy" "$path")" |
        awk '{ print $1, $2, ($3 > $4 ? $3 : $4) }'
}

driver() { OPENSSL_CONF=$work/driver.cnf "$@" 2>>"$work/driver.log"; }

url() { echo "https://localhost:${ports[$1]}$2"; }

# -- measuring -------------------------------------------------------------------------------------------------------

# Beside other work, batches shrink and caches are shared: the same GiB then costs up to twice the CPU time.
warn_of_other_work() {
    local load
    read -r load _ </proc/loadavg
    awk -v load="$load" 'BEGIN { exit load < 1 }' || return 0
    note "the load average is $load: other work distorts the figures, and only ratios of many rounds mean anything"
}

measure_all() {
    local workload proxy round
    for workload in $workloads; do
        for ((round = 0; round <= rounds; round++)); do
            for proxy in $(measured_by "$workload"); do
                measure "$workload" "$proxy" "$round"
            done
        done
    done
}

# measure WORKLOAD PROXY ROUND: one line in the results; round 0 warms up with less.
measure() {
    local workload=$1 proxy=$2 round=$3 units ticks start end
    if ((round == 0)); then
        local small_seconds=1 small_requests=20000 bursts=5 gibibytes=1
    fi
    ticks=$(cpu_ticks "$proxy")
    start=${EPOCHREALTIME/./}
    if ! units=$("drive_$workload" "$proxy") || [[ -z $units ]]; then
        note "$workload: $proxy FAILED; see its log in $work"
        touch "$work/failed"
        return 0
    fi
    end=${EPOCHREALTIME/./}
    # What it costs to end the connections belongs to the work.
    sleep 0.1
    ticks=$(($(cpu_ticks "$proxy") - ticks))
    ((round == 0)) || awk -v ticks="$ticks" -v hertz="$(getconf CLK_TCK)" -v units="$units" -v us="$((end - start))" \
        -v name="$workload $proxy" \
        'BEGIN { printf "%s %.9f %.3f\n", name, ticks / hertz / units, units / us * 1e6 }' | tee -a "$work/results" >&2
}

# A block for each workload; the ratio is to the best of the peers, neither moorgate counted, and of small-bearer to the
# plain request.
report() {
    local workload
    [[ -e $work/results ]] || die "nothing was measured"
    printf '\nCPU time of the proxy itself; medians of %s rounds, lowest and highest in brackets.\n' "$rounds"
    for workload in $workloads; do
        sort -k1,2 -k3g "$work/results" | awk -v workload="$workload" -v proxies="$(measured_by "$workload")" '
            function median(list, count) {
                return count % 2 ? list[(count + 1) / 2] : (list[count / 2] + list[count / 2 + 1]) / 2
            }
            $1 == workload { cost[$2, ++count[$2]] = $3; speed[$2] += $4 }
            END {
                stream = workload ~ /^(down|up)/
                scale = stream ? 1 : 1e6
                unit = stream ? "s/GiB" : workload == "connect" ? "us/connection" : "us/request"
                printf "\n%-10s %14s %10s %-22s %s\n", workload, stream ? "MiB/s" : "per second", "CPU", unit,
                    workload == "small-bearer" ? "to plain (at most 1.05x)" : "to best peer"
                total = split(proxies, names, " ")
                for (i = 1; i <= total; i++) {
                    name = names[i]
                    for (j = 1; j <= count[name]; j++) list[j] = cost[name, j] * scale
                    if (count[name]) middle[name] = median(list, count[name])
                    peer = workload == "small-bearer" ? name == "moorgate" : name != "moorgate" && name != "baseline"
                    if (peer && name in middle && (!best || middle[name] < best)) best = middle[name]
                }
                for (i = 1; i <= total; i++) {
                    name = names[i]
                    if (!(name in middle)) { printf "%-10s %14s\n", name, "failed"; continue }
                    printf "%-10s %14.0f %10.*f %-22s %s\n", name, speed[name] / count[name] * (stream ? 1024 : 1),
                        stream ? 3 : 1, middle[name],
                        sprintf("[%.*f .. %.*f]", stream ? 3 : 1, cost[name, 1] * scale,
                            stream ? 3 : 1, cost[name, count[name]] * scale),
                        best ? sprintf("%.2fx", middle[name] / best) : "-"
                }
            }'
    done
}

wrong_usage() { note "$@" && usage >&2 && exit 2; }

main "$@"
