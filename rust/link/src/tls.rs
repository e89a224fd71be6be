//! Who we trust and who we are: TLS 1.3 configurations for both ends, and a verifier that remembers why it said no.

use std::sync::{Arc, Mutex};

use data_encoding::BASE64URL_NOPAD;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use crate::error::LinkError;

/// The ALPN identifier (RFC 7301) of protocol version 1.
pub const ALPN: &[u8] = b"softlan/1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The relay's side: a certificate chain (leaf first, DER) and its private key (PKCS#8, SEC1 or PKCS#1 DER).
///
/// # Errors
/// [`LinkError::BadCertificate`] when chain and key do not make a server.
pub fn server_config(chain: Vec<Vec<u8>>, key: &[u8]) -> Result<QuicServerConfig, LinkError> {
    let bad = |e: &dyn std::fmt::Display| LinkError::BadCertificate(e.to_string());
    let key = PrivateKeyDer::try_from(key).map_err(|e| bad(&e))?.clone_key();
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| bad(&e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| bad(&e))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // A peer's hello must not be replayed: no 0-RTT.
    tls.max_early_data_size = 0;
    QuicServerConfig::try_from(tls).map_err(|e| bad(&e))
}

/// Whom the joining side believes.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Certificates (DER), each a relay's own or an authority's: chain, name and dates must be right.
    Roots(&'a [Vec<u8>]),
    /// SHA-256 of the SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) of each key a relay may hold. The key is the relay then:
    /// chain, name and dates are not looked at.
    Pins(&'a [[u8; 32]]),
}

/// The joining side: believes exactly `trust`.
///
/// # Errors
/// [`LinkError::BadCertificate`] when nothing is given to trust, or none of the certificates can be parsed.
pub fn client_config(trust: Trust<'_>) -> Result<(QuicClientConfig, Verdict), LinkError> {
    let bad = |e: &dyn std::fmt::Display| LinkError::BadCertificate(e.to_string());
    let believed = match trust {
        Trust::Roots(roots) => {
            let mut store = RootCertStore::empty();
            let mut unread = None;
            for root in roots {
                // A machine's store may hold one that webpki cannot read. It verifies nothing, and the others do.
                if let Err(error) = store.add(CertificateDer::from(root.as_slice())) {
                    unread = Some(error);
                }
            }
            if let Some(error) = unread.filter(|_| store.is_empty()) {
                return Err(bad(&error));
            }
            Believed::Chain(
                WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
                    .build()
                    .map_err(|e| bad(&e))?,
            )
        }
        Trust::Pins([]) => return Err(bad(&"no pin is given")),
        Trust::Pins(pins) => Believed::Pins(pins.to_vec()),
    };
    let verdict = Verdict::default();
    let algorithms = provider().signature_verification_algorithms;
    let verifier = RememberingVerifier { believed, algorithms, verdict: verdict.clone() };
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| bad(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Ok((QuicClientConfig::try_from(tls).map_err(|e| bad(&e))?, verdict))
}

/// Why certificate verification failed, if it did. QUIC only reports an alert number; players deserve the reason.
#[derive(Debug, Clone, Default)]
pub struct Verdict(Arc<Mutex<Option<rustls::Error>>>);

impl Verdict {
    fn remember(&self, error: &rustls::Error) {
        *self.0.lock().unwrap_or_else(|p| p.into_inner()) = Some(error.clone());
    }

    /// Turns `error` into the trust failure that caused it, where there was one.
    pub(crate) fn explain(&self, error: LinkError) -> LinkError {
        let remembered = self.0.lock().unwrap_or_else(|p| p.into_inner()).take();
        match remembered {
            Some(cause) => trust_error(&cause),
            None => error,
        }
    }
}

fn trust_error(error: &rustls::Error) -> LinkError {
    use CertificateError as E;
    match error {
        rustls::Error::InvalidCertificate(e) => match e {
            E::NotValidForName | E::NotValidForNameContext { .. } => LinkError::WrongName(e.to_string()),
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => {
                LinkError::Expired(e.to_string())
            }
            E::Other(problem) if problem.0.is::<NotPinned>() => LinkError::WrongPin(problem.0.to_string()),
            // A new key under the old subject fails on the signature, or on its algorithm, a new subject on the issuer: all are another relay.
            E::UnknownIssuer
            | E::BadSignature
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                LinkError::WrongPin(e.to_string())
            }
            // What is wrong with the certificate itself would be wrong with another copy of it, too.
            E::Other(problem) => LinkError::Unverified(problem.0.to_string()),
            other => LinkError::Unverified(other.to_string()),
        },
        other => LinkError::Transport(other.to_string()),
    }
}

#[derive(Debug)]
enum Believed {
    /// The standard verification of rustls and webpki, names included.
    Chain(Arc<WebPkiServerVerifier>),
    Pins(Vec<[u8; 32]>),
}

/// Writes a failure down on its way out. That the relay holds the key it shows is proven by its signature, pinned or not.
#[derive(Debug)]
struct RememberingVerifier {
    believed: Believed,
    algorithms: WebPkiSupportedAlgorithms,
    verdict: Verdict,
}

/// The relay's key is not pinned. Its pin is told as invites and logs have it (RFC 4648 section 5).
#[derive(Debug, thiserror::Error)]
#[error("the pin of its key is {0}")]
struct NotPinned(String);

/// Compares a certificate's public key with the pins. Both are public: no need for constant time.
fn verify_pin(
    pins: &[[u8; 32]],
    end_entity: &CertificateDer<'_>,
) -> Result<ServerCertVerified, rustls::Error> {
    let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
    let shown = ring::digest::digest(&ring::digest::SHA256, key.as_ref());
    if pins.iter().any(|pin| pin == shown.as_ref()) {
        return Ok(ServerCertVerified::assertion());
    }
    let problem = NotPinned(BASE64URL_NOPAD.encode(shown.as_ref()));
    Err(CertificateError::Other(OtherError(Arc::new(problem))).into())
}

impl ServerCertVerifier for RememberingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.believed {
            Believed::Chain(chain) => {
                chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            Believed::Pins(pins) => verify_pin(pins, end_entity),
        }
        .inspect_err(|error| self.verdict.remember(error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
