//! The files that the flags name, read and looked at: certificates, keys, users, recipients, passwords for next hops.
//!
//! `serve` runs on what is loaded here, `check` loads the same and throws it away, and a reload
//! calls the parts one by one. So what a flag names wrongly, all three name alike.
//! Claims:
//! - Every fault is found in one go, not one a start.
//! - Under [`Purpose::Check`] nothing is made or changed, whoever runs it: a ticket-key file that
//!   is missing, or due for a new key, is left as it is.
//!
//! It does not promise that the files are still the same a moment later.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::Access;

use super::{CertPair, Config, Fault};
use crate::auth::Users;
use crate::deliver::Login;
use crate::deliver::target::Target;
use crate::smtp::server::KnownRecipients;
use crate::tls::ClientMaterial;
use crate::tls::material::{CertifiedKey, MaterialError};
use crate::tls::{ServerContexts, TicketKeyRing, TlsError, development};

/// Whether what is missing is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Nothing is made.
    Check,
    /// A development certificate and a ticket-key file are made where they are missing.
    Serve,
}

/// What was in the files.
#[derive(Debug)]
pub struct Loaded {
    /// The certificates in the order of the flags. Empty if no channel speaks TLS, and under
    /// [`Purpose::Check`] where a development certificate is still to be made.
    pub certified_keys: Vec<CertifiedKey>,
    /// The keys of session tickets.
    pub ticket_keys: Arc<TicketKeyRing>,
    /// Who may log in; nobody without `--users`.
    pub users: Arc<Users>,
    /// The known addresses; `None` without `--recipients`.
    pub recipients: Option<KnownRecipients>,
    /// The logins of `--out-auth`, by next hop or recipient domain.
    pub logins: HashMap<String, Login>,
    /// What is shown to next hops and verified of them.
    pub out_tls: ClientMaterial,
    /// What runs, but hardly as meant.
    pub warnings: Vec<Fault>,
}

impl Loaded {
    /// Reads everything, or names everything that is wrong.
    pub fn load(config: &Config, purpose: Purpose) -> Result<Loaded, Vec<Fault>> {
        let mut faults = directory_faults(config);
        let users = kept(load_users(config), &mut faults);
        let recipients = kept(load_recipients(config), &mut faults);
        let logins = load_logins(config, &mut faults);
        let out_tls = kept(load_out_tls(config), &mut faults);
        let ticket_keys = kept(load_ticket_keys(config, purpose), &mut faults);
        // A development certificate lies in the data directory: no second fault for that one.
        let certified_keys = if faults.iter().any(|fault| fault.flag == "--data-dir") {
            load_pairs(&config.certs)
        } else {
            load_certified_keys(config, purpose)
        };
        let certified_keys = match certified_keys {
            Ok(certified_keys) => Some(certified_keys),
            Err(more) => {
                faults.extend(more);
                None
            }
        };
        // With the ticket keys at fault, others serve to see what else is.
        let lifetime = config.tls.ticket_lifetime;
        let ring = ticket_keys
            .clone()
            .or_else(|| TicketKeyRing::ephemeral(lifetime).ok().map(Arc::new));
        if let Some(ring) = ring {
            let pairs = certified_keys.as_deref().unwrap_or_default();
            faults.extend(context_fault(config, pairs, ring));
        }
        match (certified_keys, ticket_keys, users, recipients, out_tls) {
            (
                Some(certified_keys),
                Some(ticket_keys),
                Some(users),
                Some(recipients),
                Some(out_tls),
            ) if faults.is_empty() => {
                let warnings = warnings(config, &certified_keys);
                Ok(Loaded {
                    certified_keys,
                    ticket_keys,
                    users,
                    recipients,
                    logins,
                    out_tls,
                    warnings,
                })
            }
            _ => Err(faults),
        }
    }
}

/// The certificates of the flags; without any, the development certificate.
pub fn load_certified_keys(
    config: &Config,
    purpose: Purpose,
) -> Result<Vec<CertifiedKey>, Vec<Fault>> {
    if !config.certs.is_empty() || !config.speaks_tls() {
        return load_pairs(&config.certs);
    }
    let directory = development_directory(config);
    if purpose == Purpose::Check && !directory.exists() {
        return Ok(Vec::new());
    }
    if purpose == Purpose::Serve {
        let mut names = vec!["localhost"];
        if config.hostname != "localhost" {
            names.insert(0, &config.hostname);
        }
        development::make(&directory, &names)
            .map_err(|error| vec![Fault::new("--data-dir", error.to_string())])?;
    }
    let pair = |cert, key| CertPair {
        cert: directory.join(cert),
        key: directory.join(key),
    };
    load_pairs(&[
        pair(
            development::SERVER_ECDSA_CERTIFICATE,
            development::SERVER_ECDSA_KEY,
        ),
        pair(
            development::SERVER_RSA_CERTIFICATE,
            development::SERVER_RSA_KEY,
        ),
    ])
}

/// Where the development certificate lies.
pub fn development_directory(config: &Config) -> PathBuf {
    config.data_dir.join("certs")
}

/// The users of `--users`; nobody without it.
pub fn load_users(config: &Config) -> Result<Arc<Users>, Fault> {
    let Some(path) = &config.users else {
        return Ok(Arc::default());
    };
    match Users::load(path) {
        Ok(users) => Ok(Arc::new(users)),
        Err(error) => Err(Fault::new("--users", error.to_string())),
    }
}

/// The addresses of `--recipients`; `None` without it.
pub fn load_recipients(config: &Config) -> Result<Option<KnownRecipients>, Fault> {
    let Some(path) = &config.recipients else {
        return Ok(None);
    };
    let text = fs::read_to_string(path).map_err(|error| {
        Fault::new(
            "--recipients",
            format!("cannot read recipients {}: {error}", path.display()),
        )
    })?;
    match KnownRecipients::parse(&text) {
        Ok(recipients) => Ok(Some(recipients)),
        Err(error) => Err(Fault::new(
            "--recipients",
            format!("{} {error}", path.display()),
        )),
    }
}

/// What `--out-cert`, `--out-key` and `--out-ca` name.
pub fn load_out_tls(config: &Config) -> Result<ClientMaterial, Fault> {
    ClientMaterial::read(&config.sending.client)
        .map_err(|error| Fault::new(error.flag(), error.to_string()))
}

/// The logins of `--out-auth` whose passwords can be read.
fn load_logins(config: &Config, faults: &mut Vec<Fault>) -> HashMap<String, Login> {
    let mut logins = HashMap::with_capacity(config.logins.len());
    for file in &config.logins {
        match first_line(&file.password) {
            Ok(password) => {
                let name = file.name.clone();
                logins.insert(file.place.clone(), Login { name, password });
            }
            Err(text) => faults.push(Fault::new("--out-auth", text)),
        }
    }
    logins
}

/// The password that is a file's first line, blanks and all.
fn first_line(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("cannot read password {}: {error}", path.display()))?;
    match text.lines().next() {
        None | Some("") => Err(format!("{}: the first line is empty", path.display())),
        // NUL divides the fields of PLAIN (RFC 4616 §2).
        Some(line) if line.contains('\0') => {
            Err(format!("{}: a password cannot hold NUL", path.display()))
        }
        Some(line) => Ok(line.to_owned()),
    }
}

/// The keys of `--ticket-keys`; keys that live as long as the process without it.
fn load_ticket_keys(config: &Config, purpose: Purpose) -> Result<Arc<TicketKeyRing>, Fault> {
    let lifetime = config.tls.ticket_lifetime;
    if let Some(path) = &config.ticket_keys
        && let Some(text) = cannot_make_file(path, &config.data_dir)
    {
        return Err(Fault::new("--ticket-keys", text));
    }
    let ring = match (&config.ticket_keys, purpose) {
        (Some(path), Purpose::Serve) => TicketKeyRing::from_file(path, lifetime),
        (Some(path), Purpose::Check) if path.exists() => {
            TicketKeyRing::inspect(path).and_then(|_| TicketKeyRing::ephemeral(lifetime))
        }
        (Some(_), Purpose::Check) | (None, Purpose::Check | Purpose::Serve) => {
            TicketKeyRing::ephemeral(lifetime)
        }
    };
    ring.map(Arc::new)
        .map_err(|error| Fault::new("--ticket-keys", error.to_string()))
}

fn load_pairs(pairs: &[CertPair]) -> Result<Vec<CertifiedKey>, Vec<Fault>> {
    let mut certified_keys = Vec::with_capacity(pairs.len());
    let mut faults = Vec::new();
    for pair in pairs {
        match CertifiedKey::load(&pair.cert, &pair.key) {
            Ok(certified_key) => certified_keys.push(certified_key),
            Err(error) => {
                faults.push(Fault::new(flag_of(&error, pair), error.to_string()));
            }
        }
    }
    if faults.is_empty() {
        Ok(certified_keys)
    } else {
        Err(faults)
    }
}

/// The flag that names the file at fault.
fn flag_of(error: &MaterialError, pair: &CertPair) -> &'static str {
    match error {
        MaterialError::Unreadable { path, .. }
        | MaterialError::NotPem { path, .. }
        | MaterialError::Malformed { path, .. }
            if *path == pair.cert =>
        {
            "--cert"
        }
        MaterialError::Unreadable { .. }
        | MaterialError::NotPem { .. }
        | MaterialError::Malformed { .. }
        | MaterialError::Encrypted { .. }
        | MaterialError::Mismatch { .. } => "--key",
    }
}

/// What OpenSSL does not take of groups, ciphers, CAs and certificates.
fn context_fault(
    config: &Config,
    pairs: &[CertifiedKey],
    ring: Arc<TicketKeyRing>,
) -> Option<Fault> {
    let error = match ServerContexts::build(pairs, &config.tls, ring) {
        // What the settings say wrongly comes before this one.
        Ok(_) | Err(TlsError::NoCertificate) => return None,
        Err(error) => error,
    };
    let flag = match &error {
        // The values alone show it already.
        TlsError::ClientCaMissing => return None,
        TlsError::Group { .. } => "--tls-groups",
        TlsError::Cipher { .. } => "--tls-ciphers",
        TlsError::ClientCa { .. } => "--client-ca",
        TlsError::NoCertificate
        | TlsError::Certificate { .. }
        | TlsError::PeerName(_)
        | TlsError::OpenSsl { .. } => "--cert",
    };
    Some(Fault::new(flag, error.to_string()))
}

/// The directories that the process, as whoever it is now, cannot write in or make.
pub fn directory_faults(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(text) = cannot_use_directory(&config.data_dir) {
        faults.push(Fault::new("--data-dir", text));
    }
    for (flag, target) in config.targets() {
        let Target::Maildir(directory) = target else {
            continue;
        };
        // Below the data directory: made with it, and at fault with it.
        if directory.starts_with(&config.data_dir) && !directory.exists() {
            continue;
        }
        if let Some(text) = cannot_use_directory(directory) {
            faults.push(Fault::new(flag, text));
        }
    }
    faults
}

/// Why nothing could be written below this directory, which need not be there yet.
fn cannot_use_directory(directory: &Path) -> Option<String> {
    match fs::metadata(directory) {
        Ok(metadata) if !metadata.is_dir() => {
            Some(format!("{} is not a directory", directory.display()))
        }
        Ok(_) => match rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => None,
            Err(error) => Some(format!(
                "cannot write in {}: {}",
                directory.display(),
                std::io::Error::from(error)
            )),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => cannot_make(directory),
        Err(error) => Some(format!("cannot use {}: {error}", directory.display())),
    }
}

/// Why this file, if it is not there, could not be made: no directory is made for one, but the data directory.
fn cannot_make_file(path: &Path, data_dir: &Path) -> Option<String> {
    let parent = parent(path)?;
    let whole = |path| std::path::absolute(path).ok();
    if path.exists() || whole(parent) == whole(data_dir) {
        return None;
    }
    if parent.exists() {
        cannot_make(path)
    } else {
        Some(format!(
            "cannot make {}: there is no directory {}",
            path.display(),
            parent.display()
        ))
    }
}

/// Where the file or directory lies.
fn parent(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| {
        if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        }
    })
}

/// Why this file or directory, which is not there, could not be made.
fn cannot_make(path: &Path) -> Option<String> {
    let parent = parent(path)?;
    let reason = cannot_use_directory(parent)?;
    Some(if reason.starts_with("cannot make") {
        reason
    } else {
        format!("cannot make {}: {reason}", path.display())
    })
}

fn warnings(config: &Config, certified_keys: &[CertifiedKey]) -> Vec<Fault> {
    let mut warnings = config.warnings();
    let now = SystemTime::now();
    for pair in certified_keys {
        let certificate = pair.certificate_path.display();
        if pair.expired(now) {
            warnings.push(Fault::new("--cert", format!("{certificate} has expired")));
        }
        if pair.premature(now) {
            warnings.push(Fault::new(
                "--cert",
                format!("{certificate} is not valid yet"),
            ));
        }
    }
    let for_host =
        |pair: &CertifiedKey| pair.names.iter().any(|name| covers(name, &config.hostname));
    if !config.certs.is_empty() && !certified_keys.iter().any(for_host) {
        let text = format!("no certificate is for the host name {}", config.hostname);
        warnings.push(Fault::new("--cert", text));
    }
    let out_key = config.sending.client.certificate.iter();
    let private = (config.certs.iter().map(|pair| ("--key", &pair.key)))
        .chain(config.users.iter().map(|path| ("--users", path)))
        .chain(out_key.map(|(_, key)| ("--out-key", key)))
        .chain((config.logins.iter()).map(|login| ("--out-auth", &login.password)));
    for (flag, path) in private {
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o004 != 0 {
            let text = format!(
                "{} can be read by everybody on this machine",
                path.display()
            );
            warnings.push(Fault::new(flag, text));
        }
    }
    for (flag, target) in config.targets() {
        if let Target::LmtpUnix(path) = target
            && !fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
        {
            let text = format!("{} is no socket now, mail waits for one", path.display());
            warnings.push(Fault::new(flag, text));
        }
    }
    warnings
}

/// Whether a certificate's name is the host's; a wildcard stands for one label (RFC 6125 §6.4.3).
fn covers(name: &str, hostname: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(rest) => hostname
            .split_once('.')
            .is_some_and(|(_, behind)| behind == rest),
        None => name == hostname,
    }
}

fn kept<T>(result: Result<T, Fault>, faults: &mut Vec<Fault>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(fault) => {
            faults.push(fault);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_can_be_made() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "").unwrap();
        let data_dir = at("data");
        let rows = [
            ("there", at("file"), None),
            ("in a directory that is there", at("new"), None),
            ("in the data directory, made first", at("data/./new"), None),
            (
                "in a directory nobody makes",
                at("none/new"),
                Some("there is no directory"),
            ),
            ("below a file", at("file/new"), Some("is not a directory")),
        ];
        for (name, path, expected) in rows {
            let text = cannot_make_file(&path, &data_dir);
            assert_eq!(text.is_some(), expected.is_some(), "{name}: {text:?}");
            let (text, expected) = (text.unwrap_or_default(), expected.unwrap_or_default());
            assert!(text.contains(expected), "{name}: {text}");
        }
    }
}
