//! OpenSSL contexts for the server's side, made of certificates and settings, and chosen by SNI.
//!
//! Every shard makes its own: a context and the keys in it have counters, and RSA keys a lock, that
//! shards would fight over. Only the ticket key ring is shared.
//!
//! Invariants:
//! - All certificates for one name, one of each key type, are in one context, so that OpenSSL picks by the
//!   signature algorithms of the client.
//! - A client that asks for no name, or for one that no certificate is for, gets the first certificate and
//!   those of other key types for the same names. A mail client often asks for the name of the
//!   mail domain, or for none; refusing it (RFC 6066 §3 allows both) would send its mail in clear.
//! - All contexts differ in certificates only: choosing one by name changes no policy.

use std::collections::HashMap;
use std::ffi::c_long;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::ssl::{
    self, NameType, SniError, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions,
    SslRef, SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::{X509, X509Name};

use super::failure::one_line;
use super::ffi::{self, Ticketing};
use super::material::{CertifiedKey, canonical_name, read_authorities};
use super::tickets::TicketKeyRing;

/// What an operator decides about TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// `--tls-min`
    pub min: MinVersion,
    /// `--tls-groups`: names with `:` between them, in OpenSSL's syntax. In [`DEFAULT_GROUPS`], and
    /// only there, a group that the linked OpenSSL does not have is left out.
    pub groups: String,
    /// `--tls-ciphers`: TLS 1.2 ciphers and TLS 1.3 suites in one list; a kind that is not in the
    /// list keeps OpenSSL's default.
    pub ciphers: Option<String>,
    /// `--tls-tickets`: how many tickets a full TLS 1.3 handshake brings; 0: nothing is resumed.
    pub tickets: usize,
    /// `--ticket-lifetime`: how long a ticket is good; the ring is made with the same.
    pub ticket_lifetime: Duration,
    /// `--client-cert`
    pub client_cert: ClientCert,
    /// `--client-ca`
    pub client_ca: Option<PathBuf>,
}

/// The lowest version of TLS that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Whether a client is asked for its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCert {
    /// It is not asked.
    None,
    /// It is asked. Without one the handshake goes on; with one that no CA of `--client-ca` vouches for it
    /// goes on too, and [`super::Facts`] tells it.
    Request,
    /// It must present one that a CA of `--client-ca` vouches for.
    Require,
}

/// Group names of the default list, in order of preference.
pub const DEFAULT_GROUPS: &str = "X25519MLKEM768:X25519:P-256:P-384";

impl Default for TlsSettings {
    fn default() -> TlsSettings {
        TlsSettings {
            min: MinVersion::Tls12,
            groups: DEFAULT_GROUPS.to_owned(),
            ciphers: None,
            tickets: 1,
            ticket_lifetime: Duration::from_secs(12 * 3600),
            client_cert: ClientCert::None,
            client_ca: None,
        }
    }
}

/// Why contexts cannot be made, or a connection cannot go on. One line.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// There is no certificate to present.
    #[error("there is no certificate")]
    NoCertificate,
    /// OpenSSL does not take a certificate, by its security level for one.
    #[error("cannot use certificate {}: {reason}", path.display())]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// OpenSSL's reason.
        reason: String,
    },
    /// A group that the linked OpenSSL does not have.
    #[error("--tls-groups {groups}: the linked OpenSSL has no group \"{group}\"")]
    Group {
        /// The whole value.
        groups: String,
        /// The part that is at fault.
        group: String,
    },
    /// A cipher that the linked OpenSSL does not have, or does not allow.
    #[error("--tls-ciphers {ciphers}: the linked OpenSSL has no cipher \"{cipher}\"")]
    Cipher {
        /// The whole value.
        ciphers: String,
        /// The part that is at fault.
        cipher: String,
    },
    /// Nobody could be let in.
    #[error("--client-cert require needs --client-ca FILE")]
    ClientCaMissing,
    /// The file of CAs cannot be used.
    #[error("--client-ca {}: {reason}", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A next hop that nothing can be asked of: neither a host name nor an address.
    #[error("\"{}\" is not a host name", .0.escape_debug())]
    PeerName(Box<str>),
    /// OpenSSL failed at something that should not fail.
    #[error("cannot {doing}: {reason}")]
    OpenSsl {
        /// What we were doing.
        doing: &'static str,
        /// OpenSSL's reason.
        reason: String,
    },
}

impl TlsError {
    pub(super) fn openssl(doing: &'static str) -> impl Fn(ErrorStack) -> TlsError {
        move |error| TlsError::OpenSsl {
            doing,
            reason: one_line(&error),
        }
    }
}

/// The contexts of one shard.
#[derive(Clone)]
pub struct ServerContexts {
    /// Every connection starts with this one; its SNI callback knows the others.
    first: SslContext,
    client_cert: ClientCert,
}

impl ServerContexts {
    /// Makes a shard's contexts. The keys are copied, so that no shard waits for another.
    pub fn build(
        pairs: &[CertifiedKey],
        settings: &TlsSettings,
        ring: Arc<TicketKeyRing>,
    ) -> Result<ServerContexts, TlsError> {
        ServerContexts::under(&Policy::resolve(settings, ring)?, pairs)
    }

    pub(super) fn under(
        policy: &Policy,
        pairs: &[CertifiedKey],
    ) -> Result<ServerContexts, TlsError> {
        let first_set = companions(pairs)?;

        // A set of certificates that serves several names is one context.
        let mut by_set: HashMap<Vec<usize>, SslContext> = HashMap::new();
        let mut by_name: HashMap<String, Choice> = HashMap::new();
        for name in pairs.iter().flat_map(|pair| &pair.names) {
            if by_name.contains_key(name) {
                continue;
            }
            let set = one_of_each_type(pairs, |pair| pair.names.contains(name));
            let choice = if set == first_set {
                // Not a handle of the first context: it would own itself and never go.
                Choice::First
            } else if let Some(context) = by_set.get(&set) {
                Choice::Other(context.clone())
            } else {
                let context = policy.context(pairs, &set)?.build();
                by_set.insert(set, context.clone());
                Choice::Other(context)
            };
            by_name.insert(name.clone(), choice);
        }

        let mut first = policy.context(pairs, &first_set)?;
        first.set_servername_callback(move |ssl, _alert| choose(ssl, &by_name));
        Ok(ServerContexts {
            first: first.build(),
            client_cert: policy.client_cert,
        })
    }

    pub(super) fn new_ssl(&self) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.first)?;
        ssl.set_accept_state();
        Ok(ssl)
    }

    pub(super) fn client_cert(&self) -> ClientCert {
        self.client_cert
    }
}

/// What a name leads to.
enum Choice {
    First,
    Other(SslContext),
}

fn choose(ssl: &mut SslRef, by_name: &HashMap<String, Choice>) -> Result<(), SniError> {
    let Some(name) = ssl.servername(NameType::HOST_NAME).and_then(canonical_name) else {
        return Err(SniError::NOACK);
    };
    let found = by_name.get(&name).or_else(|| {
        // A wildcard stands for one label, the first (RFC 6125 §6.4.3).
        let (_, rest) = name.split_once('.')?;
        by_name.get(&format!("*.{rest}"))
    });
    match found {
        None => Err(SniError::NOACK),
        Some(Choice::First) => Ok(()),
        Some(Choice::Other(context)) => ssl
            .set_ssl_context(context)
            .map_err(|_| SniError::ALERT_FATAL),
    }
}

/// The first pair, with the first of each other key type that shares a name with it.
fn companions(pairs: &[CertifiedKey]) -> Result<Vec<usize>, TlsError> {
    let first = pairs.first().ok_or(TlsError::NoCertificate)?;
    let mut set = one_of_each_type(pairs, |pair| {
        pair.names.iter().any(|name| first.names.contains(name))
    });
    // A certificate without any name shares none, not even with itself.
    if !set.contains(&0) {
        set.insert(0, 0);
    }
    Ok(set)
}

fn one_of_each_type(pairs: &[CertifiedKey], wanted: impl Fn(&CertifiedKey) -> bool) -> Vec<usize> {
    let mut types = Vec::new();
    let mut set = Vec::new();
    for (index, pair) in pairs.iter().enumerate() {
        if wanted(pair) && !types.contains(&pair.key_type) {
            types.push(pair.key_type);
            set.push(index);
        }
    }
    set
}

/// The settings with everything looked up that can fail or takes a file.
pub(super) struct Policy {
    min: SslVersion,
    groups: String,
    ciphers: Ciphers,
    tickets: usize,
    ticket_seconds: u64,
    /// How long after its full handshake a session may go on in ever fresh tickets.
    pub(super) session_seconds_max: u64,
    ring: Arc<TicketKeyRing>,
    client_cert: ClientCert,
    client_cas: Option<ClientCas>,
    /// See [`session_id_context`].
    session_id_context: [u8; 32],
}

struct ClientCas {
    certificates: Vec<X509>,
}

impl Policy {
    pub(super) fn resolve(
        settings: &TlsSettings,
        ring: Arc<TicketKeyRing>,
    ) -> Result<Policy, TlsError> {
        if settings.client_cert == ClientCert::Require && settings.client_ca.is_none() {
            return Err(TlsError::ClientCaMissing);
        }
        let client_cas = match (&settings.client_ca, settings.client_cert) {
            // The file is read even if nobody is asked for a certificate: a wrong flag is told.
            (Some(path), _) => Some(ClientCas::read(path)?),
            (None, _) => None,
        };
        let ticket_seconds = settings
            .ticket_lifetime
            .min(TICKET_LIFETIME_MAX)
            .as_secs()
            .max(1);
        Ok(Policy {
            min: match settings.min {
                MinVersion::Tls12 => SslVersion::TLS1_2,
                MinVersion::Tls13 => SslVersion::TLS1_3,
            },
            groups: usable_groups(&settings.groups)?,
            ciphers: match &settings.ciphers {
                Some(ciphers) => Ciphers::parse(ciphers)?,
                None => Ciphers::default(),
            },
            tickets: settings.tickets,
            ticket_seconds,
            // A certificate must be shown again as often as a ticket would expire unused.
            session_seconds_max: match settings.client_cert {
                ClientCert::None => SESSION_SECONDS_MAX,
                ClientCert::Request | ClientCert::Require => ticket_seconds,
            },
            ring,
            client_cert: settings.client_cert,
            session_id_context: session_id_context(settings.client_cert, client_cas.as_ref())?,
            client_cas,
        })
    }

    fn context(
        &self,
        pairs: &[CertifiedKey],
        set: &[usize],
    ) -> Result<SslContextBuilder, TlsError> {
        const DOING: &str = "set up a TLS context";
        let mut builder = self
            .without_certificates()
            .map_err(TlsError::openssl(DOING))?;
        for pair in set.iter().filter_map(|index| pairs.get(*index)) {
            add_copy(&mut builder, pair).map_err(|error| TlsError::Certificate {
                path: pair.certificate_path.clone(),
                reason: one_line(&error),
            })?;
        }
        Ok(builder)
    }

    fn without_certificates(&self) -> Result<SslContextBuilder, ErrorStack> {
        let mut builder = SslContextBuilder::new(SslMethod::tls_server())?;
        builder.set_min_proto_version(Some(self.min))?;
        builder.set_groups_list(&self.groups)?;
        if let Some(list) = &self.ciphers.tls12 {
            builder.set_cipher_list(list)?;
        }
        if let Some(list) = &self.ciphers.tls13 {
            builder.set_ciphersuites(list)?;
        }
        builder.set_options(
            SslOptions::NO_RENEGOTIATION
                | SslOptions::NO_COMPRESSION
                | SslOptions::CIPHER_SERVER_PREFERENCE
                // A client that puts ChaCha20 first has no AES in hardware.
                | SslOptions::PRIORITIZE_CHACHA,
        );
        // An idle session keeps no record buffer (34 KiB less). Without NO_AUTO_CHAIN OpenSSL would look
        // for a chain among the client CAs in every handshake.
        builder.set_mode(SslMode::RELEASE_BUFFERS | SslMode::NO_AUTO_CHAIN);
        builder.set_read_ahead(false);

        self.set_resumption(&mut builder)?;
        self.set_client_cert(&mut builder)?;
        Ok(builder)
    }

    fn set_resumption(&self, builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        // Tickets only: nothing about a session is kept here.
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_session_id_context(&self.session_id_context)?;
        builder.set_num_tickets(self.tickets)?;
        if self.tickets == 0 {
            builder.set_options(SslOptions::NO_TICKET);
            return Ok(());
        }
        let seconds = c_long::try_from(self.ticket_seconds).unwrap_or(c_long::MAX);
        ffi::set_session_lifetime(builder, seconds);
        ffi::set_ticketing(
            builder,
            Ticketing {
                ring: Arc::clone(&self.ring),
                session_seconds_max: self.session_seconds_max,
            },
        )
    }

    fn set_client_cert(&self, builder: &mut SslContextBuilder) -> Result<(), ErrorStack> {
        match self.client_cert {
            ClientCert::None => {
                builder.set_verify(SslVerifyMode::NONE);
                return Ok(());
            }
            // Whatever is wrong with the certificate is kept as the result of the verification.
            ClientCert::Request => {
                builder.set_verify_callback(SslVerifyMode::PEER, |_good, _chain| true);
            }
            ClientCert::Require => {
                builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
            }
        }
        builder.set_verify_depth(CHAIN_DEPTH_MAX);
        if let Some(cas) = &self.client_cas {
            // The names tell the client which of its certificates we can use.
            let mut names = Stack::<X509Name>::new()?;
            for ca in &cas.certificates {
                names.push(ca.subject_name().to_owned()?)?;
            }
            builder.set_client_ca_list(names);
            builder.set_cert_store(cas.store()?);
        }
        Ok(())
    }
}

/// Adds copies, not references: reference counts and the blinding of an RSA key are points where
/// shards would meet.
pub(super) fn add_copy(
    builder: &mut SslContextBuilder,
    pair: &CertifiedKey,
) -> Result<(), ErrorStack> {
    let leaf = X509::from_der(&pair.leaf.to_der()?)?;
    let key = PKey::private_key_from_der(&pair.key.private_key_to_der()?)?;
    let mut chain = Stack::<X509>::new()?;
    for certificate in &pair.chain {
        chain.push(X509::from_der(&certificate.to_der()?)?)?;
    }
    ffi::add_certificate(builder, &leaf, &chain, &key)
}

impl ClientCas {
    fn read(path: &Path) -> Result<ClientCas, TlsError> {
        let fault = |reason: String| TlsError::ClientCa {
            path: path.to_owned(),
            reason,
        };
        let certificates = read_authorities(path).map_err(fault)?;
        Ok(ClientCas { certificates })
    }

    fn store(&self) -> Result<X509Store, ErrorStack> {
        let mut store = X509StoreBuilder::new()?;
        for certificate in &self.certificates {
            store.add_cert(certificate.clone())?;
        }
        Ok(store.build())
    }
}

/// The session id context ties a ticket to the policy it was given under: a session that began without a
/// client certificate, or with one of another CA, must not be resumed past `--client-cert require`.
fn session_id_context(
    client_cert: ClientCert,
    cas: Option<&ClientCas>,
) -> Result<[u8; 32], TlsError> {
    const DOING: &str = "hash the client CAs";
    let mut octets = b"ringpost ".to_vec();
    octets.push(match client_cert {
        ClientCert::None => b'n',
        ClientCert::Request => b'o',
        ClientCert::Require => b'r',
    });
    for certificate in cas.iter().flat_map(|cas| &cas.certificates) {
        octets.extend(certificate.to_der().map_err(TlsError::openssl(DOING))?);
    }
    let digest =
        openssl::hash::hash(MessageDigest::sha256(), &octets).map_err(TlsError::openssl(DOING))?;
    <[u8; 32]>::try_from(&*digest).map_err(|_| TlsError::OpenSsl {
        doing: DOING,
        reason: "SHA-256 is not 32 octets long".to_owned(),
    })
}

/// The list as OpenSSL will take it.
pub(super) fn usable_groups(groups: &str) -> Result<String, TlsError> {
    let mut scratch = SslContextBuilder::new(SslMethod::tls_server())
        .map_err(TlsError::openssl("set up a TLS context"))?;
    let mut known = |list: &str| scratch.set_groups_list(list).is_ok();
    if !groups.is_empty() && known(groups) {
        return Ok(groups.to_owned());
    }
    let (usable, unknown): (Vec<&str>, Vec<&str>) = groups
        .split(':')
        .partition(|group| !group.is_empty() && known(group));
    if groups == DEFAULT_GROUPS && !usable.is_empty() {
        return Ok(usable.join(":"));
    }
    Err(TlsError::Group {
        groups: groups.to_owned(),
        // Where each is known alone, it is the list as a whole that OpenSSL does not like.
        group: unknown.first().copied().unwrap_or(groups).to_owned(),
    })
}

/// Ciphers in the two lists that OpenSSL has.
#[derive(Default)]
struct Ciphers {
    tls12: Option<String>,
    tls13: Option<String>,
}

impl Ciphers {
    fn parse(ciphers: &str) -> Result<Ciphers, TlsError> {
        let mut scratch = SslContextBuilder::new(SslMethod::tls_server())
            .map_err(TlsError::openssl("set up a TLS context"))?;
        let mut tls12 = Vec::new();
        let mut tls13 = Vec::new();
        let elements = ciphers
            .split(|c: char| c == ':' || c == ',' || c.is_whitespace())
            .filter(|element| !element.is_empty());
        for element in elements {
            // OpenSSL passes over what it does not know, and a typing error would open or close
            // more than is meant: so each is tried alone.
            let known = if element.starts_with("TLS_") && !element.contains("_WITH_") {
                tls13.push(element);
                scratch.set_ciphersuites(element).is_ok()
            } else {
                // The registry's names of TLS 1.2 ciphers have a WITH in them.
                let name = match ssl::cipher_name(element) {
                    "(NONE)" => element,
                    name => name,
                };
                tls12.push(name);
                // `!RC4`, `+AES` and `@SECLEVEL=2` change a list and are none.
                element.starts_with(['!', '-', '+', '@']) || scratch.set_cipher_list(name).is_ok()
            };
            if !known {
                return Err(TlsError::Cipher {
                    ciphers: ciphers.to_owned(),
                    cipher: element.to_owned(),
                });
            }
        }
        let list = |elements: Vec<&str>| (!elements.is_empty()).then(|| elements.join(":"));
        let parsed = Ciphers {
            tls12: list(tls12),
            tls13: list(tls13),
        };
        // Each is known, but together they may cancel out (`HIGH:!HIGH`).
        let together = parsed
            .tls12
            .as_ref()
            .is_none_or(|list| scratch.set_cipher_list(list).is_ok());
        if !together || (parsed.tls12.is_none() && parsed.tls13.is_none()) {
            return Err(TlsError::Cipher {
                ciphers: ciphers.to_owned(),
                cipher: ciphers.to_owned(),
            });
        }
        Ok(parsed)
    }
}

/// RFC 8446 §4.6.1: a ticket's lifetime is at most seven days.
const TICKET_LIFETIME_MAX: Duration = Duration::from_secs(7 * 86_400);

/// How long a session goes on in ever fresh tickets before a full handshake is due again. RFC 8446 §4.6.1
/// recommends a limit and names none; this is the one it has for a ticket.
const SESSION_SECONDS_MAX: u64 = 7 * 86_400;

/// The peer's own, two intermediates, root: real chains are not longer.
pub(super) const CHAIN_DEPTH_MAX: u32 = 8;
