#!/bin/sh
# What `make install` and `make uninstall` do: a virtual environment under PREFIX/lib/chatd, commands, units, examples.
# usage: install.sh install|uninstall, with DESTDIR, PREFIX, SYSCONFDIR, UNITDIR, SYSUSERSDIR, PYTHON and CHATD_NATIVE in the
# environment; CHATD_NATIVE=0 compiles nothing, 1 insists on it, otherwise the hot modules are compiled where there is a compiler
set -eu
cd "$(dirname "$0")/.."
PREFIX=${PREFIX:-/usr/local} DESTDIR=${DESTDIR:-} SYSCONFDIR=${SYSCONFDIR:-/etc} PYTHON=${PYTHON:-/usr/bin/python3}
UNITDIR=${UNITDIR:-$PREFIX/lib/systemd/system} SYSUSERSDIR=${SYSUSERSDIR:-$PREFIX/lib/sysusers.d}
VENV=$PREFIX/lib/chatd
COMMANDS="chatd brokerd chat"

native() {
    case ${CHATD_NATIVE:-} in
    0) echo 0 ;;
    ?*) systemd/compiler.sh "$PYTHON" && echo 1 ;;
    *) systemd/compiler.sh "$PYTHON" && echo 1 || { echo "Not compiled: it takes about a third more CPU." >&2 && echo 0; } ;;
    esac
}

virtual_environment() {
    CHATD_NATIVE=$(native) # first: what is installed stays when this cannot be done
    export CHATD_NATIVE
    rm -rf "$DESTDIR$VENV"
    "$PYTHON" -m venv "$DESTDIR$VENV"
    source_copy=$(mktemp -d) # a build in the checkout would pick up what an older one left there
    trap 'rm -rf "$source_copy"' EXIT
    cp -R setup.py setup.cfg pyproject.toml README.md protocol brokerd chatd bench "$source_copy"
    "$DESTDIR$VENV/bin/pip" install -q --disable-pip-version-check --no-compile "$source_copy"
    "$DESTDIR$VENV/bin/pip" uninstall -q -y --disable-pip-version-check setuptools pip 2>/dev/null || true
    rm -f "$DESTDIR$VENV"/bin/activate* "$DESTDIR$VENV"/bin/Activate*
    find "$DESTDIR$VENV" -name __pycache__ -prune -exec rm -rf {} +
    # It was made below DESTDIR, and runs without it.
    if [ -n "$DESTDIR" ]; then
        grep -rlIF "$DESTDIR" "$DESTDIR$VENV" | xargs -r sed -i "s#$DESTDIR##g"
    fi
    "$PYTHON" -m compileall -q -s "$DESTDIR" ${DESTDIR:+-p /} --invalidation-mode unchecked-hash "$DESTDIR$VENV/lib"
    chmod -R go=u,go-w "$DESTDIR$VENV"
}

units() {
    mkdir -p "$DESTDIR$UNITDIR" "$DESTDIR$SYSUSERSDIR"
    for unit in systemd/*@.service systemd/*@.socket systemd/chat.target; do
        sed -e "s#/usr/lib/chatd#$VENV#g" -e "s#^ExecPaths=/usr\$#ExecPaths=/usr $PREFIX#" -e "s#/etc/\(chatd\|brokerd\)#$SYSCONFDIR/\1#g" \
            "$unit" >"$DESTDIR$UNITDIR/$(basename "$unit")"
    done
    install -m 644 systemd/chatd.sysusers "$DESTDIR$SYSUSERSDIR/chatd.conf"
}

commands() {
    mkdir -p "$DESTDIR$PREFIX/bin"
    for command in $COMMANDS; do ln -sf "../lib/chatd/bin/$command" "$DESTDIR$PREFIX/bin/$command"; done
    # chatctl knows the service's configuration, unless it is told another.
    printf '#!/bin/sh\nexport CHATD_CONFIG="${CHATD_CONFIG-%s}"\nexec %s/bin/chatctl "$@"\n' \
        "$SYSCONFDIR/chatd/chatd.toml" "$VENV" >"$DESTDIR$PREFIX/bin/chatctl"
    chmod 755 "$DESTDIR$PREFIX/bin/chatctl"
    install -D -m 644 systemd/completion/chatctl.bash "$DESTDIR$PREFIX/share/bash-completion/completions/chatctl"
    install -D -m 644 systemd/completion/chatctl.zsh "$DESTDIR$PREFIX/share/zsh/site-functions/_chatctl"
}

examples() {
    for daemon in chatd brokerd; do
        folder=$DESTDIR$SYSCONFDIR/$daemon
        mkdir -p "$folder"
        install -d -m 700 "$folder/credentials"
        [ -e "$folder/$daemon.toml" ] || install -m 644 "systemd/etc/$daemon.toml" "$folder/$daemon.toml"
    done
}

manager() { # only where systemd runs, and not when a package is made
    if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then "$@"; fi
}

case ${1:-} in
install)
    virtual_environment
    units
    commands
    examples
    manager systemd-sysusers "$SYSUSERSDIR/chatd.conf"
    manager systemctl daemon-reload
    echo "Installed. Next: systemctl enable --now chat.target chatd@1.socket chatd-http@1.socket chatd@1.service"
    ;;
uninstall)
    manager systemctl disable --now chat.target "chatd@*" "chatd-http@*.socket" "brokerd@*" 2>/dev/null || true
    manager systemctl stop "chatd@*" "chatd-http@*" "brokerd@*" || true
    for unit in systemd/*@.service systemd/*@.socket systemd/chat.target; do rm -f "$DESTDIR$UNITDIR/$(basename "$unit")"; done
    rm -f "$DESTDIR$SYSUSERSDIR/chatd.conf"
    for command in $COMMANDS chatctl; do rm -f "$DESTDIR$PREFIX/bin/$command"; done
    rm -f "$DESTDIR$PREFIX/share/bash-completion/completions/chatctl" "$DESTDIR$PREFIX/share/zsh/site-functions/_chatctl"
    rm -rf "$DESTDIR$VENV"
    manager systemctl daemon-reload
    echo "Uninstalled. $SYSCONFDIR/chatd, $SYSCONFDIR/brokerd and /var/lib/chatd are left."
    ;;
*)
    echo "usage: install.sh install|uninstall" >&2
    exit 2
    ;;
esac
