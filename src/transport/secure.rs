//! Proof of who is at the other end: TLS 1.3, both sides with a raw ed25519 public key (RFC 7250)
//! that *is* the node id. It owns keys, ciphers and the handshake over a stream; whether the proved
//! node is welcome is decided later, by the greeting.
//!
//! Invariant: a stream leaves here only together with the id whose key the other side has proved,
//! and in production ([`Security::tls`]) there is no other way to a stream. Nothing is resumed, no
//! ticket is sent, no early data taken: a node that has lost its place cannot come back by a
//! memory.

use crate::crypto::NodeKey;
use crate::id::NodeId;
use crate::sys::ByteStream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme, version,
};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Names the greeting and framing that follow; protocol versions are told in the greeting.
const ALPN: &[u8] = b"p2pfs/1";
/// DER of an ed25519 SubjectPublicKeyInfo up to the 32 bytes of the key (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 3, 0x21, 0];
/// DER of an ed25519 PKCS#8 key up to the 32 bytes of the seed (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 5, 0x06, 0x03, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// Encrypted bytes that wait for the socket, at most: four records, one system call. (The library
/// reads 4 KiB at a time. Buffers of 32 to 128 KiB before it, and 256 KiB here, were tried with
/// 1 MiB chunks over loopback: no less CPU per byte.)
const WRITE_BUFFER: usize = 64 << 10;
/// First bytes kept of what the other side says, to tell what it is when it is not p2pfs.
const FIRST_BYTES: usize = 48;
/// Opens a stream of [`Security::named_for_simulation`].
const NAMED: &[u8; 16] = b"p2pfs simulation";

/// How the other side proves who it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Security(Kind);

#[derive(Debug, Clone, Copy, Default)]
enum Kind {
    #[default]
    Tls,
    Named,
}

impl Security {
    /// TLS 1.3 with the node keys: the only choice outside tests.
    pub const fn tls() -> Self {
        Self(Kind::Tls)
    }

    /// **No security at all**: each side names its key in the clear and is believed. For the
    /// deterministic simulation, where thousands of handshakes would take all the time and TLS
    /// draws random bytes that no seed fixes. No option of the program leads here.
    pub const fn named_for_simulation() -> Self {
        Self(Kind::Named)
    }
}

/// Why the other side is not proved. The stream is gone.
#[derive(Debug)]
pub(super) enum Unproved {
    /// It does not speak TLS; these are its first words, escaped.
    NotTls(String),
    /// It has proved another key than the expected one.
    Wrong(NodeId),
    /// It broke off or did something else wrong.
    Failed(String),
}

impl std::fmt::Display for Unproved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotTls(said) => write!(f, "it is not p2pfs: got \"{said}\""),
            Self::Wrong(found) => write!(f, "it is {}", found.short()),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Runs handshakes with one node key.
pub(super) struct Secure {
    kind: Kind,
    me: NodeId,
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
}

/// A stream and who is at its other end.
pub(super) type Proved = (Box<dyn ByteStream>, NodeId);

impl Secure {
    /// Prepares the key; an error means that the TLS library does not take it.
    pub(super) fn new(security: Security, key: &NodeKey) -> Result<Self, Error> {
        let provider = Arc::new(provider());
        let mut pkcs8 = PKCS8_PREFIX.to_vec();
        pkcs8.extend_from_slice(&*key.seed());
        let signer = provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(pkcs8).into());
        let spki = CertificateDer::from(spki(key.id()));
        let certified = Arc::new(CertifiedKey::new(vec![spki], signer?));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(Arc::new(Verifier::new(&provider, None)))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(
                &certified,
            ))));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;
        server.max_early_data_size = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let server = Arc::new(server);
        Ok(Self { kind: security.0, me: key.id(), provider, key: certified, server })
    }

    /// The dialling side: proves us and, when `expect` is given, insists on that node.
    pub(super) async fn dial(
        &self,
        stream: Box<dyn ByteStream>,
        expect: Option<NodeId>,
    ) -> Result<Proved, Unproved> {
        if let Kind::Named = self.kind {
            let (stream, found) = self.name(stream).await?;
            return match expect {
                Some(expected) if expected != found => Err(Unproved::Wrong(found)),
                _ => Ok((stream, found)),
            };
        }
        let verifier = Arc::new(Verifier::new(&self.provider, expect));
        let config = self.client(Arc::clone(&verifier)).map_err(failed)?;
        // Required by the library, never sent: SNI is off.
        let name = ServerName::try_from("p2pfs").map_err(failed)?;
        let connect = tokio_rustls::TlsConnector::from(Arc::new(config));
        let done = connect.connect(name, FirstBytes::new(stream)).into_fallible().await;
        let mut stream = match done {
            Ok(stream) => stream,
            Err((err, raw)) => return Err(verifier.why(&err, &raw)),
        };
        stream.get_mut().1.set_buffer_limit(Some(WRITE_BUFFER));
        let peer = proved(stream.get_ref().1)?;
        Ok((Box::new(stream), peer))
    }

    /// The listening side: proves us to whoever dialled and learns who that is.
    pub(super) async fn accept(&self, stream: Box<dyn ByteStream>) -> Result<Proved, Unproved> {
        if let Kind::Named = self.kind {
            return self.name(stream).await;
        }
        let accept = tokio_rustls::TlsAcceptor::from(Arc::clone(&self.server));
        let done = accept.accept(FirstBytes::new(stream)).into_fallible().await;
        let mut stream = done.map_err(|(err, raw)| raw.why(&err))?;
        stream.get_mut().1.set_buffer_limit(Some(WRITE_BUFFER));
        let peer = proved(stream.get_ref().1)?;
        Ok((Box::new(stream), peer))
    }

    fn client(&self, verifier: Arc<Verifier>) -> Result<ClientConfig, Error> {
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                Arc::clone(&self.key),
            )));
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.enable_sni = false;
        client.resumption = Resumption::disabled();
        Ok(client)
    }

    async fn name(&self, mut stream: Box<dyn ByteStream>) -> Result<Proved, Unproved> {
        let mut line = [0; 16 + NodeId::LEN];
        line[..16].copy_from_slice(NAMED);
        line[16..].copy_from_slice(&self.me.0);
        stream.write_all(&line).await.map_err(failed)?;
        stream.read_exact(&mut line).await.map_err(failed)?;
        let mut id = [0; NodeId::LEN];
        id.copy_from_slice(&line[16..]);
        if line[..16] == *NAMED { Ok((stream, NodeId(id))) } else { Err(said(&line)) }
    }
}

fn failed(err: impl std::fmt::Display) -> Unproved {
    Unproved::Failed(err.to_string())
}

fn said(bytes: &[u8]) -> Unproved {
    Unproved::NotTls(bytes.escape_ascii().to_string())
}

/// The strongest fast cipher first: AES where the processor has instructions for it.
fn provider() -> CryptoProvider {
    let aes = cipher_suite::TLS13_AES_256_GCM_SHA384;
    let chacha = cipher_suite::TLS13_CHACHA20_POLY1305_SHA256;
    CryptoProvider {
        cipher_suites: if has_aes() { vec![aes, chacha] } else { vec![chacha, aes] },
        kx_groups: vec![kx_group::X25519],
        ..default_provider()
    }
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn spki(id: NodeId) -> Vec<u8> {
    [&SPKI_PREFIX[..], &id.0[..]].concat()
}

/// The id in a public key, if it is exactly the one form that we write.
fn id_of(spki: &CertificateDer<'_>) -> Option<NodeId> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    Some(NodeId(key.try_into().ok()?))
}

/// What a finished handshake has shown.
fn proved(state: &CommonState) -> Result<NodeId, Unproved> {
    if state.alpn_protocol() != Some(ALPN) {
        return Err(Unproved::Failed("it speaks TLS, but not p2pfs".into()));
    }
    let keys = state.peer_certificates().unwrap_or_default();
    keys.first().and_then(id_of).ok_or_else(|| Unproved::Failed("it has shown no node key".into()))
}

/// Accepts one form of key and, when dialling, perhaps one key only.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    expect: Option<NodeId>,
    found: OnceLock<NodeId>,
}

impl Verifier {
    fn new(provider: &Arc<CryptoProvider>, expect: Option<NodeId>) -> Self {
        Self { provider: Arc::clone(provider), expect, found: OnceLock::new() }
    }

    fn check(&self, key: &CertificateDer<'_>) -> Result<(), Error> {
        let found = id_of(key).ok_or(CertificateError::BadEncoding)?;
        match self.expect {
            Some(expected) if expected != found => {
                self.found.get_or_init(|| found);
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(()),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
    }

    /// Why dialling failed, as exactly as can be told.
    fn why(&self, err: &io::Error, raw: &FirstBytes) -> Unproved {
        self.found.get().map_or_else(|| raw.why(err), |found| Unproved::Wrong(*found))
    }
}

fn old_tls() -> Result<HandshakeSignatureValid, Error> {
    Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(key).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        old_tls()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(key).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        old_tls()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// A stream that remembers the first bytes that came.
struct FirstBytes {
    inner: Box<dyn ByteStream>,
    bytes: [u8; FIRST_BYTES],
    len: usize,
}

impl FirstBytes {
    fn new(inner: Box<dyn ByteStream>) -> Self {
        Self { inner, bytes: [0; FIRST_BYTES], len: 0 }
    }

    /// Why a handshake over this stream failed: the other side may not speak TLS at all, which its
    /// first byte shows (RFC 8446, section 5.1: 20 to 23).
    fn why(&self, err: &io::Error) -> Unproved {
        match self.bytes[..self.len].first() {
            Some(20..=23) => Unproved::Failed(err.to_string()),
            Some(_) => said(&self.bytes[..self.len]),
            None if err.kind() == io::ErrorKind::UnexpectedEof => {
                Unproved::Failed("it closed the connection without a word".into())
            }
            None => Unproved::Failed(err.to_string()),
        }
    }
}

impl AsyncRead for FirstBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        let (len, fresh) = (self.len, &buf.filled()[before..]);
        let keep = fresh.len().min(FIRST_BYTES - len);
        self.bytes[len..len + keep].copy_from_slice(&fresh[..keep]);
        self.len += keep;
        done
    }
}

impl AsyncWrite for FirstBytes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
