//! Values by numbers that stay theirs, and are given out again when they are gone.

/// Values by numbers.
pub(super) struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    /// Puts a value at the number that is given out for it.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(place(number)) {
                *slot = Some(value);
            }
            return number;
        }
        let new = self.slots.len();
        // By an eighth: twice as much would be the largest part of a large table.
        if new == self.slots.capacity() {
            self.slots.reserve_exact(new / 8 + 1024);
        }
        self.slots.push(Some(value));
        // Of four thousand million values memory ends long before.
        u32::try_from(new).unwrap_or(u32::MAX)
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let value = self.slots.get_mut(place(number))?.take()?;
        self.free.push(number);
        Some(value)
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(place(number))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slots.get_mut(place(number))?.as_mut()
    }

    /// Those that are there, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.slots.iter().flatten()
    }

    /// How many are there.
    pub(super) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// For how many there is room.
    #[cfg(test)]
    pub(super) const fn room(&self) -> usize {
        self.slots.len()
    }
}

fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
