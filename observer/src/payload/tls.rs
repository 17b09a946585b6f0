//! TLS: which server a client asks for. Nothing else of it can be read.

use rustls::server::Acceptor;

use super::{Reading, Reason};

/// The name of a server is that of a host (RFC 6066, 3), and those are no longer (RFC 1035,
/// 2.3.4).
const NAME_MAX: usize = 253;

/// What a stream of TLS begins with; `None`: its `ClientHello` has not ended.
pub(super) fn read(bytes: &[u8]) -> Option<Reading> {
    let nothing = Some(Reading::Nothing(Reason::Tls));
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        // It takes so much at a time.
        if !matches!(acceptor.read_tls(&mut rest), Ok(1..)) {
            return nothing;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let name = hello.server_name().filter(|name| name.len() <= NAME_MAX);
                return name.map_or(nothing, |name| Some(Reading::TlsTo(name.to_owned())));
            }
            Ok(None) => {}
            Err(_) => return nothing,
        }
    }
    None
}
