//! Ends of lines and heads: folds, the empty line, framing (RFC 9112 §6.3), and the record that leaves.

use super::pairing::{next_is_simple, pop, push, unasked, unconfirmed};
use super::{Env, give_up, is_request, length, state_flag, token_flag};
use crate::flow::{Outstanding, flow_flag, outstanding_flag, phase};
use crate::reason::Counter;
use crate::wire::{self, NO_LENGTH, ROUTE_NOT_CANONICAL, anomaly, framing, head_flag, kind, method, route_flag};
use crate::work::Work;

/// First byte of a line behind the start line.
#[inline(always)]
pub fn line_start(work: &mut Work) {
    const OPEN: u8 = state_flag::PENDING_TOKEN | state_flag::PENDING_VALUE | state_flag::PENDING_LINE;
    let byte = work.byte(0);
    if byte == b' ' || byte == b'\t' {
        folded(work);
        return;
    }
    if work.parser.flags & OPEN != 0 && line_ends(work) {
        return;
    }
    match byte {
        b'\r' => {
            work.pos += 1;
            work.parser.phase = phase::HEAD_END;
            if work.available() != 0 {
                head_end(work);
            }
        }
        b'\n' => {
            work.pos += 1;
            work.parser.phase = phase::HEAD_DONE;
        }
        _ => {
            work.gather_start();
            work.parser.phase = phase::NAME;
        }
    }
}

/// A folded line (RFC 9112 §5.2): whitespace inside the value.
#[inline(always)]
fn folded(work: &mut Work) {
    let flags = work.parser.flags;
    work.parser.anomalies |= anomaly::OBS_FOLD;
    work.parser.phase = if flags & state_flag::PENDING_TOKEN != 0 {
        phase::TOKEN_SPACE
    } else if flags & state_flag::PENDING_VALUE != 0 {
        phase::VALUE_SPACE
    } else if flags & state_flag::PENDING_LINE == 0 {
        phase::SKIP
    } else if work.parser.next == phase::GATHER {
        length::fold_gathered(work);
        phase::GATHER
    } else {
        work.parser.token_flags = token_flag::CONTINUED;
        phase::VALUE_SPACE
    };
    work.parser.flags &= !(state_flag::PENDING_TOKEN | state_flag::PENDING_VALUE | state_flag::PENDING_LINE);
}

/// The line before is not folded: what stood open is complete. True if something is to be done for that first.
#[inline(always)]
fn line_ends(work: &mut Work) -> bool {
    let flags = work.parser.flags;
    work.parser.flags = flags & !(state_flag::PENDING_TOKEN | state_flag::PENDING_VALUE | state_flag::PENDING_LINE);
    if flags & state_flag::PENDING_TOKEN != 0 {
        work.after = u32::from(phase::LINE_START);
        work.parser.phase = phase::TOKEN_DONE;
        return true;
    }
    if work.parser.next != phase::GATHER {
        return false;
    }
    if flags & state_flag::PENDING_VALUE != 0 {
        // An empty value.
        work.gather_start();
        work.parser.token_flags = 0;
        work.parser.scheme = 0;
    }
    if flags & state_flag::PENDING_VALUE == 0 && length::plain(work) {
        return false;
    }
    work.parser.phase = phase::GATHER_DONE;
    true
}

/// The LF of the empty line.
#[inline(always)]
pub fn head_end(work: &mut Work) {
    if work.byte(0) == b'\n' {
        work.pos += 1;
        work.parser.phase = phase::HEAD_DONE;
    } else {
        work.parser.anomalies |= anomaly::ODD_HEADER;
        work.parser.phase = phase::SKIP;
    }
}

/// The head is complete; the position is behind it.
#[inline(always)]
pub fn head_done<E: Env>(work: &mut Work, env: &mut E) {
    let record = if is_request(work) {
        complete_request(work, env);
        kind::REQUEST
    } else {
        if !complete_response(work, env) {
            work.parser.phase = phase::START;
            return;
        }
        kind::RESPONSE
    };
    emit(work, env, record);
    enter_body(work, env);
}

/// Framing of a message that has a body as its headers say; `otherwise` where they say nothing.
#[inline(always)]
fn declared_framing(work: &mut Work, otherwise: u8) -> u8 {
    // What the values of `Content-Length` left there.
    let unknown = work.parser.framing == framing::UNKNOWN;
    if work.parser.flags & state_flag::CODING != 0 {
        if work.parser.remaining != NO_LENGTH || unknown {
            work.parser.anomalies |= anomaly::LENGTH_AND_CODING;
        }
        // RFC 9112 §6.1: the framing of such a message is faulty.
        if work.parser.version == wire::version::HTTP_10 {
            work.parser.anomalies |= anomaly::ODD_CODING;
        }
    }
    if unknown {
        work.parser.remaining = NO_LENGTH;
    }
    if work.parser.flags & state_flag::CHUNKED != 0 {
        framing::CHUNKED
    } else if unknown {
        framing::UNKNOWN
    } else if work.parser.remaining == NO_LENGTH {
        otherwise
    } else if work.parser.remaining == 0 {
        framing::NONE
    } else {
        framing::LENGTH
    }
}

#[inline(always)]
fn complete_request<E: Env>(work: &mut Work, env: &mut E) {
    let how = if work.parser.version == wire::version::HTTP_09 {
        framing::NONE
    } else {
        declared_framing(work, framing::NONE)
    };
    work.parser.framing = how;
    let route = work.parser.route;
    let config = env.route(work.service, route).map_or(0, |route| route.flags);
    let mut flags = 0;
    // What cannot be classified here may be a login: user space decides from the teed body.
    if config & route_flag::TEE_RESPONSE != 0 || route == ROUTE_NOT_CANONICAL {
        flags |= outstanding_flag::TEE;
    }
    if config & route_flag::WANT_END != 0 || route == ROUTE_NOT_CANONICAL {
        flags |= outstanding_flag::WANT_END;
    }
    if work.parser.version == wire::version::HTTP_09 {
        flags |= outstanding_flag::HTTP_09;
    }
    if how != framing::NONE && (config & route_flag::TEE_REQUEST != 0) {
        work.parser.head_flags |= head_flag::TEE;
    }
    if work.parser.flags & state_flag::PICKED_UP != 0 {
        work.parser.anomalies |= anomaly::PICKED_UP;
    }
    if work.parser.version == wire::version::HTTP_11
        && work.captured.record.captures[wire::capture::HOST].len == 0
        && work.parser.anomalies & (anomaly::CAPTURES_LOST | anomaly::VALUE_CUT) == 0
    {
        work.parser.anomalies |= anomaly::ODD_HOST;
    }
    work.parser.flags &= !(state_flag::PICKED_UP | state_flag::RESYNCHRONISED);
    let entry = Outstanding { route, method: work.parser.method, flags };
    // SAFETY: the environment's flow pointer is valid while its segment is parsed.
    let (txn, overflow) = unsafe { push(env.flow(), entry) };
    if overflow {
        env.count(Counter::PairingOverflow, 1);
        work.parser.anomalies |= anomaly::QUEUE_OVERFLOW;
    }
    work.parser.txn = txn;
    env.count(Counter::HeadsRequest, 1);
}

/// False for an interim response, which leaves no record.
#[inline(always)]
fn complete_response<E: Env>(work: &mut Work, env: &mut E) -> bool {
    let status = work.parser.status;
    // Interim responses do not answer a request (RFC 9110 §15.2); 101 ends HTTP.
    if (100..200).contains(&status) && status != 101 {
        return false;
    }
    let mid_head = {
        // SAFETY: as above.
        let other = unsafe { &raw const (*env.flow()).request.parser.phase };
        // SAFETY: as above; the other half may be written meanwhile, a byte is read whole.
        super::in_head(unsafe { other.read_volatile() })
    };
    let newest = work.parser.flags & state_flag::RESYNCHRONISED != 0;
    work.parser.flags &= !(state_flag::RESYNCHRONISED | state_flag::PICKED_UP);
    // SAFETY: as above.
    let answer = unsafe { pop(env.flow(), mid_head || unasked(env.flow(), work), newest) };
    work.parser.anomalies |= answer.anomalies;
    // SAFETY: as above.
    if !mid_head && unsafe { unconfirmed(env.flow(), answer.txn, work) } {
        work.parser.anomalies |= anomaly::AMBIGUOUS;
        env.count(Counter::Ambiguous, 1);
    }
    if answer.anomalies & anomaly::UNSOLICITED != 0 {
        env.count(Counter::Unsolicited, 1);
    }
    work.parser.txn = answer.txn;
    work.parser.route = answer.request.route;
    work.parser.method = answer.request.method;
    let tunnel = status == 101 || (answer.request.method == method::CONNECT && (200..300).contains(&status));
    work.parser.framing = if tunnel {
        framing::UPGRADE
    } else if answer.request.method == method::HEAD || status == 204 || status == 304 {
        framing::NONE
    } else {
        declared_framing(work, framing::CLOSE)
    };
    if answer.request.flags & outstanding_flag::TEE != 0 {
        work.parser.head_flags |= head_flag::TEE;
    }
    if answer.request.flags & outstanding_flag::WANT_END != 0 && work.parser.framing != framing::LENGTH {
        work.parser.head_flags |= head_flag::END_FOLLOWS;
    }
    true
}

/// The first bytes of a response are no status line.
#[inline(always)]
pub fn without_status<E: Env>(work: &mut Work, env: &mut E) {
    // SAFETY: as above.
    let simple = unsafe { next_is_simple(env.flow()) };
    if !simple {
        work.parser.anomalies |= anomaly::BAD_LINE;
        give_up(work);
        return;
    }
    // Answer to a simple request of HTTP/0.9: all body, until the connection closes.
    work.parser.version = wire::version::HTTP_09;
    work.parser.phase = phase::HEAD_DONE;
}

/// Goes on behind the head as the framing says.
#[inline(always)]
fn enter_body<E: Env>(work: &mut Work, env: &mut E) {
    match work.parser.framing {
        framing::LENGTH => {
            work.parser.phase = phase::BODY;
        }
        framing::CHUNKED => {
            work.parser.remaining = 0;
            work.parser.token_flags = 0;
            work.gather_start();
            work.parser.phase = phase::CHUNK_SIZE;
        }
        framing::CLOSE => work.parser.phase = phase::UNTIL_CLOSE,
        framing::UPGRADE => {
            let flow = env.flow();
            // SAFETY: as above.
            unsafe { crate::lock::set_bits(&raw mut (*flow).flags, flow_flag::PASSED) };
            env.count(Counter::FlowsUpgraded, 1);
            work.parser.phase = phase::MESSAGE_DONE;
        }
        framing::UNKNOWN => work.parser.phase = phase::UNKNOWN_BODY,
        _ => work.parser.phase = phase::MESSAGE_DONE,
    }
}

/// The message is complete.
#[inline(always)]
pub fn message_done<E: Env>(work: &mut Work, env: &mut E) {
    // A body of unknown length is none that is known to be complete.
    let unknown = work.parser.framing == framing::UNKNOWN;
    announce_end(work, env, !unknown);
    if unknown {
        work.parser.flags = state_flag::PICKED_UP | state_flag::RESYNCHRONISED;
    }
    work.parser.phase = if work.parser.framing == framing::UPGRADE { phase::LOST } else { phase::START };
}

/// Says that the body is over, where somebody waits for that; `complete` unless it was cut short.
#[inline(always)]
pub fn announce_end<E: Env>(work: &mut Work, env: &mut E, complete: bool) {
    if work.parser.head_flags & head_flag::TEE != 0 {
        env.emit_end(work, kind::TEE_END, complete);
    } else if work.parser.head_flags & head_flag::END_FOLLOWS != 0 {
        env.emit_end(work, kind::END, complete);
    }
    work.parser.head_flags = 0;
}

/// Fills in the record and gives it to the environment.
#[inline(always)]
fn emit<E: Env>(work: &mut Work, env: &mut E, record: u8) {
    // A HEAD_END or TEE_END record says how long the body was; both would say it twice.
    if work.parser.head_flags & head_flag::TEE != 0 {
        work.parser.head_flags &= !head_flag::END_FOLLOWS;
    }
    let stream = work.stream + u64::from(work.pos);
    // SAFETY: as above.
    let (service, epoch) = unsafe {
        let flow = env.flow();
        work.captured.record.proxied = address((*flow).proxied);
        work.captured.record.proxied_port = (*flow).proxied_port;
        let half = if is_request(work) { &raw const (*flow).request } else { &raw const (*flow).response };
        crate::words::copy(&raw const (*flow).id, &raw mut work.captured.record.head.flow);
        ((*flow).service, (*half).epoch)
    };
    let message_at = work.parser.message_at;
    work.captured.record.head.kind = record;
    work.captured.record.head.service = service;
    work.captured.record.head.txn = work.parser.txn;
    work.captured.record.head.epoch = u32::from(epoch);
    work.captured.record.head.offset = message_at;
    work.captured.record.client = address(work.key.client);
    work.captured.record.server = address(work.key.server);
    work.captured.record.client_port = work.key.client_port;
    work.captured.record.server_port = work.key.server_port;
    work.captured.record.route = work.parser.route;
    work.captured.record.status = work.parser.status;
    work.captured.record.content_length = work.parser.remaining;
    work.captured.record.head_bytes = stream.wrapping_sub(message_at) as u32;
    work.captured.record.anomalies = work.parser.anomalies;
    work.captured.record.method = work.parser.method;
    work.captured.record.version = work.parser.version;
    work.captured.record.framing = work.parser.framing;
    work.captured.record.flags = work.parser.head_flags;
    work.captured.record.captures_len = work.captured.len as u16;
    work.captured.record.head.direction = work.direction as u8;
    env.count(Counter::HeadsCompleted, 1);
    env.emit_head(work);
    if work.parser.anomalies != 0 {
        count_anomalies(work, env);
    }
    // From here on the body's.
    work.parser.anomalies = 0;
}

/// Counts what was odd about a head, each class once.
#[inline(always)]
pub fn count_anomalies<E: Env>(work: &Work, env: &mut E) {
    let seen = work.parser.anomalies;
    macro_rules! count {
        ($($bit:ident => $counter:ident,)*) => { $(
            if seen & anomaly::$bit != 0 {
                env.count(Counter::$counter, 1);
            }
        )* };
    }
    count! {
        LINE_CUT => AnomalyLineCut,
        VALUE_CUT => AnomalyValueCut,
        OBS_FOLD => AnomalyFold,
        MORE_CREDENTIALS => AnomalyMoreCredentials,
        MANY_AUTHORIZATIONS => AnomalyManyAuthorizations,
        BAD_LENGTH => AnomalyBadLength,
        LENGTH_AND_CODING => AnomalyLengthAndCoding,
        ODD_CODING => AnomalyOddCoding,
        ODD_HEADER => AnomalyOddHeader,
        ODD_LINE => AnomalyOddLine,
        BAD_LINE => AnomalyBadLine,
        ODD_HOST => AnomalyOddHost,
        EARLY => AnomalyEarly,
    }
}

#[inline(always)]
const fn address(words: [u64; 2]) -> [u8; 16] {
    (words[0] as u128 | (words[1] as u128) << 64).to_ne_bytes()
}
