# shellcheck shell=bash disable=SC2034,SC2154 # what one sourced file sets another one reads
# The peers' programs: Debian's packages, unpacked into target/peers instead of installed, for they exclude
# each other and would start daemons. Sourced after arguments.sh.
#
# The machine stays as it is, but for packages of libraries, and strace, that are missing (Debian 12).

peers=$repository/target/peers
mkdir -p "$peers"

updated=() # the suites whose lists are fresh
apt() { # SUITE COMMAND...: of the machine's own sources if SUITE is "own"
    local suite=$1 options=(-q -o APT::Sandbox::User=root)
    shift
    if [ "$suite" != own ]; then
        # A source list and lists beside the machine's, which never learns of them.
        local own=$peers/apt.$suite
        mkdir -p "$own/lists/partial" "$own/cache/archives/partial"
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
            "http://deb.debian.org/debian $suite main" >"$own/sources.list"
        options+=(-o "Dir::Etc::sourcelist=$own/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$own/lists"
            -o "Dir::Cache=$own/cache" -o "APT::Default-Release=$suite")
    fi
    if [[ " ${updated[*]} " != *" $suite "* ]]; then
        apt-get "${options[@]}" update >&2
        updated+=("$suite")
    fi
    DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" "$@" >&2
}
# What is there already stays at its version: other programs of the machine use it.
install() { apt own install -y --no-install-recommends --no-remove --no-upgrade "$@"; }

unpack() { # PACKAGE SUITE: into target/peers/PACKAGE, with its version beside it
    [ ! -e "$peers/$1.version" ] || return 0
    say "unpacking Debian's $1"
    rm -rf "${peers:?}/$1" "$peers/$1"_*.deb
    cd "$peers" || return
    apt "$2" download "$1"
    cd "$OLDPWD" || return
    dpkg-deb --extract "$peers/$1"_*.deb "$peers/$1"
    # What it is linked with, by the package's own word; none of its services.
    dpkg-deb --field "$peers/$1"_*.deb Depends | tr ',' '\n' | sed 's/^ *//; s/[ (|].*//' |
        grep '^lib' >"$peers/$1.libraries"
    dpkg-deb --field "$peers/$1"_*.deb Version >"$peers/$1.version"
    rm "$peers/$1"_*.deb
}

libraries_for() { # PACKAGE PROGRAM: installs the package's libraries if PROGRAM misses one
    local libraries
    LD_LIBRARY_PATH=$peers/postfix/usr/lib/postfix ldd "$peers/$1/$2" | grep -q 'not found' || return 0
    mapfile -t libraries <"$peers/$1.libraries"
    say "installing ${libraries[*]}"
    install "${libraries[@]}"
}

enter_namespace() { # has the programs, then runs the script again in a mount namespace of its own
    [ -z "${RINGPOST_PEERS_NAMESPACE:-}" ] || return 0
    # Always: smtp-source is the load of commit.sh and of the short run that counts syncs.
    unpack postfix own
    libraries_for postfix usr/lib/postfix/sbin/smtpd
    if [[ " $servers " = *" exim "* ]]; then
        unpack exim4-daemon-light own
        libraries_for exim4-daemon-light usr/sbin/exim4
    fi
    if [[ " $servers " = *" opensmtpd "* ]]; then
        # Debian 12's own, 6.8.0, fails in every TLS handshake: "missing private key" with OpenSSL 3,
        # https://github.com/OpenSMTPD/OpenSMTPD/issues/1171.
        unpack opensmtpd bookworm-backports
        libraries_for opensmtpd usr/sbin/smtpd
    fi
    command -v strace >/dev/null || install strace
    RINGPOST_PEERS_NAMESPACE=yes exec unshare --mount --propagation private "$script" "${arguments[@]}"
}
