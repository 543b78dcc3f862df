#!/bin/sh
# usage: compiler.sh PYTHON    whether there is a C compiler and that Python's headers; as root they are installed
set -eu
here() {
    command -v cc >/dev/null && "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}
here "$1" && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    (apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends gcc libc6-dev python3-dev) >/dev/null 2>&1 || true
fi
here "$1" || {
    echo "compiling needs a C compiler and the headers of Python: apt-get install gcc libc6-dev python3-dev" >&2
    exit 1
}
