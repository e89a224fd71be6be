//! Splitting super-frames: whatever the kernel's note and the frame say, the output is bounded and each frame is a frame; what is
//! joined again says the same.
//!
//! Input: the note (10 bytes, `virtio_net_hdr`), how many bytes of pattern follow the rest (2 bytes, so that 64 KiB take few), the frame.

use softlan_port::{
    FrameBatch, MAX_FRAME_LEN,
    offload::{
        split::{MAX_SEGMENTS, SplitError, split},
        vnet::{Gso, VNET_HEADER_LEN, VnetHeader},
    },
};

use crate::{
    join,
    source::{Source, pattern},
};

const HEADROOM: usize = 8;

/// Splits, and joins what came out.
pub fn check(data: &[u8]) {
    let mut source = Source::new(data);
    let mut note = [0; VNET_HEADER_LEN];
    note.iter_mut().for_each(|byte| *byte = source.byte());
    let fill = usize::from(source.word());
    let frame = [source.rest(), &pattern(note[0], fill)].concat();
    let vnet = VnetHeader::decode(&note);
    assert_eq!(VnetHeader::decode(&vnet.encode()), vnet);

    let mut batch = FrameBatch::new(HEADROOM);
    match split(&vnet, &mut frame.clone(), &mut batch) {
        Err(error) => {
            assert!(batch.is_empty() && batch.bytes() == 0, "{error} and yet frames");
            assert!(vnet.gso != Gso::None || error == SplitError::ChecksumPlace || !is_plain(frame.len()));
        }
        Ok(count) => {
            assert_eq!(batch.len(), count);
            assert!((1..=MAX_SEGMENTS).contains(&count));
            let frames: Vec<Vec<u8>> = batch.frames().map(<[u8]>::to_vec).collect();
            assert!(frames.iter().all(|frame| (14..=MAX_FRAME_LEN).contains(&frame.len())));
            assert_eq!(frames.iter().map(Vec::len).sum::<usize>(), batch.bytes());
            if vnet.gso == Gso::None {
                assert_eq!((count, frames[0].len()), (1, frame.len()));
            }
            // A partial checksum may be anywhere in the one frame that it is for: that is the kernel's to say.
            if vnet.gso != Gso::None {
                assert!(frames.iter().all(|made| made[..12] == frame[..12]), "other addresses");
            }
            join::comes_back(&frames);
            assert!(batch.drain().all(|frame| frame[..HEADROOM].iter().all(|byte| *byte == 0)));
        }
    }
}

const fn is_plain(len: usize) -> bool {
    len >= 14 && len <= MAX_FRAME_LEN
}
