# shellcheck shell=bash disable=SC2034,SC2154 # what one sourced file sets another one reads
# Postfix: syncs its queue file, then discards.

programs=$peers/postfix/usr
export LD_LIBRARY_PATH=$programs/lib/postfix

register postfix 25252 Postfix "$(cat "$peers/postfix.version")" "on stable storage" discard "$openssl_version" tickets

start_postfix() { # with the log file that $postfix_log names, if any
    local base=$run/postfix tls tls_services=
    mkdir -p "$base"/{etc,queue,data}
    chown postfix "$base/data"
    tls="smtpd_tls_security_level = none"
    if [ -n "$certificate" ]; then
        cat "$certificate_key" "$certificate" >"$base/etc/chain.pem"
        # Tickets need no more than tlsmgr, which has their keys (TLS_README, "Server-side TLS session cache").
        tls="smtpd_tls_security_level = may
smtpd_tls_chain_files = $base/etc/chain.pem
smtpd_tls_session_cache_timeout = 3600s
smtpd_tls_loglevel = 0"
        tls_services="127.0.0.1:${tls_port[postfix]} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
tlsmgr    unix - - n 1000? 1 tlsmgr"
    fi
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
# Its processes last: a new one for every hundred connections is a precaution against leaks.
max_use = 1000000
# No DNS, no AUTH, no filter, no search for what this mail has not.
smtpd_peername_lookup = no
disable_dns_lookups = yes
$tls
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
$tls_services
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
    # Without a log the load's own count is all there is: it fails on any reply but 250.
    if [ -n "${postfix_log:-}" ]; then
        grep -c 'postfix/discard.* status=sent ' "$postfix_log" || true
    else
        echo "$asked"
    fi
}
empty_postfix() { :; }
