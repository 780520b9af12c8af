//! The hellos of client and server (RFC 8446, 4.1; RFC 5246, 7.4.1).

use compact_str::CompactString;

use super::cursor::Cursor;
use super::secrets::Random;
use super::version::Version;

/// Numbers of extensions (IANA, TLS ExtensionType Values).
pub(super) mod extension {
    pub(in super::super) const SERVER_NAME: u16 = 0;
    pub(super) const SUPPORTED_GROUPS: u16 = 10;
    pub(super) const POINT_FORMATS: u16 = 11;
    pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(in super::super) const ALPN: u16 = 16;
    pub(super) const ENCRYPT_THEN_MAC: u16 = 22;
    pub(in super::super) const EARLY_DATA: u16 = 42;
    pub(super) const SUPPORTED_VERSIONS: u16 = 43;
    pub(super) const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
    /// What came before it.
    pub(super) const ENCRYPTED_SERVER_NAME: u16 = 0xffce;
}

/// What a client offers.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ClientHello {
    /// As the message has it; `versions` says more where there are any.
    pub(super) version: Version,
    pub(super) random: Random,
    pub(super) suites: Vec<u16>,
    /// In the order of the message.
    pub(super) extensions: Vec<u16>,
    pub(super) server_name: Option<CompactString>,
    /// The first protocol.
    pub(super) alpn: Option<CompactBytes>,
    pub(super) versions: Vec<u16>,
    pub(super) signatures: Vec<u16>,
    pub(super) groups: Vec<u16>,
    pub(super) point_formats: Vec<u8>,
    /// The hello proper is encrypted: the server name is that of the front.
    pub(super) encrypted: bool,
}

/// Bytes of a protocol name.
pub(super) type CompactBytes = smallvec::SmallVec<[u8; 8]>;

/// What a server takes.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ServerHello {
    /// The version that is spoken.
    pub(super) version: Version,
    pub(super) random: Random,
    pub(super) suite: u16,
    /// Records are compressed (RFC 3749).
    pub(super) compressed: bool,
    pub(super) alpn: Option<CompactString>,
    /// RFC 7366.
    pub(super) encrypt_then_mac: bool,
}

/// SHA-256 of `HelloRetryRequest` (RFC 8446, 4.1.3).
const RETRY: Random = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// The longest host name (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 255;

impl ClientHello {
    /// From the body of a handshake message.
    pub(super) fn parse(body: &[u8]) -> Option<ClientHello> {
        let mut cursor = Cursor(body);
        let version = Version(cursor.u16()?);
        let random = cursor.array()?;
        cursor.vector8()?;
        let suites = cursor.vector16()?.u16s().collect();
        cursor.vector8()?;
        let mut hello = ClientHello { suites, ..ClientHello::bare(version, random) };
        for (number, data) in extensions(cursor) {
            hello.extension(number, data);
        }
        Some(hello)
    }

    /// From a message of SSL 2 that offers more than that (RFC 5246, E.2).
    pub(super) fn parse_v2(message: &[u8]) -> Option<ClientHello> {
        let mut cursor = Cursor(message.strip_prefix(&[1])?);
        let version = Version(cursor.u16()?);
        let [specs, session, challenge] =
            [cursor.u16()?, cursor.u16()?, cursor.u16()?].map(usize::from);
        let specs = cursor.bytes(specs)?;
        cursor.bytes(session)?;
        let challenge = cursor.bytes(challenge)?;
        let mut random = [0; 32];
        let missing = random.len().checked_sub(challenge.len())?;
        random[missing..].copy_from_slice(challenge);
        let suites = specs
            .chunks_exact(3)
            .filter_map(|spec| match spec {
                [0, high, low] => Some(u16::from_be_bytes([*high, *low])),
                _ => None,
            })
            .collect();
        Some(ClientHello { suites, ..ClientHello::bare(version, random) })
    }

    fn bare(version: Version, random: Random) -> ClientHello {
        ClientHello {
            version,
            random,
            suites: Vec::new(),
            extensions: Vec::new(),
            server_name: None,
            alpn: None,
            versions: Vec::new(),
            signatures: Vec::new(),
            groups: Vec::new(),
            point_formats: Vec::new(),
            encrypted: false,
        }
    }

    fn extension(&mut self, number: u16, mut data: Cursor<'_>) {
        self.extensions.push(number);
        let u16s = |list: Option<Cursor<'_>>| list.into_iter().flat_map(Cursor::u16s).collect();
        match number {
            extension::SERVER_NAME => self.server_name = server_name(data),
            extension::ALPN => {
                let first = data.vector16().and_then(|mut list| list.vector8());
                self.alpn =
                    first.map(|name| name.0.into()).filter(|it: &CompactBytes| !it.is_empty());
            }
            extension::SUPPORTED_VERSIONS => self.versions = u16s(data.vector8()),
            extension::SIGNATURE_ALGORITHMS => self.signatures = u16s(data.vector16()),
            extension::SUPPORTED_GROUPS => self.groups = u16s(data.vector16()),
            extension::POINT_FORMATS => {
                self.point_formats = data.vector8().map_or(Vec::new(), |list| list.0.to_vec());
            }
            extension::ENCRYPTED_CLIENT_HELLO | extension::ENCRYPTED_SERVER_NAME => {
                self.encrypted = true;
            }
            _ => {}
        }
    }

    /// Whether bytes of the application may follow at once.
    pub(super) fn has_early_data(&self) -> bool {
        self.extensions.contains(&extension::EARLY_DATA)
    }
}

impl ServerHello {
    /// From the body of a handshake message.
    pub(super) fn parse(body: &[u8]) -> Option<ServerHello> {
        let mut cursor = Cursor(body);
        let version = Version(cursor.u16()?);
        let random = cursor.array()?;
        // Until draft 22 the hello of TLS 1.3 had another form.
        let is_short = version.is_before_draft(22);
        if !is_short {
            cursor.vector8()?;
        }
        let suite = cursor.u16()?;
        let compressed = !is_short && cursor.u8()? != 0;
        let mut hello =
            ServerHello { version, random, suite, compressed, alpn: None, encrypt_then_mac: false };
        for (number, mut data) in extensions(cursor) {
            match number {
                extension::SUPPORTED_VERSIONS => {
                    hello.version = data.u16().map_or(version, Version);
                }
                extension::ALPN => hello.alpn = alpn(data),
                extension::ENCRYPT_THEN_MAC => hello.encrypt_then_mac = true,
                _ => {}
            }
        }
        Some(hello)
    }

    /// Asks for another hello.
    pub(super) fn is_retry(&self) -> bool {
        self.random == RETRY
    }
}

/// What EncryptedExtensions say (RFC 8446, 4.3.1): the protocol, and whether early data is taken.
pub(super) fn encrypted_extensions(body: &[u8]) -> (Option<CompactString>, bool) {
    let mut protocol = None;
    let mut early_data = false;
    for (number, data) in extensions(Cursor(body)) {
        match number {
            extension::ALPN => protocol = alpn(data),
            extension::EARLY_DATA => early_data = true,
            _ => {}
        }
    }
    (protocol, early_data)
}

/// Number and data of each extension, as far as the bytes go.
fn extensions(mut cursor: Cursor<'_>) -> impl Iterator<Item = (u16, Cursor<'_>)> {
    let mut list = cursor.vector16().unwrap_or(Cursor(&[]));
    std::iter::from_fn(move || Some((list.u16()?, list.vector16()?)))
}

/// The first host name (RFC 6066, 3).
fn server_name(mut data: Cursor<'_>) -> Option<CompactString> {
    let mut list = data.vector16()?;
    while let Some(kind) = list.u8() {
        let name = list.vector16()?.0;
        if kind == 0 && (1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Some(CompactString::from_utf8_lossy(name));
        }
    }
    None
}

/// The protocol that a server took (RFC 7301, 3.1).
fn alpn(mut data: Cursor<'_>) -> Option<CompactString> {
    let name = data.vector16()?.vector8()?.0;
    (!name.is_empty()).then(|| CompactString::from_utf8_lossy(name))
}
