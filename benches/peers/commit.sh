#!/usr/bin/env bash
# Measures what "250 means stable storage" costs: ringpost beside Postfix and Exim, in one run.
#
#   benches/peers/commit.sh [--rounds N] [--seconds N] [--servers LIST] [--ringpost FILE]
#                           [--server-core N] [--load-core N] [--patience SECONDS] [--json FILE]
#
# Every server runs on one core, the load (Postfix's smtp-source, 64 sessions, 2 KiB messages) on
# another. After a warm-up, which also finds how many messages fill a round, the servers are measured
# in turn, A B C D A B C D, so that a disturbance hits all of them. Printed are:
#
# - messages/s: messages of a round ÷ time until the last 250.
# - CPU a message: of all processes of the server, ended ones included, until it is idle again. So it
#   holds the delivery (discard) of ringpost and Postfix; Exim queues only.
# - syncs a message: the peers' fsync, fdatasync and sync_file_range calls, counted by strace in a
#   short run of its own; ringpost's by its own count, in the measured rounds.
# - others busy: cores that all else kept busy meanwhile, the kernel's threads for the disk included.
#   On a shared machine a round waits for quiet, and is measured again if it was disturbed; --patience
#   bounds the time that this may take in all.
#
# That every message was taken is checked in each round: smtp-source fails on any reply but 250, ringpost
# must count the messages as committed, Exim and OpenSMTPD must have their files in the spool, and
# Postfix's queue must be empty again. Postfix's deliveries are counted in the short run, the only one in
# which it logs.
#
# LIST names keys of lib/servers.sh, which tells what is fair. opensmtpd is not in the default one: it syncs
# nothing, and takes only 5 sessions at the same time.
#
# Nothing of the machine is changed but what lib/programs.sh installs: libraries, and strace.

# shellcheck disable=SC1091,SC2034,SC2154 # what one sourced file sets another one reads
rounds=3
round_seconds=7
servers="ringpost-disk ringpost-none postfix exim"
patience=120
own_flag() { false; }

lib=$(dirname "$0")/lib
. "$lib/arguments.sh"
parse_arguments "$@"
. "$lib/programs.sh"
enter_namespace
. "$lib/place.sh"
. "$lib/servers.sh"
. "$lib/measure.sh"

# A row a round: server, messages, seconds, server CPU µs, load CPU s, cores busy with others, syncs
# (ringpost).
results=$run/rounds
declare -A round_messages=()
load_before=$(cut -d ' ' -f 1-3 /proc/loadavg)

check_servers
count_syncs
for server in $servers; do
    "start_$server"
    await_greeting "$server"
done

# The warm-up: twice the messages until they fill a second, from which follows what fills a round.
for server in $servers; do
    messages=250
    while :; do
        await_quiet
        (
            sleep 0.2
            check_pinned "$server" || touch "$run/$server.loose"
        ) &
        checker=$!
        measure "$server" "$messages"
        wait "$checker" || true
        ! awk -v seconds="$seconds" 'BEGIN { exit !(seconds >= 1) }' || break
        messages=$((messages * 2))
    done
    [ ! -e "$run/$server.loose" ] || echo "${title[$server]}: some of its threads may run on other cores." >>"$notes"
    round_messages[$server]=$(awk -v n="$messages" -v seconds="$seconds" -v want="$round_seconds" \
        'BEGIN { n = int(n / seconds * want); print (n < 250 ? 250 : (n > 500000 ? 500000 : n)) }')
    say "${title[$server]}: ${round_messages[$server]} messages a round"
done

for ((round = 1; round <= rounds; round++)); do
    for server in $servers; do
        quietly measure "$server" "${round_messages[$server]}"
        echo "$server $asked $seconds $server_us $load_s $others_busy $syncs" >>"$results"
        say "round $round: ${title[$server]}: $asked messages in $seconds s, others kept $others_busy cores busy"
    done
done
for server in $servers; do stop "$server"; done

report commit.py "$json"
