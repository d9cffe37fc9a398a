# shellcheck shell=bash disable=SC2034,SC2154 # what one sourced file sets another one reads
# A place for the servers: folder, users, core and cgroup; how they are started, ended, and their CPU time
# read. Sourced in the mount namespace; everything of it is gone when the script ends, however it ends.
#
# The users that the peers insist on exist only here, where longer copies of /etc/passwd and /etc/group
# lie over the machine's. Queues lie in target/peers, side by side on one disk.

# A short path that every user may enter, whatever the repository's folders allow.
mount --bind "$peers" /mnt
peers=/mnt

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

check_pinned() { # SERVER: every thread on the servers' core (old kernels let io_uring's workers go anywhere)
    local id
    for id in $(processes "$1"); do
        # A process that just ended is no error.
        grep -hs '^Cpus_allowed_list:' /proc/"$id"/task/*/status || true
    done | awk -v core="$server_core" '$2 != core { exit 1 }'
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

# What a reader of the figures should know of this run, a line each.
notes=$run/notes
: >"$notes"
[ -n "$cgroup" ] || echo "No cgroup v2 could be made: CPU time comes from /proc, in ticks." >>"$notes"

# The peers' users, in copies of the two files that only this namespace sees.
cp /etc/passwd /etc/group "$run"
free_id() { # an id that no user and no group has
    local id
    for ((id = 899; id > 100; id--)); do
        cut -d : -f 3 "$run/passwd" "$run/group" | grep -qx "$id" || break
    done
    echo "$id"
}
for name in postfix postdrop Debian-exim opensmtpd opensmtpq; do
    grep -q "^$name:" "$run/group" || echo "$name:x:$(free_id):" >>"$run/group"
done
for name in postfix Debian-exim opensmtpd opensmtpq; do
    grep -q "^$name:" "$run/passwd" ||
        echo "$name:x:$(free_id):$(awk -F : -v name="$name" '$1 == name { print $3 }' "$run/group")::/:/bin/false" \
            >>"$run/passwd"
done
mount --bind "$run/passwd" /etc/passwd
mount --bind "$run/group" /etc/group
# No syslog for anybody: a daemon's work for the peers' lines would be counted for none of them.
if [ -e /dev/log ]; then mount --bind /dev/null "$(realpath /dev/log)"; fi
