//! The one cryptography provider of the process. Must be installed before the first TLS object is made.

/// Makes aws-lc the process-wide rustls provider. The first thing a `main` does; calling it again changes nothing.
pub fn install() {
    // Err means that a provider is already installed: an earlier call of this very function.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
