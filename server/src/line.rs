//! The line to a client: TCP, with TLS over it where a certificate was given; bounded in time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::TlsFiles;

/// A certificate that is shown to clients.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the certificate `{}`: {reason}", .path.display())]
pub struct TlsError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

impl Tls {
    /// Reads a certificate and its key.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let failed = |path: &PathBuf, reason: String| TlsError { path: path.clone(), reason };
        let certificates = CertificateDer::pem_file_iter(&files.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(&files.certificate, error.to_string()))?;
        if certificates.is_empty() {
            return Err(failed(&files.certificate, "it holds no certificate".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| failed(&files.key, error.to_string()))?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&files.certificate, error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(|error| failed(&files.certificate, error.to_string()))?;
        Ok(Self(Arc::new(config)))
    }
}

/// A client that brings less than this, in bytes a second, holds a thread for nothing.
const LEAST_RATE: f64 = 4096.0;
/// For so long nobody looks at the rate.
const PATIENCE: Duration = Duration::from_secs(30);

enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// One connection.
pub struct Line {
    transport: Transport,
    /// Time that was waited for the client within a request, and what it brought and took.
    waited: Duration,
    moved: u64,
}

impl Line {
    pub fn new(stream: TcpStream, tls: Option<&Tls>, silence: Duration) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(silence))?;
        stream.set_write_timeout(Some(silence))?;
        let transport = match tls {
            None => Transport::Plain(stream),
            Some(tls) => {
                let connection = ServerConnection::new(Arc::clone(&tls.0)).map_err(io::Error::other)?;
                Transport::Tls(Box::new(StreamOwned::new(connection, stream)))
            }
        };
        Ok(Self { transport, waited: Duration::ZERO, moved: 0 })
    }

    /// A new request begins: its client has its time again.
    pub fn begin(&mut self) {
        (self.waited, self.moved) = (Duration::ZERO, 0);
    }

    fn stream(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => &stream.sock,
        }
    }

    /// Changes how long a client may be silent.
    pub fn set_silence(&self, silence: Duration) {
        let _ = self.stream().set_read_timeout(Some(silence));
    }

    fn timed(&mut self, work: impl FnOnce(&mut Transport) -> io::Result<usize>) -> io::Result<usize> {
        let started = Instant::now();
        let result = work(&mut self.transport);
        self.waited += started.elapsed();
        self.moved += *result.as_ref().unwrap_or(&0) as u64;
        if self.waited > PATIENCE && (self.moved as f64) < LEAST_RATE * (self.waited - PATIENCE).as_secs_f64() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        result
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.timed(|transport| match transport {
            Transport::Plain(stream) => stream.read(buffer),
            Transport::Tls(stream) => match stream.read(buffer) {
                // A client that goes without a word of farewell is at its end all the same: lengths are checked elsewhere.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                result => result,
            },
        })
    }
}

impl Write for Line {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.timed(|transport| match transport {
            Transport::Plain(stream) => stream.write(buffer),
            Transport::Tls(stream) => stream.write(buffer),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.transport {
            Transport::Plain(stream) => stream.flush(),
            Transport::Tls(stream) => stream.flush(),
        }
    }
}
