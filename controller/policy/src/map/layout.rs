//! Where everything is drawn.
//!
//! Forces decide who lies beside whom: within each group by its own connections, then between groups by those that join them.
//! What they say is put on a grid, so that boxes never overlap and names can be read in lines. Everything is in whole numbers
//! and in a fixed order. What was drawn earlier can stay where it was: [`Places`].

mod kept;

use std::collections::{BTreeMap, BTreeSet};

use fjadra::{Link as Springs, ManyBody, PositionX, PositionY, SimulationBuilder};

use super::document::{Edge, Group, Link, Party, Place, Size};
pub use kept::Places;
use kept::{Kept, grown, moved};

/// Width of a party's box: some twenty letters.
const WIDTH: u32 = 184;
/// Height of a party's box: two lines.
const HEIGHT: u32 = 44;
/// Distance between boxes: wide enough for an arrow's head.
const GAP: u32 = 36;
/// What is left free around the parties of a group.
const MARGIN: u32 = 24;
/// What is left free above them, for the group's name.
const HEAD: u32 = 44;
/// Length of a spring at rest. The forces' default repulsion keeps neighbours about this far apart.
const SPRING: f64 = 30.0;
/// Steps until a picture of some hundred bodies hardly moves any more.
const STEPS: usize = 120;
/// Bodies times steps that are worth waiting for: a second, about.
const WORK: usize = 200_000;
/// Bodies of one group that forces carry: finding free cells takes the square of it.
const CARRIED: usize = 2_000;
/// Springs for each body that are looked at: more only pull everything together.
const SPRINGS: usize = 8;

/// A cell of a grid: column, row.
type Cell = (i64, i64);

/// Places everything. Returns the size of the whole.
pub(super) fn arrange(
    groups: &mut [Group],
    parties: &mut [Party],
    links: &[Link],
    edges: &[Edge],
    earlier: Option<&Places>,
) -> Size {
    let numbers: BTreeMap<String, usize> = (0..)
        .zip(&*groups)
        .map(|(number, group)| (group.id.clone(), number))
        .collect();
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); groups.len()];
    for (index, party) in parties.iter().enumerate() {
        if let Some(number) = numbers.get(&party.group) {
            members[*number].push(index);
        }
    }
    // Within its group: group and number there, by id.
    let mut within: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (group, members) in members.iter().enumerate() {
        for (number, party) in members.iter().enumerate() {
            within.insert(&parties[*party].id, (group, number));
        }
    }
    let mut springs: Vec<BTreeSet<(usize, usize)>> = vec![BTreeSet::new(); groups.len()];
    for edge in edges {
        let ends = (within.get(edge.source.as_str()), within.get(edge.destination.as_str()));
        if let (Some((group, source)), Some((other, destination))) = ends
            && group == other
            && source != destination
        {
            springs[*group].insert((*source.min(destination), *source.max(destination)));
        }
    }
    drop(within);
    let kept: Vec<Option<Kept>> = match earlier {
        Some(places) => places.of(groups, parties, &members),
        None => vec![None; groups.len()],
    };
    let cells: Vec<Vec<Cell>> = (members.iter().zip(&springs).zip(&kept))
        .map(|((members, springs), kept)| match kept {
            Some(kept) if kept.is_added_to() => grown(&kept.cells, springs),
            Some(_) | None => cells(members.len(), springs),
        })
        .collect();
    let sizes: Vec<Cell> = cells.iter().map(|cells| extent(cells)).collect();
    let between: BTreeSet<(usize, usize)> = links
        .iter()
        .filter_map(|link| Some((*numbers.get(&link.source)?, *numbers.get(&link.destination)?)))
        .filter(|(source, destination)| source != destination)
        .map(|(source, destination)| (source.min(destination), source.max(destination)))
        .collect();
    let stayed = kept.iter().flatten().count();
    let corners = if earlier.is_some_and(|places| places.are_added_to(stayed, groups.len())) {
        moved(&kept, &sizes, &between)
    } else {
        corners(&sizes, &between)
    };
    let mut whole = Size::default();
    for (number, group) in groups.iter_mut().enumerate() {
        let (column, row) = corners[number];
        let (columns, rows) = sizes[number];
        group.place = Place {
            x: GAP + step(column, WIDTH + GAP),
            y: GAP + step(row, HEIGHT + GAP),
            width: step(columns, WIDTH + GAP) - GAP + 2 * MARGIN,
            height: step(rows, HEIGHT + GAP) - GAP + HEAD + MARGIN,
        };
        for (party, (column, row)) in members[number].iter().zip(&cells[number]) {
            parties[*party].place = Place {
                x: group.place.x + MARGIN + step(*column, WIDTH + GAP),
                y: group.place.y + HEAD + step(*row, HEIGHT + GAP),
                width: WIDTH,
                height: HEIGHT,
            };
        }
        whole.width = whole.width.max(group.place.x + group.place.width + GAP);
        whole.height = whole.height.max(group.place.y + group.place.height + GAP);
    }
    whole
}

fn step(cells: i64, width: u32) -> u32 {
    u32::try_from(cells).unwrap_or_default().saturating_mul(width)
}

/// Columns and rows that cells from (0, 0) on take.
fn extent(cells: &[Cell]) -> Cell {
    let columns = cells.iter().map(|(column, _)| column + 1).max();
    let rows = cells.iter().map(|(_, row)| row + 1).max();
    (columns.unwrap_or(1), rows.unwrap_or(1))
}

/// A cell for each body of a group.
fn cells(count: usize, springs: &BTreeSet<(usize, usize)>) -> Vec<Cell> {
    let mut cells = if springs.is_empty() || count > CARRIED {
        shelves(count)
    } else {
        let mut taken = BTreeSet::new();
        let wanted = settled(count, springs);
        let mut order: Vec<usize> = (0..count).collect();
        // Those in the middle first: it is they that have the most neighbours to lie beside.
        order.sort_by_key(|body| {
            let (column, row) = wanted[*body];
            (column * column + row * row, *body)
        });
        let mut cells = vec![(0, 0); count];
        for body in order {
            let cell = nearest(wanted[body], |cell| !taken.contains(&cell));
            taken.insert(cell);
            cells[body] = cell;
        }
        cells
    };
    compact(&mut cells);
    cells
}

/// Rows of bodies that have nothing to do with each other, in the shape of a page.
fn shelves(count: usize) -> Vec<Cell> {
    // A cell is nearly three times as wide as it is high.
    let mut columns = 1;
    while columns * columns * 2 < count {
        columns += 1;
    }
    (0..count)
        .map(|body| (whole(body % columns), whole(body / columns)))
        .collect()
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Where forces carry bodies, in cells.
fn settled(count: usize, springs: &BTreeSet<(usize, usize)>) -> Vec<Cell> {
    let mut pulled = vec![0_usize; count];
    let mut few = Vec::new();
    for (one, other) in springs {
        if pulled[*one].min(pulled[*other]) < SPRINGS {
            pulled[*one] += 1;
            pulled[*other] += 1;
            few.push((*one, *other));
        }
    }
    let steps = (WORK / count.max(1)).clamp(20, STEPS);
    let bodies = (0..count).map(|_| fjadra::Node::default());
    let mut simulation = SimulationBuilder::default()
        .build(bodies)
        .add_force("springs", Springs::new(few).distance(SPRING))
        .add_force("apart", ManyBody::new())
        // Parts that nothing joins would drift away for ever.
        .add_force("x", PositionX::new())
        .add_force("y", PositionY::new());
    simulation.tick(steps);
    let positions = simulation.positions();
    // Cells are wide and low, and so is what is drawn: the same number of columns as of rows would be a ribbon.
    positions
        .map(|[x, y]| (rounded(x / SPRING / 1.5), rounded(y / SPRING)))
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast of a float saturates, and of no number is 0"
)]
const fn rounded(value: f64) -> i64 {
    value.round() as i64
}

/// The nearest free cell: ring by ring, in each in a fixed order.
fn nearest((column, row): Cell, is_free: impl Fn(Cell) -> bool) -> Cell {
    for ring in 0.. {
        for (dx, dy) in around(ring) {
            let cell = (column + dx, row + dy);
            if is_free(cell) {
                return cell;
            }
        }
    }
    (column, row)
}

/// The cells at a distance, those beside first.
fn around(ring: i64) -> impl Iterator<Item = Cell> {
    let sides = (0..=ring).flat_map(move |shift| {
        let shifts = if shift == 0 { vec![0] } else { vec![-shift, shift] };
        shifts
            .into_iter()
            .flat_map(move |shift| [(ring, shift), (-ring, shift), (shift, ring), (shift, -ring)])
    });
    let number = if ring == 0 { 1 } else { usize::MAX };
    sides.take(number)
}

/// Takes out columns and rows in which nothing is.
fn compact(cells: &mut [Cell]) {
    let columns: BTreeSet<i64> = cells.iter().map(|(column, _)| *column).collect();
    let rows: BTreeSet<i64> = cells.iter().map(|(_, row)| *row).collect();
    let numbered = |values: BTreeSet<i64>| -> BTreeMap<i64, i64> { values.into_iter().zip(0..).collect() };
    let (columns, rows) = (numbered(columns), numbered(rows));
    for (column, row) in cells {
        *column = columns.get(column).copied().unwrap_or_default();
        *row = rows.get(row).copied().unwrap_or_default();
    }
}

/// The upper left cell of each group. A group takes one more column and two more rows than its parties: its margins and its name.
fn corners(sizes: &[Cell], between: &BTreeSet<(usize, usize)>) -> Vec<Cell> {
    let wanted = if between.is_empty() {
        shelves(sizes.len())
    } else {
        settled(sizes.len(), between)
    };
    // As far apart as the boxes are large, on average.
    let number = whole(sizes.len().max(1));
    let wide = sizes.iter().map(|(columns, _)| columns + 1).sum::<i64>() / number + 1;
    let high = sizes.iter().map(|(_, rows)| rows + 2).sum::<i64>() / number + 1;
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|group| {
        let (column, row) = wanted[*group];
        (column * column + row * row, *group)
    });
    let mut taken: BTreeSet<Cell> = BTreeSet::new();
    let mut corners = vec![(0, 0); sizes.len()];
    for group in order {
        let (column, row) = wanted[group];
        let corner = free_corner((column * wide, row * high), sizes[group], &taken);
        taken.extend(covered(corner, sizes[group]));
        corners[group] = corner;
    }
    from_zero(&mut corners);
    corners
}

/// The cells that a group takes.
fn covered((column, row): Cell, (columns, rows): Cell) -> impl Iterator<Item = Cell> {
    (column..=column + columns).flat_map(move |column| (row..row + rows + 2).map(move |row| (column, row)))
}

/// The nearest corner at which a group of this size lies on nothing that is taken.
fn free_corner(wanted: Cell, size: Cell, taken: &BTreeSet<Cell>) -> Cell {
    nearest(wanted, |corner| {
        covered(corner, size).all(|cell| !taken.contains(&cell))
    })
}

/// Shifts everything to where columns and rows begin.
fn from_zero(corners: &mut [Cell]) {
    let left = corners.iter().map(|(column, _)| *column).min().unwrap_or_default();
    let top = corners.iter().map(|(_, row)| *row).min().unwrap_or_default();
    for (column, row) in corners {
        *column -= left;
        *row -= top;
    }
}
