#!/bin/sh
# usage: build_deb.sh FOLDER    builds the Debian package with dpkg-buildpackage in a copy of the sources, and puts it into FOLDER
set -eu
cd "$(dirname "$0")/.."
mkdir -p "$1"
folder=$(readlink -f "$1")
tree=$(mktemp -d)
export PIP_CACHE_DIR="${PIP_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/pip}" # debhelper gives HOME an empty folder
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/chatd"
cp -R setup.py setup.cfg pyproject.toml README.md protocol brokerd chatd bench systemd docs "$tree/chatd"
mv "$tree/chatd/systemd/debian" "$tree/chatd/debian"
(cd "$tree/chatd" && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >"$tree/log" 2>&1) || {
    tail -40 "$tree/log" >&2
    exit 1
}
mv "$tree"/*.deb "$folder"
ls "$folder"/*.deb
