//! Memory for received payloads: small ones are cut from a chunk, because the host frees them on
//! another thread than the one that receives, and allocators make two threads wait for that.

use bytes::{Bytes, BytesMut};

/// What a small payload that is kept can pin, in bytes.
const CHUNK: usize = 4 << 10;

#[derive(Debug, Default)]
pub(super) struct Payloads {
    chunk: BytesMut,
}

impl Payloads {
    /// Shares with `shared` when that pins at most four times the payload's size, else copies.
    #[inline]
    pub(super) fn keep(&mut self, payload: &[u8], shared: Option<&Bytes>) -> Bytes {
        match shared {
            Some(bytes) if payload.len() >= bytes.len() / 4 => bytes.slice_ref(payload),
            _ if payload.len() > CHUNK / 4 => Bytes::copy_from_slice(payload),
            _ => {
                if self.chunk.capacity() < payload.len() {
                    self.chunk = BytesMut::with_capacity(CHUNK);
                }
                self.chunk.extend_from_slice(payload);
                self.chunk.split().freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_of_any_size_come_back_whole() {
        let mut payloads = Payloads::default();
        let sent: Vec<Vec<u8>> =
            (0..3 * CHUNK).step_by(97).map(|size| vec![size as u8; size]).collect();
        let kept: Vec<Bytes> = sent.iter().map(|payload| payloads.keep(payload, None)).collect();
        assert_eq!(kept, sent);
    }

    #[test]
    fn a_payload_that_is_most_of_a_batch_shares_its_memory() {
        let batch = Bytes::from(vec![7; 100]);
        let kept = Payloads::default().keep(&batch[10..90], Some(&batch));
        assert_eq!(kept.as_ptr(), batch[10..].as_ptr());
    }
}
