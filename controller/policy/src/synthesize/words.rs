//! What evidence calls endpoints and Services.
//!
//! Each name is put together once and lies beside the others: on its way into a policy a line of evidence looks at one place for
//! each end, and not at every part of every name, which a large graph does not keep in the cache.

use std::cell::{Cell, RefCell};

/// Begin and end of a name; nothing yet when both are 0.
type Place = Cell<[u32; 2]>;

/// Names, by the numbers that a graph gives to endpoints and to sets of Services.
#[derive(Debug)]
pub(super) struct Words {
    text: RefCell<String>,
    endpoints: Vec<Place>,
    services: Vec<Place>,
    /// Room in which the evidence of one policy after another is put together.
    pub(super) room: RefCell<String>,
}

impl Words {
    pub(super) fn new(endpoints: usize, services: usize) -> Self {
        Self {
            text: RefCell::default(),
            endpoints: vec![Cell::new([0; 2]); endpoints],
            services: vec![Cell::new([0; 2]); services],
            room: RefCell::default(),
        }
    }

    /// Appends the name of an endpoint, or what `make` makes of it.
    pub(super) fn endpoint(&self, number: u32, line: &mut String, make: impl FnOnce(&mut String)) {
        self.append(self.endpoints.get(number as usize), line, make);
    }

    /// Appends the names of a set of Services, or what `make` makes of them.
    pub(super) fn services(&self, number: u32, line: &mut String, make: impl FnOnce(&mut String)) {
        self.append(self.services.get(number as usize), line, make);
    }

    fn append(&self, place: Option<&Place>, line: &mut String, make: impl FnOnce(&mut String)) {
        let Some(place) = place else { return make(line) };
        let mut text = self.text.borrow_mut();
        let mut known = place.get();
        if known == [0; 2] {
            let begin = text.len();
            make(&mut text);
            match (u32::try_from(begin), u32::try_from(text.len())) {
                (Ok(begin), Ok(end)) if begin < end => known = [begin, end],
                // Four GiB of names: what does not fit is put together every time. So is nothing.
                _ => {
                    line.push_str(&text[begin..]);
                    text.truncate(begin);
                    return;
                }
            }
            place.set(known);
        }
        let [begin, end] = known.map(|at| at as usize);
        line.push_str(&text[begin..end]);
    }
}
