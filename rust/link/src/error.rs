//! Everything that can go wrong with a connection, as one type whose kinds the layers above turn into words.

use std::io;

use quinn_proto::{ConnectError, ConnectionError};

/// A failure of the link layer. [`LinkError::kind`] is stable and short; the display text is a sentence for logs.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The certificate shown by the relay is none of those we trust. Like the next three it holds the verifier's words.
    #[error("{0}")]
    WrongPin(String),
    /// The certificate is trusted, but made for another name.
    #[error("{0}")]
    WrongName(String),
    /// The certificate is outside its validity period.
    #[error("{0}")]
    Expired(String),
    /// The certificate is one that is good for no server, whoever is trusted: an authority's, one for another purpose.
    #[error("{0}")]
    Unverified(String),
    /// The relay answered, but not with a protocol both sides speak.
    #[error("the relay does not speak this protocol ({0})")]
    NoCommonProtocol(String),
    /// Certificate or key material of our own that cannot be used.
    #[error("unusable certificate or key: {0}")]
    BadCertificate(String),
    /// The name cannot stand in a certificate.
    #[error("{0:?} is not a valid server name")]
    InvalidServerName(String),
    /// Nothing answered in time.
    #[error("no answer within the time limit")]
    TimedOut,
    /// The connection is closed.
    #[error("the connection is closed: {0}")]
    Closed(String),
    /// The other side does not take QUIC datagrams (RFC 9221).
    #[error("the other side does not support QUIC datagrams (RFC 9221)")]
    NoDatagrams,
    /// A setting is out of its range.
    #[error("{0}")]
    InvalidSetting(String),
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Any other QUIC or TLS failure.
    #[error("QUIC: {0}")]
    Transport(String),
}

impl LinkError {
    /// A short stable name of the kind of failure.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::WrongPin(_) => "wrong-pin",
            Self::WrongName(_) => "wrong-name",
            Self::Expired(_) => "expired",
            Self::Unverified(_) => "unverified",
            Self::NoCommonProtocol(_) => "no-common-protocol",
            Self::BadCertificate(_) => "bad-certificate",
            Self::InvalidServerName(_) => "invalid-server-name",
            Self::TimedOut => "timed-out",
            Self::Closed(_) => "closed",
            Self::NoDatagrams => "no-datagrams",
            Self::InvalidSetting(_) => "invalid-setting",
            Self::Io(_) => "io",
            Self::Transport(_) => "transport",
        }
    }
}

/// TLS alert 120, no_application_protocol (RFC 7301 section 3.2), as a QUIC crypto error (RFC 9001 section 4.8).
const CRYPTO_NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::VersionMismatch => Self::NoCommonProtocol("no common QUIC version".into()),
            ConnectionError::TransportError(e) if u64::from(e.code) == CRYPTO_NO_APPLICATION_PROTOCOL => {
                Self::NoCommonProtocol(e.to_string())
            }
            ConnectionError::ConnectionClosed(c)
                if u64::from(c.error_code) == CRYPTO_NO_APPLICATION_PROTOCOL =>
            {
                Self::NoCommonProtocol(c.to_string())
            }
            ConnectionError::TransportError(e) => Self::Transport(e.to_string()),
            other => Self::Closed(other.to_string()),
        }
    }
}

impl From<ConnectError> for LinkError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::InvalidServerName(name) => Self::InvalidServerName(name),
            other => Self::Transport(other.to_string()),
        }
    }
}

/// Characters of what others said that go on to logs and terminals.
const MOST_SAID: usize = 500;

/// What somebody else said, fit for a line of a terminal: what is no printable character is spelt out, and what is too long is cut.
pub fn harmless(text: &str) -> String {
    let mut said = String::new();
    for character in text.chars().take(MOST_SAID + 1) {
        match character {
            // Printable, though Rust's own notation escapes them.
            '\'' | '"' | '\\' => said.push(character),
            _ => said.extend(character.escape_debug()),
        }
    }
    let mut places = said.char_indices().map(|(at, _)| at).skip(MOST_SAID - 3);
    if let (Some(cut), Some(_)) = (places.next(), places.nth(2)) {
        said.truncate(cut);
        said.push_str("...");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_stays_on_its_line_and_does_nothing_to_a_terminal() {
        assert_eq!(harmless("the relay is \"full\": Grüße, \\o/"), "the relay is \"full\": Grüße, \\o/");
        assert_eq!(harmless("\u{1b}[2J\nnew\u{202e}line\u{7}"), "\\u{1b}[2J\\nnew\\u{202e}line\\u{7}");
        assert_eq!(harmless(&"x".repeat(MOST_SAID)), "x".repeat(MOST_SAID));
        for long in ["x".repeat(MOST_SAID + 1), "\u{1b}".repeat(MOST_SAID), "ü".repeat(10 * MOST_SAID)] {
            let cut = harmless(&long);
            assert_eq!((cut.chars().count(), cut.ends_with("...")), (MOST_SAID, true));
        }
    }
}
