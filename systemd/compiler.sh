#!/bin/sh
# usage: compiler.sh PYTHON    whether there is a C compiler, and the headers of that Python
set -eu
HEADERS='import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
if ! command -v cc >/dev/null || ! "$1" -c "$HEADERS"; then
    echo "Compiling needs a C compiler and Python's headers: apt-get install gcc libc6-dev python3-dev" >&2
    exit 1
fi
