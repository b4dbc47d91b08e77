//! Frames cut into IP fragments.

/// Where the IP header of a frame with `tags` VLAN tags begins.
fn network_at(frame: &[u8]) -> usize {
    let mut at = 12;
    while matches!(u16::from_be_bytes([frame[at], frame[at + 1]]), 0x8100 | 0x88a8) {
        at += 4;
    }
    at + 2
}

/// Bytes of the IP payload of a frame as `Segment` makes them: no options, no extension headers.
pub fn payload(frame: &[u8]) -> &[u8] {
    let at = network_at(frame);
    &frame[at + if frame[at] >> 4 == 4 { 20 } else { 40 }..]
}

/// One fragment of the datagram in `frame`: `bytes`, at offset `at` of its payload.
pub fn piece(frame: &[u8], identification: u16, at: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    let network = network_at(frame);
    let place = u16::try_from(at).unwrap();
    assert_eq!(place % 8, 0);
    let mut out = frame[..network].to_vec();
    if frame[network] >> 4 == 4 {
        let mut header = frame[network..network + 20].to_vec();
        header[2..4].copy_from_slice(&u16::try_from(20 + bytes.len()).unwrap().to_be_bytes());
        header[4..6].copy_from_slice(&identification.to_be_bytes());
        header[6..8].copy_from_slice(&((place / 8) | (u16::from(more) << 13)).to_be_bytes());
        out.extend(header);
    } else {
        let mut header = frame[network..network + 40].to_vec();
        header[4..6].copy_from_slice(&u16::try_from(8 + bytes.len()).unwrap().to_be_bytes());
        header[6] = 44;
        out.extend(header);
        out.extend([6, 0]);
        out.extend((place | u16::from(more)).to_be_bytes());
        out.extend(u32::from(identification).to_be_bytes());
    }
    out.extend(bytes);
    // As Ethernet pads; what runs a program takes no shorter frame either.
    out.resize(out.len().max(64), 0);
    out
}

/// The datagram in `frame`, cut at those of `cuts` (multiples of 8, rising) that it reaches beyond.
pub fn cut(frame: &[u8], identification: u16, cuts: &[usize]) -> Vec<Vec<u8>> {
    let bytes = payload(frame);
    let cuts = || cuts.iter().copied().filter(|at| *at < bytes.len());
    let from = std::iter::once(0).chain(cuts());
    let to = cuts().chain([bytes.len()]);
    from.zip(to).map(|(from, to)| piece(frame, identification, from, to < bytes.len(), &bytes[from..to])).collect()
}

/// The datagram in `frame`, in `count` fragments of about one length.
pub fn split(frame: &[u8], identification: u16, count: usize) -> Vec<Vec<u8>> {
    let each = (payload(frame).len() / count) & !7;
    assert!(each > 0);
    cut(frame, identification, &(1..count).map(|number| number * each).collect::<Vec<_>>())
}
