//! The sending side's TLS: one context a shard, what it verifies, and the sessions it can resume.
//!
//! Invariants:
//! - A next hop is verified in every full handshake, its name too. The settings decide only whether the
//!   handshake fails by that; the reason is the same either way, the first thing that was found.
//! - A session is offered only to the name it was made with, under the same key, and by the context that made it. So
//!   it never gets past another verification, and facts tell of a resumed session what its first handshake found.
//! - An address is verified as an address, and nothing is asked for in its place (RFC 6066 §3).
//!
//! It does not ask whether a certificate was revoked: no answer to that question comes in time, or at all,
//! from most authorities, and a mail server that waited for one would stall.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef, SslSession,
    SslSessionCacheMode, SslVerifyMode, SslVersion,
};
use openssl::x509::X509StoreContextRef;
use openssl::x509::verify::X509CheckFlags;
use openssl_probe::ProbeResult;

use super::anchors::Anchors;
use super::context::{
    CHAIN_DEPTH_MAX, DEFAULT_GROUPS, MinVersion, TlsError, add_copy, usable_groups,
};
use super::failure::one_line;
use super::ffi;
use super::material::{CERTIFICATE, CertifiedKey, MaterialError, canonical_name};
use super::sessions::{Kept, Sessions};
use super::tickets::unix_seconds;

/// What an operator decides about TLS towards next hops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// `--out-verify`
    pub verify: Verify,
    /// `--out-cert`, `--out-key`: what is shown to a next hop that asks.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// `--out-ca`: the trust anchors; none: the system's.
    pub ca: Option<PathBuf>,
    /// The lowest version that is taken.
    pub min: MinVersion,
    /// Groups in OpenSSL's syntax.
    pub groups: String,
}

/// Whether a next hop must prove its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// A handshake with a next hop that does not fails.
    Yes,
    /// Whether it did is told, and changes nothing.
    No,
}

impl Default for ClientSettings {
    fn default() -> ClientSettings {
        ClientSettings {
            verify: Verify::No,
            certificate: None,
            ca: None,
            min: MinVersion::Tls12,
            groups: DEFAULT_GROUPS.to_owned(),
        }
    }
}

/// Why the sending side's files cannot be used. One line, naming flag and file.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// The certificate that is shown, or its key.
    #[error("{flag}: {source}")]
    Certificate {
        /// `--out-cert` or `--out-key`.
        flag: &'static str,
        /// What is wrong, and in which file.
        source: MaterialError,
    },
    /// The trust anchors.
    #[error("--out-ca {}: {reason}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody could be verified.
    #[error("--out-verify yes needs --out-ca FILE here: no trust anchors of the system are found")]
    NoAnchors,
}

impl ClientTlsError {
    /// The flag to change, with its dashes.
    pub fn flag(&self) -> &'static str {
        match self {
            ClientTlsError::Certificate { flag, .. } => flag,
            ClientTlsError::Ca { .. } => "--out-ca",
            ClientTlsError::NoAnchors => "--out-verify",
        }
    }
}

/// What was read from files: by the control thread, once and at each reload. The shards' contexts are made of it.
#[derive(Clone, Debug)]
pub struct ClientMaterial {
    verify: Verify,
    min: MinVersion,
    groups: String,
    certificate: Option<CertifiedKey>,
    anchors: Anchors,
}

impl ClientMaterial {
    /// Reads what the settings name. That the system has no trust anchors matters only where a next hop must
    /// be verified: otherwise it is what every handshake will tell.
    pub fn read(settings: &ClientSettings) -> Result<ClientMaterial, ClientTlsError> {
        ClientMaterial::read_on(settings, openssl_probe::probe)
    }

    /// On a system that keeps its trust anchors in these places.
    fn read_on(
        settings: &ClientSettings,
        places: impl FnOnce() -> ProbeResult,
    ) -> Result<ClientMaterial, ClientTlsError> {
        let certificate = match &settings.certificate {
            Some((certificate, key)) => {
                Some(CertifiedKey::load(certificate, key).map_err(|source| {
                    ClientTlsError::Certificate {
                        flag: flag_of(&source),
                        source,
                    }
                })?)
            }
            None => None,
        };
        let anchors = match &settings.ca {
            Some(path) => Anchors::read(path).map_err(|reason| ClientTlsError::Ca {
                path: path.clone(),
                reason,
            })?,
            None => Anchors::of_system(&places()),
        };
        if settings.verify == Verify::Yes && anchors.count() == 0 {
            return Err(ClientTlsError::NoAnchors);
        }
        Ok(ClientMaterial {
            verify: settings.verify,
            min: settings.min,
            groups: settings.groups.clone(),
            certificate,
            anchors,
        })
    }

    /// The certificate that is shown to a next hop that asks.
    pub fn certificate(&self) -> Option<&CertifiedKey> {
        self.certificate.as_ref()
    }

    /// How many trust anchors there are.
    pub fn anchors(&self) -> usize {
        self.anchors.count()
    }
}

/// The flag that names the file at fault.
fn flag_of(error: &MaterialError) -> &'static str {
    match error {
        MaterialError::Unreadable { what, .. }
        | MaterialError::NotPem { what, .. }
        | MaterialError::Malformed { what, .. }
            if *what == CERTIFICATE =>
        {
            "--out-cert"
        }
        MaterialError::Unreadable { .. }
        | MaterialError::NotPem { .. }
        | MaterialError::Malformed { .. }
        | MaterialError::Encrypted { .. }
        | MaterialError::Mismatch { .. } => "--out-key",
    }
}

/// A next hop, as TLS knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    /// The host name connected to, or an address without brackets.
    pub name: Box<str>,
    /// What else a session depends on, such as the port and the login.
    pub key: Box<str>,
}

/// The context of one shard, and the sessions it can resume.
#[derive(Clone)]
pub struct ClientContext {
    context: SslContext,
    verify: Verify,
    /// The shard's own, so that nobody ever waits for the lock. There is one because OpenSSL's callbacks may
    /// be called by any thread, as far as their type can tell.
    sessions: Arc<Mutex<Sessions<SslSession>>>,
}

impl ClientContext {
    /// Makes a shard's context. Certificates and keys are copied, so that no shard waits for another.
    pub fn build(material: &ClientMaterial) -> Result<ClientContext, TlsError> {
        ClientContext::build_up_to(None, material)
    }

    /// With a highest version, which only tests have: whoever has TLS 1.3 shall use it.
    pub(super) fn build_up_to(
        max: Option<SslVersion>,
        material: &ClientMaterial,
    ) -> Result<ClientContext, TlsError> {
        const DOING: &str = "set up a TLS context";
        let groups = usable_groups(&material.groups)?;
        let mut builder = new_builder(material, &groups).map_err(TlsError::openssl(DOING))?;
        builder
            .set_max_proto_version(max)
            .map_err(TlsError::openssl(DOING))?;
        if let Some(pair) = &material.certificate {
            add_copy(&mut builder, pair).map_err(|error| TlsError::Certificate {
                path: pair.certificate_path.clone(),
                reason: one_line(&error),
            })?;
        }
        Ok(ClientContext {
            context: builder.build(),
            verify: material.verify,
            sessions: Arc::new(Mutex::new(Sessions::new())),
        })
    }

    /// A connection to `peer` that has yet to begin, with a session to resume if there is one.
    pub(super) fn new_ssl(&self, peer: &PeerName) -> Result<Ssl, TlsError> {
        let identity = Identity::of(&peer.name)?;
        self.ssl(&identity, &peer.key)
            .map_err(TlsError::openssl("start a TLS connection"))
    }

    fn ssl(&self, identity: &Identity, key: &str) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_connect_state();
        let parameters = ssl.param_mut();
        match identity {
            Identity::Name(name) => {
                parameters.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
                parameters.set_host(name)?;
                ssl.set_hostname(name)?;
            }
            Identity::Address(address) => parameters.set_ip(*address)?,
        }
        if self.verify == Verify::No {
            // Of one who need not prove anything a weak certificate or group is better than none (RFC 7435
            // §3): 1024 bits of RSA or DH do. What is told as verified stays what `Verify::Yes` takes.
            let level = ssl.security_level();
            ssl.set_security_level(level.min(WEAK_SECURITY_LEVEL));
            if let Ok(level) = i32::try_from(level) {
                ssl.param_mut().set_auth_level(level);
            }
            ssl.set_verify_callback(SslVerifyMode::PEER, go_on());
        }

        // Whatever the caller's key is, a session has only proved this name.
        let key = format!("{identity} {key}").into_boxed_str();
        let kept = locked(&self.sessions).take(&key, Instant::now());
        if let Some(kept) = &kept {
            ffi::offer_ticket(&mut ssl, &kept.session)?;
        }
        let origin = Origin {
            key,
            sessions: Arc::clone(&self.sessions),
            began: kept.map(|kept| kept.began),
        };
        ssl.set_ex_data(origin_index()?, origin);
        Ok(ssl)
    }

    /// How many sessions there are with `peer`, and when the newest of them expires.
    #[cfg(test)]
    pub(super) fn sessions(&self, peer: &PeerName) -> (usize, Option<Instant>) {
        let key = format!("{} {}", Identity::of(&peer.name).unwrap(), peer.key);
        let sessions = locked(&self.sessions);
        (sessions.count(&key), sessions.expiry(&key))
    }
}

fn new_builder(material: &ClientMaterial, groups: &str) -> Result<SslContextBuilder, ErrorStack> {
    let mut builder = SslContextBuilder::new(SslMethod::tls_client())?;
    builder.set_min_proto_version(Some(match material.min {
        MinVersion::Tls12 => SslVersion::TLS1_2,
        MinVersion::Tls13 => SslVersion::TLS1_3,
    }))?;
    // OpenSSL before 3.5 knows no asterisk.
    builder
        .set_groups_list(&with_key_shares(groups))
        .or_else(|_| builder.set_groups_list(groups))?;
    builder.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::NO_COMPRESSION);
    // An idle connection keeps no record buffer. Without NO_AUTO_CHAIN OpenSSL would look among the trust anchors
    // for a chain behind our own certificate, in every handshake.
    builder.set_mode(SslMode::RELEASE_BUFFERS | SslMode::NO_AUTO_CHAIN);
    builder.set_read_ahead(false);

    builder.set_verify(SslVerifyMode::PEER);
    builder.set_verify_depth(CHAIN_DEPTH_MAX);
    builder.set_cert_store(material.anchors.store()?);

    builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
    builder.set_new_session_callback(|ssl, session| keep(ssl, session));
    Ok(builder)
}

/// The list with a key share for its first group, and if that is a hybrid one for the first classic group
/// too. OpenSSL would send one alone, and a server that has no ML-KEM, as most have not yet, would ask for
/// another hello: a round trip, against 32 octets and 20 µs. A list in which the operator says such things
/// is left as it is.
fn with_key_shares(groups: &str) -> String {
    let is_hybrid = |group: &str| group.to_ascii_uppercase().contains("MLKEM");
    let first_is_hybrid = groups.split(':').next().is_some_and(is_hybrid);
    if groups.contains(['*', '/']) || !first_is_hybrid {
        return groups.to_owned();
    }
    let classic = groups.split(':').position(|group| !is_hybrid(group));
    let starred = groups.split(':').enumerate().map(|(index, group)| {
        if index == 0 || Some(index) == classic {
            format!("*{group}")
        } else {
            group.to_owned()
        }
    });
    starred.collect::<Vec<String>>().join(":")
}

/// What a next hop has to prove.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    Name(String),
    Address(IpAddr),
}

impl Identity {
    /// OpenSSL takes a name that begins with a dot for every name below it, and one with a NUL for its first
    /// part. An MX record can hold anything.
    fn of(name: &str) -> Result<Identity, TlsError> {
        if let Ok(address) = name.parse() {
            return Ok(Identity::Address(address));
        }
        canonical_name(name)
            .filter(|name| {
                let ldh = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
                !name.starts_with('.') && name.len() <= NAME_OCTETS_MAX && name.bytes().all(ldh)
            })
            .map(Identity::Name)
            .ok_or_else(|| TlsError::PeerName(name.into()))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Name(name) => formatter.write_str(name),
            Identity::Address(address) => write!(formatter, "{address}"),
        }
    }
}

/// Lets a handshake go on whatever is wrong with the certificate. OpenSSL would keep the last fault as the result,
/// which for an unknown CA is "unable to verify the first certificate"; the first is the one that a
/// handshake would fail with.
fn go_on() -> impl Fn(bool, &mut X509StoreContextRef) -> bool {
    let first_fault = OnceLock::new();
    move |good, chain| {
        if !good {
            let _ = first_fault.set(chain.error());
        }
        if let Some(fault) = first_fault.get() {
            chain.set_error(*fault);
        }
        true
    }
}

/// Where the sessions of a connection belong. The `SSL` has it.
struct Origin {
    key: Box<str>,
    sessions: Arc<Mutex<Sessions<SslSession>>>,
    /// When the full handshake of the session was that it offers.
    began: Option<Instant>,
}

/// The handshake is over: puts back a session of TLS 1.2 that was resumed, renewed or not. OpenSSL tells only of
/// those that are made by a full handshake, and of the tickets of TLS 1.3.
pub(super) fn resumed(ssl: &SslRef) {
    if ssl.session_reused()
        && ssl.version2() == Some(SslVersion::TLS1_2)
        && let Some(session) = ssl.session()
    {
        keep(ssl, session.to_owned());
    }
}

/// The handshake has failed: if the sessions had a part in it, the next one must do without.
pub(super) fn failed(ssl: &SslRef) {
    if let Some(origin) = origin(ssl) {
        locked(&origin.sessions).forget(&origin.key);
    }
}

/// Keeps a session that came on a connection of ours. On the server's side there is nothing to keep.
fn keep(ssl: &SslRef, session: SslSession) {
    let Some(origin) = origin(ssl) else {
        return;
    };
    let lifetime = lifetime(session.protocol_version(), ffi::lifetime_hint(&session));
    // One that was put back is not new.
    let received = u64::try_from(session.time()).unwrap_or(0);
    let age = Duration::from_secs(unix_seconds(SystemTime::now()).saturating_sub(received));

    let now = Instant::now();
    let began = origin.began.filter(|_| ssl.session_reused()).unwrap_or(now);
    let kept = Kept {
        began,
        expires: (now + lifetime.saturating_sub(age)).min(began + SESSION_AGE_MAX),
        octets: octets(ssl, &session),
        session,
    };
    locked(&origin.sessions).keep(&origin.key, kept);
}

/// How long a session is good by the server's word for its ticket, in seconds.
fn lifetime(version: SslVersion, hint: u64) -> Duration {
    if version == SslVersion::TLS1_2 && hint == 0 {
        // The server leaves it to us (RFC 5077 §3.3), or has a cache and no tickets. In TLS 1.3 a 0 is meant:
        // the ticket is not to be used (RFC 8446 §4.6.1).
        SESSION_AGE_MAX
    } else {
        Duration::from_secs(hint).min(SESSION_AGE_MAX)
    }
}

/// How large a session is: it keeps the server's chain too.
fn octets(ssl: &SslRef, session: &SslSession) -> usize {
    let chain = ssl.peer_cert_chain().into_iter().flatten();
    let chain = chain.map(|certificate| certificate.to_der().map_or(usize::MAX, |der| der.len()));
    let session = session.to_der().map_or(usize::MAX, |der| der.len());
    chain.fold(session, usize::saturating_add)
}

fn origin(ssl: &SslRef) -> Option<&Origin> {
    ssl.ex_data(origin_index().ok()?)
}

/// Where an `SSL` keeps it.
fn origin_index() -> Result<Index<Ssl, Origin>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, Origin>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    // Two threads may both get here: one index is then never used, which costs a word a connection.
    let index = Ssl::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}

fn locked(sessions: &Mutex<Sessions<SslSession>>) -> MutexGuard<'_, Sessions<SslSession>> {
    // A panic ends the process, and none can come from in between.
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a session goes on in ever fresh tickets before the certificate must be shown again: it may have expired,
/// or the name have gone to another. RFC 5246 §F.1.4 suggests a day.
const SESSION_AGE_MAX: Duration = Duration::from_secs(86_400);

/// OpenSSL's level of 80 bits, in place of the 112 that it asks for by itself.
const WEAK_SECURITY_LEVEL: u32 = 1;

/// RFC 1035 §2.3.4, without the last dot.
const NAME_OCTETS_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::tls::development::{self, make};

    #[test]
    fn what_a_next_hop_has_to_prove() {
        let long = format!("{}.test", "a.".repeat(124));
        let name = |name: &str| Some(Identity::Name(name.to_owned()));
        let address = |address: &str| Some(Identity::Address(address.parse().unwrap()));
        let table = [
            ("a name", "mx.test", name("mx.test")),
            ("upper case, dot at the end", "MX.Test.", name("mx.test")),
            ("one label", "localhost", name("localhost")),
            ("underscore", "a_b.test", name("a_b.test")),
            ("U-label", "bücher.test", name("xn--bcher-kva.test")),
            ("253 octets", &long, name(&long)),
            ("IPv4", "127.0.0.1", address("127.0.0.1")),
            ("IPv6", "::1", address("::1")),
            ("IPv6, long", "0:0:0:0:0:0:0:1", address("::1")),
            ("254 octets", &format!("a{long}"), None),
            ("nothing", "", None),
            ("the root", ".", None),
            ("every name below one", ".test", None),
            ("a wildcard", "*.test", None),
            ("NUL", "mx.test\0.evil.example", None),
            ("space", "mx test", None),
            ("line end", "mx.test\r\n", None),
            ("IPv6 in brackets", "[::1]", None),
            ("IPv6 with a zone", "fe80::1%lo", None),
        ];
        assert_eq!(long.len(), NAME_OCTETS_MAX);
        for (row, name, expected) in table {
            match (Identity::of(name), expected) {
                (Ok(identity), Some(expected)) => assert_eq!(identity, expected, "{row}"),
                (Err(error), None) => {
                    let text = error.to_string();
                    assert!(text.ends_with("is not a host name"), "{row}: {text}");
                    assert!(!text.contains(char::is_control), "{row}: {text:?}");
                }
                (got, expected) => panic!("{row}: {got:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn key_shares_for_a_hybrid_and_a_classic_group() {
        let table = [
            (DEFAULT_GROUPS, "*X25519MLKEM768:*X25519:P-256:P-384"),
            (
                "SecP256r1MLKEM768:X25519MLKEM768:P-256",
                "*SecP256r1MLKEM768:X25519MLKEM768:*P-256",
            ),
            ("X25519MLKEM768", "*X25519MLKEM768"),
            ("X25519:X25519MLKEM768", "X25519:X25519MLKEM768"),
            ("P-256", "P-256"),
            ("X25519MLKEM768:*P-256", "X25519MLKEM768:*P-256"),
            ("X25519MLKEM768/P-256", "X25519MLKEM768/P-256"),
        ];
        for (groups, expected) in table {
            assert_eq!(with_key_shares(groups), expected, "{groups}");
        }
    }

    fn nowhere() -> ProbeResult {
        ProbeResult {
            cert_file: None,
            cert_dir: Vec::new(),
        }
    }

    #[test]
    fn what_is_read() {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path(), &["mx.test"]).unwrap();
        let at = |name: &str| directory.path().join(name);
        let ca = at(development::CA_CERTIFICATE);
        let pair = (
            at(development::CLIENT_CERTIFICATE),
            at(development::CLIENT_KEY),
        );
        let somewhere = || ProbeResult {
            cert_file: Some(ca.clone()),
            cert_dir: Vec::new(),
        };
        // Each row: verify, --out-ca, the system's; how many anchors, none: an error.
        let table = [
            ("named", Verify::Yes, true, false, Some(1)),
            ("the system's", Verify::Yes, false, true, Some(1)),
            ("neither", Verify::Yes, false, false, None),
            ("neither, and no need", Verify::No, false, false, Some(0)),
            ("the system's, no need", Verify::No, false, true, Some(1)),
        ];
        for (name, verify, named, system, expected) in table {
            let settings = ClientSettings {
                verify,
                certificate: Some(pair.clone()),
                ca: named.then(|| ca.clone()),
                ..ClientSettings::default()
            };
            let places = || match (named, system) {
                (true, _) => panic!("{name}: the system is not asked"),
                (false, true) => somewhere(),
                (false, false) => nowhere(),
            };
            match (ClientMaterial::read_on(&settings, places), expected) {
                (Ok(material), Some(anchors)) => {
                    assert_eq!(material.anchors(), anchors, "{name}");
                    let shown = material.certificate().unwrap();
                    assert_eq!(shown.certificate_path, pair.0, "{name}");
                    ClientContext::build(&material).unwrap();
                }
                (Err(error), None) => {
                    assert_eq!(error.flag(), "--out-verify", "{name}");
                    assert!(error.to_string().starts_with("--out-verify yes"), "{error}");
                }
                (got, expected) => panic!("{name}: {got:?}, expected {expected:?}"),
            }
        }
        // Whatever this machine has, nobody need be verified.
        ClientMaterial::read(&ClientSettings::default()).unwrap();
    }

    #[test]
    fn each_fault_is_one_line_that_names_flag_and_file() {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path(), &["mx.test"]).unwrap();
        let at = |name: &str| directory.path().join(name);
        let put = |name: &str, octets: &[u8]| {
            fs::write(at(name), octets).unwrap();
            at(name)
        };
        let rubbish = put("rubbish", b"rubbish");
        let broken = put(
            "broken",
            b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        );
        let certificate = at(development::CLIENT_CERTIFICATE);
        let key = at(development::CLIENT_KEY);
        let ca = at(development::CA_CERTIFICATE);
        let missing = at("missing");
        let table: [(&str, &Path, &Path, &Path, &str, &Path); 8] = [
            (
                "no certificate",
                &missing,
                &key,
                &ca,
                "--out-cert",
                &missing,
            ),
            ("no PEM", &rubbish, &key, &ca, "--out-cert", &rubbish),
            ("broken", &broken, &key, &ca, "--out-cert", &broken),
            ("no key", &certificate, &missing, &ca, "--out-key", &missing),
            (
                "another's key",
                &certificate,
                &at(development::SERVER_RSA_KEY),
                &ca,
                "--out-key",
                &at(development::SERVER_RSA_KEY),
            ),
            (
                "no bundle",
                &certificate,
                &key,
                &missing,
                "--out-ca",
                &missing,
            ),
            (
                "empty bundle",
                &certificate,
                &key,
                &rubbish,
                "--out-ca",
                &rubbish,
            ),
            (
                "broken bundle",
                &certificate,
                &key,
                &broken,
                "--out-ca",
                &broken,
            ),
        ];
        for (name, certificate, key, ca, flag, file) in table {
            for verify in [Verify::No, Verify::Yes] {
                let settings = ClientSettings {
                    verify,
                    certificate: Some((certificate.to_owned(), key.to_owned())),
                    ca: Some(ca.to_owned()),
                    ..ClientSettings::default()
                };
                let error = ClientMaterial::read_on(&settings, nowhere).unwrap_err();
                let text = error.to_string();
                assert_eq!(error.flag(), flag, "{name}");
                assert!(text.starts_with(flag), "{name}: {text}");
                assert!(text.contains(file.to_str().unwrap()), "{name}: {text}");
                assert!(!text.contains(char::is_control), "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn how_long_a_session_is_good() {
        let (v2, v3) = (SslVersion::TLS1_2, SslVersion::TLS1_3);
        let table = [
            ("a second", v2, 1, 1),
            ("a second", v3, 1, 1),
            ("a day", v3, 86_400, 86_400),
            ("a day and a second", v2, 86_401, 86_400),
            ("a day and a second", v3, 86_401, 86_400),
            ("all there is", v3, u64::MAX, 86_400),
            ("nothing", v2, 0, 86_400),
            ("nothing", v3, 0, 0),
        ];
        for (name, version, hint, expected) in table {
            let expected = Duration::from_secs(expected);
            assert_eq!(lifetime(version, hint), expected, "{version:?}, {name}");
        }
    }

    #[test]
    fn a_group_that_is_none_is_named() {
        let settings = ClientSettings {
            groups: "X25519:nonsense".to_owned(),
            ..ClientSettings::default()
        };
        let material = ClientMaterial::read_on(&settings, nowhere).unwrap();
        let error = ClientContext::build(&material).err().unwrap();
        assert!(error.to_string().contains("\"nonsense\""), "{error}");
    }
}
