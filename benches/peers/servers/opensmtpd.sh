# shellcheck shell=bash disable=SC2034,SC2154 # what one sourced file sets another one reads
# OpenSMTPD: writes message and envelope into files, which it does not sync, and leaves them in the queue.
#
# Two things no configuration changes. The tickets that it sends do not resume a session. And its listeners
# have a backlog of 5: who connects while it is full waits for TCP's repetitions, some for longer than a
# measurement lasts. So it gets 5 sessions at the same time. Inside TLS each of them mostly waits (Nagle's
# algorithm against delayed acknowledgement), so its rates there are not what its core could do; CPU is.

opensmtpd=$peers/opensmtpd/usr
if [ -e "$opensmtpd/sbin/smtpd" ]; then
    register opensmtpd 25254 OpenSMTPD "$(cat "$peers/opensmtpd.version")" "nothing (in files, not synced)" "stays in the queue" \
        "$openssl_version" "never"
    sessions_max[opensmtpd]=5
fi

start_opensmtpd() {
    local base=$run/opensmtpd clear="" listen_tls=""
    mkdir -p "$base"/{lib/opensmtpd/empty,spool/smtpd,run}
    chmod 711 "$base/spool/smtpd"
    # Its resolver asks /etc/hosts and nobody else for the client's name.
    echo "lookup file" >"$base/resolv.conf"
    if [ -n "$certificate" ]; then
        cp "$certificate" "$base/server.crt"
        cp "$certificate_key" "$base/server.key"
        chmod 600 "$base/server.key"
        clear="tls pki $domain"
        listen_tls="pki $domain cert \"$base/server.crt\"
pki $domain key \"$base/server.key\"
listen on 127.0.0.1 port ${tls_port[opensmtpd]} hostname mail.$domain smtps pki $domain"
    fi
    cat >"$base/smtpd.conf" <<END
smtp limit max-mails 1000000
$listen_tls
listen on 127.0.0.1 port ${port[opensmtpd]} hostname mail.$domain $clear
# Never carried out: the transfer agent is paused. Of the actions the one that looks up no user.
action "kept" relay host smtp+notls://127.0.0.1:9
match from any for domain $domain action "kept"
END
    # It knows its folders by their names: in a mount namespace that it alone sees, ours lie over them.
    # shellcheck disable=SC2016
    launch opensmtpd unshare --mount --propagation private sh -ec '
        mount --bind "$1/resolv.conf" /etc/resolv.conf
        mount --bind "$1/lib" /var/lib
        mount --bind "$1/spool" /var/spool
        mount --bind "$1/run" /run
        exec "$2/sbin/smtpd" -F -P mta -f "$1/smtpd.conf"' sh "$base" "$opensmtpd"
}
kept_opensmtpd() { # a folder with the message and its envelope for each
    local messages envelopes
    messages=$(find "$run/opensmtpd/spool/smtpd/queue" -name message -size +1k | wc -l)
    envelopes=$(find "$run/opensmtpd/spool/smtpd/queue" -type f ! -name message | wc -l)
    [ "$messages" -eq "$envelopes" ] || die "OpenSMTPD has $messages messages and $envelopes envelopes"
    echo "$messages"
}
empty_opensmtpd() { find "$run/opensmtpd/spool/smtpd/queue" -mindepth 2 -delete; }
