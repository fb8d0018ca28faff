//! How bytes are kept: compressed, encrypted, both, or as they are.

use std::borrow::Cow;

use bytes::Bytes;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use kps_proto::{Error, ErrorKind};

use crate::store::fault::{Result, Trouble, corrupt};

/// The bits of `form` that belong to whoever saves.
pub(super) const KIND: u8 = 0x0f;
/// LZ4, the length before it.
const COMPRESSED: u8 = 0x10;
/// XChaCha20-Poly1305: a nonce of 24 bytes, then the sealed bytes.
const SEALED: u8 = 0x20;

/// Shorter values are not worth it.
const COMPRESS_FROM: usize = 512;

const NONCE: usize = 24;

/// What encrypts values.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// A key that is as random as it is long.
    Bytes([u8; 32]),
    /// Words; a key is made of them with Argon2id.
    Passphrase(String),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// 64 hexadecimal digits are a key of 32 bytes, any other text is a passphrase; blanks around it are not part of
    /// it. `None`: there is no text.
    pub fn parse(text: &str) -> Option<Key> {
        let text = text.trim();
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return (!text.is_empty()).then(|| Key::Passphrase(text.to_owned()));
        }
        let digit = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = digit(pair[0]) << 4 | digit(pair[1]);
        }
        Some(Key::Bytes(bytes))
    }

    /// How the key is made, as the file says it.
    pub(super) fn derivation(&self) -> &'static str {
        match self {
            Key::Bytes(_) => "none",
            Key::Passphrase(_) => "argon2id",
        }
    }

    /// The key; takes a tenth of a second with a passphrase, and 19 MiB.
    pub(super) fn derive(&self, salt: &[u8]) -> kps_proto::Result<[u8; 32]> {
        match self {
            Key::Bytes(bytes) => Ok(*bytes),
            Key::Passphrase(words) => {
                let mut key = [0; 32];
                argon2::Argon2::default()
                    .hash_password_into(words.as_bytes(), salt, &mut key)
                    .map_err(|error| Error::new(ErrorKind::Internal, format!("argon2: {error}")))?;
                Ok(key)
            }
        }
    }
}

/// Which bytes these are, so that sealed ones cannot be moved to where they do not belong.
pub(super) enum Place<'a> {
    /// In a row: namespace, key, version.
    Row(i64, &'a str, u64),
    /// A chunk: content, start.
    Chunk(i64, u64),
    /// A chunk in the cloud: the value's id, the chunk's number.
    Cloud(&'a str, u64),
    /// What shows that a key is the right one.
    Proof,
}

impl Place<'_> {
    fn bytes(&self, kind: u8) -> Vec<u8> {
        let mut bytes = vec![kind];
        let (tag, numbers, key) = match self {
            Place::Row(namespace, key, version) => (1, [namespace.cast_unsigned(), *version], *key),
            Place::Chunk(content, start) => (2, [content.cast_unsigned(), *start], ""),
            Place::Proof => (3, [0, 0], ""),
            Place::Cloud(id, number) => (4, [0, *number], *id),
        };
        bytes.push(tag);
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend_from_slice(key.as_bytes());
        bytes
    }
}

/// Keeps bytes in the way that was asked for; reads all ways.
#[derive(Default)]
pub(super) struct Seal {
    pub(super) compress: bool,
    cipher: Option<XChaCha20Poly1305>,
    /// Without it ETags would tell who can read the file which values are the same.
    hash_key: Option<[u8; 32]>,
}

impl Seal {
    pub(super) fn new(compress: bool, key: Option<&[u8; 32]>) -> Seal {
        let derive = |purpose| key.map(|key| blake3::derive_key(purpose, key));
        Seal {
            compress,
            cipher: derive("kps storage: values").map(|key| XChaCha20Poly1305::new(&key.into())),
            hash_key: derive("kps storage: ETags"),
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.cipher.is_some()
    }

    /// What hashes a value of this kind.
    pub(super) fn hasher(&self, kind: u8) -> blake3::Hasher {
        let mut hasher =
            self.hash_key.as_ref().map_or_else(blake3::Hasher::new, blake3::Hasher::new_keyed);
        hasher.update(&[kind]);
        hasher
    }

    /// How `bytes` are kept there, and the `form` that says so.
    pub(super) fn seal<'a>(
        &self,
        place: &Place<'_>,
        kind: u8,
        bytes: &'a [u8],
    ) -> Result<(u8, Cow<'a, [u8]>)> {
        let mut form = kind;
        let mut kept = Cow::Borrowed(bytes);
        if self.compress && bytes.len() >= COMPRESS_FROM {
            let smaller = lz4_flex::block::compress_prepend_size(bytes);
            // Reading costs something: an eighth at least must be won.
            if smaller.len() < bytes.len() - bytes.len() / 8 {
                form |= COMPRESSED;
                kept = Cow::Owned(smaller);
            }
        }
        if let Some(cipher) = &self.cipher {
            form |= SEALED;
            let mut nonce = [0; NONCE];
            getrandom::fill(&mut nonce)
                .map_err(|error| Trouble::Failed(format!("no random numbers: {error}")))?;
            let payload = Payload { msg: &kept, aad: &place.bytes(form) };
            let sealed = cipher.encrypt(&XNonce::from(nonce), payload);
            let sealed = sealed.map_err(|_| Trouble::Failed("too long to encrypt".into()))?;
            kept = Cow::Owned([&nonce[..], &sealed].concat());
        }
        Ok((form, kept))
    }

    /// What was sealed.
    pub(super) fn open(&self, place: &Place<'_>, form: u8, kept: &[u8]) -> Result<Bytes> {
        let mut bytes = Cow::Borrowed(kept);
        if form & SEALED != 0 {
            let (Some(cipher), Some((nonce, sealed))) =
                (&self.cipher, kept.split_first_chunk::<NONCE>())
            else {
                return corrupt("a value is encrypted that should not be");
            };
            let payload = Payload { msg: sealed, aad: &place.bytes(form) };
            match cipher.decrypt(&XNonce::from(*nonce), payload) {
                Ok(opened) => bytes = Cow::Owned(opened),
                Err(_) => return corrupt("an encrypted value was changed"),
            }
        }
        if form & COMPRESSED != 0 {
            let known = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
            if known as usize > super::chunks::MAX_PART {
                return corrupt("a compressed value is longer than any");
            }
            match lz4_flex::block::decompress_size_prepended(&bytes) {
                Ok(whole) => bytes = Cow::Owned(whole),
                Err(error) => return corrupt(format!("a compressed value: {error}")),
            }
        }
        Ok(match bytes {
            Cow::Owned(bytes) => bytes.into(),
            Cow::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
        })
    }
}

/// A hash's first bytes, for an ETag.
pub(crate) fn short(hash: &blake3::Hash) -> u64 {
    let bytes = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
    u64::from_be_bytes(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_where_it_belongs_and_nowhere_else() {
        let text = "abc".repeat(400);
        let place = Place::Row(1, "key", 7);
        for (compress, key) in
            [(false, None), (true, None), (false, Some([7; 32])), (true, Some([7; 32]))]
        {
            let seal = Seal::new(compress, key.as_ref());
            let (form, kept) = seal.seal(&place, 1, text.as_bytes()).unwrap();
            assert_eq!(form & KIND, 1);
            assert_eq!(kept.len() < text.len(), compress);
            assert_eq!(seal.open(&place, form, &kept).unwrap(), text);
            if key.is_some() {
                for (place, form) in [
                    (Place::Row(1, "key", 8), form),
                    (Place::Row(2, "key", 7), form),
                    (Place::Chunk(1, 7), form),
                    (Place::Row(1, "key", 7), form ^ 1),
                ] {
                    seal.open(&place, form, &kept).unwrap_err();
                }
                Seal::new(compress, Some(&[8; 32])).open(&place, form, &kept).unwrap_err();
            }
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_compressed() {
        let seal = Seal::new(true, None);
        let noise: Vec<u8> = (0..1000_u64).map(|n| crate::store::tests::noise(n) as u8).collect();
        assert_eq!(seal.seal(&Place::Chunk(1, 0), 0, &noise).unwrap().0, 0);
        assert_eq!(seal.seal(&Place::Chunk(1, 0), 0, &[0; 511]).unwrap().0, 0);
        assert_eq!(seal.seal(&Place::Chunk(1, 0), 0, &[0; 512]).unwrap().0, COMPRESSED);
    }
}
