#!/bin/sh
# usage: deploy/image-root.sh BINARY DIR
#
# Makes DIR the root of a container's file system: the program without symbols, the shared libraries that it
# needs, and the CA certificates of this machine. deploy/Dockerfile copies it into an image.

set -eu
umask 022

[ $# -eq 2 ] || {
    echo "usage: $0 BINARY DIR" >&2
    exit 2
}
binary=$1
root=$2
authorities=/etc/ssl/certs/ca-certificates.crt

die() {
    echo "$0: $1" >&2
    exit 1
}

[ -f "$binary" ] || die "$binary is not a program"
[ -s "$authorities" ] || die "$authorities is missing: apt-get install ca-certificates"
command -v strip >/dev/null || die "strip is missing: apt-get install binutils"
if [ -d "$root" ]; then rmdir -- "$root" 2>/dev/null || die "$root is not empty"; fi

mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/etc/moorgate/conf.d" "$root/var/lib/moorgate"
strip --strip-all -o "$root/usr/bin/moorgate" -- "$binary"
chmod 755 "$root/usr/bin/moorgate"

# The addresses of the libraries are the last column but one; the kernel's own one has no path.
libraries=$(ldd "$binary" | awk '{ for (i = 1; i < NF; i++) if ($i ~ "^/") print $i }') || libraries=
for library in $libraries; do
    mkdir -p "$root$(dirname "$library")"
    cp -L -- "$library" "$root$library"
done

cp -L -- "$authorities" "$root$authorities"
echo "moorgate:x:65532:65532::/var/lib/moorgate:/sbin/nologin" >"$root/etc/passwd"
echo "moorgate:x:65532:" >"$root/etc/group"
# The C library's own choice differs between its versions.
echo "hosts: files dns" >"$root/etc/nsswitch.conf"

# deploy/Dockerfile gives it to the user.
chmod 700 "$root/var/lib/moorgate"
