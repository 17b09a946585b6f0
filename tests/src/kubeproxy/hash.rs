//! The hashes in the names that kube-proxy gives.

use data_encoding::BASE32;
use sha2::{Digest as _, Sha256};

/// The first characters of a text's hash.
pub(super) fn hash(of: &str, characters: usize) -> String {
    let mut text = BASE32.encode(&Sha256::digest(of));
    text.truncate(characters);
    text
}
