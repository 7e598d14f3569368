// Word error rate against a cost, as Vega-Lite draws it: what the paper's figure shows, with hover and filters.
const HEIGHT = 380;
const RULE = {type: "rule", color: "var(--ink)"};
const POINT = {type: "point", opacity: 1, size: 90, strokeWidth: 1.5, cursor: "pointer"};
// The page's fonts, so that Vega leaves as much room for words as they take, and its colours.
const CONFIG = {
  font: 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif',
  view: {stroke: null},
  axis: {
    labelColor: "var(--ink)", titleColor: "var(--ink)", gridColor: "var(--grid)", domainColor: "var(--muted)", tickColor: "var(--muted)",
    titleFontWeight: "normal", titleFontSize: 12, labelFontSize: 11, labelOverlap: "greedy",
  },
  legend: {
    orient: "top", columns: 6, title: null, labelColor: "var(--ink)", labelFontSize: 11, labelLimit: 240, labelOffset: 7,
    symbolFillColor: "transparent", symbolOpacity: 1, symbolStrokeWidth: 1.5,
  },
};

function axis({title, kind, domain, smallest, ticks, words}) {
  const labelExpr = `${JSON.stringify(words)}[indexof(${JSON.stringify(ticks)}, datum.value)]`;
  return {type: "quantitative", title, axis: {values: ticks, labelExpr}, scale: {type: kind, domain, constant: smallest, nice: false}};
}

function specification(plot) {
  const cost = `cost_${plot.place}`, front = `datum.front_${plot.place}`, solid = `(${front} || datum.title === "float baseline")`;
  const shown = "(policy === null || datum.title === policy) && (bits === null || datum.weight_bits === bits)";
  const x = {field: "x", ...axis(plot.x)}, y = {field: "wer", ...axis(plot.y)}, least = plot.y.domain[0];
  const named = (values) => ({field: "title", type: "nominal", scale: {domain: Object.keys(values), range: Object.values(values)}});
  const color = named(plot.colors), shape = named(plot.shapes);
  const tooltip = (...more) => [["run", "Run"], ["title", "Policy"], ["bits", "Bits"], ...more, [cost, plot.x.title], ["command", "Command"]]
    .map(([field, title]) => ({field, title}));
  const where = (...tests) => tests.map((filter) => ({filter}));
  const points = {x, y, color, shape, tooltip: tooltip(["rate", "WER (%)"])};
  const one = plot.baseline && {...plot.baseline, low: plot.baseline.low === null ? null : Math.max(plot.baseline.low, least)};
  const given = (values, mark, encoding) => ({data: {values: values ? [].concat(values) : []}, mark, encoding});
  return {
    width: "container", height: HEIGHT, background: "transparent", config: CONFIG, data: {name: "runs"},
    params: [{name: "policy", value: null}, {name: "bits", value: null}],
    transform: [
      {filter: `datum.${cost} > 0`},
      {calculate: plot.x.edge ? `min(datum.${cost}, ${plot.x.edge})` : `datum.${cost}`, as: "x"},
      {calculate: `max(datum.low, ${least})`, as: "least"},  // zero has no logarithm
    ],
    layer: [
      given(one, {type: "rect", color: "var(--muted)", opacity: 0.13}, {y: {...y, field: "low"}, y2: {field: "high"}}),
      given(one, {...RULE, strokeDash: [1, 2]}, {y}),
      given(plot.budget && {x: plot.budget}, {...RULE, strokeDash: [5, 3]}, {x}),
      given(plot.x.edge && {x: plot.x.gap}, {type: "text", text: "//", fontSize: 14, color: "var(--muted)"}, {x, y: {value: HEIGHT}}),
      given(plot.front, {type: "line", interpolate: "step-after", color: "var(--ink)", strokeWidth: 1.2}, {x: {...x, field: "cost"}, y}),
      {
        transform: where(shown, "datum.wer !== null && datum.low !== null", plot.few ? "true" : front),
        mark: {type: "rule", opacity: 0.6, clip: true},
        encoding: {x, y: {...y, field: "least"}, y2: {field: "high"}, color},
      },
      {transform: where(shown, `datum.wer !== null && !${solid}`), mark: {...POINT, filled: false}, encoding: points},
      {transform: where(shown, `datum.wer !== null && ${solid}`), mark: {...POINT, filled: true}, encoding: points},
      {
        transform: where(shown, "datum.over_budget"),
        mark: {type: "point", shape: "M-1,-1L1,1M-1,1L1,-1", color: "var(--muted)", cursor: "pointer"},
        encoding: {x, y: {value: HEIGHT - 8}, tooltip: tooltip(["reason", "Pruned"])},
      },
    ],
  };
}
