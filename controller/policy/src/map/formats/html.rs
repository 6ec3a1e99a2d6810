//! A page that opens without a server, asks nobody for anything, runs nothing and prints well.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::super::change::Changes;
use super::super::document::{Map, State};
use super::tables::{self, Table};
use super::text::markup;
use super::{colours, put, svg};

/// More parties than this are first shown by their groups: as many boxes as can be read on a screen.
const READABLE: usize = 150;

const STYLE: &str = "\
:root{color-scheme:light dark;--back:#fff;--text:#102027;--line:#b0bec5;--head:#eceff1}
@media (prefers-color-scheme:dark){:root{--back:#11181c;--text:#e6ecef;--line:#37474f;--head:#1d272c}}
body{margin:0 auto;max-width:110rem;padding:1.5rem;font:15px/1.5 system-ui,sans-serif;background:var(--back);color:var(--text)}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}
nav a{margin-right:1rem;color:inherit}
.picture{overflow:auto;border:1px solid var(--line);background:#fafafa;max-height:80vh}
.picture svg{display:block}.picture.whole svg{max-width:100%;height:auto}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{border:1px solid var(--line);padding:.3rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}
th{background:var(--head);position:sticky;top:0}
.key{display:inline-block;width:1.6em;height:.6em;margin:0 .4em 0 1em}
footer{margin-top:2rem;font-size:12px}
@media print{body{padding:0;max-width:none;font-size:10pt;background:#fff;color:#000}nav{display:none}.picture{overflow:visible;max-height:none;border:0}
.picture svg{max-width:100%;height:auto}.scroll{overflow:visible}table{font-size:8pt}tr{break-inside:avoid}thead{display:table-header-group}th{position:static}
h2{break-after:avoid}}
";

/// The map as a page.
pub fn html(map: &Map, changes: Option<&Changes>) -> String {
    // Nothing but this style: the page itself says that browsers are to refuse everything else.
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'\"/>\n\
         <meta name=\"referrer\" content=\"no-referrer\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>Segmentation map</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>Segmentation map</h1>\n"
    );
    let tables = tables::all(map, changes);
    page.push_str("<nav><a href=\"#map\">Map</a>");
    for (number, table) in tables.iter().enumerate() {
        put(&mut page, format_args!("<a href=\"#t{number}\">{}</a>", table.title));
    }
    page.push_str("</nav>\n<h2 id=\"map\">Map</h2>\n<p>");
    for state in State::ALL
        .into_iter()
        .filter(|state| map.totals.states.contains_key(state))
    {
        put(
            &mut page,
            format_args!(
                "<svg class=\"key\" role=\"img\" aria-hidden=\"true\" viewBox=\"0 0 16 6\"><path d=\"M0 3L16 3\" stroke=\"{}\" stroke-width=\"3\"{}/></svg>{}",
                colours::of(state),
                if colours::is_dashed(state) {
                    " stroke-dasharray=\"4 2\""
                } else {
                    ""
                },
                state.words()
            ),
        );
    }
    page.push_str("</p>\n");
    if map.parties.len() > READABLE {
        put(
            &mut page,
            format_args!(
                "<div class=\"picture whole\">{}</div>\n<h2>Every workload</h2>\n",
                svg::overview(map)
            ),
        );
    }
    put(
        &mut page,
        format_args!("<div class=\"picture\">{}</div>\n", svg::svg(map)),
    );
    for (
        number,
        Table {
            title,
            empty,
            head,
            rows,
        },
    ) in tables.iter().enumerate()
    {
        put(&mut page, format_args!("<h2 id=\"t{number}\">{title}</h2>\n"));
        if rows.is_empty() {
            put(&mut page, format_args!("<p>{empty}</p>\n"));
            continue;
        }
        page.push_str("<div class=\"scroll\"><table>\n<thead><tr>");
        for head in *head {
            put(&mut page, format_args!("<th scope=\"col\">{head}</th>"));
        }
        page.push_str("</tr></thead>\n<tbody>\n");
        for row in rows {
            page.push_str("<tr>");
            for cell in row {
                put(&mut page, format_args!("<td>{}</td>", markup(cell.text())));
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</tbody></table></div>\n");
    }
    page.push_str(
        "<footer>What is told here are facts of this map. Whether a control is met depends on more than a map knows.</footer>\n</body>\n</html>\n",
    );
    page
}
