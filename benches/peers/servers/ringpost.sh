# shellcheck shell=bash disable=SC2034,SC2154 # what one sourced file sets another one reads
# ringpost itself, with and without the promise. Its messages go to discard.

# The version of the OpenSSL that is built in; without one it is the machine's.
built_in=$(grep -aoEm 1 'OpenSSL 3\.[0-9]+\.[0-9]+ [0-9]' "$ringpost" | head -n 1 | cut -d ' ' -f 1,2 || true)
ringpost_version=$("$ringpost" --version | cut -d ' ' -f 2)
register ringpost-disk 25250 "ringpost --durability disk" "$ringpost_version" "on stable storage" discard \
    "${built_in:-$openssl_version}" "tickets, renewed"
register ringpost-none 25251 "ringpost --durability none" "$ringpost_version" "nothing (in memory)" discard \
    "${built_in:-$openssl_version}" "tickets, renewed"

start_ringpost() { # SERVER
    local tls=(--starttls off)
    # X25519 as the peers have it: their libraries do not know X25519MLKEM768.
    [ -z "$certificate" ] || tls=(--listen-tls "127.0.0.1:${tls_port[$1]}" --cert "$certificate"
        --key "$certificate_key" --tls-groups X25519)
    launch "$1" "$ringpost" serve --shards 1 --deliver discard --durability "${1#ringpost-}" \
        --log-level warn --hostname "$domain" --local-domain "$domain" --listen "127.0.0.1:${port[$1]}" \
        "${tls[@]}" --data-dir "$run/$1" --metrics "127.0.0.1:$((port[$1] + 10))"
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
