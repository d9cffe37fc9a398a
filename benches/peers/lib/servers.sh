# shellcheck shell=bash disable=SC2034,SC2154 # what one sourced file sets another one reads
# The servers by key, and what is told of each. Sourced after place.sh. A file in servers/ registers its
# keys and defines for each:
# - start_KEY: launches it; kept_KEY: messages taken so far; empty_KEY: what a round must not find.
#
# Fairness: nobody looks up names, filters, or logs messages (the peers log to a syslog that is not there,
# ringpost from warnings up). Where documentation names a faster setting with the same promise, it is set;
# the configuration files say which. All that do TLS have the same certificate, TLS 1.3 and X25519.

domain=bench.test
certificate=          # set: serve STARTTLS, and TLS on the port of its own, with this file and $certificate_key
certificate_key=
declare -A port=()     # in clear, on 127.0.0.1
declare -A tls_port=() # TLS from the first octet; listened on if there is a certificate
declare -A title=() version=()
declare -A promise=()  # what 250 to a message promises
declare -A after=()    # what becomes of the message then
declare -A sessions_max=() # that may connect at the same time without loss; for most there is no such limit
declare -A tls_by=()   # the library, with its version
declare -A resumes=()  # what its documentation allows: how sessions are resumed

register() { # KEY PORT TITLE VERSION PROMISE AFTER TLS_BY RESUMES
    port[$1]=$2 tls_port[$1]=$(($2 + 100)) title[$1]=$3 version[$1]=$4 promise[$1]=$5 after[$1]=$6
    tls_by[$1]=$7 resumes[$1]=$8
}
sessions_of() { # SERVER WANTED: how many the load may have at the same time
    local most=${sessions_max[$1]:-$2}
    echo $((most < $2 ? most : $2))
}
openssl_version="OpenSSL $(dpkg-query --show --showformat '${Version}' libssl3 | sed 's/-.*//')"

for file in "$repository"/benches/peers/servers/*.sh; do
    # shellcheck source=/dev/null
    . "$file"
done

check_servers() { # of the list: known, and their ports free
    local server number
    for server in $servers; do
        [ -n "${port[$server]:-}" ] || die "no server $server; there are ${!port[*]}"
        for number in "${port[$server]}" "${tls_port[$server]}"; do
            if (: <"/dev/tcp/127.0.0.1/$number") 2>/dev/null; then die "port $number is taken"; fi
        done
    done
}

report_folder=$repository/benches/peers/report
report() { # PROGRAM ARGUMENTS...: runs it on the run's folder, with what the script alone knows
    local server program=$1
    shift
    for server in $servers; do
        echo "$server|${title[$server]}${sessions_max[$server]:+ (${sessions_max[$server]} sessions)}|${version[$server]}|${promise[$server]}|${after[$server]}|${tls_by[$server]}|${resumes[$server]}|${peer_syncs[$server]:-}"
    done >"$run/servers"
    COMMAND=$command COMMIT=$(git -C "$repository" describe --always --dirty 2>/dev/null || echo unknown) \
        LOAD_BEFORE=$load_before LOAD_AFTER=$(cut -d ' ' -f 1-3 /proc/loadavg) \
        python3 -B "$report_folder/$program" "$run" "$@"
}
