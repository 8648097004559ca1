# What benches/run.sh and benches/stores.sh share, which source this: the work directory, the processes that are
# measured, and how much CPU time they take.
# shellcheck shell=bash

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
declare -A pids=() ports=()

# make_work_directory NAME: sets $work; it is removed at the end, and all processes are ended.
make_work_directory() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/moorgate-$1.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT TERM
}

# make_certificate OPTION...: one P-256 certificate for all, in $work/cert.pem and $work/key.pem, and one $password.
make_certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost "$@" -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
    password=$(openssl rand -hex 16)
}

# bench_binary NAME: builds a bench and prints where it is.
bench_binary() {
    local binary
    # Cargo builds moorgate with it, and names both, in the order in which they are done.
    binary=$(cd "$repository" && cargo bench --quiet --no-run --bench "$1" --message-format=json |
        sed -n '/"name":"'"$1"'"/s/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    [[ -x $binary ]] || die "cargo built no $1"
    echo "$binary"
}

# moorgate_binary: MOORGATE_BIN, or else a release build.
moorgate_binary() {
    [[ -z ${MOORGATE_BIN:-} ]] || { echo "$MOORGATE_BIN" && return; }
    note "building moorgate"
    (cd "$repository" && cargo build --quiet --release --bin moorgate)
    echo "${CARGO_TARGET_DIR:-$repository/target}/release/moorgate"
}

# serve_moorgate NAME BINARY UPSTREAM: starts a moorgate as the process NAME, with the line UPSTREAM in [upstream].
serve_moorgate() {
    local name=$1 binary=$2 directory=$work/$1
    ports[$name]=$(free_port)
    mkdir -p "$directory/conf.d"
    "$binary" htpasswd "$directory/users.htpasswd" bench <<<"$password" >"$work/$name.log" 2>&1 ||
        die "$name htpasswd failed: $(tail -n 5 "$work/$name.log")"
    cat >"$directory/moorgate.toml" <<EOF
https = ["127.0.0.1:${ports[$name]}"]
http = []
state = "state"
EOF
    cat >"$directory/conf.d/bench.toml" <<EOF
domain = "localhost"
[tls]
certificate = "$work/cert.pem"
key = "$work/key.pem"
[auth]
htpasswd = "../users.htpasswd"
[upstream]
$3
EOF
    start "$name" "$binary" run --config "$directory"
}

# start NAME PROGRAM ARGUMENT...
start() {
    local name=$1
    shift
    "$@" >>"$work/$name.log" 2>&1 &
    pids[$name]=$!
}

# wait_for NAME COMMAND...: up to 10 s for the command to succeed, while the process lives.
wait_for() {
    local name=$1 attempt
    shift
    for ((attempt = 0; attempt < 100; attempt++)); do
        kill -0 "${pids[$name]}" 2>/dev/null || die "$name ended: $(tail -n 5 "$work/$name.log")"
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    die "$name does not answer: $(tail -n 5 "$work/$name.log")"
}

# User and system time of a process and of its children, the ended ones included: proc(5), fields 14 to 17.
cpu_ticks() {
    local pid
    for pid in $(process_tree "${pids[$1]}"); do
        sed 's/^.*) //' "/proc/$pid/stat"
    done | awk '{ sum += $12 + $13 + $14 + $15 } END { print sum }'
}

process_tree() {
    local child
    echo "$1"
    for child in $(pgrep -P "$1"); do process_tree "$child"; done
}

# A process that lets a transfer of an interrupted run finish gets 3 s for it.
clean_up() {
    local attempt
    ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
    for ((attempt = 0; attempt < 30; attempt++)); do
        [[ -n $(jobs -pr) ]] || break
        sleep 0.1
    done
    jobs -pr | xargs --no-run-if-empty kill -KILL
    wait
    if [[ -e $work/failed ]]; then note "logs are kept in $work"; else rm -rf "$work"; fi
}

free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); do
        (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# Debian keeps servers in directories that an ordinary user's PATH lacks.
find_program() { PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v "$1"; }

# need PACKAGES PROGRAM...: the packages are those that have the programs.
need() {
    local packages=$1 program
    shift
    for program; do
        find_program "$program" >/dev/null || die "$program is missing: apt-get install $packages"
    done
}

note() { echo "bench: $*" >&2; }
die() { note "$@" && exit 1; }
