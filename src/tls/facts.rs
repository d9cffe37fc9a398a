//! What a finished handshake made known: for the trace header, the log and the metrics.

use openssl::nid::Nid;
use openssl::ssl::{NameType, SslRef};
use openssl::x509::{X509NameRef, X509Ref, X509VerifyResult};

use super::failure::escaped;
use super::ffi;

/// What both ends agreed on, and who the peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// OpenSSL's name of the cipher, `TLS_AES_256_GCM_SHA384`.
    pub cipher: Box<str>,
    /// The strength of the cipher in bits.
    pub bits: u32,
    /// The group of the key exchange, `X25519MLKEM768`. None where there was no such exchange (RSA
    /// key transport; resumption in TLS 1.2).
    pub group: Option<Box<str>>,
    /// A ticket was taken in place of a full handshake.
    pub resumed: bool,
    /// The name the client asked for (RFC 6066 §3), as it sent it; on the client's side the one we sent.
    pub server_name: Option<Box<str>>,
    /// The certificate the peer presented, now or when the session that was resumed began. A client often has
    /// none; a server always has.
    pub peer_certificate: Option<PeerCertificate>,
}

/// The certificate of the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject as one line, `CN=mx.example, O=Example`. Control characters are escaped: a peer
    /// wrote it and a log shows it.
    pub subject: Box<str>,
    /// The subject alternative names: DNS names, mail addresses, IP addresses.
    pub names: Vec<Box<str>>,
    /// Whether it can be believed, by the rules of this side.
    pub verification: Verification,
}

/// Whether a certificate can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// It is in its time, and a trust anchor vouches for it: of a client one of `--client-ca`; of a server one of
    /// `--out-ca` or the system's, and then it is for the name connected to, too.
    Trusted,
    /// It is only a claim (`--client-cert request`, `--out-verify no`); the text says why, in one line.
    Untrusted(Box<str>),
}

impl Facts {
    pub(super) fn of(ssl: &SslRef) -> Facts {
        let cipher = ssl.current_cipher();
        let resumed = ssl.session_reused();
        let version = ssl.version_str();
        Facts {
            version,
            cipher: cipher.map_or("", |cipher| cipher.name()).into(),
            bits: cipher.map_or(0, |cipher| u32::try_from(cipher.bits().secret).unwrap_or(0)),
            // A resumed TLS 1.2 session has no exchange of its own; OpenSSL would give the one
            // its first handshake had.
            group: if resumed && version != "TLSv1.3" {
                None
            } else {
                ffi::group_name(ssl).map(Into::into)
            },
            resumed,
            server_name: ssl
                .servername(NameType::HOST_NAME)
                .map(|name| escaped(name).into()),
            peer_certificate: ssl
                .peer_certificate()
                .map(|certificate| PeerCertificate::of(&certificate, ssl.verify_result())),
        }
    }
}

impl PeerCertificate {
    fn of(certificate: &X509Ref, result: X509VerifyResult) -> PeerCertificate {
        PeerCertificate {
            subject: subject_line(certificate.subject_name()).into(),
            names: alternative_names(certificate),
            verification: if result == X509VerifyResult::OK {
                Verification::Trusted
            } else {
                Verification::Untrusted(result.error_string().into())
            },
        }
    }
}

/// `CN=mx.example, O=Example`, in the order of the certificate.
fn subject_line(name: &X509NameRef) -> String {
    let mut line = String::new();
    for entry in name.entries() {
        if !line.is_empty() {
            line.push_str(", ");
        }
        let object = entry.object();
        if object.nid() == Nid::UNDEF {
            line.push_str(&object.to_string());
        } else {
            line.push_str(object.nid().short_name().unwrap_or("?"));
        }
        line.push('=');
        match entry.data().to_string() {
            Ok(value) => line.push_str(&escaped(&value)),
            Err(_) => line.push('?'),
        }
    }
    line
}

fn alternative_names(certificate: &X509Ref) -> Vec<Box<str>> {
    let Some(names) = certificate.subject_alt_names() else {
        return Vec::new();
    };
    names
        .iter()
        .filter_map(|name| {
            if let Some(text) = name.dnsname().or(name.email()).or(name.uri()) {
                return Some(escaped(text).into());
            }
            let octets = name.ipaddress()?;
            let address: std::net::IpAddr = if let Ok(four) = <[u8; 4]>::try_from(octets) {
                four.into()
            } else {
                <[u8; 16]>::try_from(octets).ok()?.into()
            };
            Some(address.to_string().into())
        })
        .collect()
}
