# `./ctl.sh --compose` and `./ctl.sh --compose-store`: the same commands for moorgate in a container. Sourced by ctl.sh,
# whose functions it uses.
# shellcheck shell=bash disable=SC2154,SC2034 # variables of ctl.sh

# compose_main NAME COMMAND...: deploy/NAME.yaml, with the settings in deploy/NAME/.
compose_main() {
    again="./ctl.sh --$1" compose_file=$root/deploy/$1.yaml settings=$root/deploy/$1
    shift
    local command=${1:-}
    (($# == 0)) || shift
    case $command in
    start | stop | restart | ps | debug)
        (($# == 0)) || wrong_usage "$command takes no arguments"
        ;;
    logs) ;;
    "") usage >&2 && exit 2 ;;
    *) wrong_usage "there is no $command for containers" ;;
    esac
    own_state
    need_engine
    domains=$settings/conf.d https_port=
    credentials=$own/credentials passwords=$own/passwords ca=$own/ca.pem
    given_image=${MOORGATE_IMAGE:-}
    export MOORGATE_IMAGE=${given_image:-$local_image} MOORGATE_CREDENTIALS=$credentials
    # Containers of the other file, which has the same project, are none of its business.
    export COMPOSE_IGNORE_ORPHANS=true
    "compose_$command" "$@"
}

# -- commands ----------------------------------------------------------------------------------------------------------

compose_start() {
    lock_state
    if [[ -n $(running_container) ]]; then
        say "moorgate is already running. To run a new image or new settings: $again restart"
        return
    fi
    compose_prepare
    compose_start_prepared
}

compose_start_prepared() {
    say "starting the containers"
    # So that a stop works meanwhile, and no container inherits it.
    exec {lock}>&-
    if ! compose up --detach; then
        compose stop
        die "the containers do not start. If another program has a port: $(shown "$compose_file") names them"
    fi
    if ! wait_until_container_is_ready; then
        compose logs --tail 30 moorgate >&2
        compose stop
        die "moorgate did not get ready"
    fi
    docker exec "$(running_container)" moorgate certs ca >"$ca" 2>/dev/null || rm -f -- "$ca"
    print_logins
    cat <<EOF

Settings    $(shown "$settings")/conf.d; then: docker exec $(running_container_name) moorgate reload
Passwords   $(shown "$passwords")
Users       $(shown "$credentials")/*.htpasswd; htpasswd -B changes them
CA          $(shown "$ca")
Logs        $again logs -f
Status      $again ps
End         $again stop
EOF
}

# The engine asks moorgate to end and waits for as long as compose.yaml says. $1: the only service, in place of all.
compose_stop() {
    mkdir -p -- "$run"
    exec {stopping}>"$run/compose.stopping"
    local container hint
    container=$(running_container)
    if ! flock --nonblock "$stopping"; then
        # Asked for twice: a second signal closes all connections.
        [[ -z $container ]] || docker kill --signal TERM "$container" >/dev/null || true
        flock --timeout 60 "$stopping" || die "moorgate has not ended"
        say "stopped"
        return
    fi
    [[ -n $(docker ps --quiet "${of_project[@]}") ]] || { say "nothing is running" && return; }
    (
        exec {stopping}>&-
        sleep 3
        [[ -n $(running_container) ]] || exit 0
        say "moorgate takes no more connections and finishes the transfers that are running."
        say "Waiting for that, up to [timeouts] drain (1 h). To end them now, in another terminal: the same command"
    ) &
    hint=$!
    compose stop "$@" {stopping}>&- || die "the containers do not stop"
    kill "$hint" 2>/dev/null || true
    say "stopped"
}

# Everything that can refuse comes first. Two containers cannot have the same ports: while the old one finishes its
# transfers, there is no new one.
compose_restart() {
    lock_state
    compose_prepare "; the one that runs goes on"
    if [[ -n $(running_container) ]]; then compose_stop moorgate; fi
    compose_start_prepared
}

compose_ps() {
    local format='{{.Label "com.docker.compose.service"}}\t{{.Status}}\t{{.Ports}}'
    {
        printf 'NAME\tSTATE\tPORTS\n'
        docker ps --all "${of_project[@]}" --format "$format"
    } | awk -F '\t' '{ printf "%-16s  %-32s  %s\n", $1, $2, $3 }'
    container_is_ready
}

compose_logs() {
    local options=(--tail 200)
    while (($#)); do
        case $1 in
        -f | --follow) options+=(--follow) ;;
        *) wrong_usage "logs takes -f" ;;
        esac
        shift
    done
    [[ -t 1 ]] || options+=(--no-color)
    compose logs "${options[@]}"
}

compose_debug() {
    lock_state
    if [[ -n $(running_container) ]]; then die "moorgate is already running: $again stop, then again"; fi
    compose_prepare
    exec {lock}>&-
    printf 'services:\n  moorgate:\n    command: [run, --debug]\n    restart: "no"\n' >"$run/debug.yaml"
    # Ctrl-C is for Compose, which this waits for.
    trap : INT
    compose --file "$run/debug.yaml" up moorgate || true
    compose stop
}

# -- before a start ----------------------------------------------------------------------------------------------------

# $1: what else is to be said of a refusal.
compose_prepare() {
    local unreadable said
    unreadable=$(find "$settings" -path "$settings/credentials" -prune -o ! -uid "$container_user" ! -perm -o=r -print -quit)
    [[ -z $unreadable ]] ||
        die "the container's user may not read $(shown "$unreadable"): chmod o+rX it, or chown $container_user if it is secret"
    provide_image
    mkdir -p -- "$credentials"
    # What only the containers and its owner reach: nobody else passes state/, which is private.
    chmod 755 "$credentials"
    # Files belong to who made them, also where the engine itself runs without root.
    local user
    user=$(id -u):$(id -g)
    if [[ $(docker info --format '{{.SecurityOptions}}') == *rootless* ]]; then user=0:0; fi
    htpasswd=(docker run --rm --interactive --network none --user "$user" --volume "$credentials:$credentials"
        "$MOORGATE_IMAGE" htpasswd)
    make_credentials
    find "$credentials" -name '*.htpasswd' -exec chmod 644 {} +
    [[ -s $own/browser-secret ]] || head -c 64 /dev/urandom | base64 -w 0 >"$own/browser-secret"
    # Not with a terminal, which would mix up what is said where.
    said=$(compose run --rm --no-deps -T moorgate check 2>&1 </dev/null) || {
        printf '%s\n' "$said" >&2
        die "moorgate cannot start with this configuration${1:-}"
    }
}

# MOORGATE_IMAGE, or an image that is built of MOORGATE_BIN or from source.
provide_image() {
    if [[ -n $given_image ]]; then
        docker image inspect "$MOORGATE_IMAGE" >/dev/null 2>&1 || docker pull "$MOORGATE_IMAGE" ||
            die "there is no image $MOORGATE_IMAGE"
    elif [[ -n $MOORGATE_BIN ]]; then
        local context
        context=$(mktemp -d)
        # shellcheck disable=SC2064 # the name as it is now
        trap "rm -rf -- '$context'" EXIT
        deploy/image-root.sh "$MOORGATE_BIN" "$context" || die "there is no image without it"
        build_image --quiet --build-arg ROOT=ready "$context" >/dev/null
    else
        say "building the image (the first time takes some minutes)"
        build_image "$root"
    fi
}

build_image() {
    DOCKER_BUILDKIT=1 docker build --tag "$local_image" --file deploy/Dockerfile "$@" ||
        die "the image cannot be built. If BuildKit is missing: apt-get install docker-buildx"
}

need_engine() {
    local said
    command -v docker >/dev/null ||
        die "docker is missing: apt-get install docker.io $(compose_package). Without containers: ./ctl.sh start"
    if ! said=$(docker version --format '{{.Server.Version}}' 2>&1 >/dev/null); then
        warn "the Docker engine does not answer: ${said%%$'\n'*}"
        ((EUID == 0)) || warn "To use it as $(id -un): sudo usermod -aG docker $(id -un), and log in again."
        die "If it does not run: systemctl start docker"
    fi
    find_compose || die "Docker Compose is missing: apt-get install $(compose_package)"
}

# -- containers --------------------------------------------------------------------------------------------------------

compose() {
    BROWSER_SECRET=$(cat "$own/browser-secret" 2>/dev/null) \
        "${compose_program[@]}" --project-name "$project" --file "$compose_file" "$@"
}

# The one of moorgate, if it runs.
running_container() {
    docker ps --quiet "${of_project[@]}" --filter label=com.docker.compose.service=moorgate
}

running_container_name() {
    docker ps --format '{{.Names}}' "${of_project[@]}" --filter label=com.docker.compose.service=moorgate
}

container_is_ready() {
    local container
    container=$(running_container)
    [[ -n $container ]] && docker exec "$container" moorgate health >/dev/null 2>&1
}

# False once the time is over or the engine had to start it again.
wait_until_container_is_ready() {
    local end=$((SECONDS + start_seconds)) container
    while ((SECONDS < end)); do
        container=$(running_container)
        [[ -n $container && $(docker inspect --format '{{.RestartCount}}' "$container") == 0 ]] || return 1
        if container_is_ready; then return; fi
        sleep 0.2
    done
    return 1
}

readonly own=$state/compose
readonly local_image=moorgate
# That of deploy/Dockerfile.
readonly container_user=65532
readonly project=${COMPOSE_PROJECT_NAME:-moorgate}
readonly of_project=(--filter "label=com.docker.compose.project=$project" --filter label=com.docker.compose.oneoff=False)
