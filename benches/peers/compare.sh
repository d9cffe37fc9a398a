#!/usr/bin/env bash
# Measures what negotiated TLS costs beside implicit TLS: ringpost, Postfix, Exim and OpenSMTPD, by the same
# load, in one run.
#
#   benches/peers/compare.sh [--rounds N] [--seconds N] [--servers LIST] [--ringpost FILE] [--loadgen FILE]
#                            [--connections N] [--messages-per-session N] [--server-core N] [--load-core N]
#                            [--patience SECONDS] [--json FILE] [--markdown FILE]
#
# Every server runs on one core, the load on another. In each round each server is started, gets one
# `ringpost-loadgen compare`, and is ended: A B C D A B C D, so that a disturbance hits all of them. That is,
# twice, --seconds each of plain, STARTTLS and TLS × full handshake and resumed × one message a session and
# many; closed loop, messages of 2 KiB, DATA. Written are two tables, to standard output or --markdown, and
# JSON with all that each compare found:
#
# - rates: by the load's count. CPU: of all processes of the server, ended ones included.
# - negotiated : implicit: of pairs of cases, which run one after the other, each first in every second pair.
# - resumed: share of the handshakes that were, of those sessions that would resume.
# - syncs a message: the peers' fsync, fdatasync and sync_file_range calls, counted by strace in a short run
#   of its own (500 messages, 64 sessions, in clear); ringpost's by its own count, over all of a round, for
#   strace does not see writes with RWF_DSYNC through io_uring.
# - others busy: cores that all else kept busy meanwhile, the kernel's threads for the disk included. On a
#   shared machine a round waits for quiet, and is measured again if it was disturbed, the least disturbed
#   one counts; --patience bounds the time that this may take in all.
#
# A round fails if the load met any error, if anything was refused, or if the server has fewer messages than
# were taken: ringpost by its metrics, Exim and OpenSMTPD by the files of their queues; Postfix's must be
# empty again.
#
# LIST names keys of lib/servers.sh, which tells what is fair. Nothing of the machine is changed but what
# lib/programs.sh installs: libraries, and strace.

# shellcheck disable=SC1091,SC2034,SC2154 # what one sourced file sets another one reads
rounds=2
round_seconds=3
servers="ringpost-disk ringpost-none postfix exim opensmtpd"
patience=300
loadgen=
connections=64
many=50
markdown=
own_flag() { # FLAG VALUE
    case $1 in
        --loadgen) loadgen=$(realpath "$2") ;;
        --connections) connections=$2 ;;
        --messages-per-session) many=$2 ;;
        --markdown) markdown=$(realpath "$2") ;;
        *) return 1 ;;
    esac
}

lib=$(dirname "$0")/lib
. "$lib/arguments.sh"
loadgen=$repository/target/release/ringpost-loadgen
parse_arguments "$@"
[ -x "$loadgen" ] || die "no $loadgen: run cargo build --release --workspace first"
. "$lib/programs.sh"
enter_namespace
. "$lib/place.sh"
. "$lib/servers.sh"
. "$lib/measure.sh"

load_before=$(cut -d ' ' -f 1-3 /proc/loadavg)
check_servers
count_syncs

"$ringpost" dev-certs --dir "$run/certs" >"$run/certs.out"
certificate=$run/certs/server-ecdsa.crt
certificate_key=$run/certs/server-ecdsa.key

kept=0 # messages that the server took in the last compare, those of the warm-up included
compared() { # SERVER ROUND: one compare of the server, from its start to its end
    local server=$1 figures=$run/$1.json of_round=$run/$1.$2 watched kept_before
    rm -rf "${run:?}/$server"
    # Nobody pays for what the one before left unwritten.
    sync --file-system "$run"
    "start_$server"
    await_greeting "$server"
    await_idle "$server"
    watched=(--server-pid "${pids[$server]}")
    [ -z "$cgroup" ] || watched=(--server-cgroup "$cgroup/$server")
    asked=0
    kept_before=$("kept_$server")
    # Two rounds, so that neither negotiated nor implicit TLS is always the first of a pair. The same dialogue
    # with all: not all have CHUNKING. The one group that all have is the only one for which a key is made.
    observe "$server" "$loadgen" compare --target "127.0.0.1:${port[$server]}" \
        --target-tls "127.0.0.1:${tls_port[$server]}" "${watched[@]}" --load-cores "$load_core" --rounds 2 \
        --duration "${round_seconds}s" --warmup 1s --connections "$(sessions_of "$server" "$connections")" \
        --messages-per-session-many "$many" --chunking no --tls-version 1.3 --tls-groups X25519 \
        --recipient "recipient@$domain" --json "$figures" --html "$run/page.html" ||
        die "${title[$server]}: the load failed"
    asked=$(python3 -B "$report_folder/compare.py" taken "$figures") || die "${title[$server]}: round $2 does not count"
    check_pinned "$server" || echo "${title[$server]}: some of its threads may run on other cores." >>"$notes"
    kept=$(($("kept_$server") - kept_before))
    # Those of the warm-up come on top.
    [ "$kept" -ge "$asked" ] || die "${title[$server]} answered 250 to $asked messages and took $kept"
    stop "$server"
    rm -rf "${run:?}/$server"
    # Of repetitions the least disturbed one is kept.
    if [ ! -e "$of_round.row" ] || awk -v busy="$others_busy" '{ exit !(busy < $7) }' "$of_round.row"; then
        mv "$figures" "$of_round.json"
        echo "$server $2 $kept $seconds $server_us $load_s $others_busy $syncs" >"$of_round.row"
    fi
}

for ((round = 1; round <= rounds; round++)); do
    for server in $servers; do
        quietly compared "$server" "$round"
        cat "$run/$server.$round.row" >>"$run/rounds"
        read -r _ _ taken _ _ _ busy _ <"$run/$server.$round.row"
        say "round $round: ${title[$server]}: $taken messages taken, others kept $busy cores busy"
    done
done

report compare.py "$json" >"$run/tables"
if [ -n "$markdown" ]; then cp "$run/tables" "$markdown"; else cat "$run/tables"; fi
