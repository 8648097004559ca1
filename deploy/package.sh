#!/usr/bin/env bash
# Makes the Debian package, with manual pages and shell completions from the binary's own texts.
# Needs cargo-deb. MOORGATE_BIN: a binary to take instead of building one with the profile `dist`.
# DEB_REVISION: what stands behind the version, 1 by default.
#
# usage: deploy/package.sh [FILE.deb]

set -euo pipefail
output=${1:+$(realpath -m -- "$1")}
cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.."

readonly assets=target/package
if [[ -z ${MOORGATE_BIN:-} ]]; then
    cargo build --profile dist --locked
    MOORGATE_BIN=$(cargo metadata --format-version 1 --no-deps |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/dist/moorgate
fi

rm -rf -- "$assets"
mkdir -p -- "$assets/completions"
install -m 755 -- "$MOORGATE_BIN" "$assets/moorgate"
strip --strip-all --remove-section=.comment -- "$assets/moorgate"
"$assets/moorgate" manual "$assets/man"
gzip --best --no-name "$assets"/man/*.1
for shell in bash fish zsh; do
    "$assets/moorgate" completions "$shell" >"$assets/completions/$shell"
done
gzip --best --no-name --stdout CHANGELOG.md >"$assets/changelog.gz"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
revision=${DEB_REVISION:-1}
cat >"$assets/changelog" <<EOF
moorgate ($version-$revision) unstable; urgency=medium

  * What has changed is in /usr/share/doc/moorgate/changelog.gz.

 -- moorgate <root@localhost>  $(date --utc --rfc-email --date "@${SOURCE_DATE_EPOCH:-0}")
EOF
cargo deb --no-build --no-strip --deb-revision "$revision" ${output:+--output "$output"}
