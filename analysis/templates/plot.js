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
    titleFontWeight: "normal", titleFontSize: 12, labelFontSize: 11, labelOverlap: "greedy", format: "~g",
  },
  legend: {
    orient: "top", columns: 6, title: null, labelColor: "var(--ink)", labelFontSize: 11, labelLimit: 240, labelOffset: 7,
    symbolFillColor: "transparent", symbolOpacity: 1, symbolStrokeWidth: 1.5,
  },
};

// What lies beyond an axis is drawn at its end.
function axis(field, {title, kind, limits, ticks, linear}) {
  return {field, type: "quantitative", title, axis: {values: ticks}, scale: {type: kind, domain: limits, constant: linear, nice: false, clamp: true}};
}

function specification(plot) {
  const cost = `cost_${plot.place}`, front = `datum.front_${plot.place}`, solid = `(${front} || datum.title === "float baseline")`;
  const shown = "(title === null || datum.title === title) && (weight_bits === null || datum.weight_bits === weight_bits)";
  const x = axis(cost, plot.x), y = axis("wer", plot.y), given = axis("cost", plot.x);
  const named = (values) => ({field: "title", type: "nominal", scale: {domain: Object.keys(values), range: Object.values(values)}});
  const color = named(plot.colors), shape = named(plot.shapes);
  const tooltip = (...more) => [["run", "Run"], ["title", "Policy"], ["bits", "Bits"], ...more, [cost, plot.x.title], ["command", "Command"]]
    .map(([field, title]) => ({field, title}));
  const runs = (test, mark, encoding) => ({transform: [{filter: `datum.${cost} > 0 && ${shown} && ${test}`}], mark, encoding});
  const points = {x, y, color, shape, tooltip: tooltip(["rate", "WER (%)"])};
  const ends = {y: {...y, field: "low"}, y2: {field: "high"}};
  return {
    width: "container", height: HEIGHT, background: "transparent", config: CONFIG, data: {name: "runs"},
    params: [{name: "title", value: null}, {name: "weight_bits", value: null}],
    layer: [
      {data: {values: plot.baseline}, mark: {type: "rect", color: "var(--muted)", opacity: 0.13}, encoding: ends},
      {data: {values: plot.baseline}, mark: {...RULE, strokeDash: [1, 2]}, encoding: {y}},
      {data: {values: plot.budget}, mark: {...RULE, strokeDash: [5, 3]}, encoding: {x: given}},
      {data: {values: plot.front}, mark: {type: "line", interpolate: "step-after", color: "var(--ink)", strokeWidth: 1.2}, encoding: {x: given, y}},
      runs(`datum.low !== null && ${plot.few || front}`, {type: "rule", opacity: 0.6}, {x, color, ...ends}),
      runs(`datum.wer !== null && !${solid}`, {...POINT, filled: false}, points),
      runs(`datum.wer !== null && ${solid}`, {...POINT, filled: true}, points),
      runs("datum.over_budget", {type: "point", shape: "M-1,-1L1,1M-1,1L1,-1", color: "var(--muted)", cursor: "pointer"},
        {x, y: {value: HEIGHT - 8}, tooltip: tooltip(["reason", "Pruned"])}),
    ],
  };
}
