//! Capture files, written by tests.

use super::packets::Segment;

/// A pcap file (microseconds, Ethernet) of frames with their times in nanoseconds.
pub fn pcap(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        file.extend(word.to_le_bytes());
    }
    for (at_ns, frame) in frames {
        let length = u32::try_from(frame.len()).unwrap();
        let seconds = u32::try_from(at_ns / 1_000_000_000).unwrap();
        let microseconds = u32::try_from(at_ns % 1_000_000_000 / 1000).unwrap();
        for word in [seconds, microseconds, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

/// Frames one millisecond apart, from `at_s` seconds after 1970 on.
pub fn timed(at_s: u64, segments: &[Segment]) -> Vec<(u64, Vec<u8>)> {
    let at = |index: usize| at_s * 1_000_000_000 + index as u64 * 1_000_000;
    segments.iter().enumerate().map(|(index, segment)| (at(index), segment.frame())).collect()
}
