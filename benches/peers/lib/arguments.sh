# shellcheck shell=bash disable=SC2034,SC2154 # what one sourced file sets another one reads
# The flags that all scripts of this folder take, and what they set. Sourced; the script defines before:
# - $rounds, $round_seconds, $patience, $servers: its defaults;
# - own_flag FLAG VALUE: takes a flag that is its own, fails on one that it does not know.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}
say() { echo "${0##*/}: $*" >&2; }

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
script=$repository/benches/peers/${0##*/}
command="benches/peers/${0##*/}${*:+ $*}"
arguments=("$@")
ringpost=$repository/target/release/ringpost
server_core=0
load_core=1
json=

parse_arguments() { # ARGUMENTS...
    while [ $# -gt 0 ]; do
        [ $# -gt 1 ] || [[ $1 = -h || $1 = --help ]] || die "$1 needs a value"
        case $1 in
            --rounds) rounds=$2 ;;
            --seconds) round_seconds=$2 ;;
            --servers) servers=${2//,/ } ;;
            --ringpost) ringpost=$(realpath "$2") ;;
            --server-core) server_core=$2 ;;
            --load-core) load_core=$2 ;;
            --patience) patience=$2 ;;
            --json) json=$(realpath "$2") ;;
            -h | --help)
                # The comment at the script's head.
                sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$script"
                exit
                ;;
            *) own_flag "$1" "$2" || die "unknown argument $1; try --help" ;;
        esac
        shift 2
    done
    [ "$(id -u)" -eq 0 ] || die "must be run by root: Postfix's master and the mount namespace need it"
    [ -x "$ringpost" ] || die "no $ringpost: run cargo build --release first"
    taskset -c "$server_core,$load_core" true || die "cores $server_core and $load_core cannot be used"
    [ "$server_core" != "$load_core" ] || die "server and load need a core each"
}
