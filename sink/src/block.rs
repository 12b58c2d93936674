//! Raw blocks: messages as received, compressed together. `docs/raw-blocks.md` describes the format
//! for readers in other languages.
//!
//! In: messages of one tenant, stream and partition interval, in `seq` order. Out: `raw_blocks.data`,
//! and back. Writing can't fail; reading takes bytes from anywhere and answers with an error, having
//! allocated no more than [`MAX_PLAIN`].

use std::ops::Range;

use inosec_schemas::TenantId;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, get_frame_content_size};

use crate::encode::CopyWriter;

/// `raw_blocks.codec` of what [`read_block`] reads.
pub const CODEC: &str = "zstd";

/// A block never holds more than this many bytes uncompressed: above librdkafka's largest message
/// (1,000,000,000 bytes), since a message larger than a block has one to itself.
pub const MAX_PLAIN: usize = 1 << 30;

/// No zstd frame grows by more than this when decompressed: an inner block of at least four bytes
/// (RFC 8878 §3.1.1.2) stands for at most 128 KiB. A header that claims more is a lie.
const MAX_RATIO: usize = (128 << 10) / 4;

/// The count.
const HEAD: usize = 4;
/// A message's seq and length.
const ENTRY: usize = 12;

/// How blocks are cut and compressed. Measured in `docs/adr/0003-raw-blocks.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockOptions {
    /// Messages at most.
    pub messages: usize,
    /// Bytes of messages at most, unless a single one is larger.
    pub bytes: usize,
    /// The zstd level.
    pub level: i32,
}

impl Default for BlockOptions {
    /// 128 messages, 512 KiB, level 1.
    fn default() -> Self {
        Self { messages: 128, bytes: 512 << 10, level: 1 }
    }
}

impl BlockOptions {
    /// Whether a block of `messages` and `bytes` can't take `more` messages of `more_bytes` together.
    pub(crate) fn is_full(&self, messages: usize, bytes: usize, more: usize, more_bytes: usize) -> bool {
        messages > 0 && (messages + more > self.messages || bytes + more_bytes > self.bytes)
    }
}

/// Makes blocks. Holds zstd's context (about 1 MiB) and two buffers, so that a block costs no
/// allocation.
pub(crate) struct Packer {
    compressor: Compressor<'static>,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Packer {
    /// # Panics
    /// If there is no memory for zstd's context. Levels out of range are taken as the nearest.
    pub(crate) fn new(level: i32) -> Self {
        let mut compressor = Compressor::new(level).expect("memory for a compression context");
        // Four bytes by which a reader knows that every bit is as written.
        compressor.set_parameter(CParameter::ChecksumFlag(true)).expect("zstd has checksums");
        Self { compressor, plain: Vec::new(), packed: Vec::new() }
    }

    /// `raw_blocks.data` of these messages, valid until the next call.
    ///
    /// # Panics
    /// If there is no memory for zstd's tables.
    pub(crate) fn pack<'a>(
        &mut self,
        messages: impl ExactSizeIterator<Item = (i64, &'a [u8])> + Clone,
    ) -> &[u8] {
        self.plain.clear();
        self.plain.extend_from_slice(&(messages.len() as u32).to_le_bytes());
        for (seq, message) in messages.clone() {
            self.plain.extend_from_slice(&seq.to_le_bytes());
            self.plain.extend_from_slice(&(message.len() as u32).to_le_bytes());
        }
        for (_, message) in messages {
            self.plain.extend_from_slice(message);
        }
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.plain.len()));
        let packed = self.compressor.compress_to_buffer(&self.plain, &mut self.packed);
        packed.expect("the buffer holds zstd's worst case");
        &self.packed
    }
}

/// One row of `raw_blocks`.
pub(crate) struct BlockRow<'a> {
    /// A time in the partition interval of its rows, in microseconds.
    pub ts: i64,
    pub tenant: TenantId,
    pub stream: &'a str,
    pub first_seq: i64,
    pub last_seq: i64,
    pub events: i32,
    pub data: &'a [u8],
}

impl BlockRow<'_> {
    /// Writes the tuple (ts, tenant_id, stream, first_seq, last_seq, events, codec, data).
    pub(crate) fn put(&self, writer: &mut CopyWriter) {
        writer.tuple(8);
        writer.timestamp(self.ts);
        writer.uuid(self.tenant.0);
        writer.bytes(self.stream.as_bytes());
        writer.int64(self.first_seq);
        writer.int64(self.last_seq);
        writer.int32(self.events);
        writer.bytes(CODEC.as_bytes());
        writer.bytes(self.data);
    }
}

/// Why a block can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Not a zstd frame that says how large its content is.
    #[error("not a zstd frame of known size")]
    NoFrame,
    /// The frame claims a size beyond [`MAX_PLAIN`] or beyond what its bytes can stand for, or there
    /// is no memory for it.
    #[error("claims to hold {claimed} bytes")]
    TooLarge {
        /// What the frame's header says.
        claimed: u64,
    },
    /// zstd can't decompress it, or its checksum is wrong.
    #[error("zstd: {what}")]
    Corrupt {
        /// What zstd says.
        what: &'static str,
    },
    /// The content is not a count, that many places and their messages.
    #[error("the content is not a block of messages")]
    Misshapen,
    /// The row of `raw_blocks` says something else about it.
    #[error("holds other messages than its row says")]
    Disagrees,
}

/// A block's messages.
#[derive(Clone, PartialEq, Eq)]
pub struct RawBlock {
    plain: Vec<u8>,
    entries: Vec<(i64, Range<u32>)>,
}

impl std::fmt::Debug for RawBlock {
    /// Never the bytes: they are customers' data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawBlock").field("messages", &self.len()).field("bytes", &self.plain.len()).finish()
    }
}

impl RawBlock {
    /// How many messages there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all messages together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.plain.len() - HEAD - ENTRY * self.entries.len()
    }

    /// The message of this `seq`, byte for byte. `None` if another block holds it: ranges of merged
    /// blocks may enclose others.
    #[must_use]
    pub fn find(&self, seq: i64) -> Option<&[u8]> {
        let position = self.entries.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        Some(self.message(&self.entries[position].1))
    }

    /// All messages in `seq` order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (i64, &[u8])> + ExactSizeIterator + Clone {
        self.entries.iter().map(|(seq, place)| (*seq, self.message(place)))
    }

    fn message(&self, place: &Range<u32>) -> &[u8] {
        &self.plain[place.start as usize..place.end as usize]
    }
}

/// Reads `raw_blocks.data` whose `codec` is [`CODEC`].
///
/// Takes about 0.2 ms for a full block. Bytes that are no block are an error, never a panic.
pub fn read_block(data: &[u8]) -> Result<RawBlock, BlockError> {
    let claimed = get_frame_content_size(data).ok().flatten().ok_or(BlockError::NoFrame)?;
    let too_large = BlockError::TooLarge { claimed };
    let most = data.len().saturating_mul(MAX_RATIO).min(MAX_PLAIN);
    let size = usize::try_from(claimed).ok().filter(|size| *size <= most).ok_or(too_large)?;
    let mut plain = Vec::new();
    plain.try_reserve_exact(size).map_err(|_| too_large)?;
    let corrupt = |_| BlockError::Corrupt { what: "can't be decompressed" };
    let mut decompressor = Decompressor::new().map_err(corrupt)?;
    decompressor.decompress_to_buffer(data, &mut plain).map_err(corrupt)?;
    let entries = read_entries(&plain).ok_or(BlockError::Misshapen)?;
    Ok(RawBlock { plain, entries })
}

/// Where the messages lie. `None` unless the seqs rise and the lengths fill the block exactly.
fn read_entries(plain: &[u8]) -> Option<Vec<(i64, Range<u32>)>> {
    let (count, rest) = plain.split_first_chunk::<HEAD>()?;
    let count = u32::from_le_bytes(*count) as usize;
    let table = rest.get(..count.checked_mul(ENTRY)?)?;
    let mut start = u32::try_from(HEAD + table.len()).ok()?;
    let mut entries: Vec<(i64, Range<u32>)> = Vec::with_capacity(count);
    for entry in table.chunks_exact(ENTRY) {
        let (seq, length) = entry.split_first_chunk::<8>()?;
        let seq = i64::try_from(u64::from_le_bytes(*seq)).ok()?;
        if entries.last().is_some_and(|(last, _)| *last >= seq) {
            return None;
        }
        let end = start.checked_add(u32::from_le_bytes(length.try_into().ok()?))?;
        entries.push((seq, start..end));
        start = end;
    }
    (start as usize == plain.len()).then_some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pack(messages: &[(i64, Vec<u8>)]) -> Vec<u8> {
        let messages = messages.iter().map(|(seq, message)| (*seq, message.as_slice()));
        Packer::new(1).pack(messages).to_vec()
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(plain, 1).expect("compresses")
    }

    fn messages() -> impl Strategy<Value = Vec<(i64, Vec<u8>)>> {
        let message = (1_i64..1 << 40, proptest::collection::vec(any::<u8>(), 0..300));
        proptest::collection::vec(message, 0..200).prop_map(|mut messages| {
            let mut seq = 0;
            for message in &mut messages {
                seq += message.0;
                message.0 = seq;
            }
            messages
        })
    }

    proptest! {
        #[test]
        fn any_messages_are_read_back(messages in messages()) {
            let block = read_block(&pack(&messages)).expect("a block");
            let read: Vec<_> = block.iter().map(|(seq, message)| (seq, message.to_vec())).collect();
            prop_assert_eq!(&read, &messages);
            for (seq, message) in &messages {
                prop_assert_eq!(block.find(*seq), Some(message.as_slice()));
                prop_assert_eq!(block.find(*seq - 1).is_some(), messages.iter().any(|(s, _)| *s == *seq - 1));
            }
            prop_assert_eq!(block.bytes(), messages.iter().map(|(_, message)| message.len()).sum::<usize>());
        }

        #[test]
        fn bytes_that_are_no_block_are_an_error(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(read_block(&data).is_err());
            let mut framed = vec![0x28, 0xb5, 0x2f, 0xfd];
            framed.extend_from_slice(&data);
            let _ = read_block(&framed);
            let _ = read_block(&zstd(&data));
        }

        #[test]
        fn a_changed_block_is_noticed(messages in messages(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let mut data = pack(&messages);
            let cut = at.index(data.len());
            prop_assert!(read_block(&data[..cut]).is_err());
            data[cut] ^= 1 << bit;
            // A bit of the frame header that means nothing may change without harm.
            if let Ok(block) = read_block(&data) {
                let read: Vec<_> = block.iter().map(|(seq, message)| (seq, message.to_vec())).collect();
                prop_assert_eq!(read, messages);
            }
        }
    }

    #[test]
    fn content_that_is_not_a_block_is_refused() {
        let entry = |seq: u64, length: u32| [seq.to_le_bytes().as_slice(), &length.to_le_bytes()].concat();
        let block = |count: u32, rest: &[Vec<u8>]| zstd(&[&count.to_le_bytes()[..], &rest.concat()].concat());
        assert_eq!(read_block(&block(1, &[entry(5, 2), b"ab".to_vec()])).map(|block| block.len()), Ok(1));
        for data in [
            zstd(b""),
            zstd(b"\x01\0"),
            block(u32::MAX, &[]),
            block(2, &[entry(5, 0)]),
            block(2, &[entry(5, 0), entry(5, 0)]),
            block(2, &[entry(6, 0), entry(5, 0)]),
            block(1, &[entry(u64::MAX, 0)]),
            block(1, &[entry(5, 3), b"ab".to_vec()]),
            block(1, &[entry(5, 1), b"ab".to_vec()]),
            block(2, &[entry(5, u32::MAX), entry(6, u32::MAX)]),
        ] {
            assert_eq!(read_block(&data), Err(BlockError::Misshapen));
        }
    }

    #[test]
    fn a_frame_that_claims_gigabytes_allocates_nothing() {
        // Magic, descriptor (8-byte size, single segment), size, one empty last raw block.
        for claimed in [u64::MAX, 1 << 62, 1 << 40, 1 << 29] {
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
            frame.extend_from_slice(&claimed.to_le_bytes());
            frame.extend_from_slice(&[1, 0, 0]);
            assert!(matches!(read_block(&frame), Err(BlockError::TooLarge { .. } | BlockError::NoFrame)));
        }
    }
}
