//! Next hops that nobody here wrote: Postfix, Exim, and Dovecot's LMTP server.
//!
//! Each listens on a port of its own on 127.0.0.1 and takes mail for every local part of its domain,
//! but for these:
//!
//! | local part | Postfix | Exim | Dovecot |
//! |---|---|---|---|
//! | `unknown` | 550 5.1.1 to RCPT | 550 to RCPT, no enhanced code | 550 5.1.1 to RCPT |
//! | `later` | 450 4.2.1 to RCPT | 451 to RCPT, no enhanced code | 451 4.3.0 to RCPT |
//! | `full` | | | 452 4.2.2 after the data |
//! | `over` | | | 552 5.2.2 after the data |

use std::net::SocketAddr;
use std::path::PathBuf;

use super::certificates::{Authority, Pair};
use super::eventually;
use super::housed::{Arrived, House, Housed, USER};

/// Takes mail for `postfix.test`, as `mx.postfix.test`.
pub(crate) struct Postfix {
    housed: Housed,
}

impl Postfix {
    /// Offers STARTTLS with this certificate, asks for the client's, and takes mail without one.
    pub(crate) fn start(certificate: &Pair) -> Self {
        Self::start_with(certificate, "")
    }

    /// The same, with more lines of main.cf, which win over those it has.
    pub(crate) fn start_with(certificate: &Pair, settings: &str) -> Self {
        Self::in_house(House::new(), certificate, settings)
    }

    /// The same, where everybody may listen on port 25 and nobody does.
    pub(crate) fn start_on_port_25(certificate: &Pair, settings: &str) -> Self {
        Self::in_house(House::with_port(25), certificate, settings)
    }

    fn in_house(house: House, certificate: &Pair, settings: &str) -> Self {
        house.make(&["data", "etc", "mail"]);
        for name in POSTFIX_QUEUES {
            house.make(&[&format!("queue/{name}")]);
        }
        house.write_tls(certificate);
        house.write("known", "!/^unknown@/ all/\n");
        house.write("access", "/^later@/ 450 4.2.1 Come back later\n");
        let (data, queue, mail) = (house.name("data"), house.name("queue"), house.name("mail"));
        let (known, access) = (house.name("known"), house.name("access"));
        let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| house.name(name));
        let (log, etc) = (house.name("log"), house.name("etc"));
        house.write(
            "etc/main.cf",
            &format!(
                "compatibility_level = 3.6
# Its daemons, started by the master with a cleaned environment, must take the user for root as well.
import_environment = MAIL_CONFIG LD_PRELOAD UID_WRAPPER UID_WRAPPER_ROOT NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
queue_directory = {queue}
data_directory = {data}
maillog_file = {log}
maillog_file_prefixes = /
myhostname = mx.postfix.test
mydestination =
mynetworks =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtpd_error_sleep_time = 0
# Messages stay as they are, from this machine too.
local_header_rewrite_clients =
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access regexp:{access}
smtpd_tls_security_level = may
smtpd_tls_cert_file = {cert}
smtpd_tls_key_file = {key}
smtpd_tls_CAfile = {ca}
smtpd_tls_ask_ccert = yes
smtpd_tls_received_header = yes
virtual_mailbox_domains = postfix.test
virtual_mailbox_base = {mail}
virtual_mailbox_maps = regexp:{known}
virtual_uid_maps = static:{USER}
virtual_gid_maps = static:{USER}
{settings}
"
            ),
        );
        // None in a chroot, which an ordinary user cannot have.
        let mut services = format!("127.0.0.1:{} inet n - n - - smtpd\n", house.port);
        for (service, kind, private, processes, program) in POSTFIX_SERVICES {
            services += &format!("{service} {kind} {private} n n - {processes} {program}\n");
        }
        house.write("etc/master.cf", &services);
        let housed = house.start(
            &["postfix"],
            &[
                // uid_wrapper answers setuid and the like as the kernel would answer root, and needs
                // nss_wrapper for initgroups.
                "/usr/bin/env",
                "LD_PRELOAD=libuid_wrapper.so libnss_wrapper.so",
                "UID_WRAPPER=1",
                "UID_WRAPPER_ROOT=1",
                "NSS_WRAPPER_PASSWD=/etc/passwd",
                "NSS_WRAPPER_GROUP=/etc/group",
                "/usr/lib/postfix/sbin/master",
                "-c",
                &etc,
            ],
        );
        Self {
            housed: housed.await_greeting("mx.postfix.test"),
        }
    }
}

/// Takes mail for `exim.test`, as `mx.exim.test`.
pub(crate) struct Exim {
    housed: Housed,
}

impl Exim {
    /// Offers STARTTLS with this certificate, asks for the client's, and takes mail without one.
    pub(crate) fn start(certificate: &Pair) -> Self {
        Self::start_with(certificate, "")
    }

    /// The same, with more lines of the main part of its configuration, which may set nothing twice.
    pub(crate) fn start_with(certificate: &Pair, settings: &str) -> Self {
        let house = House::new();
        house.make(&["mail", "spool"]);
        house.write_tls(certificate);
        let (spool, mail, log) = (house.name("spool"), house.name("mail"), house.name("log"));
        let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| house.name(name));
        let port = house.port;
        house.write(
            "exim.conf",
            &format!(
                "primary_hostname = mx.exim.test
spool_directory = {spool}
log_file_path = {log}-%s
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
daemon_startup_retries = 0
# It is not root and delivers as who it is.
deliver_drop_privilege
keep_environment =
host_lookup =
rfc1413_hosts =
tls_advertise_hosts = *
tls_certificate = {cert}
tls_privatekey = {key}
tls_verify_certificates = {ca}
tls_try_verify_hosts = *
log_selector = +tls_peerdn
acl_smtp_rcpt = recipient
acl_smtp_data = accept
{settings}
begin acl
recipient:
  defer local_parts = later
  require verify = recipient
  accept
begin routers
mailbox:
  driver = accept
  domains = exim.test
  local_parts = !unknown
  transport = maildir
begin transports
maildir:
  driver = appendfile
  directory = {mail}/all
  maildir_format
  envelope_to_add
  return_path_add
"
            ),
        );
        let config = house.name("exim.conf");
        let pid = house.name("pid");
        let housed = house.start(
            &["Debian-exim"],
            &["/usr/sbin/exim4", "-bdf", "-C", &config, "-oP", &pid],
        );
        Self {
            housed: housed.await_greeting("mx.exim.test"),
        }
    }
}

/// Takes mail for `dovecot.test` by LMTP, as `mx.dovecot.test`.
pub(crate) struct Dovecot {
    housed: Housed,
}

impl Dovecot {
    /// Listens on its port and on a UNIX socket.
    pub(crate) fn start() -> Self {
        let house = House::new();
        house.make(&["mail", "run", "state"]);
        let (run, state, log) = (house.name("run"), house.name("state"), house.name("log"));
        let (socket, mail, users) = (house.name("lmtp"), house.name("mail"), house.name("users"));
        let (port, nobody) = (house.port, house.name("nobody"));
        house.write("nobody", "");
        // Fields: name, password, uid, gid, comment, home, shell, what differs from the settings.
        house.write(
            "users",
            &format!(
                "full@dovecot.test:::::{mail}/full@dovecot.test::userdb_quota_rule=*:bytes=1 userdb_quota_full_tempfail=yes
over@dovecot.test:::::{mail}/over@dovecot.test::userdb_quota_rule=*:bytes=1
"
            ),
        );
        house.write(
            "dovecot.conf",
            &format!(
                "protocols = lmtp
base_dir = {run}
state_dir = {state}
log_path = {log}
hostname = mx.dovecot.test
ssl = no
first_valid_uid = 1
mail_uid = {USER}
mail_gid = {USER}
mail_location = maildir:{mail}/%u
mail_plugins = quota
plugin {{
  quota = count:mailbox
  quota_vsizes = yes
}}
userdb {{
  driver = passwd-file
  args = {users}
}}
# Who the passwords know is known here too.
userdb {{
  driver = static
  args = home={mail}/%u
}}
passdb {{
  driver = static
  args = nopassword=y
  username_filter = *@dovecot.test !unknown@* !later@*
}}
# Here is nobody. Who is not even looked up here may be somebody, later.
passdb {{
  driver = passwd-file
  args = {nobody}
  username_filter = !later@*
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  unix_listener {socket} {{
    mode = 0600
  }}
}}
# An ordinary user cannot have these.
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"
            ),
        );
        let config = house.name("dovecot.conf");
        let housed = house.start(
            &["dovecot", "dovenull"],
            &["/usr/sbin/dovecot", "-F", "-c", &config],
        );
        Self {
            housed: housed.await_greeting("mx.dovecot.test"),
        }
    }

    /// Its UNIX socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.housed.house().path("lmtp")
    }
}

/// What all of them have.
pub(crate) trait NextHop {
    fn housed(&self) -> &Housed;

    /// Where it listens.
    fn address(&self) -> SocketAddr {
        self.housed().house().address()
    }

    /// What it has delivered so far, in no promised order.
    fn messages(&self) -> Vec<Arrived> {
        Arrived::all(&self.housed().house().path("mail"))
    }

    /// Waits for so many messages: Postfix and Exim say 250 before they deliver.
    fn await_messages(&self, count: usize) -> Vec<Arrived> {
        eventually("messages at the next hop", || {
            let messages = self.messages();
            (messages.len() >= count).then_some(messages)
        })
    }

    /// Its log so far.
    fn log(&self) -> Vec<String> {
        self.housed().log()
    }
}

impl NextHop for Postfix {
    fn housed(&self) -> &Housed {
        &self.housed
    }
}

impl NextHop for Exim {
    fn housed(&self) -> &Housed {
        &self.housed
    }
}

impl NextHop for Dovecot {
    fn housed(&self) -> &Housed {
        &self.housed
    }
}

impl House {
    /// Writes `cert.pem` with its `key.pem`, and `ca.pem`, who is trusted about clients.
    fn write_tls(&self, certificate: &Pair) {
        certificate.write(&self.path("cert.pem"), &self.path("key.pem"));
        let ca = Authority::shared().certificate_pem();
        self.write("ca.pem", &String::from_utf8(ca).unwrap());
    }
}

/// The directories of its queue, which `postfix check` would make.
const POSTFIX_QUEUES: [&str; 14] = [
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop",
    "pid", "private", "public", "saved", "trace",
];

/// The services that a message for a mailbox meets: name, kind, whether it is private, processes at
/// most, program.
const POSTFIX_SERVICES: [(&str, &str, &str, &str, &str); 13] = [
    ("cleanup", "unix", "n", "0", "cleanup"),
    ("qmgr", "unix", "n", "1", "qmgr"),
    ("postlog", "unix-dgram", "n", "1", "postlogd"),
    ("rewrite", "unix", "y", "-", "trivial-rewrite"),
    ("bounce", "unix", "y", "0", "bounce"),
    ("defer", "unix", "y", "0", "bounce"),
    ("trace", "unix", "y", "0", "bounce"),
    ("tlsmgr", "unix", "y", "1", "tlsmgr"),
    ("proxymap", "unix", "y", "-", "proxymap"),
    ("error", "unix", "y", "-", "error"),
    ("retry", "unix", "y", "-", "error"),
    ("virtual", "unix", "y", "-", "virtual"),
    ("anvil", "unix", "y", "1", "anvil"),
];
