//! What the `openssl` crate does not bind, or not as a safe call: ticket keys, chains by key, session
//! lifetime, group names, offering a ticket, a ticket's lifetime, a ticket without its handshake.
//!
//! The only `unsafe` of the TLS side. Every function here is safe to call; the pointers they pass on
//! come from the crate's own types, or from OpenSSL for the time of a callback.
//!
//! The ticket key ring lives in the context's ex data: the context owns an `Arc` of it and drops it
//! when OpenSSL frees the context, which is after the last `SSL` made from it is gone. So the callbacks,
//! which find the ring through their `SSL`, never see a ring that is gone.

use std::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_ulong, c_void};
use std::ptr;
use std::slice;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use foreign_types::{ForeignType, ForeignTypeRef};
use openssl::cipher_ctx::CipherCtx;
use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::pkey::{PKeyRef, Private};
use openssl::ssl::{SslContext, SslContextBuilder, SslRef, SslSessionRef};
use openssl::stack::StackRef;
use openssl::x509::{X509, X509Ref};
use openssl_sys as sys;

use super::tickets::{KEY_NAME_OCTETS, TicketKey, TicketKeyRing, unix_seconds};

/// What the callbacks about tickets need to know.
pub(super) struct Ticketing {
    /// The keys that protect tickets.
    pub(super) ring: Arc<TicketKeyRing>,
    /// How long after its full handshake a session may go on in ever fresh tickets.
    pub(super) session_seconds_max: u64,
}

/// Lets a context give tickets, and take them.
pub(super) fn set_ticketing(
    builder: &mut SslContextBuilder,
    ticketing: Ticketing,
) -> Result<(), ErrorStack> {
    builder.set_ex_data(ticketing_index()?, ticketing);
    // SAFETY: the builder's context is valid; the callbacks are functions, alive for ever, that use
    // no argument.
    let set = unsafe {
        SSL_CTX_set_session_ticket_cb(
            builder.as_ptr(),
            Some(ticket_made),
            Some(ticket_opened),
            ptr::null_mut(),
        )
    };
    if set != 1 {
        return Err(ErrorStack::get());
    }
    // SAFETY: the builder's context is valid; the callback is a function, alive for ever.
    let set = unsafe { SSL_CTX_set_tlsext_ticket_key_evp_cb(builder.as_ptr(), Some(ticket_key)) };
    if set == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

/// A session older than this is not resumed, and its ticket says so to the client.
pub(super) fn set_session_lifetime(builder: &mut SslContextBuilder, seconds: c_long) {
    // SAFETY: the builder's context is valid.
    let _previous = unsafe { SSL_CTX_set_timeout(builder.as_ptr(), seconds) };
}

/// Adds a certificate with the chain that goes with it alone, and its key. One for each key type: an RSA
/// and an ECDSA certificate in one context each keep their own chain, and OpenSSL chooses by what
/// the client can verify. (The crate's `add_extra_chain_cert` has one chain for all of them.)
pub(super) fn add_certificate(
    builder: &mut SslContextBuilder,
    leaf: &X509Ref,
    chain: &StackRef<X509>,
    key: &PKeyRef<Private>,
) -> Result<(), ErrorStack> {
    const OVERRIDE: c_int = 1;
    // SAFETY: all four are valid; OpenSSL takes references of its own on certificates and key.
    let used = unsafe {
        SSL_CTX_use_cert_and_key(
            builder.as_ptr(),
            leaf.as_ptr(),
            key.as_ptr(),
            chain.as_ptr(),
            OVERRIDE,
        )
    };
    if used == 1 {
        Ok(())
    } else {
        Err(ErrorStack::get())
    }
}

/// The group of the key exchange. (`SSL_get0_group_name` is only there from OpenSSL 3.2 on.)
pub(super) fn group_name(ssl: &SslRef) -> Option<&str> {
    const SSL_CTRL_GET_NEGOTIATED_GROUP: c_int = 134;
    // SAFETY: a query without an argument, of a valid `SSL`.
    let group = unsafe {
        sys::SSL_ctrl(
            ssl.as_ptr(),
            SSL_CTRL_GET_NEGOTIATED_GROUP,
            0,
            ptr::null_mut(),
        )
    };
    let group = c_int::try_from(group).ok().filter(|group| *group > 0)?;
    // SAFETY: a query of a valid `SSL`.
    let name = unsafe { SSL_group_to_name(ssl.as_ptr(), group) };
    if name.is_null() {
        return None;
    }
    // SAFETY: OpenSSL's names are static, or live as long as the context, which `ssl` keeps.
    unsafe { CStr::from_ptr(name) }.to_str().ok()
}

/// Gives back the memory of the peer's key share, once the handshake is over. OpenSSL keeps it as long as the
/// connection lives, to be asked about it: 6.7 KiB of 27 KiB an idle session under X25519MLKEM768.
///
/// There is no call for that, but to give the key, of which the `SSL` has a reference, another type empties
/// it first. No type is what is left then: OpenSSL calls that an error, yet an empty key of a real
/// type would be a trap for whoever asks it something. Nothing in OpenSSL uses it after the handshake
/// (renegotiation is off).
pub(super) fn release_key_share(ssl: &SslRef) {
    const EVP_PKEY_NONE: c_int = 0;
    let Ok(share) = ssl.peer_tmp_key() else {
        // There was none: TLS 1.2, or no exchange.
        return;
    };
    // SAFETY: the key is valid by our reference; this thread alone uses the `SSL` and so its key.
    let _failed = unsafe { EVP_PKEY_set_type(share.as_ptr(), EVP_PKEY_NONE) };
    // The error must not be taken for one of the next call.
    let _expected = ErrorStack::get();
}

/// Lets a client's connection offer a ticket it was given on an earlier one. The session must come from a
/// client, of the same context or of one with the same settings; otherwise the server refuses it.
pub fn offer_ticket(ssl: &mut SslRef, session: &SslSessionRef) -> Result<(), ErrorStack> {
    // SAFETY: the crate asks for a session of the same context because of the context's cache. OpenSSL
    // 3.x counts the references to a session and looks a session up in the cache before it
    // takes it out, so that one of another context is not mistaken for its own.
    unsafe { ssl.set_session(session) }
}

/// For tests: begins a renegotiation.
#[cfg(test)]
pub(super) fn renegotiate(ssl: &SslRef) {
    unsafe extern "C" {
        fn SSL_renegotiate(ssl: *mut sys::SSL) -> c_int;
    }
    // SAFETY: the `SSL` is valid, and nobody else uses it now.
    let begun = unsafe { SSL_renegotiate(ssl.as_ptr()) };
    assert_eq!(begun, 1);
}

/// How long the server told the client that this ticket is good, in seconds.
pub(super) fn lifetime_hint(session: &SslSessionRef) -> c_ulong {
    // SAFETY: a query of a valid session.
    unsafe { SSL_SESSION_get_ticket_lifetime_hint(session.as_ptr()) }
}

/// OpenSSL asks for the keys of a ticket: `encrypting` one, to write `name` and `iv`; else to find
/// the key of `name` (RFC 5077 §4).
///
/// Returns 1 or 2 for ready, where 2 asks for a fresh ticket, 0 for no key, -1 for failure.
extern "C" fn ticket_key(
    ssl: *mut sys::SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut sys::EVP_CIPHER_CTX,
    mac: *mut sys::EVP_MAC_CTX,
    encrypting: c_int,
) -> c_int {
    const FAILED: c_int = -1;
    const NO_KEY: c_int = 0;
    const READY: c_int = 1;
    const READY_AND_RENEW: c_int = 2;

    // SAFETY: OpenSSL calls with the `SSL` whose handshake runs, valid for the time of the call.
    let ssl = unsafe { SslRef::from_ptr(ssl) };
    let Some(Ticketing { ring, .. }) = ticketing(ssl) else {
        return FAILED;
    };
    if encrypting == 1 {
        match start_sealing(ring, name, iv, cipher, mac) {
            Started::Yes => READY,
            Started::NoKey | Started::Failed => FAILED,
        }
    } else {
        match start_opening(ring, name, iv, cipher, mac) {
            // Always renew: a client may use a ticket once (RFC 8446 §C.4), and would otherwise resume
            // only every second time.
            Started::Yes => READY_AND_RENEW,
            Started::NoKey => NO_KEY,
            Started::Failed => FAILED,
        }
    }
}

/// Whether cipher and MAC have the keys of a ticket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Started {
    Yes,
    NoKey,
    Failed,
}

/// Gives cipher and MAC the key that encrypts, and writes its name and an IV. All four are OpenSSL's for
/// one ticket, or [`seal`]'s.
fn start_sealing(
    ring: &TicketKeyRing,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut sys::EVP_CIPHER_CTX,
    mac: *mut sys::EVP_MAC_CTX,
) -> Started {
    let keys = ring.keys();
    let key = keys.encrypting();
    let mut octets = [0; IV_OCTETS];
    if openssl::rand::rand_bytes(&mut octets).is_err() {
        return Started::Failed;
    }
    // SAFETY: there is room for TLSEXT_KEYNAME_LENGTH (16) octets.
    unsafe { ptr::copy_nonoverlapping(key.name.as_ptr(), name, KEY_NAME_OCTETS) };
    // SAFETY: there is room for EVP_MAX_IV_LENGTH (16) octets.
    unsafe { ptr::copy_nonoverlapping(octets.as_ptr(), iv, IV_OCTETS) };
    if start_cipher(cipher, ring, key, iv, 1) && start_mac(mac, key) {
        Started::Yes
    } else {
        Started::Failed
    }
}

/// Gives cipher and MAC the key of this name. All four are OpenSSL's for one ticket, or [`open`]'s.
fn start_opening(
    ring: &TicketKeyRing,
    name: *const c_uchar,
    iv: *const c_uchar,
    cipher: *mut sys::EVP_CIPHER_CTX,
    mac: *mut sys::EVP_MAC_CTX,
) -> Started {
    let keys = ring.keys();
    // SAFETY: the callers have checked that the ticket is long enough for the name (and the IV).
    let name = unsafe { slice::from_raw_parts(name, KEY_NAME_OCTETS) };
    let Some(key) = keys.find(name) else {
        return Started::NoKey;
    };
    if start_cipher(cipher, ring, key, iv, 0) && start_mac(mac, key) {
        Started::Yes
    } else {
        Started::Failed
    }
}

/// A ticket around `session`, as OpenSSL makes one with the callback above (RFC 5077 §4): name, IV,
/// what is encrypted, MAC over all of it. For benches, that want a ticket without its handshake.
pub(super) fn seal(ring: &TicketKeyRing, session: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let mut cipher = CipherCtx::new()?;
    let mac = Mac::new()?;
    let (mut name, mut iv) = ([0; KEY_NAME_OCTETS], [0; IV_OCTETS]);
    let (into_name, into_iv) = (name.as_mut_ptr(), iv.as_mut_ptr());
    if start_sealing(ring, into_name, into_iv, cipher.as_ptr(), mac.0) != Started::Yes {
        return Err(ErrorStack::get());
    }
    let mut ticket = [name, iv].concat();
    cipher.cipher_update_vec(session, &mut ticket)?;
    cipher.cipher_final_vec(&mut ticket)?;
    let tag = mac.over(&ticket)?;
    ticket.extend_from_slice(&tag);
    Ok(ticket)
}

/// The session in `ticket`; nothing if no key of the ring made it as it is. The counterpart of [`seal`], in
/// OpenSSL's order: the MAC comes before the cipher.
pub(super) fn open(ring: &TicketKeyRing, ticket: &[u8]) -> Result<Option<Vec<u8>>, ErrorStack> {
    let Some((sealed, tag)) = ticket.split_last_chunk::<MAC_OCTETS>() else {
        return Ok(None);
    };
    let Some((name, rest)) = sealed.split_first_chunk::<KEY_NAME_OCTETS>() else {
        return Ok(None);
    };
    let Some((iv, encrypted)) = rest.split_first_chunk::<IV_OCTETS>() else {
        return Ok(None);
    };
    let mut cipher = CipherCtx::new()?;
    let mac = Mac::new()?;
    match start_opening(ring, name.as_ptr(), iv.as_ptr(), cipher.as_ptr(), mac.0) {
        Started::Yes => {}
        Started::NoKey => return Ok(None),
        Started::Failed => return Err(ErrorStack::get()),
    }
    if !openssl::memcmp::eq(&mac.over(sealed)?, tag) {
        return Ok(None);
    }
    let mut session = Vec::new();
    cipher.cipher_update_vec(encrypted, &mut session)?;
    cipher.cipher_final_vec(&mut session)?;
    Ok(Some(session))
}

/// An HMAC under way, which [`start_mac`] gives its key. The `openssl` crate has no such context.
struct Mac(*mut sys::EVP_MAC_CTX);

impl Mac {
    fn new() -> Result<Mac, ErrorStack> {
        // SAFETY: the name is a C string; null stands for the default context and no properties.
        let hmac = unsafe { sys::EVP_MAC_fetch(ptr::null_mut(), c"HMAC".as_ptr(), ptr::null()) };
        if hmac.is_null() {
            return Err(ErrorStack::get());
        }
        // SAFETY: it is valid.
        let context = unsafe { sys::EVP_MAC_CTX_new(hmac) };
        // SAFETY: it is ours; the context, if there is one, has a reference of its own.
        unsafe { sys::EVP_MAC_free(hmac) };
        if context.is_null() {
            return Err(ErrorStack::get());
        }
        Ok(Mac(context))
    }

    fn over(&self, octets: &[u8]) -> Result<[u8; MAC_OCTETS], ErrorStack> {
        let mut tag = [0; MAC_OCTETS];
        let mut tag_octets = 0;
        // SAFETY: the context is ours, and OpenSSL only reads so many octets.
        let mut done = unsafe { sys::EVP_MAC_update(self.0, octets.as_ptr(), octets.len()) };
        if done == 1 {
            let room = tag.len();
            // SAFETY: the context is ours; OpenSSL writes to `tag`, which has that room, and its length.
            done =
                unsafe { sys::EVP_MAC_final(self.0, tag.as_mut_ptr(), &raw mut tag_octets, room) };
        }
        if done == 1 && tag_octets == MAC_OCTETS {
            Ok(tag)
        } else {
            Err(ErrorStack::get())
        }
    }
}

impl Drop for Mac {
    fn drop(&mut self) {
        // SAFETY: the context is ours, and this is its last use.
        unsafe { sys::EVP_MAC_CTX_free(self.0) };
    }
}

fn start_cipher(
    context: *mut sys::EVP_CIPHER_CTX,
    ring: &TicketKeyRing,
    key: &TicketKey,
    iv: *const c_uchar,
    encrypting: c_int,
) -> bool {
    // SAFETY: the context is OpenSSL's for this ticket; key and IV have the cipher's length (32 and
    // 16 octets); the cipher lives in the ring, which the caller borrows.
    let started = unsafe {
        sys::EVP_CipherInit_ex(
            context,
            ring.cipher().as_ptr(),
            ptr::null_mut(),
            key.cipher_key.as_ptr(),
            iv,
            encrypting,
        )
    };
    started == 1
}

fn start_mac(context: *mut sys::EVP_MAC_CTX, key: &TicketKey) -> bool {
    let octet_string = |name: &CStr, data_type, data: *const u8, data_size| sys::OSSL_PARAM {
        key: name.as_ptr(),
        data_type,
        // OpenSSL only reads the parameters that are set.
        data: data.cast_mut().cast::<c_void>(),
        data_size,
        return_size: 0,
    };
    let digest = c"SHA256";
    let parameters = [
        octet_string(
            c"key",
            OSSL_PARAM_OCTET_STRING,
            key.mac_key.as_ptr(),
            key.mac_key.len(),
        ),
        octet_string(
            c"digest",
            OSSL_PARAM_UTF8_STRING,
            digest.as_ptr().cast::<u8>(),
            digest.count_bytes(),
        ),
        sys::OSSL_PARAM {
            key: ptr::null(),
            data_type: 0,
            data: ptr::null_mut(),
            data_size: 0,
            return_size: 0,
        },
    ];
    // SAFETY: the context is OpenSSL's for this ticket; the parameters end with the one without a
    // name and point to data that outlives the call, which copies them.
    let set = unsafe { sys::EVP_MAC_CTX_set_params(context, parameters.as_ptr()) };
    set == 1
}

/// OpenSSL is about to write a ticket: the time of the full handshake goes into it, once.
extern "C" fn ticket_made(ssl: *mut sys::SSL, _: *mut c_void) -> c_int {
    const FAILED: c_int = 0;
    const MADE: c_int = 1;
    // SAFETY: OpenSSL calls with the `SSL` whose handshake runs, valid for the time of the call.
    let session = unsafe { sys::SSL_get_session(ssl) };
    if session.is_null() {
        return FAILED;
    }
    if began(session).is_some() {
        // The ticket renews one that has it.
        return MADE;
    }
    let now = unix_seconds(SystemTime::now()).to_be_bytes();
    // SAFETY: the session is that of the `SSL`, which nobody else has; OpenSSL copies the octets.
    unsafe { SSL_SESSION_set1_ticket_appdata(session, now.as_ptr().cast::<c_void>(), now.len()) }
}

/// OpenSSL has tried to open a ticket: one that goes back to a full handshake too long ago leads to
/// another (RFC 8446 §4.6.1: fresh tickets alone would keep a session, and the word of a client's
/// certificate, for ever).
extern "C" fn ticket_opened(
    ssl: *mut sys::SSL,
    session: *mut sys::SSL_SESSION,
    _key_name: *const c_uchar,
    _key_name_octets: usize,
    status: c_int,
    _: *mut c_void,
) -> c_int {
    const SUCCESS: c_int = 5;
    const SUCCESS_RENEW: c_int = 6;
    const IGNORE_RENEW: c_int = 2;
    const USE_RENEW: c_int = 4;
    if !matches!(status, SUCCESS | SUCCESS_RENEW) || session.is_null() {
        return IGNORE_RENEW;
    }
    // SAFETY: OpenSSL calls with the `SSL` whose handshake runs, valid for the time of the call.
    let ssl = unsafe { SslRef::from_ptr(ssl) };
    let (Some(began), Some(ticketing)) = (began(session), ticketing(ssl)) else {
        return IGNORE_RENEW;
    };
    let age = unix_seconds(SystemTime::now()).saturating_sub(began);
    if age <= ticketing.session_seconds_max {
        USE_RENEW
    } else {
        IGNORE_RENEW
    }
}

/// When the full handshake was that a session goes back to, in seconds since 1970.
fn began(session: *mut sys::SSL_SESSION) -> Option<u64> {
    let mut data = ptr::null_mut::<c_void>();
    let mut octets = 0;
    // SAFETY: the callers' session is valid; OpenSSL writes to both places.
    let got = unsafe { SSL_SESSION_get0_ticket_appdata(session, &raw mut data, &raw mut octets) };
    if got != 1 || data.is_null() {
        return None;
    }
    // SAFETY: OpenSSL keeps so many octets there as long as nobody changes the session.
    let data = unsafe { slice::from_raw_parts(data.cast::<u8>(), octets) };
    Some(u64::from_be_bytes(data.try_into().ok()?))
}

/// What the context of this `SSL` was told by [`set_ticketing`].
fn ticketing(ssl: &SslRef) -> Option<&Ticketing> {
    ssl.ssl_context().ex_data(ticketing_index().ok()?)
}

/// Where a context keeps it.
fn ticketing_index() -> Result<Index<SslContext, Ticketing>, ErrorStack> {
    static INDEX: OnceLock<Index<SslContext, Ticketing>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    // Two threads may both get here: one index is then never used, which costs a word a context.
    let index = SslContext::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}

/// The IV of AES-CBC.
const IV_OCTETS: usize = 16;

/// What HMAC-SHA-256 gives.
const MAC_OCTETS: usize = 32;

/// `OSSL_PARAM_UTF8_STRING` of `openssl/core.h`.
const OSSL_PARAM_UTF8_STRING: u32 = 4;
/// `OSSL_PARAM_OCTET_STRING` of `openssl/core.h`.
const OSSL_PARAM_OCTET_STRING: u32 = 5;

type TicketKeyCallback = extern "C" fn(
    *mut sys::SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut sys::EVP_CIPHER_CTX,
    *mut sys::EVP_MAC_CTX,
    c_int,
) -> c_int;

type TicketMadeCallback = extern "C" fn(*mut sys::SSL, *mut c_void) -> c_int;

type TicketOpenedCallback = extern "C" fn(
    *mut sys::SSL,
    *mut sys::SSL_SESSION,
    *const c_uchar,
    usize,
    c_int,
    *mut c_void,
) -> c_int;

// All of OpenSSL 3.0 and later; as in `openssl/ssl.h` and `openssl/tls1.h`.
unsafe extern "C" {
    fn SSL_CTX_set_tlsext_ticket_key_evp_cb(
        context: *mut sys::SSL_CTX,
        callback: Option<TicketKeyCallback>,
    ) -> c_int;
    fn SSL_CTX_set_session_ticket_cb(
        context: *mut sys::SSL_CTX,
        made: Option<TicketMadeCallback>,
        opened: Option<TicketOpenedCallback>,
        argument: *mut c_void,
    ) -> c_int;
    fn SSL_SESSION_set1_ticket_appdata(
        session: *mut sys::SSL_SESSION,
        data: *const c_void,
        octets: usize,
    ) -> c_int;
    fn SSL_SESSION_get0_ticket_appdata(
        session: *mut sys::SSL_SESSION,
        data: *mut *mut c_void,
        octets: *mut usize,
    ) -> c_int;
    fn SSL_SESSION_get_ticket_lifetime_hint(session: *const sys::SSL_SESSION) -> c_ulong;
    fn SSL_CTX_set_timeout(context: *mut sys::SSL_CTX, seconds: c_long) -> c_long;
    fn SSL_CTX_use_cert_and_key(
        context: *mut sys::SSL_CTX,
        leaf: *mut sys::X509,
        key: *mut sys::EVP_PKEY,
        chain: *mut sys::stack_st_X509,
        replace: c_int,
    ) -> c_int;
    fn EVP_PKEY_set_type(key: *mut sys::EVP_PKEY, kind: c_int) -> c_int;
    fn SSL_group_to_name(ssl: *mut sys::SSL, group: c_int) -> *const c_char;
}
