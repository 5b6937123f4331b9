#!/bin/sh
# Whether a wheel works where nothing of ours ever was: Debian 12 with Python, without a compiler, headers
# or a network. It is installed, the demo is started, and somebody logs in; how long each takes, is said.
# bare_debian.sh WHEEL   as root, in the repository: the system goes to build/bare-debian and stays there
#
# What the wheel needs besides, the system's own pip fetches before that.
set -eu
unset PIP_FIND_LINKS # of whoever runs this: there, it leads nowhere
wheel=$(realpath "$1")
root=$PWD/build/bare-debian

case $wheel in *-cp311-*) ;; *) echo "Debian 12 has Python 3.11, and $wheel is for another" >&2; exit 2 ;; esac

seconds() { # seconds WHAT COMMAND...   runs it, and says how long it took
    what=$1
    shift
    begun=$(date +%s.%N)
    "$@"
    echo "$begun $(date +%s.%N) $what" | awk '{printf "=== %.1f s  ", $2 - $1; $1 = $2 = ""; print}'
}

if [ ! -e "$root/made" ]; then
    rm -rf "$root"
    mkdir -p build
    seconds "Debian 12" debootstrap --variant=minbase --include=python3-venv,curl bookworm "$root" >build/bare-debian.log
    touch "$root/made"
fi
if chroot "$root" sh -c 'command -v gcc cc || ls /usr/include/python3* /usr/include/openssl' 2>/dev/null; then
    echo "there is a compiler, or headers: this is not bare" >&2
    exit 1
fi

rm -rf "$root/wheels" "$root/try"
mkdir -p "$root/wheels"
cp "$wheel" release/try_demo.sh "$root/wheels/"
cp /etc/resolv.conf "$root/etc/"
if [ -n "${PIP_CERT:-}" ]; then
    mkdir -p "$root/$(dirname "$PIP_CERT")" && cp "$PIP_CERT" "$root/$PIP_CERT"
fi

alone() { # in the system, with its own /proc, and a network of 127.0.0.1 alone
    unshare --net --mount --pid --fork sh -c \
        "ip link set lo up && mount -t proc proc '$root/proc' && exec chroot '$root' \"\$@\"" - "$@"
}
seconds "python3 -m venv" alone python3 -m venv /try
seconds "fetching what it needs" chroot "$root" /try/bin/pip download -q -d /wheels "/wheels/$(basename "$wheel")"
seconds "pip install fastticket" alone /try/bin/pip install -q --no-index --find-links /wheels fastticket
seconds "demo, login, logout" alone sh /wheels/try_demo.sh /try/bin/fastticket
alone du -sh /try/lib/python3.11/site-packages/fastticket
