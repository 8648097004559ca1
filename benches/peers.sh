# The peers of benches/run.sh, which sources this: nginx 1.22, HAProxy 2.6 and Caddy 2.6 or newer, each set up as an
# administrator would who cares for its speed in front of a registry. All stream both ways and keep upstream connections.
# shellcheck shell=bash disable=SC2154

# No temporary files, nothing kept back. proxy_buffering stays on: without it every read waits for the write before it,
# which cost as much per GiB and more per request. The default h2 window of 64 KiB cost half as much again per GiB up.
start_nginx() {
    ports[nginx]=$(free_port)
    local log=off
    [[ $access_log == no ]] || log="$work/nginx.access.log combined buffer=64k flush=1s"
    cat >"$work/nginx.conf" <<EOF
daemon off;
worker_processes $(nproc);
pid $work/nginx.pid;
error_log $work/nginx.log warn;
events { worker_connections 4096; }
http {
    access_log $log;
    client_body_temp_path $work/nginx.body;
    proxy_temp_path $work/nginx.proxy;
    fastcgi_temp_path $work/nginx.fastcgi;
    uwsgi_temp_path $work/nginx.uwsgi;
    scgi_temp_path $work/nginx.scgi;
    tcp_nodelay on;
    upstream origin { server 127.0.0.1:$origin_port; keepalive 64; keepalive_requests 10000000; }
    server {
        listen 127.0.0.1:${ports[nginx]} ssl http2 reuseport backlog=4096;
        server_name localhost;
        ssl_certificate $work/cert.pem;
        ssl_certificate_key $work/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:10m;
        keepalive_requests 10000000;
        http2_chunk_size 16k;
        client_max_body_size 0;
        client_body_buffer_size 128k;
        http2_body_preread_size 1m;
        location / {
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host \$http_host;
            proxy_set_header X-Forwarded-For \$remote_addr;
            proxy_set_header X-Forwarded-Proto https;
            proxy_request_buffering off;
            proxy_buffer_size 16k;
            proxy_buffers 16 32k;
            proxy_busy_buffers_size 256k;
            proxy_max_temp_file_size 0;
            proxy_read_timeout 900s;
        }
    }
}
EOF
    start nginx "$(find_program nginx)" -e "$work/nginx.log" -c "$work/nginx.conf"
}

# Of 16, 32 and 64 KiB for tune.bufsize the middle one: the small is dear for uploads, the large for small requests.
start_haproxy() {
    ports[haproxy]=$(free_port)
    local log=
    [[ $access_log == no ]] || log="log stdout format raw local0
    option httplog"
    cat >"$work/haproxy.cfg" <<EOF
global
    nbthread $(nproc)
    maxconn 4096
    tune.bufsize 32768
    tune.h2.initial-window-size 1048576
defaults
    mode http
    $log
    timeout connect 5s
    timeout client 120s
    timeout server 900s
    timeout http-request 15s
    http-reuse always
    option forwardfor
frontend tls
    bind 127.0.0.1:${ports[haproxy]} ssl crt $work/both.pem alpn h2,http/1.1 ssl-min-ver TLSv1.2
    http-request set-header X-Forwarded-Proto https
    default_backend registry
backend registry
    server origin 127.0.0.1:$origin_port
EOF
    start haproxy "$(find_program haproxy)" -db -f "$work/haproxy.cfg"
}

start_caddy() {
    ports[caddy]=$(free_port)
    local log=
    [[ $access_log == no ]] || log="log {
        output file $work/caddy.access.log
    }"
    cat >"$work/Caddyfile" <<EOF
{
    admin off
    auto_https off
    servers {
        protocols h1 h2
    }
}
https://localhost:${ports[caddy]} {
    bind 127.0.0.1
    tls $work/cert.pem $work/key.pem
    $log
    reverse_proxy 127.0.0.1:$origin_port {
        transport http {
            compression off
            keepalive_idle_conns_per_host 64
        }
    }
}
EOF
    HOME=$work start caddy "$(find_program caddy)" run --adapter caddyfile --config "$work/Caddyfile"
}
