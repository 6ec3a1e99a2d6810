//! What colour a state has. Each differs from its neighbours in lightness too, and none is the only sign of anything: what is
//! denied or waits is dashed, and every line has its state in words.

use super::super::document::State;

pub(super) const fn of(state: State) -> &'static str {
    match state {
        State::Quarantined => "#8e24aa",
        State::Novel => "#e65100",
        State::Denied => "#b71c1c",
        State::WouldBeDenied => "#d84315",
        State::Undecided => "#6d4c41",
        State::Stale => "#90a4ae",
        State::Enforced => "#1b7837",
        State::Covered => "#2166ac",
        State::Observed => "#546e7a",
    }
}

pub(super) const fn is_dashed(state: State) -> bool {
    match state {
        State::Quarantined | State::Novel | State::Denied | State::WouldBeDenied | State::Undecided | State::Stale => {
            true
        }
        State::Enforced | State::Covered | State::Observed => false,
    }
}
