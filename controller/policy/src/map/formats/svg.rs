//! A picture, at the places of the map.

use std::collections::BTreeMap;

use super::super::counted;
use super::super::document::{Edge, Map, Place, State, Who};
use super::text::{beginning, markup};
use super::{Known, beside, colours, put, words};

/// Letters that a box of a party has room for, at the size that they are written in.
const LETTERS: usize = 24;

/// What ids within a picture begin with: a page may hold both pictures.
const WHOLE: &str = "to";
const OVERVIEW: &str = "towards";

/// The whole map.
pub fn svg(map: &Map) -> String {
    let mut picture = begin(map, WHOLE);
    draw_groups(map, &mut picture);
    let known = Known::of(map);
    // One line for all ports between two parties: at each other's places they would hide one another.
    let mut lines: BTreeMap<(&str, &str), Vec<&Edge>> = BTreeMap::new();
    for edge in &map.edges {
        lines.entry((&edge.source, &edge.destination)).or_default().push(edge);
    }
    for ((source, destination), edges) in lines {
        let ends = (known.party(source), known.party(destination));
        let (Some(from), Some(to)) = ends else { continue };
        let state = edges.iter().map(|edge| edge.state).min().unwrap_or(State::Observed);
        let ports: Vec<String> = edges
            .iter()
            .map(|edge| format!("{}: {}", beside(edge), edge.state.words()))
            .collect();
        let title = format!(
            "{} → {}\n{}",
            markup(&words(from)),
            markup(&words(to)),
            markup(&ports.join("; "))
        );
        line([&from.place, &to.place], state, (1, WHOLE), &title, &mut picture);
    }
    for party in &map.parties {
        let (what, detail) = match &party.who {
            Who::Workload(workload) => ("workload", workload.kind.clone()),
            Who::Service { .. } => ("service", "Service".to_owned()),
            Who::Node { .. } => ("node", "Node".to_owned()),
            Who::External { address, .. } => ("external", address.to_string()),
            Who::Unknown { reason, .. } => ("unknown", format!("{reason:?}")),
        };
        let open = matches!(&party.who, Who::Workload(workload) if workload.protection.ingress.status.is_open());
        let stroke = if open { "#b71c1c" } else { "#455a64" };
        let Place { x, y, width, height } = party.place;
        put(
            &mut picture,
            format_args!(
                "<g class=\"{what}\"><title>{}{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#ffffff\" stroke=\"{stroke}\"/>\
             <text x=\"{}\" y=\"{}\" font-size=\"13\" fill=\"#102027\">{}</text>\
             <text x=\"{}\" y=\"{}\" font-size=\"10\" fill=\"#455a64\">{}</text></g>\n",
                markup(&words(party)),
                if open { ", not isolated in ingress" } else { "" },
                x + 10,
                y + 19,
                markup(&beginning(&party.title, LETTERS)),
                x + 10,
                y + 34,
                markup(&beginning(&detail, LETTERS + 8)),
            ),
        );
    }
    picture.push_str("</svg>\n");
    picture
}

/// Groups alone, and what joins them.
pub(super) fn overview(map: &Map) -> String {
    let mut picture = begin(map, OVERVIEW);
    draw_groups(map, &mut picture);
    let places: BTreeMap<&str, (&Place, &str)> = map
        .groups
        .iter()
        .map(|group| (group.id.as_str(), (&group.place, group.title.as_str())))
        .collect();
    for link in map.links.iter().filter(|link| link.source != link.destination) {
        let ends = (places.get(link.source.as_str()), places.get(link.destination.as_str()));
        let (Some((from, source)), Some((to, destination))) = ends else {
            continue;
        };
        let title = format!(
            "{} → {}\n{}, the most urgent {}",
            markup(source),
            markup(destination),
            counted(link.edges, "connection", "connections"),
            link.state.words()
        );
        let width = 2 + link.edges.ilog2().min(8);
        line([from, to], link.state, (width, OVERVIEW), &title, &mut picture);
    }
    picture.push_str("</svg>\n");
    picture
}

fn begin(map: &Map, prefix: &str) -> String {
    let (width, height) = (map.size.width.max(1), map.size.height.max(1));
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"segmentation map\" font-family=\"sans-serif\">\n<defs>\n"
    );
    for state in State::ALL {
        let colour = colours::of(state);
        put(
            &mut picture,
            format_args!(
                "<marker id=\"{prefix}-{}\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"9\" markerHeight=\"9\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L10 5L0 10z\" fill=\"{colour}\"/></marker>\n",
                state.as_str()
            ),
        );
    }
    picture.push_str("</defs>\n<rect width=\"100%\" height=\"100%\" fill=\"#fafafa\"/>\n");
    picture
}

fn draw_groups(map: &Map, picture: &mut String) {
    for group in &map.groups {
        let Place { x, y, width, height } = group.place;
        let letters = usize::try_from(width / 10).unwrap_or_default();
        let open = match group.open_ingress {
            0 => String::new(),
            open => format!(", {open} open"),
        };
        put(
            picture,
            format_args!(
                "<g class=\"group\"><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"10\" fill=\"#eceff1\" \
             stroke=\"#90a4ae\"/><text x=\"{}\" y=\"{}\" font-size=\"15\" font-weight=\"bold\" fill=\"#263238\">{}</text>\
             <text x=\"{}\" y=\"{}\" font-size=\"10\" fill=\"#455a64\">{} of them{open}</text></g>\n",
                markup(&group.title),
                x + 12,
                y + 20,
                markup(&beginning(&group.title, letters)),
                x + 12,
                y + 35,
                group.parties,
            ),
        );
    }
}

/// A line from border to border. One to itself is an arc at its box's corner.
fn line([from, to]: [&Place; 2], state: State, (width, prefix): (u32, &str), title: &str, picture: &mut String) {
    let path = if from == to {
        let (right, top) = (from.x + from.width, from.y);
        format!(
            "M{} {top}C{} {} {} {} {right} {}",
            right - 24,
            right - 16,
            top.saturating_sub(22),
            right + 22,
            top.saturating_sub(6),
            top + 16
        )
    } else {
        let ((x1, y1), (x2, y2)) = (border(from, to.middle()), border(to, from.middle()));
        format!("M{x1} {y1}L{x2} {y2}")
    };
    let dashes = if colours::is_dashed(state) {
        " stroke-dasharray=\"6 4\""
    } else {
        ""
    };
    put(
        picture,
        format_args!(
            "<path class=\"edge\" d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\"{dashes} marker-end=\"url(#{prefix}-{})\"><title>{title}</title></path>\n",
            colours::of(state),
            state.as_str()
        ),
    );
}

/// Where a line from the middle of a box to a point leaves the box.
fn border(of: &Place, (x, y): (u32, u32)) -> (i64, i64) {
    let (middle_x, middle_y) = of.middle();
    let (dx, dy) = (i64::from(x) - i64::from(middle_x), i64::from(y) - i64::from(middle_y));
    let (half_width, half_height) = (i64::from(of.width / 2), i64::from(of.height / 2));
    let (middle_x, middle_y) = (i64::from(middle_x), i64::from(middle_y));
    if dx == 0 && dy == 0 {
        return (middle_x, middle_y);
    }
    // Which side it crosses follows from which of both reaches its half first.
    if dx.abs() * half_height > dy.abs() * half_width {
        (
            middle_x + half_width * dx.signum(),
            middle_y + dy * half_width / dx.abs(),
        )
    } else {
        (
            middle_x + dx * half_height / dy.abs(),
            middle_y + half_height * dy.signum(),
        )
    }
}
