//! A conversation as bytes: what the two ends say, with markers for where it is cut and who speaks.
//!
//! Every byte stands for itself, but for six markers at the top of the range, which no HTTP head needs: so a seed is
//! nearly readable, and whatever a fuzzer inserts, moves or deletes is again a conversation.

use crate::rig::Side;

/// The segment ends here.
pub const CUT: u8 = 0xff;
/// From here on the other end speaks.
pub const TURN: u8 = 0xfe;
/// The next byte stands for itself, whatever it is.
pub const LITERAL: u8 = 0xfd;
/// The end that speaks closes its direction.
pub const FIN: u8 = 0xfc;
/// The segment ends here, and the next one begins with as many bytes once more as the next byte says.
pub const AGAIN: u8 = 0xfb;
/// The segment ends here, and comes only behind the next one of its turn.
pub const LATE: u8 = 0xfa;

/// Longest script that is played: more teaches nothing new, and heads of any length fit.
pub const LEN_MAX: usize = 32 << 10;

/// Where bytes of one turn are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Offset in the turn's bytes.
    pub at: usize,
    /// Bytes in front of it that the next segment repeats.
    pub again: usize,
    /// The segment in front of it comes behind the one after it.
    pub late: bool,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// One end speaks.
    Say(Side, Vec<u8>, Vec<Cut>),
    /// One end closes its direction.
    Fin(Side),
}

/// Reads a script whose first words are `side`'s. An end that closed its direction says nothing more.
pub fn read(side: Side, bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut side = side;
    let mut said = Vec::new();
    let mut cuts = Vec::new();
    let mut closed = [false; 2];
    let mut rest = bytes.iter().copied().take(LEN_MAX);
    let mut end_turn = |side: Side, said: &mut Vec<u8>, cuts: &mut Vec<Cut>, fin: bool| {
        let (said, cuts) = (std::mem::take(said), std::mem::take(cuts));
        let closed = &mut closed[side as usize];
        if *closed {
            return;
        }
        if !said.is_empty() {
            events.push(Event::Say(side, said, cuts));
        }
        if fin {
            *closed = true;
            events.push(Event::Fin(side));
        }
    };
    while let Some(byte) = rest.next() {
        match byte {
            CUT | LATE => cuts.push(Cut { at: said.len(), again: 0, late: byte == LATE }),
            AGAIN => {
                let again = usize::from(rest.next().unwrap_or(0)).min(said.len());
                cuts.push(Cut { at: said.len(), again, late: false });
            }
            TURN => {
                end_turn(side, &mut said, &mut cuts, false);
                side = side.other();
            }
            FIN => end_turn(side, &mut said, &mut cuts, true),
            LITERAL => said.extend(rest.next()),
            _ => said.push(byte),
        }
    }
    end_turn(side, &mut said, &mut cuts, false);
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers() {
        let cut = |at, again, late| Cut { at, again, late };
        let bytes = b"GE\xffT\xfb\x02 \xfa/\xfd\xff\xfe\xfeHTTP\xfc\xfe200\xfc\xfemore";
        let want = vec![
            Event::Say(Side::Client, b"GET /\xff".to_vec(), vec![cut(2, 0, false), cut(3, 2, false), cut(4, 0, true)]),
            Event::Say(Side::Client, b"HTTP".to_vec(), vec![]),
            Event::Fin(Side::Client),
            Event::Say(Side::Server, b"200".to_vec(), vec![]),
            Event::Fin(Side::Server),
        ];
        assert_eq!(read(Side::Client, bytes), want);
    }
}
