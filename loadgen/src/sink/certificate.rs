//! The TLS context of a sink, and a certificate for one that was given none.
//!
//! Session tickets are OpenSSL's own: one context serves all threads, so that a ticket of one is
//! good on another. Sessions are not kept beside them, which would take a lock shared by all.

use std::path::Path;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslContext, SslFiletype, SslMethod, SslMode, SslSessionCacheMode, SslVersion};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

use super::StartError;

/// A context with the certificate chain and key of these files, or with a self-signed certificate for
/// `localhost`.
pub(super) fn context(files: Option<(&Path, &Path)>) -> Result<SslContext, StartError> {
    let mut builder = SslContext::builder(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    // Without an id of its own OpenSSL resumes no session of a context that verifies peers; this one
    // does not, but costs nothing to be sure of.
    builder.set_session_id_context(b"sink")?;
    // One read for a record, not one for its head and one for its body.
    builder.set_read_ahead(true);
    builder.set_mode(SslMode::RELEASE_BUFFERS);
    match files {
        Some((chain, key)) => {
            let unreadable = |path: &Path, stack: ErrorStack| StartError::Certificate {
                path: path.to_owned(),
                source: stack,
            };
            builder
                .set_certificate_chain_file(chain)
                .map_err(|stack| unreadable(chain, stack))?;
            builder
                .set_private_key_file(key, SslFiletype::PEM)
                .map_err(|stack| unreadable(key, stack))?;
            builder
                .check_private_key()
                .map_err(|stack| unreadable(key, stack))?;
        }
        None => {
            let (certificate, key) = self_signed()?;
            builder.set_certificate(&certificate)?;
            builder.set_private_key(&key)?;
        }
    }
    Ok(builder.build())
}

fn self_signed() -> Result<(X509, PKey<Private>), ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, "localhost")?;
    let name = name.build();
    let mut serial = BigNum::new()?;
    serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;
    let serial = serial.to_asn1_integer()?;
    let (not_before, not_after) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(DAYS)?);

    let mut builder = X509::builder()?;
    builder.set_version(X509_VERSION_3)?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(&name)?;
    builder.set_issuer_name(&name)?;
    builder.set_not_before(&not_before)?;
    builder.set_not_after(&not_after)?;
    builder.set_pubkey(&key)?;
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    let alternative = SubjectAlternativeName::new()
        .dns("localhost")
        .ip("127.0.0.1")
        .ip("::1")
        .build(&builder.x509v3_context(None, None))?;
    builder.append_extension(alternative)?;
    builder.sign(&key, MessageDigest::sha256())?;
    Ok((builder.build(), key))
}

const X509_VERSION_3: i32 = 2;
/// RFC 5280 §4.1.2.2: at most 20 octets, and positive.
const SERIAL_BITS: i32 = 159;
/// No sink runs longer than that.
const DAYS: u32 = 30;
