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
#   short run of its own. strace does not see ringpost's: they are writes with RWF_DSYNC through
#   io_uring. They are read from ringpost_spool_syncs_total, in the measured rounds.
# - others busy: cores that all else kept busy meanwhile, the kernel's threads for the disk included.
#   On a shared machine a round waits for quiet, and is measured again if it was disturbed; --patience
#   bounds the time that this may take in all.
#
# That every message was taken is checked in each round: smtp-source fails on any reply but 250, ringpost
# must count the messages as committed, Exim must have their files in its spool, and Postfix's queue must
# be empty again. Postfix's deliveries are counted in the short run, the only one in which it logs.
#
# Fairness: nobody looks up names, filters, or logs messages (Postfix and Exim log to a syslog that is not
# there, ringpost from warnings up). Where documentation names a faster setting with the same promise,
# it is set; the configuration files below say which.
#
# The machine stays as it is, but for packages of libraries, and strace, that are missing (Debian 12):
# Postfix and Exim are unpacked into target/peers, for their packages exclude each other and would
# start daemons. The users they insist on (postfix, Debian-exim, group postdrop) exist only in a private
# mount namespace, where longer copies of /etc/passwd and /etc/group lie over the machine's. It needs
# root for that, as does Postfix's master. Queues lie in target/peers, side by side on one disk.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

die() {
    echo "commit.sh: $*" >&2
    exit 1
}
say() { echo "commit.sh: $*" >&2; }

# ---------------------------------------------------------------- arguments

repository=$(cd "$(dirname "$0")/../.." && pwd)
script=$repository/benches/peers/${0##*/}
command="benches/peers/${0##*/}${*:+ $*}"
arguments=("$@")
rounds=3
round_seconds=7
servers="ringpost-disk ringpost-none postfix exim"
ringpost=$repository/target/release/ringpost
server_core=0
load_core=1
patience=120
json=
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
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$script"
            exit
            ;;
        *) die "unknown argument $1; try --help" ;;
    esac
    shift 2
done
[ "$(id -u)" -eq 0 ] || die "must be run by root: Postfix's master and the mount namespace need it"
[ -x "$ringpost" ] || die "no $ringpost: run cargo build --release first"
taskset -c "$server_core,$load_core" true || die "cores $server_core and $load_core cannot be used"
[ "$server_core" != "$load_core" ] || die "server and load need a core each"

# ---------------------------------------------------------------- the peers' programs

peers=$repository/target/peers
mkdir -p "$peers"

updated=no
apt() {
    if [ "$updated" = no ]; then
        apt-get -q update >&2
        updated=yes
    fi
    apt-get -q -o APT::Sandbox::User=root "$@" >&2
}

unpack() { # PACKAGE: into target/peers/PACKAGE, with its version beside it
    [ ! -e "$peers/$1.version" ] || return 0
    say "unpacking Debian's $1"
    cd "$peers"
    rm -rf "$1" "$1"_*.deb
    apt download "$1"
    cd "$OLDPWD"
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
    DEBIAN_FRONTEND=noninteractive apt install -y --no-install-recommends --no-remove "${libraries[@]}"
}

if [ -z "${RINGPOST_PEERS_NAMESPACE:-}" ]; then
    unpack postfix
    unpack exim4-daemon-light
    libraries_for postfix usr/lib/postfix/sbin/smtpd
    libraries_for exim4-daemon-light usr/sbin/exim4
    command -v strace >/dev/null ||
        DEBIAN_FRONTEND=noninteractive apt install -y --no-install-recommends --no-remove strace
    RINGPOST_PEERS_NAMESPACE=yes exec unshare --mount --propagation private "$script" "${arguments[@]}"
fi

# ---------------------------------------------------------------- a place of its own
# From here on in the mount namespace.

# A short path that every user may enter, whatever the repository's folders allow.
mount --bind "$peers" /mnt
peers=/mnt
programs=$peers/postfix/usr
export LD_LIBRARY_PATH=$programs/lib/postfix

run=$(mktemp -d "$peers/run.XXXXXX")
chmod 755 "$run"
case $(stat --file-system --format %T "$run") in
    tmpfs | ramfs) die "target/peers lies in memory: syncs would cost nothing" ;;
esac

declare -A pids=() # of the servers that run
cgroup=            # of this run, with one inside for each server

processes() { # SERVER: ids of all its processes
    if [ -n "$cgroup" ]; then
        cat "$cgroup/$1/cgroup.procs"
    else
        tree_of "${pids[$1]}" | cut -d ' ' -f 1
    fi
}

tree_of() { # PID: "id ticks" of it and of all its descendants, with the ticks of children that ended
    # The name in the second field may hold blanks and parentheses: cut up to the last one. A process
    # that ends meanwhile cannot be read: no error.
    { cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v root="$1" '
        { id = $1; sub(/^.*\) /, ""); parent[id] = $2; ticks[id] = $12 + $13 + $14 + $15 }
        END {
            for (id in parent)
                for (up = id; up in parent; up = parent[up])
                    if (up == root) { print id, ticks[id]; break }
        }'
}

cpu_us() { # SERVER: CPU time of all its processes so far, ended ones included
    if [ -n "$cgroup" ]; then
        awk '/^usage_usec/ { print $2 }' "$cgroup/$1/cpu.stat"
    else
        tree_of "${pids[$1]}" | awk -v hz="$(getconf CLK_TCK)" '{ n += $2 } END { printf "%.0f\n", n * 1e6 / hz }'
    fi
}

machine_cpu_us() { # CPU time that the whole machine was not idle (or stolen) so far
    awk -v hz="$(getconf CLK_TCK)" \
        '/^cpu / { printf "%.0f\n", ($2 + $3 + $4 + $7 + $8 + $9) * 1e6 / hz; exit }' /proc/stat
}

trace=() # put before a server's command: strace in the short run

launch() { # SERVER COMMAND...: starts it on the servers' core
    local name=$1
    shift
    if [ -n "$cgroup" ]; then mkdir -p "$cgroup/$name"; fi
    (
        if [ -n "$cgroup" ]; then echo "$BASHPID" >"$cgroup/$name/cgroup.procs"; fi
        exec taskset --cpu-list "$server_core" "${trace[@]}" "$@"
    ) >"$run/$name.out" 2>&1 </dev/null &
    pids[$name]=$!
}

stop() { # SERVER
    local pid=${pids[$1]:-} id started=() left=()
    [ -n "$pid" ] || return 0
    mapfile -t started < <(processes "$1")
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    unset "pids[$1]"
    # A master takes its processes with it; who is there after five seconds all the same is killed by id.
    for _ in {1..50}; do
        left=()
        for id in "${started[@]}"; do [ ! -d "/proc/$id" ] || left+=("$id"); done
        [ ${#left[@]} -gt 0 ] || break
        sleep 0.1
    done
    [ ${#left[@]} -eq 0 ] || kill -KILL "${left[@]}" 2>/dev/null || true
    [ -z "$cgroup" ] || rmdir "$cgroup/$1" 2>/dev/null || true
}

clean_up() {
    local name
    for name in "${!pids[@]}"; do stop "$name"; done
    [ -z "$cgroup" ] || rmdir "$cgroup" 2>/dev/null || true
    rm -rf "$run"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

unified=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
if [ -n "$unified" ] && mkdir "$unified/ringpost-peers.$$" 2>/dev/null; then
    cgroup=$unified/ringpost-peers.$$
    # Processes can be refused entry although the folder could be made.
    if ! (echo "$BASHPID" >"$cgroup/cgroup.procs") 2>/dev/null; then
        rmdir "$cgroup"
        cgroup=
    fi
fi

# The peers' users, in copies of the two files that only this namespace sees.
cp /etc/passwd /etc/group "$run"
free_id() { # an id that no user and no group has
    local id
    for ((id = 899; id > 100; id--)); do
        cut -d : -f 3 "$run/passwd" "$run/group" | grep -qx "$id" || break
    done
    echo "$id"
}
for name in postfix postdrop Debian-exim; do
    grep -q "^$name:" "$run/group" || echo "$name:x:$(free_id):" >>"$run/group"
done
for name in postfix Debian-exim; do
    grep -q "^$name:" "$run/passwd" ||
        echo "$name:x:$(free_id):$(awk -F : -v name="$name" '$1 == name { print $3 }' "$run/group")::/:/bin/false" \
            >>"$run/passwd"
done
mount --bind "$run/passwd" /etc/passwd
mount --bind "$run/group" /etc/group
# No syslog for anybody: a daemon's work for the peers' lines would be counted for none of them.
if [ -e /dev/log ]; then mount --bind /dev/null "$(realpath /dev/log)"; fi

# ---------------------------------------------------------------- the servers
# For each: what it is, its port, start_, kept_ (messages taken so far), empty_ (before a round).

domain=bench.test
declare -A port=([ringpost-disk]=25250 [ringpost-none]=25251 [postfix]=25252 [exim]=25253)
declare -A title=(
    [ringpost-disk]="ringpost --durability disk" [ringpost-none]="ringpost --durability none"
    [postfix]=Postfix [exim]=Exim
)
declare -A promise=(
    [ringpost-disk]="on stable storage" [ringpost-none]="nothing (in memory)"
    [postfix]="on stable storage" [exim]="on stable storage"
)
declare -A version=(
    [ringpost-disk]=$("$ringpost" --version | cut -d ' ' -f 2)
    [ringpost-none]=$("$ringpost" --version | cut -d ' ' -f 2)
    [postfix]=$(cat "$peers/postfix.version") [exim]=$(cat "$peers/exim4-daemon-light.version")
)
declare -A after=([ringpost-disk]=discard [ringpost-none]=discard [postfix]=discard [exim]="stays in the queue")

start_ringpost() { # SERVER
    launch "$1" "$ringpost" serve --shards 1 --deliver discard --durability "${1#ringpost-}" \
        --log-level warn --hostname "$domain" --local-domain "$domain" --listen "127.0.0.1:${port[$1]}" \
        --data-dir "$run/$1" --metrics "127.0.0.1:$((port[$1] + 10))"
}
metric() { # SERVER NAME
    local connection
    exec {connection}<>"/dev/tcp/127.0.0.1/$((port[$1] + 10))"
    printf 'GET /metrics HTTP/1.0\r\n\r\n' >&"$connection"
    awk -v name="$2" '$1 == name { print $2 }' <&"$connection"
    exec {connection}>&-
}
start_ringpost-disk() { start_ringpost ringpost-disk; }
start_ringpost-none() { start_ringpost ringpost-none; }
kept_ringpost-disk() { metric ringpost-disk ringpost_spool_messages_total; }
# Without the promise a message for discard never meets the spool.
kept_ringpost-none() { metric ringpost-none ringpost_messages_total; }
empty_ringpost-disk() { :; }
empty_ringpost-none() { :; }

start_postfix() { # with the log file that $postfix_log names, if any
    local base=$run/postfix
    mkdir -p "$base"/{etc,queue,data}
    chown postfix "$base/data"
    cat >"$base/etc/main.cf" <<END
compatibility_level = 3.6
daemon_directory = $programs/lib/postfix/sbin
command_directory = $programs/sbin
shlib_directory = $programs/lib/postfix
queue_directory = $base/queue
data_directory = $base/data
# Its libraries lie where it was unpacked.
import_environment = MAIL_CONFIG LD_LIBRARY_PATH LANG=C
myhostname = mail.$domain
myorigin = \$myhostname
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
default_transport = discard:
alias_maps =
alias_database =
# No pause of the sender for the queue manager's sake.
in_flow_delay = 0
# A process for each of the load's sessions, none of them counted (TUNING_README).
default_process_limit = 200
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_event_limit_exceptions = static:all
# No DNS, no TLS, no AUTH, no filter, no search for what this mail has not.
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtpd_tls_security_level = none
smtpd_sasl_auth_enable = no
smtputf8_enable = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
local_recipient_maps =
enable_original_recipient = no
local_header_rewrite_clients =
disable_mime_input_processing = yes
receive_override_options = no_unknown_recipient_checks, no_header_body_checks, no_address_mappings
# Discarded as fast as qmgr can say so.
default_destination_concurrency_limit = 100
initial_destination_concurrency = 100
maillog_file = ${postfix_log:-}
maillog_file_prefixes = $run
END
    # Debian's services that a message meets, none in a chroot: the unpacked libraries are not in one.
    cat >"$base/etc/master.cf" <<END
127.0.0.1:${port[postfix]} inet n - n - - smtpd
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
verify    unix - - n - 1 verify
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
showq     unix n - n - - showq
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
anvil     unix - - n - 1 anvil
postlog   unix-dgram n - n - 1 postlogd
END
    postfix_queue_folders "$base/queue"
    launch postfix "$programs/lib/postfix/sbin/master" -c "$base/etc"
}
postfix_queue_folders() { # QUEUE: what "postfix check" would make, owned as in Debian's postfix-files
    (cd "$1" && mkdir -p active bounce corrupt defer deferred flush hold incoming private saved trace \
        public maildrop pid)
    chown root "$1" "$1/pid"
    chown postfix "$1"/{active,bounce,corrupt,defer,deferred,flush,hold,incoming,private,saved,trace}
    chmod 700 "$1"/{active,bounce,corrupt,defer,deferred,flush,hold,incoming,private,saved,trace}
    chown postfix:postdrop "$1"/{public,maildrop}
    chmod 710 "$1/public"
    chmod 730 "$1/maildrop"
}
postfix_queued() { find "$run"/postfix/queue/{incoming,active,deferred,hold,corrupt} -type f | wc -l; }
kept_postfix() {
    local queued
    queued=$(postfix_queued)
    [ "$queued" -eq 0 ] || die "Postfix has $queued messages in its queue and does nothing"
    # Without a log smtp-source's own count is all there is: it fails on any reply but 250.
    if [ -n "${postfix_log:-}" ]; then
        grep -c 'postfix/discard.* status=sent ' "$postfix_log" || true
    else
        echo "$asked"
    fi
}
empty_postfix() { :; }

start_exim() {
    local base=$run/exim
    mkdir -p "$base/spool/input"
    chown -R Debian-exim:Debian-exim "$base"
    cat >"$run/exim.conf" <<END
primary_hostname = mail.$domain
spool_directory = $base/spool
# There is none here: nothing is logged.
log_file_path = syslog
daemon_smtp_ports = ${port[exim]}
local_interfaces = 127.0.0.1
keep_environment =
# Mail is taken, synced and left in the queue.
queue_only
# Its files over many folders, as the documentation advises for long queues; no log for each message,
# no look at the free space.
split_spool_directory
message_logs = false
check_spool_space = 0
check_spool_inodes = 0
check_log_space = 0
check_log_inodes = 0
# Room for all of the load's sessions and for all their messages.
smtp_accept_max = 200
smtp_accept_reserve = 0
smtp_accept_max_per_host = 200
smtp_accept_max_per_connection = 0
smtp_accept_queue = 0
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 1024
# No DNS, no ident, no TLS, no filter.
host_lookup =
rfc1413_hosts =
tls_advertise_hosts =
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  accept domains = $domain
END
    launch exim "$peers/exim4-daemon-light/usr/sbin/exim4" -C "$run/exim.conf" -bdf -oP "$base/exim.pid"
}
kept_exim() { # a header and a data file for each message
    local headers data
    headers=$(find "$run/exim/spool/input" -name '*-H' | wc -l)
    data=$(find "$run/exim/spool/input" -name '*-D' -size +1k | wc -l)
    [ "$headers" -eq "$data" ] || die "Exim has $headers header files and $data data files"
    echo "$headers"
}
empty_exim() { find "$run/exim/spool/input" -type f -delete; }

# ---------------------------------------------------------------- one round

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

load() { # SERVER MESSAGES: prints seconds, CPU seconds of the load
    local TIMEFORMAT='%R %U %S' times
    times=$({ time taskset --cpu-list "$load_core" "$programs/sbin/smtp-source" -s 64 -l 2048 -m "$2" -d \
        -f "sender@$domain" -t "recipient@$domain" "127.0.0.1:${port[$1]}" >"$run/load.out" 2>&1; } 2>&1) || {
        cat "$run/load.out" >&2
        die "${title[$1]}: not every message was taken"
    }
    awk '{ print $1, $2 + $3 }' <<<"$times"
}

# Leaves what it measured in these: a subshell could not stop the script.
asked=0 seconds=0 server_us=0 load_s=0 others_busy=0 syncs=-
measure() { # SERVER MESSAGES
    local kept kept_then syncs_before cpu machine started_us times
    "empty_$1"
    # Nobody pays for what the one before left unwritten.
    sync --file-system "$run"
    await_idle "$1"
    asked=0
    kept=$("kept_$1")
    [[ $1 != ringpost-* ]] || syncs_before=$(metric "$1" ringpost_spool_syncs_total)
    cpu=$(cpu_us "$1")
    machine=$(machine_cpu_us)
    started_us=${EPOCHREALTIME/./}
    times=$(load "$1" "$2")
    read -r seconds load_s <<<"$times"
    await_idle "$1"
    server_us=$(($(cpu_us "$1") - cpu))
    # Cores that anything else kept busy meanwhile.
    others_busy=$(awk -v all="$(($(machine_cpu_us) - machine))" -v server="$server_us" -v load="$load_s" \
        -v wall="$((${EPOCHREALTIME/./} - started_us))" \
        'BEGIN { n = (all - server - load * 1e6) / wall; printf "%.2f\n", (n > 0 ? n : 0) }')
    syncs=-
    [[ $1 != ringpost-* ]] || syncs=$(($(metric "$1" ringpost_spool_syncs_total) - syncs_before))
    asked=$2
    kept_then=$("kept_$1")
    [ "$((kept_then - kept))" -eq "$2" ] ||
        die "${title[$1]} answered 250 to $2 messages and took $((kept_then - kept))"
}

# Cores that others may keep busy in a round. On an idle machine the kernel's threads for the disk took up
# to a fifth of one (Exim's three syncs a message); a compiler takes a whole one.
others_max=0.3
patience_us=$((patience * 1000000))
is_quiet() { awk -v busy="$1" -v most="$others_max" 'BEGIN { exit !(busy <= most) }'; }

await_quiet() { # returns after half a second in which the machine was idle, or when patience is used up
    local before started_us=${EPOCHREALTIME/./}
    while [ $((${EPOCHREALTIME/./} - started_us)) -le "$patience_us" ]; do
        before=$(machine_cpu_us)
        sleep 0.5
        ! is_quiet "$(awk -v us=$(($(machine_cpu_us) - before)) 'BEGIN { print us / 0.5e6 }')" || break
    done
    patience_us=$((patience_us - (${EPOCHREALTIME/./} - started_us)))
}

measure_quietly() { # SERVER MESSAGES: again while others disturb it and there is patience left
    local started_us
    while :; do
        await_quiet
        started_us=${EPOCHREALTIME/./}
        measure "$1" "$2"
        if is_quiet "$others_busy" || [ "$patience_us" -le 0 ]; then break; fi
        say "${title[$1]}: $asked messages in $seconds s, but others kept $others_busy cores busy: again"
        patience_us=$((patience_us - (${EPOCHREALTIME/./} - started_us)))
    done
}

check_pinned() { # SERVER: every thread on the servers' core (old kernels let io_uring's workers go anywhere)
    local id
    for id in $(processes "$1"); do
        # A process that just ended is no error.
        grep -hs '^Cpus_allowed_list:' /proc/"$id"/task/*/status || true
    done | awk -v core="$server_core" '$2 != core { exit 1 }'
}

# ---------------------------------------------------------------- all rounds

# A row a round: server, messages, seconds, server CPU µs, load CPU s, cores busy with others, syncs
# (ringpost).
results=$run/rounds
: >"$results"
declare -A round_messages=() peer_syncs=()
traced_messages=500
notes=$run/notes
load_before=$(cut -d ' ' -f 1-3 /proc/loadavg)
[ -n "$cgroup" ] || echo "No cgroup v2 could be made: CPU time comes from /proc, in ticks." >"$notes"

for server in $servers; do
    [ -n "${port[$server]:-}" ] || die "no server $server"
    if (: <"/dev/tcp/127.0.0.1/${port[$server]}") 2>/dev/null; then die "port ${port[$server]} is taken"; fi
done

# The short run: the peers under strace, Postfix with its log.
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
        measure_quietly "$server" "${round_messages[$server]}"
        echo "$server $asked $seconds $server_us $load_s $others_busy $syncs" >>"$results"
        say "round $round: ${title[$server]}: $asked messages in $seconds s, others kept $others_busy cores busy"
    done
done
for server in $servers; do stop "$server"; done

# ---------------------------------------------------------------- the report

for server in $servers; do
    echo "$server|${title[$server]}|${version[$server]}|${promise[$server]}|${after[$server]}|${peer_syncs[$server]:-}"
done >"$run/servers"
COMMAND=$command LOAD_BEFORE=$load_before LOAD_AFTER=$(cut -d ' ' -f 1-3 /proc/loadavg) \
    python3 - "$run" "$json" <<'END'
"""Prints the table, from the rows of the rounds; writes the same as JSON."""
import datetime, json, os, platform, re, statistics, sys

run, json_path = sys.argv[1], sys.argv[2]

def spread(values, digits):
    """Median, and the least and the most of the rounds."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return {"median": round(middle, digits), "min": round(low, digits), "max": round(high, digits)}

def show(value, digits=0):
    form = f"{{:,.{digits}f}}"
    return f"{form.format(value['median'])} ({form.format(value['min'])}–{form.format(value['max'])})"

servers = {}
for line in open(f"{run}/servers"):
    key, title, version, promise, after, syncs = line.rstrip("\n").split("|")
    servers[key] = {"title": title, "version": version, "promise": promise, "after_250": after,
                    "traced_syncs": syncs, "rounds": []}
for line in open(f"{run}/rounds"):
    key, messages, seconds, server_us, load_s, others_busy, syncs = line.split()
    messages, seconds = int(messages), float(seconds)
    servers[key]["rounds"].append({
        "messages": messages,
        "seconds": seconds,
        "messages_per_second": messages / seconds,
        "cpu_us_per_message": int(server_us) / messages,
        "load_core_busy": float(load_s) / seconds,
        "others_cores_busy": float(others_busy),
        "syncs_per_message": None if syncs == "-" else int(syncs) / messages,
    })

base = servers.get("ringpost-disk", {}).get("rounds")
for server in servers.values():
    of = lambda name: [row[name] for row in server["rounds"]]
    server["messages_per_second"] = spread(of("messages_per_second"), 1)
    server["cpu_us_per_message"] = spread(of("cpu_us_per_message"), 1)
    server["load_core_busy"] = spread(of("load_core_busy"), 2)
    server["others_cores_busy"] = spread(of("others_cores_busy"), 2)
    traced = server.pop("traced_syncs")
    server["syncs_per_message"] = float(traced) if traced else round(statistics.median(of("syncs_per_message")), 4)
    if base:  # round by round, for they were measured side by side
        server["rate_ringpost_to_this"] = spread(
            [a["messages_per_second"] / b["messages_per_second"] for a, b in zip(base, server["rounds"])], 3)
        server["cpu_ringpost_to_this"] = spread(
            [a["cpu_us_per_message"] / b["cpu_us_per_message"] for a, b in zip(base, server["rounds"])], 3)

model = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
notes = open(f"{run}/notes").read().split("\n")[:-1] if os.path.exists(f"{run}/notes") else []
report = {
    "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
    "kernel": platform.release(),
    "cpu": f"{os.cpu_count()} × {model.group(1) if model else platform.machine()}",
    "file_system": os.popen(f"findmnt --noheadings --output FSTYPE --target {run}").read().strip(),
    "command": os.environ["COMMAND"],
    "load": "smtp-source -s 64 -l 2048 -d",
    "loadavg_before": os.environ["LOAD_BEFORE"],
    "loadavg_after": os.environ["LOAD_AFTER"],
    "notes": notes,
    "servers": servers,
}

print("| server | version | 250 promises; then | messages/s | CPU µs a message | syncs a message "
      "| rate, ringpost : this | CPU, ringpost : this | load's core busy | others busy |")
print("|---|---|---|---|---|---|---|---|---|---|")
for s in servers.values():
    ratio = show(s["rate_ringpost_to_this"], 2) if base else "–"
    cpu_ratio = show(s["cpu_ringpost_to_this"], 3) if base else "–"
    print(f"| {s['title']} | {s['version']} | {s['promise']}; {s['after_250']} | {show(s['messages_per_second'])} "
          f"| {show(s['cpu_us_per_message'])} | {s['syncs_per_message']:.3f} | {ratio} | {cpu_ratio} "
          f"| {s['load_core_busy']['median']:.0%} | {show(s['others_cores_busy'], 2)} |")
print(f"""
Median of {len(next(iter(servers.values()))['rounds'])} rounds in turn (least–most); ratios to ringpost --durability disk, round by round. \
`{report['command']}`, load `{report['load']}`.
{report['date']}, Linux {report['kernel']}, {report['cpu']}, {report['file_system']}. Load average \
{report['loadavg_before']} before, {report['loadavg_after']} after.""")
for note in notes:
    print(note)
if json_path:
    with open(json_path, "w") as file:
        json.dump(report, file, indent=2, ensure_ascii=False)
        file.write("\n")
END
