//! A certificate for a day, by which the server is known.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

use crate::command;

/// A certificate and its key, in files.
#[derive(Debug)]
pub(super) struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

impl Identity {
    /// Makes one for the loopback addresses, by openssl.
    pub(super) fn make(directory: &Path) -> Result<Self> {
        let identity = Self {
            certificate: directory.join("ca.crt"),
            key: directory.join("tls.key"),
        };
        command::run(
            Command::new("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "1"])
                .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
                .args(["-subj", "/CN=kube-apiserver"])
                .args(["-addext", "subjectAltName=IP:127.0.0.1,IP:::1"])
                // With a CA's certificate nothing but a CA could identify itself.
                .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                .arg("-keyout")
                .arg(&identity.key)
                .arg("-out")
                .arg(&identity.certificate),
        )?;
        Ok(identity)
    }

    pub(super) fn certificate_file(&self) -> &Path {
        &self.certificate
    }

    pub(super) fn acceptor(&self) -> Result<TlsAcceptor> {
        let certificate = CertificateDer::from_pem_file(&self.certificate)
            .context("openssl made no certificate")?;
        let key = PrivateKeyDer::from_pem_file(&self.key).context("openssl made no key")?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .context("the certificate does not fit its key")?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
