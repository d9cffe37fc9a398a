//! `ringpost dev-certs`: a CA of one's own, server certificates and a client's, for trying things
//! out. What they are is `tls::development`'s part.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;

use super::{Failed, print};
use crate::tls::development::{self, Made};

/// The flags of `dev-certs`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Files")]
pub(super) struct DevCertsFlags {
    /// Where the files go; made if missing (mode 0700)
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
}

/// Makes the files and says which, or says that they are there.
pub(super) fn run(flags: &DevCertsFlags) -> Result<(), Failed> {
    let directory = &flags.dir;
    let made =
        development::make(directory, &development::DEFAULT_NAMES).map_err(Failed::because)?;
    let mut text = match made {
        Made::New => "Made, for development only:\n".to_owned(),
        Made::AlreadyThere => "Already there, nothing was changed:\n".to_owned(),
    };
    for (file, what) in FILES {
        let path = directory.join(file);
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  {:<32}{what}", path.display().to_string());
    }
    print(&text)
}

const FILES: [(&str, &str); 8] = [
    (
        development::CA_CERTIFICATE,
        "CA, for clients to trust and for --client-ca",
    ),
    (development::CA_KEY, "its key"),
    (
        development::SERVER_ECDSA_CERTIFICATE,
        "for mx.test and localhost, ECDSA",
    ),
    (development::SERVER_ECDSA_KEY, "its key"),
    (
        development::SERVER_RSA_CERTIFICATE,
        "for mx.test and localhost, RSA",
    ),
    (development::SERVER_RSA_KEY, "its key"),
    (development::CLIENT_CERTIFICATE, "for a client"),
    (development::CLIENT_KEY, "its key"),
];
