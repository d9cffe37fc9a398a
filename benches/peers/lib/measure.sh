# shellcheck shell=bash disable=SC2034,SC2154 # what one sourced file sets another one reads
# One run of load against one server, and when it is fit to be counted. Sourced after servers.sh.
#
# On a shared machine a run waits for quiet, and is repeated if it was disturbed; $patience bounds the time
# that this may take in all.

await_greeting() { # SERVER
    local connection line
    for _ in {1..100}; do
        if { exec {connection}<>"/dev/tcp/127.0.0.1/${port[$1]}"; } 2>/dev/null; then
            IFS= read -r -t 5 line <&"$connection" || line=
            printf 'QUIT\r\n' >&"$connection"
            exec {connection}>&-
            [[ $line != 220* ]] || return 0
        fi
        kill -0 "${pids[$1]}" 2>/dev/null || break
        sleep 0.1
    done
    cat "$run/$1.out" >&2
    die "${title[$1]} does not greet"
}

await_idle() { # SERVER: returns when it uses less than 1 % of a core
    local before now
    now=$(cpu_us "$1")
    for _ in {1..300}; do
        before=$now
        sleep 0.2
        now=$(cpu_us "$1")
        [ $((now - before)) -gt 2000 ] || return 0
    done
    die "${title[$1]} does not become idle"
}

machine_cpu_us() { # CPU time that the whole machine was not idle (or stolen) so far
    awk -v hz="$(getconf CLK_TCK)" \
        '/^cpu / { printf "%.0f\n", ($2 + $3 + $4 + $7 + $8 + $9) * 1e6 / hz; exit }' /proc/stat
}

# Leaves what it measured in these: a subshell could not stop the script.
seconds=0     # of the load
load_s=0      # its CPU time
server_us=0   # the server's, until it was idle again
others_busy=0 # cores that anything else kept busy meanwhile
syncs=-       # of ringpost, by its own count
observe() { # SERVER COMMAND...: runs the load on its core; fails if it does
    local server=$1 cpu machine started_us syncs_before times TIMEFORMAT='%R %U %S'
    shift
    [[ $server != ringpost-* ]] || syncs_before=$(metric "$server" ringpost_spool_syncs_total)
    cpu=$(cpu_us "$server")
    machine=$(machine_cpu_us)
    started_us=${EPOCHREALTIME/./}
    times=$({ time taskset --cpu-list "$load_core" "$@" >"$run/load.out" 2>&1; } 2>&1) || {
        cat "$run/load.out" >&2
        return 1
    }
    read -r seconds load_s < <(awk '{ print $1, $2 + $3 }' <<<"$times")
    await_idle "$server"
    server_us=$(($(cpu_us "$server") - cpu))
    others_busy=$(awk -v all="$(($(machine_cpu_us) - machine))" -v server="$server_us" -v load="$load_s" \
        -v wall="$((${EPOCHREALTIME/./} - started_us))" \
        'BEGIN { n = (all - server - load * 1e6) / wall; printf "%.2f\n", (n > 0 ? n : 0) }')
    syncs=-
    [[ $server != ringpost-* ]] || syncs=$(($(metric "$server" ringpost_spool_syncs_total) - syncs_before))
}

asked=0 # messages of the last run, each of them answered with 250
measure() { # SERVER MESSAGES: sent by smtp-source, and counted
    local kept kept_then
    "empty_$1"
    # Nobody pays for what the one before left unwritten.
    sync --file-system "$run"
    await_idle "$1"
    asked=0
    kept=$("kept_$1")
    observe "$1" "$programs/sbin/smtp-source" -s "$(sessions_of "$1" 64)" -l 2048 -m "$2" -d -f "sender@$domain" -t "recipient@$domain" \
        "127.0.0.1:${port[$1]}" || die "${title[$1]}: not every message was taken"
    asked=$2
    kept_then=$("kept_$1")
    [ "$((kept_then - kept))" -eq "$2" ] ||
        die "${title[$1]} answered 250 to $2 messages and took $((kept_then - kept))"
}

# Cores that others may keep busy in a run. On an idle machine the kernel's threads for the disk took up
# to a fifth of one (Exim's three syncs a message); a compiler takes a whole one.
others_max=0.3
patience_us=$((patience * 1000000))
# Every measurement gets its share of it, and what those before it left.
reserved_us=0 # for those that come later
measurements_left=$((rounds * $(wc -w <<<"$servers")))
is_quiet() { awk -v busy="$1" -v most="$others_max" 'BEGIN { exit !(busy <= most) }'; }

await_quiet() { # returns after half a second in which the machine was idle, or when patience is used up
    local before started_us=${EPOCHREALTIME/./}
    while [ $((${EPOCHREALTIME/./} - started_us)) -le $((patience_us - reserved_us)) ]; do
        before=$(machine_cpu_us)
        sleep 0.5
        ! is_quiet "$(awk -v us=$(($(machine_cpu_us) - before)) 'BEGIN { print us / 0.5e6 }')" || break
    done
    patience_us=$((patience_us - (${EPOCHREALTIME/./} - started_us)))
}

quietly() { # MEASUREMENT SERVER ARGUMENTS...: again while others disturb it and there is patience left
    local started_us
    measurements_left=$((measurements_left - 1))
    reserved_us=$((patience_us > 0 ? patience_us * measurements_left / (measurements_left + 1) : 0))
    while :; do
        await_quiet
        started_us=${EPOCHREALTIME/./}
        "$@"
        if is_quiet "$others_busy" || [ "$patience_us" -le "$reserved_us" ]; then break; fi
        say "${title[$2]}: $seconds s, but others kept $others_busy cores busy: again"
        patience_us=$((patience_us - (${EPOCHREALTIME/./} - started_us)))
    done
}

# Syncs a message of the peers, by strace. It does not see ringpost's: they are writes with RWF_DSYNC
# through io_uring, and are read from ringpost_spool_syncs_total in the measured rounds.
declare -A peer_syncs=()
traced_messages=500
count_syncs() { # the short run: the peers under strace, Postfix with its log
    local server
    for server in $servers; do
        case $server in ringpost-*) continue ;; esac
        say "${title[$server]}: counting syncs"
        postfix_log=$run/postfix.log
        trace=(strace -D -f --seccomp-bpf -c -o "$run/$server.strace" -e "trace=fsync,fdatasync,sync_file_range")
        "start_$server"
        trace=()
        await_greeting "$server"
        measure "$server" "$traced_messages"
        stop "$server"
        # strace writes its summary when the last process has ended.
        for _ in {1..50}; do
            [ ! -s "$run/$server.strace" ] || break
            sleep 0.1
        done
        # "% time, seconds, usecs/call, calls, errors (if any), syscall"
        peer_syncs[$server]=$(awk -v messages="$traced_messages" \
            '$NF ~ /sync/ { n += $4 } END { printf "%.3f", n / messages }' "$run/$server.strace")
        if [ "$server" = postfix ] && grep -E '(warning|error|fatal|panic):' "$postfix_log" >"$run/complaints"; then
            echo "Postfix complained: $(head -n 1 "$run/complaints")" >>"$notes"
        fi
        rm -rf "${run:?}/$server"
    done
    postfix_log=
}
