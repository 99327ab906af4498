// The page of a run's report: everything but the run's own numbers, which report.hpp puts in the place of {{data}}. It
// asks nothing of the network, and its own policy would not let it.
#pragma once

#include <string_view>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

inline constexpr std::string_view report_page = R"page(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>Training run</title>
<style>
:root { --back: #f6f7f9; --card: #fff; --ink: #1b1f24; --soft: #5b6570; --line: #dde1e6; --one: #1f6fb4; --two: #c2571a; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171b; --card: #1d2126; --ink: #e6e9ed; --soft: #98a2ad; --line: #363d45; --one: #5fb0f2; --two: #f09a5a; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { margin: 0; font-size: 26px; }
h2 { margin: 34px 0 12px; font-size: 18px; }
.soft { color: var(--soft); }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.pictures { grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; min-width: 0; }
.card h3 { margin: 0 0 6px; font-size: 14px; display: flex; justify-content: space-between; gap: 12px; }
.card h3 span { font-weight: normal; color: var(--soft); }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 16px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 8px 14px; }
.tile b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: auto; touch-action: pan-y; }
svg text { fill: var(--soft); font-size: 11px; }
svg .grid-line { stroke: var(--line); }
svg .curve { fill: none; stroke: var(--one); stroke-width: 1.8; stroke-linejoin: round; }
svg .dot { fill: var(--one); }
svg .cross { stroke: var(--soft); stroke-dasharray: 3 3; }
svg .tip { fill: var(--card); stroke: var(--line); }
svg .tip-text { fill: var(--ink); font-size: 12px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: normal; }
td.number, th.number { text-align: right; white-space: nowrap; }
.scroll { overflow-x: auto; }
.compare { position: relative; overflow: hidden; border-radius: 6px; line-height: 0; }
.compare img { width: 100%; height: auto; image-rendering: pixelated; }
.compare img + img { position: absolute; inset: 0; }
.compare i { position: absolute; top: 0; bottom: 0; width: 2px; background: #fff; box-shadow: 0 0 3px #000; pointer-events: none; }
.compare input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
.compare input:focus-visible + i { outline: 2px solid var(--two); }
.ends { display: flex; justify-content: space-between; color: var(--soft); font-size: 13px; margin-top: 6px; }
</style>
</head>
<body>
<main>
<h1 id="name"></h1>
<div class="soft" id="state"></div>
<div class="tiles" id="best"></div>
<h2>Curves</h2><div class="grid" id="curves"></div>
<div id="pictures-part"><h2>Pictures</h2><div class="grid pictures" id="pictures"></div></div>
<div id="layers-part"><h2>Layers</h2><div class="card scroll"><table id="layers"></table><div class="soft" id="layers-total"></div></div></div>
<div class="grid">
<div id="config-part"><h2>Configuration</h2><div class="card scroll"><table id="config"></table></div></div>
<div id="environment-part"><h2>Environment</h2><div class="card scroll"><table id="environment"></table></div></div>
</div>
</main>
<script type="application/json" id="data">{{data}}</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const make = (name, attributes, ...children) => {
  const svg = ["svg", "g", "line", "path", "circle", "rect", "text"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const short = v => v === null ? "not a number" : String(+v.toPrecision(5));
const whole = v => Math.round(v).toLocaleString("en");

// Steps of 1, 2 or 5 times a power of ten, at most `most` of them.
function roundTicks(low, high, most) {
  let step = 10 ** Math.floor(Math.log10((high - low) / most));
  for (const factor of [1, 2, 5, 10]) if ((high - low) / (step * factor) <= most) { step *= factor; break; }
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) ticks.push(+(i * step).toPrecision(12));
  return ticks;
}

function chart(series) {
  const W = 520, H = 230, left = 58, right = 14, top = 10, bottom = 26;
  const points = series.steps.map((step, i) => [step, series.values[i]]).filter(p => p[1] !== null);
  const last = points.length ? short(points[points.length - 1][1]) : "no number yet";
  const card = make("div", {class: "card"}, make("h3", {}, series.tag, make("span", {}, last)));
  const svg = make("svg", {viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": series.tag});
  card.append(svg);
  if (!points.length) return card;
  const values = points.map(p => p[1]);
  const logarithmic = Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 9;
  const scale = v => logarithmic ? Math.log10(v) : v;
  let low = Math.min(...values.map(scale)), high = Math.max(...values.map(scale));
  const margin = high > low ? 0.05 * (high - low) : Math.abs(high) * 0.05 || 0.5;
  low -= margin; high += margin;
  const first = points[0][0], end = Math.max(points[points.length - 1][0], first + 1);
  const X = s => left + (W - left - right) * (s - first) / (end - first);
  const Y = v => top + (H - top - bottom) * (high - scale(v)) / (high - low);
  let ticks = [];
  if (logarithmic) {
    for (let e = Math.floor(low); e <= high; ++e) for (const f of [1, 2, 5]) ticks.push(f * 10 ** e);
    ticks = ticks.filter(v => scale(v) >= low && scale(v) <= high);
    if (ticks.length > 7) ticks = ticks.filter(v => Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-9);
  } else {
    ticks = roundTicks(low, high, 6);
  }
  for (const v of ticks)
    svg.append(make("line", {class: "grid-line", x1: left, x2: W - right, y1: Y(v), y2: Y(v)}),
               make("text", {x: left - 6, y: Y(v) + 4, "text-anchor": "end"}, short(v)));
  for (const s of roundTicks(first, end, 8).filter(Number.isInteger))
    svg.append(make("line", {class: "grid-line", x1: X(s), x2: X(s), y1: top, y2: H - bottom}),
               make("text", {x: X(s), y: H - bottom + 15, "text-anchor": "middle"}, whole(s)));
  svg.append(make("path", {class: "curve", d: points.map((p, i) => (i ? "L" : "M") + X(p[0]).toFixed(1) + " " + Y(p[1]).toFixed(1)).join("")}));
  if (points.length <= 40) for (const p of points) svg.append(make("circle", {class: "dot", cx: X(p[0]), cy: Y(p[1]), r: 2.4}));
  const cross = make("line", {class: "cross", y1: top, y2: H - bottom}), dot = make("circle", {class: "dot", r: 4});
  const box = make("rect", {class: "tip", rx: 4, height: 20}), text = make("text", {class: "tip-text"});
  const over = make("g", {visibility: "hidden"}, cross, dot, box, text);
  svg.append(over);
  svg.addEventListener("pointermove", event => {
    const place = svg.getBoundingClientRect(), x = (event.clientX - place.left) * W / place.width;
    const near = points.reduce((a, b) => Math.abs(X(b[0]) - x) < Math.abs(X(a[0]) - x) ? b : a);
    text.textContent = `${whole(near[0])}: ${short(near[1])}`;
    const wide = 7 * text.textContent.length + 12, tipX = Math.min(Math.max(X(near[0]) + 8, left), W - wide);
    cross.setAttribute("x1", X(near[0])); cross.setAttribute("x2", X(near[0]));
    dot.setAttribute("cx", X(near[0])); dot.setAttribute("cy", Y(near[1]));
    box.setAttribute("x", tipX); box.setAttribute("y", top); box.setAttribute("width", wide);
    text.setAttribute("x", tipX + 6); text.setAttribute("y", top + 14);
    over.setAttribute("visibility", "visible");
  });
  svg.addEventListener("pointerleave", () => over.setAttribute("visibility", "hidden"));
  return card;
}

function comparison(picture) {
  const card = make("div", {class: "card"}, make("h3", {}, picture.name, make("span", {}, picture.step === null ? "" : "step " + whole(picture.step))));
  const box = make("div", {class: "compare"});
  box.append(make("img", {src: picture.after, alt: "after"}));
  if (picture.before) {
    const before = make("img", {src: picture.before, alt: "before"}), bar = make("i");
    const slider = make("input", {type: "range", min: 0, max: 1000, value: 500, "aria-label": "how much of before is shown"});
    const show = () => {
      before.style.clipPath = `inset(0 ${100 - slider.value / 10}% 0 0)`;
      bar.style.left = `calc(${slider.value / 10}% - 1px)`;
    };
    slider.addEventListener("input", show);
    box.append(before, slider, bar);
    show();
  }
  card.append(box);
  if (picture.before) card.append(make("div", {class: "ends"}, make("span", {}, "before"), make("span", {}, "after")));
  return card;
}

function pairs(table, part, rows) {
  if (!rows.length) return at(part).remove();
  for (const [key, value] of rows) at(table).append(make("tr", {}, make("th", {}, key), make("td", {}, value)));
}

document.title = data.name + ": training run";
at("name").textContent = data.name;
at("state").textContent = data.state;
for (const [what, value, when] of data.best)
  at("best").append(make("div", {class: "tile"}, make("span", {class: "soft"}, "best " + what), make("b", {}, short(value)), make("span", {class: "soft"}, when)));
for (const series of data.series) at("curves").append(chart(series));
if (data.pictures.length) at("pictures").append(...data.pictures.map(comparison)); else at("pictures-part").remove();
if (data.layers.length) {
  const number = i => i >= 3 ? "number" : "";
  at("layers").append(make("tr", {}, ...data.layers_columns.map((t, i) => make("th", {class: number(i)}, t))));
  for (const row of data.layers) at("layers").append(make("tr", {}, ...row.map((t, i) => make("td", {class: number(i)}, t))));
  at("layers-total").textContent = data.layers_total;
} else at("layers-part").remove();
pairs("config", "config-part", data.config);
pairs("environment", "environment-part", data.environment);
if (data.running) setTimeout(() => location.reload(), 60000);
</script>
</body>
</html>
)page";

}}}  // namespace strata::STRATA_ABI::detail
