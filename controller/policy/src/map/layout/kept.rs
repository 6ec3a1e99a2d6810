//! A map that grows while somebody looks at it: what was there stays beside what it lay beside.
//!
//! Laws:
//! * the same map again is drawn at the same places;
//! * within a group, what was there stays where it was, unless more is gone than stayed;
//! * of two groups that were there, the one on the left or above stays there: where one has grown, others make room;
//! * where nobody looks on, what is new for the most part is laid out anew.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::super::Map;
use super::super::document::{Group, Party, Place};
use super::{CARRIED, Cell, GAP, HEAD, HEIGHT, MARGIN, WIDTH, covered, extent, free_corner, from_zero, nearest, whole};

/// Where groups and parties were drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Of each group its box, and how many parties it held.
    groups: BTreeMap<String, (Place, usize)>,
    /// Of each party its group and its box.
    parties: BTreeMap<String, (String, Place)>,
    /// Nobody looks on.
    is_unwatched: bool,
}

impl Map {
    /// Where everything is drawn, for a later map of the same cluster.
    pub fn places(&self) -> Places {
        let group = |group: &Group| (group.id.clone(), (group.place, group.parties));
        let party = |party: &Party| (party.id.clone(), (party.group.clone(), party.place));
        Places {
            groups: self.groups.iter().map(group).collect(),
            parties: self.parties.iter().map(party).collect(),
            is_unwatched: false,
        }
    }
}

/// A group as it was drawn, in cells.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    corner: Cell,
    size: Cell,
    /// How many parties it held.
    former: usize,
    /// Those of its present parties; `None` of a new one.
    pub(super) cells: Vec<Option<Cell>>,
    is_unwatched: bool,
}

impl Kept {
    /// Whether it is added to.
    pub(super) fn is_added_to(&self) -> bool {
        let stayed = self.cells.iter().flatten().count();
        let new = self.cells.len() - stayed;
        // Among holes nobody finds anything again, and for too many there are no places in time.
        let is_there = stayed > 0 && stayed * 2 >= self.former && new <= CARRIED;
        is_there && (!self.is_unwatched || new <= stayed)
    }
}

impl Places {
    /// The same for somebody who has not looked on: what is new for the most part is laid out anew, and better.
    #[must_use]
    pub fn unwatched(self) -> Self {
        Self {
            is_unwatched: true,
            ..self
        }
    }

    /// Whether groups are put beside those that are there, of which so many are kept.
    pub(super) fn are_added_to(&self, kept: usize, groups: usize) -> bool {
        kept > 0 && (!self.is_unwatched || kept * 2 >= groups)
    }

    /// What is known of each group.
    pub(super) fn of(&self, groups: &[Group], parties: &[Party], members: &[Vec<usize>]) -> Vec<Option<Kept>> {
        let of = |(group, members): (&Group, &Vec<usize>)| {
            let (place, former) = self.groups.get(&group.id)?;
            let size = cell(
                (place.width + GAP).checked_sub(2 * MARGIN)?,
                (place.height + GAP).checked_sub(HEAD + MARGIN)?,
            );
            let (columns, rows) = size;
            let cell_of = |party: &usize| {
                let (within, own) = self.parties.get(&parties[*party].id)?;
                let left = own.x.checked_sub(place.x + MARGIN)?;
                let top = own.y.checked_sub(place.y + HEAD)?;
                Some(cell(left, top)).filter(|(column, row)| *within == group.id && *column < columns && *row < rows)
            };
            let mut cells: Vec<Option<Cell>> = members.iter().map(cell_of).collect();
            let mut taken = BTreeSet::new();
            for cell in &mut cells {
                *cell = cell.filter(|cell| taken.insert(*cell));
            }
            Some(Kept {
                corner: cell(place.x.checked_sub(GAP)?, place.y.checked_sub(GAP)?),
                size,
                former: *former,
                cells,
                is_unwatched: self.is_unwatched,
            })
        };
        groups.iter().zip(members).map(of).collect()
    }
}

fn cell(x: u32, y: u32) -> Cell {
    (i64::from(x / (WIDTH + GAP)), i64::from(y / (HEIGHT + GAP)))
}

/// Cells of bodies of which some lie somewhere already and stay there. New ones lie near those that they are joined with.
pub(super) fn grown(before: &[Option<Cell>], springs: &BTreeSet<(usize, usize)>) -> Vec<Cell> {
    let mut joined: Vec<Vec<usize>> = vec![Vec::new(); before.len()];
    for (one, other) in springs {
        joined[*one].push(*other);
        joined[*other].push(*one);
    }
    let mut cells = before.to_vec();
    let mut taken: BTreeSet<Cell> = cells.iter().flatten().copied().collect();
    let known: Vec<Cell> = taken.iter().copied().collect();
    let (mut columns, mut rows) = extent(&known);
    // Who has the most neighbours in place is next, so that the others find theirs.
    let placed =
        |body: usize, cells: &[Option<Cell>]| joined[body].iter().filter(|other| cells[**other].is_some()).count();
    let mut waiting: BTreeSet<(Reverse<usize>, usize)> = (0..cells.len())
        .filter(|body| cells[*body].is_none())
        .map(|body| (Reverse(placed(body, &cells)), body))
        .collect();
    while let Some((_, body)) = waiting.pop_first() {
        if whole(taken.len()) >= columns.saturating_mul(rows) {
            // In the shape of a page: a cell is nearly three times as wide as it is high.
            if rows < 2 * columns {
                rows += 1;
            } else {
                columns += 1;
            }
        }
        let beside: Vec<Cell> = joined[body].iter().filter_map(|other| cells[*other]).collect();
        let free = nearest(middle(&beside), |cell| {
            let (column, row) = cell;
            (0..columns).contains(&column) && (0..rows).contains(&row) && !taken.contains(&cell)
        });
        taken.insert(free);
        let before: Vec<usize> = joined[body].iter().map(|other| placed(*other, &cells)).collect();
        cells[body] = Some(free);
        for (other, before) in joined[body].iter().zip(before) {
            if waiting.remove(&(Reverse(before), *other)) {
                waiting.insert((Reverse(before + 1), *other));
            }
        }
    }
    // Each has one by now.
    cells.into_iter().map(Option::unwrap_or_default).collect()
}

fn middle(cells: &[Cell]) -> Cell {
    let number = whole(cells.len().max(1));
    let columns: i64 = cells.iter().map(|(column, _)| column).sum();
    let rows: i64 = cells.iter().map(|(_, row)| row).sum();
    (columns / number, rows / number)
}

/// The corners of groups of which some lie somewhere already: they stay, or make room for what has grown.
pub(super) fn moved(before: &[Option<Kept>], sizes: &[Cell], between: &BTreeSet<(usize, usize)>) -> Vec<Cell> {
    let mut corners: Vec<Option<Cell>> = before.iter().map(|kept| Some(kept.as_ref()?.corner)).collect();
    for (group, kept) in before.iter().enumerate() {
        let (Some(Kept { size, .. }), Some((column, row))) = (kept, corners[group]) else {
            continue;
        };
        // Columns and rows are put in at its former right and lower edge, through all of the map: nobody changes sides. Of the last row
        // that it takes its box needs a part alone, so who begins there begins below it.
        let (right, below) = (column + size.0 + 1, row + size.1 + 1);
        let wider = (sizes[group].0 - size.0).max(0);
        let higher = (sizes[group].1 - size.1).max(0);
        for (_, corner) in corners.iter_mut().enumerate().filter(|(other, _)| *other != group) {
            let Some((column, row)) = corner else { continue };
            *column += if *column >= right { wider } else { 0 };
            *row += if *row >= below { higher } else { 0 };
        }
    }
    let mut taken: BTreeSet<Cell> = BTreeSet::new();
    for (corner, size) in corners.iter_mut().zip(sizes) {
        // Places of another program's map may lie on each other.
        *corner = corner.filter(|corner| covered(*corner, *size).all(|cell| !taken.contains(&cell)));
        taken.extend(corner.iter().flat_map(|corner| covered(*corner, *size)));
    }
    for group in 0..corners.len() {
        if corners[group].is_some() {
            continue;
        }
        let of = |(one, other): &(usize, usize)| match (*one == group, *other == group) {
            (true, _) => corners[*other],
            (_, true) => corners[*one],
            (false, false) => None,
        };
        let beside: Vec<Cell> = between.iter().filter_map(of).collect();
        let corner = free_corner(middle(&beside), sizes[group], &taken);
        taken.extend(covered(corner, sizes[group]));
        corners[group] = Some(corner);
    }
    let mut corners: Vec<Cell> = corners.into_iter().map(Option::unwrap_or_default).collect();
    from_zero(&mut corners);
    corners
}
