//! Plots, as a page without anything from elsewhere and as one picture: both of the same SVG.

use std::fmt::Write as _;

use anyhow::Context;
use resvg::{tiny_skia, usvg};

/// What every plot can use; colours of a light ground, which is what pictures have.
const STYLE: &str = "text{font-family:sans-serif;font-size:11px;fill:#555}.title{font-size:16px;fill:#222}\
.broken{fill:#c0392b;fill-opacity:.13}.unwell{fill:#e67e22;fill-opacity:.13}.ok{fill:#2471a3}.bad{fill:#c0392b}\
.grid{stroke:#ddd}.line{fill:none;stroke-width:2}.first{stroke:#d35400}.second{stroke:#2471a3}\
.first-dot{fill:#d35400}.second-dot{fill:#2471a3}";
/// What a page looks like around them, and on a dark ground.
const PAGE_STYLE: &str = "body{font:14px sans-serif;margin:2em;color:#222;background:#fff}svg{display:block;max-width:100%}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}text{fill:#aaa}.title{fill:#ddd}.grid{stroke:#333}\
.ok{fill:#5dade2}.second{stroke:#5dade2}.second-dot{fill:#5dade2}}";
const MARGIN: f64 = 20.0;

/// Some plots, one below the other.
pub(crate) struct Plots {
    title: &'static str,
    /// What one has to know to read them.
    explanation: &'static str,
    width: f64,
    plots: Vec<Plot>,
}

struct Plot {
    height: f64,
    svg: String,
}

impl Plots {
    pub(crate) const fn new(title: &'static str, explanation: &'static str, width: f64) -> Self {
        Self {
            title,
            explanation,
            width,
            plots: Vec::new(),
        }
    }

    /// A line of its own.
    pub(crate) fn heading(&mut self, text: &str) {
        let svg = format!("<text class=\"title\" y=\"24\">{}</text>", escaped(text));
        self.plots.push(Plot { height: 34.0, svg });
    }

    /// One more plot, whose upper left corner is the origin.
    pub(crate) fn add(&mut self, height: f64, svg: String) {
        self.plots.push(Plot { height, svg });
    }

    /// The page.
    pub(crate) fn html(&self) -> String {
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{}</title><style>{STYLE}{PAGE_STYLE}</style>\
             <h1>{0}</h1><p>{}</p>",
            self.title, self.explanation
        );
        for Plot { height, svg } in &self.plots {
            let width = self.width;
            put(
                &mut page,
                format_args!(
                    "<svg width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">{svg}</svg>"
                ),
            );
        }
        page.push_str("</html>\n");
        page
    }

    /// The picture, as PNG. Its words need a font of the system's.
    ///
    /// # Errors
    /// When there are so many plots that no picture can hold them.
    pub(crate) fn png(&self) -> anyhow::Result<Vec<u8>> {
        let mut options = usvg::Options::default();
        let fonts = options.fontdb_mut();
        fonts.load_system_fonts();
        // Which font stands for sans-serif, fontdb does not know; any that is upright will do, if need be.
        let upright = |face: &&usvg::fontdb::FaceInfo| {
            face.style == usvg::fontdb::Style::Normal && !face.monospaced
        };
        let families = fonts.faces().filter(upright).map(|face| &face.families);
        let names = families.flatten().map(|(family, _)| family.clone());
        let family = names.min_by_key(|name| (!name.contains("Sans"), name.len()));
        if let Some(family) = family {
            fonts.set_sans_serif_family(family);
        }
        let tree = usvg::Tree::from_str(&self.picture(), &options)?;
        let size = tree.size().to_int_size();
        let mut pixels =
            tiny_skia::Pixmap::new(size.width(), size.height()).context("too many plots")?;
        resvg::render(&tree, tiny_skia::Transform::default(), &mut pixels.as_mut());
        Ok(pixels.encode_png()?)
    }

    fn picture(&self) -> String {
        let height: f64 = self.plots.iter().map(|plot| plot.height).sum();
        let mut picture = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{:.0}\"><style>{STYLE}</style>\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>",
            self.width + 2.0 * MARGIN,
            height + 2.0 * MARGIN
        );
        let mut at = MARGIN;
        for Plot { height, svg } in &self.plots {
            put(
                &mut picture,
                format_args!("<g transform=\"translate({MARGIN},{at:.1})\">{svg}</g>"),
            );
            at += height;
        }
        picture.push_str("</svg>");
        picture
    }
}

/// Where plots go.
#[derive(Debug, clap::Args)]
pub(crate) struct Files {
    /// Where the plots go, as one page.
    #[arg(long, value_name = "FILE")]
    html: Option<std::path::PathBuf>,
    /// Where the plots go, as one picture.
    #[arg(long, value_name = "FILE")]
    png: Option<std::path::PathBuf>,
}

impl Files {
    /// Writes those that were asked for.
    pub(crate) fn write(&self, plots: &Plots) -> anyhow::Result<()> {
        if let Some(path) = &self.html {
            std::fs::write(path, plots.html()).with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &self.png {
            std::fs::write(path, plots.png()?).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

/// Appends to a string, which takes any text.
pub(crate) fn put(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a string takes any text");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A level line across a plot, and what it stands for on the left.
pub(crate) fn level(svg: &mut String, at: f64, width: f64, label: &str) {
    put(
        svg,
        format_args!(
            "<line class=\"grid\" x2=\"{width}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            at + 4.0
        ),
    );
}

/// One line of a [`line_chart`].
pub(crate) struct Line<'l> {
    pub(crate) name: &'l str,
    /// From left to right; both above zero.
    pub(crate) points: Vec<(f64, f64)>,
}

const CHART_WIDTH: f64 = 620.0;
const CHART_HEIGHT: f64 = 150.0;
const CHART_LEFT: f64 = 90.0;
const CHART_FOOT: f64 = 40.0;
const WORD_HEIGHT: f64 = 12.0;
/// The height of a chart with its words.
pub(crate) const LINE_CHART_HEIGHT: f64 = CHART_HEIGHT + CHART_FOOT + 10.0;
/// Its width with its words.
pub(crate) const LINE_CHART_WIDTH: f64 = CHART_WIDTH + CHART_LEFT + 110.0;

/// Two lines over the same logarithmic scales.
pub(crate) fn line_chart(unit: &str, across: &str, lines: &[Line<'_>; 2]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let (left, right) = decades(all().map(|&(x, _)| x));
    let (bottom, top) = decades(all().map(|&(_, y)| y));
    let x = |value: f64| (value.log10() - left) / (right - left) * CHART_WIDTH;
    let y = |value: f64| CHART_HEIGHT - (value.log10() - bottom) / (top - bottom) * CHART_HEIGHT;
    let mut svg = format!("<g transform=\"translate({CHART_LEFT},10)\">");
    for at in whole(bottom, top) {
        let value = 10_f64.powf(at);
        level(&mut svg, y(value), CHART_WIDTH, &format!("{value} {unit}"));
    }
    for at in whole(left, right) {
        let (at, label) = (x(10_f64.powf(at)), 10_f64.powf(at));
        put(
            &mut svg,
            format_args!(
                "<line class=\"grid\" y2=\"{CHART_HEIGHT}\" x1=\"{at:.1}\" x2=\"{at:.1}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label} {across}</text>",
                CHART_HEIGHT + 18.0
            ),
        );
    }
    let ends = lines
        .each_ref()
        .map(|line| line.points.last().map(|&(_, end)| y(end)));
    for ((line, class), beside) in lines.iter().zip(["first", "second"]).zip(apart(ends)) {
        let mut path = String::new();
        for &(at, value) in &line.points {
            put(&mut path, format_args!("{:.1},{:.1} ", x(at), y(value)));
            put(
                &mut svg,
                format_args!(
                    "<circle class=\"{class}-dot\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                    x(at),
                    y(value)
                ),
            );
        }
        put(
            &mut svg,
            format_args!("<polyline class=\"line {class}\" points=\"{path}\"/>"),
        );
        if let Some(&(at, value)) = line.points.last() {
            put(
                &mut svg,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.1}\">{} {value:.1}</text>",
                    x(at) + 8.0,
                    beside + 4.0,
                    line.name
                ),
            );
        }
    }
    svg.push_str("</g>");
    svg
}

/// Where two words beside the ends of lines can be read.
fn apart(ends: [Option<f64>; 2]) -> [f64; 2] {
    let [first, second] = ends.map(Option::unwrap_or_default);
    match second - first {
        near if near.abs() >= WORD_HEIGHT => [first, second],
        below if below >= 0.0 => [first, first + WORD_HEIGHT],
        _above => [second + WORD_HEIGHT, second],
    }
}

/// The powers of ten around some values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        low = low.min(value.log10().floor());
        high = high.max(value.log10().ceil());
    }
    match high > low {
        true => (low, high),
        false => (low, low + 1.0),
    }
}

fn whole(from: f64, to: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(from), |at| Some(at + 1.0)).take_while(move |at| *at <= to)
}
