// Texts of runs are strangers': they are written by textContent, or by Vega, which escapes them.
const sections = JSON.parse(document.getElementById("data").textContent);
const texts = new Intl.Collator("en", {numeric: true});

// Columns, or distinct values and which of them stands at every place -> one object per run.
const decoded = (column) => Array.isArray(column) ? column : column.at.map((place) => column.values[place]);
const rows = (columns) => {
  const lists = Object.entries(columns).map(([name, column]) => [name, decoded(column)]);
  return (lists[0]?.[1] ?? []).map((_, index) => {
    const run = Object.fromEntries(lists.map(([name, list]) => [name, list[index]]));
    const ends = run.low === null ? "" : ` [${run.low.toFixed(2)}, ${run.high.toFixed(2)}]`;
    return {...run, index, rate: run.wer === null ? "" : run.wer.toFixed(2) + ends};
  });
};
sections.forEach((section) => {
  section.runs = rows(section.columns);
  section.settings = Object.entries(section.settings).map(([name, column]) => [name, decoded(column)]);
});

// Sorting a table: a click on a header, numbers by value, rows without one always last.
function sortable(table) {
  const headers = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    headers.forEach((other) => other.setAttribute("aria-sort", "none"));
    header.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    const numeric = header.classList.contains("r");
    const value = (row) => {
      const text = row.cells[column].textContent.replace("−", "-");
      return numeric ? parseFloat(text.replaceAll(",", "")) : text === "–" || text === "" ? NaN : text;
    };
    const compare = ([a], [b]) => a !== a || b !== b ? (a !== a) - (b !== b) : direction * (numeric ? a - b : texts.compare(a, b));
    body.append(...[...body.rows].map((row) => [value(row), row]).sort(compare).map(([, row]) => row));
  }));
}

// A section's plots and its table of runs, under one filter.
function explorable(section, number) {
  const views = [], form = document.querySelector(`form[data-section="${number}"]`);
  const named = new Map(section.runs.map((run) => [run.run, run]));
  const rows = [...document.querySelectorAll(`[data-runs="${number}"] tbody tr`)].map((row) => [row, named.get(row.cells[0].textContent)]);
  rows.forEach(([row, run]) => {
    const link = document.createElement("a");
    link.href = `#run-${number}-${run.index}`;
    link.append(...row.cells[0].childNodes);
    row.cells[0].append(link);
  });
  const open = (_, item) => { if (item?.datum?.index >= 0) location.hash = `run-${number}-${item.datum.index}`; };
  section.plots.forEach((plot) => {
    const figure = document.getElementById(plot.figure);
    const spec = {...specification(plot), datasets: {runs: section.runs}};
    vegaEmbed(figure.querySelector(".plot"), spec, {ast: true, renderer: "svg", actions: false}).then(({view}) => {
      views.push(view.addEventListener("click", open));
      figure.classList.add("drawn");
    });
  });
  const filters = ["title", "weight_bits"];
  filters.forEach((name) => {
    const choices = [...new Set(section.runs.map((run) => run[name]))].sort(texts.compare);
    form?.elements[name].append(...choices.map((choice) => new Option(choice)));
  });
  form?.addEventListener("input", () => {
    const chosen = filters.map((name) => [name, form.elements[name].value || null]);
    const shown = (run) => chosen.every(([name, value]) => !value || run[name] === value);
    views.forEach((view) => chosen.reduce((one, signal) => one.signal(...signal), view).run());
    rows.forEach(([row, run]) => { row.hidden = !shown(run); });
    form.elements.count.value = `${section.runs.filter(shown).length} of ${section.runs.length} runs`;
  });
}

// What is known of a run, in a dialog that the address names: `#run-SECTION-INDEX`.
function show() {
  const [, number, index] = location.hash.match(/^#run-(\d+)-(\d+)$/) ?? [];
  const section = sections[number], run = section?.runs[index], dialog = document.getElementById("run");
  if (!run) return dialog.close();
  dialog.querySelector("h2").textContent = run.run;
  const facts = {"Policy": run.title, "Bits": run.bits, "WER (%)": run.rate, "State": run.reason ? `${run.state}: ${run.reason}` : run.state, "Made by": run.command || "not recorded"};
  const seeds = section.runs.filter((other) => other.setting === run.setting && other !== run).map((other) => other.run);
  if (seeds.length) facts["Other seeds"] = seeds.join(", ");
  list(dialog.querySelector(".told"), Object.entries(facts));
  list(dialog.querySelector(".own"), section.settings.map(([key, values]) => [key, values[index]]));
  list(dialog.querySelector(".common"), Object.entries(section.common));
  if (!dialog.open) dialog.showModal();
}

function list(place, settings) {
  const known = settings.filter(([, value]) => value !== null);
  place.replaceChildren(...known.flatMap(([key, value]) => [["dt", key], ["dd", value]]).map(([tag, text]) => {
    const element = document.createElement(tag);
    element.textContent = typeof text === "string" ? text : JSON.stringify(text);
    return element;
  }));
}

document.querySelectorAll("table.sortable").forEach(sortable);
sections.forEach(explorable);
window.addEventListener("hashchange", show);
document.getElementById("run").addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
show();
