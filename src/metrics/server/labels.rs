//! The values of the labels: few, and all known beforehand.

/// One label with one of the values known beforehand.
pub(super) type OneLabel = [(&'static str, &'static str); 1];

/// Which of the two ports; the label `listener`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The port with `/livez`, `/readyz` and `/metrics`.
    Admin,
    /// The port with `/validate`.
    Webhook,
}

impl Listener {
    pub(super) const ALL: [Self; 2] = [Self::Admin, Self::Webhook];

    pub(super) fn label(self) -> OneLabel {
        [("listener", self.name())]
    }

    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Webhook => "webhook",
        }
    }
}

/// A phase of a connection or request that has a deadline; the label `phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading a request's body.
    Body,
    /// From the end of the handshake to the first request.
    Headers,
    /// The TLS handshake.
    Handshake,
    /// From the body's last byte to the answer.
    Verdict,
}

impl Phase {
    pub(super) const ALL: [Self; 4] = [Self::Body, Self::Headers, Self::Handshake, Self::Verdict];

    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Headers => "headers",
            Self::Handshake => "handshake",
            Self::Verdict => "verdict",
        }
    }

    pub(super) fn label(self) -> OneLabel {
        [("phase", self.name())]
    }
}

/// Why a TLS handshake came to nothing; the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// The client gave no certificate, or one that the client CA did not issue.
    ClientCertificate,
    /// The client went away.
    Closed,
    /// The deadline passed.
    Deadline,
    /// Anything else: not TLS, no version or cipher in common.
    Protocol,
    /// The client refused this server's certificate: its CA bundle and the certificate do not fit.
    Refused,
}

impl HandshakeFailure {
    pub(super) const ALL: [Self; 5] = [
        Self::ClientCertificate,
        Self::Closed,
        Self::Deadline,
        Self::Protocol,
        Self::Refused,
    ];

    pub(super) fn label(self) -> OneLabel {
        let reason = match self {
            Self::ClientCertificate => "client_certificate",
            Self::Closed => "closed",
            Self::Deadline => "deadline",
            Self::Protocol => "protocol",
            Self::Refused => "certificate_refused",
        };
        [("reason", reason)]
    }
}

/// Why a review was turned away unread; the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// Too many bytes of bodies held at once.
    Bytes,
    /// Too many reviews at once.
    Reviews,
}

impl Shed {
    pub(super) const ALL: [Self; 2] = [Self::Bytes, Self::Reviews];

    pub(super) fn label(self) -> OneLabel {
        let reason = match self {
            Self::Bytes => "bytes",
            Self::Reviews => "reviews",
        };
        [("reason", reason)]
    }
}

/// Files that are re-read while serving; the label `file`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadedFile {
    /// The CA of client certificates.
    ClientCa,
    /// The serving certificate with its key.
    Serving,
}

impl ReloadedFile {
    pub(super) const ALL: [Self; 2] = [Self::ClientCa, Self::Serving];

    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientCa => "client_ca",
            Self::Serving => "serving",
        }
    }
}
