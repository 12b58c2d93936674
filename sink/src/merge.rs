//! Merging the small blocks of quiet tenants, without touching a row: the same messages under the same
//! `seq`s in fewer blocks.
//!
//! In: blocks of one tenant, stream and partition interval. Out: the blocks to insert and which ones
//! each replaces. Pure; the maintenance step that reads and replaces them does so in one transaction.

use std::ops::Range;

use inosec_schemas::TenantId;

use crate::block::{BlockError, BlockOptions, BlockRow, Packer, RawBlock, read_block};
use crate::encode::{CopyWriter, Frames};

/// A block as `raw_blocks` holds it.
#[derive(Debug, Clone)]
pub struct StoredBlock {
    /// `ts`, in microseconds.
    pub ts: i64,
    /// `first_seq`.
    pub first_seq: i64,
    /// `last_seq`.
    pub last_seq: i64,
    /// `data`.
    pub data: Vec<u8>,
}

/// A block that takes the place of several.
#[derive(Debug, Clone)]
pub struct MergedBlock {
    /// The largest `ts` of the blocks it replaces, so it lies in the same partition interval.
    pub ts: i64,
    /// The smallest `seq` of its messages.
    pub first_seq: i64,
    /// The largest `seq` of its messages.
    pub last_seq: i64,
    /// How many messages it holds.
    pub events: i32,
    /// What goes into `data`.
    pub data: Vec<u8>,
    /// The blocks it replaces, by position in what was handed in; two at least.
    pub replaces: Range<usize>,
}

/// What became of the blocks handed in. Those that no merged block replaces stay as they are.
#[derive(Debug, Clone, Default)]
pub struct Merge {
    /// The blocks to insert.
    pub merged: Vec<MergedBlock>,
    /// Blocks that can't be read, by position: left alone, for the caller to report.
    pub unreadable: Vec<(usize, BlockError)>,
}

/// Merges neighbours as long as they fit `options` together.
///
/// `blocks` belong to one tenant, stream and partition interval and are sorted by `first_seq`. Their
/// ranges may enclose each other: a transaction that was slow to commit has lower `seq`s than blocks
/// merged before it came. Takes about 0.3 ms per 100 messages at level 1.
#[must_use]
pub fn merge_blocks(blocks: &[StoredBlock], options: &BlockOptions) -> Merge {
    let mut packer = Packer::new(options.level);
    let mut merge = Merge::default();
    let mut group = Group::default();
    for (position, block) in blocks.iter().enumerate() {
        match open(block) {
            Ok(raw) => {
                if options.is_full(group.messages, group.bytes, raw.len(), raw.bytes()) {
                    merge.merged.extend(group.close(blocks, &mut packer));
                }
                group.add(position, raw);
            }
            Err(error) => {
                merge.merged.extend(group.close(blocks, &mut packer));
                merge.unreadable.push((position, error));
            }
        }
    }
    merge.merged.extend(group.close(blocks, &mut packer));
    merge
}

/// The COPY data of merged blocks, for the columns (ts, tenant_id, stream, first_seq, last_seq, events,
/// codec, data). No blocks give no frames.
#[must_use]
pub fn encode_merged(tenant: TenantId, stream: &str, blocks: &[MergedBlock]) -> Frames {
    if blocks.is_empty() {
        return Frames::new();
    }
    let mut writer = CopyWriter::new();
    for block in blocks {
        let MergedBlock { ts, first_seq, last_seq, events, ref data, .. } = *block;
        BlockRow { ts, tenant, stream, first_seq, last_seq, events, data }.put(&mut writer);
    }
    writer.finish()
}

/// Reads a block and checks that it is the one its row describes.
fn open(block: &StoredBlock) -> Result<RawBlock, BlockError> {
    let raw = read_block(&block.data)?;
    let first = raw.iter().next().map(|(seq, _)| seq);
    let last = raw.iter().next_back().map(|(seq, _)| seq);
    if first != Some(block.first_seq) || last != Some(block.last_seq) {
        return Err(BlockError::Disagrees);
    }
    Ok(raw)
}

/// Neighbours that will be one block.
#[derive(Default)]
struct Group {
    first: usize,
    blocks: Vec<RawBlock>,
    messages: usize,
    bytes: usize,
}

impl Group {
    fn add(&mut self, position: usize, block: RawBlock) {
        if self.blocks.is_empty() {
            self.first = position;
        }
        self.messages += block.len();
        self.bytes += block.bytes();
        self.blocks.push(block);
    }

    /// Makes the block and starts an empty group. A block without neighbours stays as it is.
    fn close(&mut self, stored: &[StoredBlock], packer: &mut Packer) -> Option<MergedBlock> {
        let group = std::mem::take(self);
        if group.blocks.len() < 2 {
            return None;
        }
        let replaces = group.first..group.first + group.blocks.len();
        let mut messages: Vec<(i64, &[u8])> = group.blocks.iter().flat_map(RawBlock::iter).collect();
        messages.sort_unstable_by_key(|(seq, _)| *seq);
        // No two messages of a tenant and stream have one seq. If they did, nothing may get lost.
        if messages.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        Some(MergedBlock {
            ts: stored[replaces.clone()].iter().map(|block| block.ts).max()?,
            first_seq: messages.first()?.0,
            last_seq: messages.last()?.0,
            events: i32::try_from(messages.len()).ok()?,
            data: packer.pack(messages.iter().copied()).to_vec(),
            replaces,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(ts: i64, messages: &[(i64, Vec<u8>)]) -> StoredBlock {
        let parts = messages.iter().map(|(seq, message)| (*seq, message.as_slice()));
        StoredBlock {
            ts,
            first_seq: messages[0].0,
            last_seq: messages[messages.len() - 1].0,
            data: Packer::new(1).pack(parts).to_vec(),
        }
    }

    fn contents(data: &[u8]) -> Vec<(i64, Vec<u8>)> {
        let block = read_block(data).expect("a block");
        block.iter().map(|(seq, message)| (seq, message.to_vec())).collect()
    }

    /// What the table holds once the merge is carried out.
    fn carried_out(blocks: &[StoredBlock], merge: &Merge) -> Vec<StoredBlock> {
        let replaced =
            |position: &usize| merge.merged.iter().any(|merged| merged.replaces.contains(position));
        let kept = (0..blocks.len()).filter(|position| !replaced(position)).map(|kept| blocks[kept].clone());
        let merged = merge.merged.iter().map(|merged| StoredBlock {
            ts: merged.ts,
            first_seq: merged.first_seq,
            last_seq: merged.last_seq,
            data: merged.data.clone(),
        });
        kept.chain(merged).collect()
    }

    fn blocks() -> impl Strategy<Value = Vec<StoredBlock>> {
        let message = proptest::collection::vec(any::<u8>(), 0..40);
        let one = (0_i64..1000, proptest::collection::vec(message, 1..9), 1_i64..50, 1_i64..5);
        proptest::collection::vec(one, 0..20).prop_map(|blocks| {
            let mut number = 0;
            let stored = blocks.into_iter().map(|(ts, messages, gap, step)| {
                number += gap << 10;
                let seqs = (0..).map(|position| number + position * step);
                block(ts, &seqs.zip(messages).collect::<Vec<_>>())
            });
            stored.collect()
        })
    }

    proptest! {
        #[test]
        fn merging_keeps_every_message_and_seq(blocks in blocks(), messages in 1_usize..30, bytes in 1_usize..600) {
            let options = BlockOptions { messages, bytes, level: 1 };
            let merge = merge_blocks(&blocks, &options);
            prop_assert!(merge.unreadable.is_empty());
            let all = |blocks: &[StoredBlock]| {
                let mut all: Vec<_> = blocks.iter().flat_map(|block| contents(&block.data)).collect();
                all.sort();
                all
            };
            prop_assert_eq!(all(&carried_out(&blocks, &merge)), all(&blocks));
            for merged in &merge.merged {
                let replaced = &blocks[merged.replaces.clone()];
                prop_assert!(replaced.len() >= 2);
                prop_assert_eq!(Some(merged.ts), replaced.iter().map(|block| block.ts).max());
                let held = contents(&merged.data);
                prop_assert_eq!(held.len(), merged.events as usize);
                prop_assert_eq!((held[0].0, held[held.len() - 1].0), (merged.first_seq, merged.last_seq));
                prop_assert!(held.len() <= messages);
                prop_assert!(held.iter().map(|(_, message)| message.len()).sum::<usize>() <= bytes);
            }
            // Merging again what fits together finds nothing left to do.
            let mut after = carried_out(&blocks, &merge);
            after.sort_by_key(|block| block.first_seq);
            let pairs = after.windows(2).map(|pair| (contents(&pair[0].data), contents(&pair[1].data)));
            for (a, b) in pairs {
                let size = |block: &[(i64, Vec<u8>)]| block.iter().map(|(_, message)| message.len()).sum::<usize>();
                prop_assert!(a.len() + b.len() > messages || size(&a) + size(&b) > bytes);
            }
        }
    }

    #[test]
    fn blocks_that_enclose_each_other_are_merged_in_order() {
        let blocks = [
            block(5, &[(10, b"a".to_vec()), (90, b"d".to_vec())]),
            block(9, &[(20, b"b".to_vec()), (30, b"c".to_vec())]),
        ];
        let merge = merge_blocks(&blocks, &BlockOptions::default());
        assert_eq!(merge.merged.len(), 1);
        assert_eq!(merge.merged[0].ts, 9);
        let held: Vec<_> = contents(&merge.merged[0].data).into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(held, [10, 20, 30, 90]);
    }

    #[test]
    fn an_unreadable_block_is_left_alone_and_reported() {
        let mut blocks: Vec<_> = (1..=5).map(|seq| block(seq, &[(seq, vec![7; 9])])).collect();
        blocks[2].data.truncate(9);
        let merge = merge_blocks(&blocks, &BlockOptions::default());
        let replaced: Vec<_> = merge.merged.iter().map(|merged| merged.replaces.clone()).collect();
        assert_eq!(replaced, [0..2, 3..5]);
        assert_eq!(merge.unreadable.len(), 1);
        assert_eq!(merge.unreadable[0].0, 2);
        blocks[2] = StoredBlock { last_seq: 4, ..block(3, &[(3, Vec::new())]) };
        let merge = merge_blocks(&blocks, &BlockOptions::default());
        assert_eq!(merge.unreadable, [(2, BlockError::Disagrees)]);
    }
}
